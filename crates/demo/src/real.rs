//! The demonstration on stores that are there: PostgreSQL, MariaDB or MySQL, Redis, Elasticsearch
//! or OpenSearch. Everything that is made there has the run's name in it and is taken away at the
//! end, also after an error; nothing that was there before is touched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onelog::Position;
use onelog_client::Client;
use onelog_mapping::KeyForm;
use onelog_sqlite::SqliteTarget;
use onelog_store::{SinkDefinition, Target};
use onelog_stores::KINDS;
use onelog_terminal::{Out, Table, thousands};
use rusqlite::Connection;
use serde::Serialize;
use serde_json::{Value, json};

use crate::clients::{self, CLIENTS, Delays, KEYS, Writes};
use crate::direct::{self, Direct, PREFIX};
use crate::error::DemoError;
use crate::server::Server;
use crate::stores::{self, Contents, DATABASE, sqlite_failed};
use crate::through::{OneWrite, TABLE, log_contents};

/// How long the stores may take to reach the end of the log.
const CATCH_UP: Duration = Duration::from_secs(60);

/// The addresses of the stores that were named, each with the kind that it must be of.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Vec<(&'static str, String)>);

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Keys on which not all stores say the same after the clients wrote to each store themselves.
    pub direct_differing_keys: u64,
    /// The same after they wrote to onelog.
    pub followed_differing_keys: u64,
    /// Keys on which a store differs from the log, whatever store it is.
    pub differing_from_the_log: u64,
    /// Records that the clients committed.
    pub records: u64,
    /// What was found in each store.
    pub stores: Vec<StoreOutcome>,
    /// What of onelog's own bookkeeping could not be taken away.
    pub left_behind: Vec<String>,
}

/// What was counted in one store.
#[derive(Clone, Debug, Serialize)]
pub struct StoreOutcome {
    pub kind: &'static str,
    /// Where it is, without secrets.
    pub place: String,
    /// Keys on which it differs from the first store after direct writing.
    pub direct_differing_from_first: u64,
    /// Whether a verification found it equal to the log.
    pub verified_equal: bool,
}

/// The stores of one run.
pub struct Real {
    run: String,
    targets: Vec<Arc<dyn Target>>,
    /// The last of them, where only one was named.
    own_file: Option<PathBuf>,
    before: Vec<BTreeSet<String>>,
}

