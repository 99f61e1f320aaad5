//! Part 2: the same clients, the same delays, but one write to the log; both stores follow. The
//! process of one store is killed midway and started again later.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use onelog::{Node, Position};
use onelog_client::Client;
use onelog_store::SinkDefinition;
use serde::Serialize;
use serde_json::json;

use crate::clients::{self, CLIENTS, Delays, KEYS, Writes};
use crate::error::DemoError;
use crate::follower::Follower;
use crate::server::Server;
use crate::store;
use crate::stores::{self, Contents};

/// The table that the clients write.
pub const TABLE: &str = "demo.items";
/// The sink that the server itself runs.
pub const SINK: &str = "items";
/// At which key the process is killed, and at which it is started again.
const KILL_AT: usize = KEYS * 2 / 5;
const RESTART_AT: usize = KEYS * 3 / 5;
/// How long the stores may take to reach the end of the log.
const CATCH_UP: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Keys on which the two stores differ.
    pub differing_keys: u64,
    /// Keys on which one of the stores differs from the log's own state.
    pub differing_from_the_log: u64,
    /// Records that the clients committed.
    pub records: u64,
    /// Records that the killed store applied in its two lives.
    pub applied_by_killed_store: u64,
    /// The position at which its process was killed.
    pub killed_at_position: u64,
    /// The position of the log when it was started again.
    pub restarted_at_position: u64,
}

/// A client that writes once, and pauses as often as if there were this many stores.
pub struct OneWrite {
    client: Client,
    stores: usize,
}

impl OneWrite {
    /// The clients of a run.
    pub fn clients(client: &Client, stores: usize) -> Vec<Box<dyn Writes>> {
        (0..CLIENTS)
            .map(|_| -> Box<dyn Writes> {
                Box::new(Self {
                    client: client.clone(),
                    stores,
                })
            })
            .collect()
    }
}

impl Writes for OneWrite {
    fn stores(&self) -> usize {
        self.stores
    }

    fn write(&mut self, store: usize, key: &str, text: &str) -> Result<(), DemoError> {
        if store > 0 {
            return Ok(());
        }
        let write = json!({"op": "put", "table": TABLE, "key": key, "value": {"text": text}});
        let transaction = json!({"writes": [write]});
        self.client.post("/v1/transactions", &transaction)?;
        Ok(())
    }
}

/// Runs the part. The follower goes on following afterwards.
pub fn run(
    folder: &Path,
    server: &Server,
    client: &Client,
    follower: &mut Follower,
    delays: &Delays,
) -> Result<Outcome, DemoError> {
    let (database, search) = (folder.join("items.db"), folder.join("search.db"));
    create_sink(server, &database)?;
    let before = server.node.position();
    follower.start()?;
    let writers = OneWrite::clients(client, 2);
    let (progress, keys) = channel();
    let victim = &mut *follower;
    let (killed_at_position, restarted_at_position) = thread::scope(|scope| {
        let trouble = scope.spawn(move || kill_and_restart(victim, &server.node, &keys));
        let wrote = clients::run(writers, delays, Some(progress));
        let trouble = trouble.join().unwrap_or_else(|_| {
            Err(DemoError::Failed(
                "the killing thread has ended early".to_owned(),
            ))
        });
        wrote.and(trouble)
    })?;
    let end = server.node.position();
    follower.wait(end.get(), CATCH_UP)?;
    server
        .sinks
        .wait_blocking(SINK, end, CATCH_UP)
        .map_err(|error| DemoError::Failed(error.to_string()))?;
    let log = log_contents(&server.node)?;
    let one = stores::contents(&database, "items")?;
    let other = stores::contents(&search, "search")?;
    Ok(Outcome {
        differing_keys: stores::differing(&one, &other),
        differing_from_the_log: stores::differing(&log, &one).max(stores::differing(&log, &other)),
        records: end.get() - before.get(),
        applied_by_killed_store: store::applied(&search)?,
        killed_at_position,
        restarted_at_position,
    })
}

fn create_sink(server: &Server, database: &Path) -> Result<(), DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::Failed(error.to_string());
    let definition = json!({
        "name": SINK,
        "kind": "sqlite",
        "path": database,
        "mappings": [{
            "table": TABLE,
            "into": "items",
            "columns": {
                "id": {"from": "$key", "type": "text"},
                "text": {"from": "/text", "type": "text"},
            },
        }],
    });
    let definition = SinkDefinition::from_json(onelog_stores::KINDS, &definition)
        .map_err(|error| failed(&error))?;
    server
        .sinks
        .create(definition)
        .map_err(|error| failed(&error))?;
    Ok(())
}

/// Kills the follower's process at one key, starts it again at a later one.
fn kill_and_restart(
    follower: &mut Follower,
    node: &Node,
    keys: &Receiver<usize>,
) -> Result<(u64, u64), DemoError> {
    let wait_for = |wanted| while keys.recv().is_ok_and(|key| key < wanted) {};
    wait_for(KILL_AT);
    follower.kill()?;
    let killed_at = follower.position();
    wait_for(RESTART_AT);
    let restarted_at = node.position();
    follower.start()?;
    Ok((killed_at, restarted_at.get()))
}

/// What the log's own state says of each key.
pub fn log_contents(node: &Node) -> Result<Contents, DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::Failed(error.to_string());
    let rows = rows(node, TABLE, node.position())?;
    let text = |value: &[u8]| -> Result<String, DemoError> {
        let value: serde_json::Value = serde_json::from_slice(value).map_err(|e| failed(&e))?;
        Ok(value["text"].as_str().unwrap_or_default().to_owned())
    };
    rows.into_iter()
        .map(|(key, value)| Ok((String::from_utf8_lossy(&key).into_owned(), text(&value)?)))
        .collect()
}

type KeyValue = (bytes::Bytes, bytes::Bytes);

/// All rows of a table at a position.
pub fn rows(node: &Node, table: &str, at: Position) -> Result<Vec<KeyValue>, DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::Failed(error.to_string());
    let catalog = node.catalog();
    let table = catalog
        .by_name(table)
        .ok_or_else(|| failed(&format!("the table '{table}' is gone")))?;
    let range = onelog::KeyRange {
        table: table.id,
        from: bytes::Bytes::new(),
        to: None,
    };
    let snapshot = node.snapshot_at(at).map_err(|e| failed(&e))?;
    let rows = snapshot.scan(&range, false).map_err(|e| failed(&e))?;
    rows.map(|row| row.map(|row| (row.key, row.value)).map_err(|e| failed(&e)))
        .collect()
}
