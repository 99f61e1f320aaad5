//! A node with two tables of accounts, and a sink that follows them into the store under test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use onelog::{NewTable, Node, Options, Position};
use onelog_sinks::{SinkState, Sinks};
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use serde_json::{Value, json};

use crate::rig::{ACCOUNTS, BALANCE, LEFT, RIGHT, Rig};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const SINK: &str = "follower";

pub struct World<'r> {
    pub rig: &'r dyn Rig,
    folder: tempfile::TempDir,
    running: Option<(Node, Sinks)>,
    /// Makes the transfers of every round differ.
    pub round: u64,
}

/// Opens a node's folder with its sinks.
pub fn open(folder: &Path) -> (Node, Sinks) {
    let node = Node::open(Options::new(folder.to_owned())).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

/// Moves money between accounts of the two tables, `count` times.
pub fn transfer(node: &Node, seed: u64, count: u64) -> Position {
    for n in 0..count {
        let at = seed.wrapping_mul(31).wrapping_add(n.wrapping_mul(7));
        let (from, to) = (at as usize % ACCOUNTS, (at / 3) as usize % ACCOUNTS);
        let amount = (at % 50) as i64 - 25;
        node.transact(|tx| {
            for (table, key, by) in [("t.left", from, -amount), ("t.right", to, amount)] {
                let key = key.to_string();
                let old: Value = tx.get_json(table, key.clone())?.unwrap_or(Value::Null);
                let (balance, n) = (old["balance"].as_i64(), old["n"].as_i64());
                let new =
                    json!({"balance": balance.unwrap_or(BALANCE) + by, "n": n.unwrap_or(0) + 1});
                tx.put_json(table, key, &new)?;
            }
            Ok(())
        })
        .unwrap();
    }
    node.position()
}

impl<'r> World<'r> {
    /// All accounts are there, and the store is backfilled.
    pub fn new(rig: &'r dyn Rig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, sinks) = open(&folder.path().join("log"));
        for table in ["t.left", "t.right"] {
            node.create_table_blocking(NewTable::keyed(table)).unwrap();
        }
        node.transact(|tx| {
            for table in ["t.left", "t.right"] {
                for key in 0..ACCOUNTS {
                    tx.put_json(table, key.to_string(), &json!({"balance": BALANCE, "n": 0}))?;
                }
            }
            Ok(())
        })
        .unwrap();
        sinks.create(definition(rig)).unwrap();
        let world = Self {
            rig,
            folder,
            running: Some((node, sinks)),
            round: 0,
        };
        world.assert_equal();
        rig.note_writes();
        world
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn node(&self) -> &Node {
        &self.running.as_ref().unwrap().0
    }

    pub fn sinks(&self) -> &Sinks {
        &self.running.as_ref().unwrap().1
    }

    /// Ends the node; its folder stays.
    pub fn close(&mut self) {
        if let Some((node, sinks)) = self.running.take() {
            sinks.stop();
            node.stop().unwrap();
        }
    }

    pub fn reopen(&mut self) {
        self.running = Some(open(&self.log()));
    }

    /// Waits for the log's end to be in the store, and compares.
    pub fn assert_equal(&self) {
        let end = self.node().position();
        let status = self.sinks().wait_blocking(SINK, end, PATIENCE).unwrap();
        assert!(status.position.unwrap() >= end);
        let found = self.sinks().verify(SINK).unwrap();
        assert!(found.equal, "{found:#?}");
        assert_eq!(
            found.tables.iter().map(|t| t.rows).sum::<u64>(),
            2 * ACCOUNTS as u64
        );
    }

    /// Waits until the sink has stopped, and says why.
    pub fn wait_until_stopped(&self) -> String {
        let error = self
            .sinks()
            .wait_blocking(SINK, Position(u64::MAX), PATIENCE)
            .unwrap_err();
        let status = self.sinks().get(SINK).unwrap();
        assert_eq!(status.state, SinkState::Stopped, "{error}");
        error.to_string()
    }

    /// Transfers without end, on a thread of its own.
    pub fn load<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Load<'scope> {
        self.round += 1;
        let (node, seed) = (self.node().clone(), self.round * 1_000_003);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = scope.spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    transfer(&node, seed + n, 20);
                    n += 20;
                }
            }
        });
        Load { stop, thread }
    }

    /// Waits until the sink has taken so many more records.
    pub fn wait_for_progress(&self, records: u64) {
        let at = self
            .sinks()
            .get(SINK)
            .unwrap()
            .position
            .unwrap_or(Position::ZERO);
        let wanted = Position(at.get() + records);
        self.sinks().wait_blocking(SINK, wanted, PATIENCE).unwrap();
    }

    pub fn end(mut self) {
        self.assert_equal();
        self.close();
    }
}

pub struct Load<'scope> {
    stop: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl Load<'_> {
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

fn definition(rig: &dyn Rig) -> SinkDefinition {
    let columns = json!({
        "id": {"from": "$key", "type": "text"}, "balance": {"from": "balance", "type": "integer"},
        "n": {"from": "n", "type": "integer"}, "at": {"from": "$version", "type": "integer"}});
    let mut definition = rig.target();
    let fields = definition.as_object_mut().unwrap();
    fields.insert("name".into(), SINK.into());
    fields.insert(
        "mappings".into(),
        json!([{"table": "t.left", "into": LEFT, "columns": columns},
               {"table": "t.right", "into": RIGHT, "columns": columns}]),
    );
    SinkDefinition::from_json(KINDS, &definition).unwrap()
}
