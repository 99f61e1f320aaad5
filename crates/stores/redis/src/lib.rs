//! Redis (and Valkey) as a store: one server, or a cluster by partitions.
//!
//! Rows and position move in one `MULTI … EXEC` (`guard`). Redis has no transactions that undo
//! and no snapshots, so: nothing is sent before every row of a batch has been made, commands are
//! chosen so that none can fail inside `EXEC`, and pictures are kept by copying what is about to
//! change (`picture`). A rebuild is written under other names and put in place by one script
//! (`rebuild`).
//!
//! Redis may lose its newest steps in a crash (`appendfsync everysec`); rows and position are lost
//! together, and the log fills the gap. A position that is absent is not position 0: nothing is
//! known about the rows then, and the sink is filled anew, which also takes away what was left.
//!
//! With partitions a batch is atomic in each of them only. The position is the least of theirs.
//!
//! One value belongs to one thread; its pictures are read by others.

mod content;
mod guard;
mod kind;
mod link;
mod names;
mod owners;
mod picture;
mod rebuild;
mod record;
mod rows;
mod scripts;
mod servers;
mod wire;

#[cfg(test)]
mod tests;

pub use self::kind::{KIND, PARTITIONS_MAX, RedisKind, RedisTarget};

use std::sync::Arc;

use onelog_record::Position;
use redis::Value;

use self::content::Look;
use self::guard::{Guard, commit_partitions, commit_watched};
use self::link::Link;
use self::names::Names;
use self::picture::{Gate, RedisReader, read_contents};
use self::record::Record;
use self::rows::{Rows, Step};
use self::scripts::Scripts;
use self::servers::Servers;
use self::wire::Form;
use onelog_mapping::{Plan, Row};
use onelog_store::{Batch, Change, Store, StoreError, StorePosition, StoreReader};

/// A Redis that follows the log.
#[derive(Debug)]
pub struct RedisStore {
    place: String,
    sink: String,
    log_id: String,
    plan: Arc<Plan>,
    fingerprint: String,
    looks: Vec<Look>,
    names: Names,
    servers: Servers,
    scripts: Scripts,
    gate: Arc<Gate>,
    epoch: Option<u64>,
    /// The record as it was when it was last watched; one server only.
    watched: Option<Record>,
    /// How many rows of a rebuild were written, by partition and mapping.
    loaded: Vec<Vec<u64>>,
    row: Row,
}

impl RedisStore {
    /// Connects, and refuses a server that would lose rows in silence.
    pub fn open(
        target: &RedisTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let names = Names::new(sink, target.partitions);
        let mut servers = Servers::connect(target, &names)?;
        let mut scripts = Scripts::load(&mut servers.links[0])?;
        for link in &mut servers.links[1..] {
            scripts = Scripts::load(link)?;
        }
        let place = target.url.shown();
        Ok(Self {
            gate: Gate::of(&place, sink),
            place,
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            fingerprint: fingerprint(&plan, target.partitions),
            looks: plan.mappings.iter().map(Look::of).collect(),
            loaded: no_rows(&names, &plan),
            plan,
            names,
            servers,
            scripts,
            epoch: None,
            watched: None,
            row: Row::default(),
        })
    }

    fn epoch(&self) -> u64 {
        #[allow(clippy::expect_used)]
        self.epoch
            .expect("the contract: take_over comes before every change")
    }

    /// Runs one step: on one server all of it at once, on partitions one after the other.
    fn commit(
        &mut self,
        step: Option<(Position, Position)>,
        mut steps: Vec<Step>,
    ) -> Result<(), StoreError> {
        let guard = Guard {
            sink: &self.sink,
            log: &self.log_id,
            plan: &self.fingerprint,
            epoch: self.epoch(),
            step,
        };
        if self.names.are_spread() {
            let (servers, names) = (&mut self.servers, &self.names);
            return commit_partitions(servers, names, &self.scripts, guard, &mut steps);
        }
        let name = self.names.position(0);
        let link = &mut self.servers.links[0];
        match steps.first() {
            Some(step) => commit_watched(link, &name, &mut self.watched, guard, step),
            None => Ok(()),
        }
    }

    fn no_steps(&self) -> Vec<Step> {
        let form = match self.names.are_spread() {
            false => Form::Command,
            true => Form::Arguments,
        };
        vec![Step::new(form); self.names.partitions()]
    }