impl FromIterator<(&'static str, String)> for Addresses {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl Addresses {
    pub(crate) fn targets(&self) -> Result<Vec<Arc<dyn Target>>, DemoError> {
        let mut targets = Vec::new();
        for (name, url) in &self.0 {
            let target = KINDS
                .target(url)
                .map_err(|error| DemoError::Usage(format!("--{name}: {}", error.what)))?;
            if target.kind().name() != *name {
                return Err(DemoError::Usage(format!(
                    "--{name}: this is the address of another kind of store: {}",
                    target.kind().name()
                )));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

impl Real {
    /// Connects to the stores and looks at what is there. Where only one was named, a SQLite file
    /// in `folder` is the other.
    pub fn new(mut targets: Vec<Arc<dyn Target>>, folder: &Path) -> Result<Self, DemoError> {
        let run = format!("{PREFIX}{:08x}", rand::random::<u32>());
        let mut before = Vec::new();
        for target in &targets {
            before.push(direct::connect(target.as_ref())?.traces()?);
        }
        let own_file = (targets.len() < 2).then(|| folder.join("items.db"));
        if let Some(path) = own_file.clone() {
            targets.push(Arc::new(SqliteTarget { path }));
        }
        Ok(Self {
            run,
            targets,
            own_file,
            before,
        })
    }

    /// The kinds of store, for a sentence.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self
            .targets
            .iter()
            .map(|target| target.kind().name())
            .collect();
        names.join(", ")
    }

    /// What every name of this run has in it.
    pub fn run(&self) -> &str {
        &self.run
    }

    fn direct_place(&self) -> String {
        format!("{}_direct", self.run)
    }

    fn followed_place(&self) -> String {
        format!("{}_items", self.run)
    }

    fn connections(&self) -> Result<Vec<Box<dyn Direct>>, DemoError> {
        let mut connections = Vec::with_capacity(self.targets.len());
        // The file is the demonstration's own, and was not there before.
        for target in self.targets.iter().take(self.before.len()) {
            connections.push(direct::connect(target.as_ref())?);
        }
        if let Some(path) = &self.own_file {
            connections.push(Box::new(File::open(path)?));
        }
        Ok(connections)
    }

    /// Part 1: each client writes to each store. Answers what every store says afterwards.
    pub fn write_directly(&self, delays: &Delays) -> Result<Vec<Contents>, DemoError> {
        let place = self.direct_place();
        let mut stores = self.connections()?;
        for store in &mut stores {
            store.create(&place)?;
        }
        let mut writers: Vec<Box<dyn Writes>> = Vec::new();
        for _ in 0..CLIENTS {
            writers.push(Box::new(ToEach {
                place: place.clone(),
                stores: self.connections()?,
            }));
        }
        clients::run(writers, delays, None)?;
        stores
            .iter_mut()
            .map(|store| store.contents(&place))
            .collect()
    }

    /// Part 2: each client writes to the log, and a sink per store follows.
    pub fn follow(
        &self,
        server: &Server,
        client: &Client,
        delays: &Delays,
    ) -> Result<(u64, Vec<Contents>, Vec<bool>), DemoError> {
        for target in &self.targets {
            let definition = self.definition(target.as_ref())?;
            server
                .sinks
                .create(definition)
                .map_err(|error| failed(&error))?;
        }
        let before = server.node.position();
        clients::run(OneWrite::clients(client, self.targets.len()), delays, None)?;
        let end = server.node.position();
        let mut equal = Vec::new();
        for target in &self.targets {
            equal.push(self.wait_and_verify(server, target.as_ref(), end)?);
        }
        let place = self.followed_place();
        let contents: Result<Vec<Contents>, DemoError> = self
            .connections()?
            .iter_mut()
            .map(|store| store.contents(&place))
            .collect();
        Ok((end.get() - before.get(), contents?, equal))
    }

    fn wait_and_verify(
        &self,
        server: &Server,
        target: &dyn Target,
        end: Position,
    ) -> Result<bool, DemoError> {
        let name = self.sink_name(target);
        server
            .sinks
            .wait_blocking(&name, end, CATCH_UP)
            .map_err(|error| failed(&error))?;
        let found = server.sinks.verify(&name).map_err(|error| failed(&error))?;
        Ok(found.equal)
    }

    fn sink_name(&self, target: &dyn Target) -> String {
        format!("{}_{}", self.run, target.kind().name())
    }

    fn definition(&self, target: &dyn Target) -> Result<SinkDefinition, DemoError> {
        let place = self.followed_place();
        let mut mapping = json!({
            "table": TABLE,
            "into": place,
            "columns": {
                "id": {"from": "$key", "type": "text"},
                "text": {"from": "/text", "type": "text"},
            },
        });
        let kind = target.kind();
        if kind.rules().keys == KeyForm::Name {
            mapping["key"] = json!(format!("{place}:{{$key}}"));
        }
        let mut definition = target.fields(true);
        definition.insert("name".into(), self.sink_name(target).into());
        definition.insert("kind".into(), kind.name().into());
        definition.insert("mappings".into(), json!([mapping]));
        SinkDefinition::from_json(KINDS, &definition.into()).map_err(|error| failed(&error))
    }

    pub fn race(
        &self,
        server: &Server,
        client: &Client,
        delays: &Delays,
        direct: &[Contents],
    ) -> Result<Outcome, DemoError> {
        let (records, followed, equal) = self.follow(server, client, delays)?;
        let log = log_contents(&server.node)?;
        let from_log = followed.iter().map(|one| stores::differing(&log, one));
        let outcomes = self.targets.iter().zip(direct).zip(&equal);
        Ok(Outcome {
            direct_differing_keys: differing(direct),
            followed_differing_keys: differing(&followed),
            differing_from_the_log: from_log.max().unwrap_or_default(),
            records,
            stores: outcomes
                .map(|((target, contents), equal)| StoreOutcome {
                    kind: target.kind().name(),
                    place: target.place(),
                    direct_differing_from_first: stores::differing(&direct[0], contents),
                    verified_equal: *equal,
                })
                .collect(),
            left_behind: Vec::new(),
        })
    }

    /// Ends the sinks of this run.
    pub fn end_sinks(&self, server: &Server) -> Result<(), DemoError> {
        for target in &self.targets {
            match server.sinks.delete(&self.sink_name(target.as_ref())) {
                Ok(_) | Err(onelog_sinks::SinkError::Unknown { .. }) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Takes away everything that this run made. Answers what was not there before and stays.
    pub fn clean(&self) -> Result<Vec<String>, DemoError> {
        let mut left = Vec::new();
        // The file goes with its folder.
        let named = self.targets.iter().zip(&self.before);
        for (target, before) in named {
            let mut store = direct::connect(target.as_ref())?;
            store.clean(&self.run, before)?;
            let after = store.traces()?;
            let stays = after.difference(before);
            left.extend(stays.map(|name| format!("{}: {name}", target.kind().name())));
        }
        Ok(left)
    }
}

fn failed(error: &impl std::fmt::Display) -> DemoError {
    DemoError::Failed(error.to_string())
}

/// On how many keys not all stores say the same.
fn differing(contents: &[Contents]) -> u64 {
    let keys: BTreeSet<&String> = contents.iter().flat_map(Contents::keys).collect();
    let differs = |key: &&&String| {
        let first = contents.first().and_then(|store| store.get(**key));
        contents.iter().any(|store| store.get(**key) != first)
    };
    keys.iter().filter(differs).count() as u64
}

/// A client that writes to every store itself.
struct ToEach {
    place: String,
    stores: Vec<Box<dyn Direct>>,
}

impl Writes for ToEach {
    fn stores(&self) -> usize {
        self.stores.len()
    }

    fn write(&mut self, store: usize, key: &str, text: &str) -> Result<(), DemoError> {
        self.stores[store].put(&self.place, key, text)
    }
}

/// The SQLite file that is the second store where only one was named.
struct File {
    path: PathBuf,
    connection: Connection,
}

impl File {
    fn open(path: &Path) -> Result<Self, DemoError> {
        Ok(Self {
            connection: stores::open(path, DATABASE)?,
            path: path.to_owned(),
        })
    }
}

impl Direct for File {
    fn create(&mut self, _: &str) -> Result<(), DemoError> {
        Ok(())
    }

    fn put(&mut self, _: &str, key: &str, text: &str) -> Result<(), DemoError> {
        stores::put_item(&self.connection, key, text).map_err(sqlite_failed(&self.path))
    }

    fn contents(&mut self, place: &str) -> Result<Contents, DemoError> {
        match place.ends_with("_direct") {
            true => stores::contents(&self.path, "items"),
            false => stores::contents(&self.path, place),
        }
    }

    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError> {
        Ok(BTreeSet::new())
    }

    fn clean(&mut self, _: &str, _: &BTreeSet<String>) -> Result<(), DemoError> {
        Ok(())
    }
}

impl Outcome {
    pub fn json(&self) -> Value {
        json!({
            "keys": KEYS,
            "clients": CLIENTS,
            "two_writes_to_each_store": {"differing_keys": self.direct_differing_keys},
            "one_write_to_onelog": {
                "differing_keys": self.followed_differing_keys,
                "differing_from_the_log": self.differing_from_the_log,
                "records": self.records,
            },
            "stores": self.stores,
            "left_behind": self.left_behind,
        })
    }

    pub fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let keys = thousands(KEYS as u64);
        out.line("")?;
        let mut table = Table::new(&["", "what was counted in the stores afterwards", ">count"]);
        table.row([
            "1. each client writes every store".to_owned(),
            format!("keys of {keys} on which the stores differ for ever"),
            thousands(self.direct_differing_keys),
        ]);
        table.row([
            "2. clients write to onelog".to_owned(),
            format!("keys of {keys} on which the stores differ"),
            thousands(self.followed_differing_keys),
        ]);
        table.row([
            String::new(),
            "keys on which a store differs from the log".to_owned(),
            thousands(self.differing_from_the_log),
        ]);
        table.print(out)?;
        out.line("")?;
        let mut table = Table::new(&[
            "store",
            ">differs from the first, part 1",
            "verified equal to the log, part 2",
            "",
        ]);
        for store in &self.stores {
            table.row([
                store.kind.to_owned(),
                thousands(store.direct_differing_from_first),
                if store.verified_equal { "yes" } else { "NO" }.to_owned(),
                store.place.clone(),
            ]);
        }
        table.print(out)
    }

    pub fn print_end(&self, out: &mut Out) -> std::io::Result<()> {
        out.line("\nEverything that was made in the stores has been taken away.")?;
        for name in &self.left_behind {
            out.line(&format!(
                "But this is onelog's own bookkeeping and stays: {name}"
            ))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_on_which_any_store_differs_is_counted_once() {
        let store = |pairs: &[(&str, &str)]| -> Contents {
            let owned = pairs
                .iter()
                .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
            owned.collect()
        };
        let first = store(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let second = store(&[("a", "1"), ("b", "2"), ("c", "1")]);
        let third = store(&[("a", "1"), ("b", "3"), ("d", "1")]);
        assert_eq!(differing(&[first.clone(), first.clone()]), 0);
        assert_eq!(
            differing(&[first.clone(), first.clone(), second.clone()]),
            1
        );
        assert_eq!(differing(&[first, second, third]), 3);
    }

    #[test]
    fn an_address_of_another_kind_of_store_is_reported_with_its_flag() {
        let urls = Addresses::from_iter([("redis", "postgres://h/d".to_owned())]);
        let said = urls.targets().unwrap_err().to_string();
        assert!(
            said.contains("--redis") && said.contains("postgres"),
            "{said}"
        );
    }
}
