//! A node with the table `shop.orders`; each story has its own node, and its own names in the store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onelog::{NewTable, Node, Options, Position};
use onelog_sinks::{SinkError, Sinks};
use onelog_store::{SinkDefinition, Verification};
use onelog_stores::KINDS;
use serde_json::{Value, json};

use crate::rig::Rig;

/// A test that hangs must fail; nothing is measured with this.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct World<'r> {
    pub rig: &'r dyn Rig,
    story: &'static str,
    folder: tempfile::TempDir,
    running: Option<(Node, Sinks)>,
}

/// Opens a node's folder with its sinks.
pub fn open(folder: &Path) -> (Node, Sinks) {
    let node = open_node(&Options::new(folder.to_owned()));
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

/// Opens a node without its sinks. A client that another test starts in this process has all open
/// files until it is what it shall be, the lock of a node that was just closed among them.
fn open_node(options: &Options) -> Node {
    let begun = Instant::now();
    loop {
        match Node::open(options.clone()) {
            Ok(node) => return node,
            Err(error) => assert!(
                error.to_string().contains("in use by another process")
                    && begun.elapsed() < PATIENCE,
                "{error}"
            ),
        }
        std::thread::yield_now();
    }
}

pub fn put(node: &Node, key: &str, value: &Value) -> Position {
    node.transact(|tx| tx.put_json("shop.orders", key, value))
        .unwrap()
        .position
}

pub fn order(node: &Node, key: &str, total: i64) -> Position {
    put(
        node,
        key,
        &json!({"total": total, "note": "as it should be"}),
    )
}

impl<'r> World<'r> {
    pub fn new(rig: &'r dyn Rig, story: &'static str) -> Self {
        println!("{story}");
        let folder = tempfile::tempdir().unwrap();
        let (node, sinks) = open(&folder.path().join("log"));
        node.create_table_blocking(NewTable::keyed("shop.orders"))
            .unwrap();
        Self {
            rig,
            story,
            folder,
            running: Some((node, sinks)),
        }
    }

    /// A story whose sink has a name that no other test in this process has, as what it counts needs.
    pub fn of_its_own(rig: &'r dyn Rig, story: &str) -> Self {
        let story = format!("{story}_{}", rig.server().port());
        Self::new(rig, Box::leak(story.into_boxed_str()))
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

    /// The name of the story's sink.
    pub fn sink(&self) -> &'static str {
        self.story
    }

    /// The name of a table of this story in the store.
    pub fn table(&self, name: &str) -> String {
        format!("{}_{name}", self.story)
    }

    /// A definition of the sink `name`, into `orders` unless `more` has other mappings.
    pub fn definition(&self, name: &str, more: &Value) -> SinkDefinition {
        let mut value = self.rig.target();
        value["name"] = json!(name);
        value["mappings"] = json!([self.rig.mapping(&self.table("orders"))]);
        for (field, more) in more.as_object().unwrap() {
            value[field] = more.clone();
        }
        SinkDefinition::from_json(KINDS, &value).unwrap()
    }

    /// Makes the story's sink, and waits until the store is backfilled.
    pub fn create(&self, more: &Value) {
        self.sinks()
            .create(self.definition(self.story, more))
            .unwrap();
        self.wait();
    }

    pub fn put(&self, key: &str, value: &Value) -> Position {
        put(self.node(), key, value)
    }

    pub fn order(&self, key: &str, total: i64) -> Position {
        order(self.node(), key, total)
    }

    pub fn delete(&self, key: &str) -> Position {
        let deleted = self.node().transact(|tx| tx.delete("shop.orders", key));
        deleted.unwrap().position
    }

    /// Waits until the story's sink is at the log's end.
    pub fn wait(&self) {
        self.wait_for(self.story);
    }

    pub fn wait_for(&self, sink: &str) {
        let end = self.node().position();
        self.sinks().wait_blocking(sink, end, PATIENCE).unwrap();
    }

    /// Waits until the sink has stopped, and says why.
    pub fn wait_for_stop(&self, sink: &str) -> String {
        let error = self
            .sinks()
            .wait_blocking(sink, Position(u64::MAX), PATIENCE)
            .unwrap_err();
        assert!(matches!(error, SinkError::Stopped { .. }), "{error}");
        error.to_string()
    }

    pub fn verified(&self, sink: &str) -> Verification {
        self.sinks().verify(sink).unwrap()
    }

    /// Waits for the log's end to be in the store, and compares.
    pub fn assert_equal(&self) -> Verification {
        self.wait();
        let found = self.verified(self.story);
        assert!(found.equal, "{found:#?}");
        found
    }

    /// The total of a row of `orders` as a reader finds it.
    pub fn total(&self, key: &str) -> Option<String> {
        self.rig.total(&self.table("orders"), key)
    }

    pub fn assert_total(&self, key: &str, total: i64) {
        assert_eq!(self.total(key), Some(total.to_string()), "{key}");
    }

    /// The keys that are parked.
    pub fn parked(&self) -> Vec<String> {
        let parked = self.sinks().parked(self.story).unwrap();
        let key = |key: &Value| key.as_str().unwrap().to_owned();
        parked.iter().map(|parked| key(&parked.key)).collect()
    }

    /// Ends the node; its folder stays.
    pub fn close(&mut self) {
        if let Some((node, sinks)) = self.running.take() {
            sinks.stop();
            node.stop().unwrap();
        }
    }

    pub fn reopen(&mut self) {
        self.close();
        self.running = Some(open(&self.log()));
    }

    /// [`World::reopen`], where the log was cut past the sinks meanwhile.
    pub fn reopen_with_a_cut_log(&mut self, first: impl FnOnce(&Node)) {
        let at = self.node().position();
        self.close();
        let mut options = Options::new(self.log());
        options.segment_bytes = 256 << 10;
        options.retain_bytes = Some(1 << 20);
        options.retain_past_followers = true;
        options.checkpoint_interval_ms = 200;
        let node = open_node(&options);
        first(&node);
        let note = "x".repeat(20_000);
        for n in 0.. {
            if node.log_start() > at {
                break;
            }
            put(&node, "large", &json!({"total": n, "note": note}));
        }
        order(&node, "large", 0);
        node.stop().unwrap();
        drop(node);
        self.running = Some(open(&self.log()));
        assert!(self.node().log_start() > at);
    }

    /// The store equals the log and nothing waits.
    pub fn end(mut self) {
        let found = self.assert_equal();
        assert!(found.tables.iter().all(|table| table.parked == 0));
        assert!(self.parked().is_empty());
        assert_eq!(self.sinks().get(self.story).unwrap().parked, 0);
        self.sinks().delete(self.story).unwrap();
        self.close();
    }
}