    /// Gives open pictures what the keys of a batch hold.
    fn preserve_batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.gate.pictures().is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::with_capacity(batch.rows());
        for (mapping, changes) in batch.changes.iter().enumerate() {
            let template = &self.plan.mappings[mapping].key_template;
            for change in changes {
                let partition = self.names.partition_of(&change.key);
                let mut name = Vec::new();
                self.names.row(template, partition, &change.key, &mut name);
                wanted.push((mapping, partition, name));
            }
        }
        self.preserve(&wanted)
    }

    /// Gives open pictures what keys hold, before they change: mapping, partition, key in Redis.
    fn preserve(&mut self, wanted: &[(usize, usize, Vec<u8>)]) -> Result<(), StoreError> {
        let pictures = self.gate.pictures();
        let is_wanted = |mapping: usize, name: &[u8]| {
            pictures.iter().any(|picture| picture.wants(mapping, name))
        };
        let mut by_link = vec![Vec::new(); self.servers.links.len()];
        for (mapping, partition, name) in wanted {
            if is_wanted(*mapping, name) {
                by_link[self.servers.of_partition[*partition]].push((*mapping, name.as_slice()));
            }
        }
        for (link, keys) in by_link.into_iter().enumerate() {
            let asked: Vec<(Look, &[u8])> = keys
                .iter()
                .map(|(mapping, name)| (self.looks[*mapping], *name))
                .collect();
            let contents = read_contents(&mut self.servers.links[link], &asked)?;
            for ((mapping, name), content) in keys.iter().zip(&contents) {
                for picture in &pictures {
                    picture.keep(*mapping, name, content.as_ref());
                }
            }
        }
        Ok(())
    }

    /// The next epoch is drawn at the first partition, so that no two processes get the same one;
    /// then the others join it.
    fn draw_epoch(&mut self) -> Result<u64, StoreError> {
        let records = record::read_all(&mut self.servers, &self.names)?;
        let floor = records.iter().filter_map(|r| r.epoch).max().unwrap_or(0);
        let mut bytes = Vec::new();
        self.epoch_command(0, b"draw", floor, &mut bytes);
        let first = self.servers.link(0);
        first.send(&bytes)?;
        let epoch = receive_epoch(first)?;
        let mut commands = vec![(Vec::new(), 0); self.servers.links.len()];
        for partition in 1..self.names.partitions() {
            let (bytes, count) = &mut commands[self.servers.of_partition[partition]];
            self.epoch_command(partition, b"join", epoch, bytes);
            *count += 1;
        }
        let mut outcome = Ok(epoch);
        for ((bytes, count), link) in commands.into_iter().zip(&mut self.servers.links) {
            link.send(&bytes)?;
            for _ in 0..count {
                let found = receive_epoch(link)?;
                if found != epoch {
                    outcome = Err(StoreError::Fenced { ours: epoch, found });
                }
            }
        }
        outcome
    }

    fn epoch_command(&self, partition: usize, how: &[u8], given: u64, out: &mut Vec<u8>) {
        let (name, given) = (self.names.position(partition), given.to_string());
        let words: [&[u8]; 8] = [
            b"EVALSHA",
            &self.scripts.take_over,
            b"1",
            &name,
            how,
            given.as_bytes(),
            self.log_id.as_bytes(),
            self.fingerprint.as_bytes(),
        ];
        wire::command(&words, out);
    }
}

fn receive_epoch(link: &mut Link) -> Result<u64, StoreError> {
    let what = "taking over";
    match link.receive_good(what)? {
        Value::Int(epoch) => Ok(epoch.cast_unsigned()),
        other => Err(link.strange(what, &other)),
    }
}

impl Store for RedisStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        let records = record::read_all(&mut self.servers, &self.names)?;
        Ok(record::least(&records, &self.fingerprint))
    }

    fn take_over(&mut self) -> Result<u64, StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.watched = None;
        let epoch = self.draw_epoch()?;
        gate.took(epoch);
        self.epoch = Some(epoch);
        if self.is_filling()? {
            self.clear_leftovers()?;
        }
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        self.check_owners()
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.check_owned()
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut rows = Rows::new(&self.plan, &self.looks, &self.names, &mut self.row);
        for (mapping, changes) in batch.changes.iter().enumerate() {
            if batch.is_repair() && self.names.are_spread() {
                rows.forget_copies(mapping, changes);
            }
            rows.changes(mapping, changes)?;
        }
        let steps = rows.finish();
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.preserve_batch(batch)?;
        self.commit(Some((batch.from, batch.to)), steps)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.begin()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let mut staged = Rows::new(&self.plan, &self.looks, &self.names, &mut self.row);
        staged.stage(mapping, rows)?;
        let steps = staged.finish();
        self.commit(None, steps)?;
        for change in rows.iter().filter(|change| change.value.is_some()) {
            self.loaded[self.names.partition_of(&change.key)][mapping] += 1;
        }
        Ok(())
    }

    fn finish_rebuild(&mut self, position: Position) -> Result<(), StoreError> {
        self.finish(position)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = RedisReader::open(
            self.servers.connect_again()?,
            self.names.clone(),
            Arc::clone(&self.plan),
            &self.fingerprint,
            &self.gate,
        )?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.check_epoch()?;
        self.clear_leftovers()?;
        self.give_up_ownership()?;
        let mut steps = self.no_steps();
        for (partition, step) in steps.iter_mut().enumerate() {
            step.then.push(&[b"DEL", &self.names.position(partition)]);
        }
        self.commit(None, steps)?;
        self.watched = None;
        self.epoch = None;
        Ok(())
    }
}

fn no_rows(names: &Names, plan: &Plan) -> Vec<Vec<u64>> {
    vec![vec![0; plan.mappings.len()]; names.partitions()]
}

/// The same exactly for plans that make the same keys of the same tables.
fn fingerprint(plan: &Plan, partitions: Option<u16>) -> String {
    let text = format!("{} {partitions:?}", plan.fingerprint());
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}
