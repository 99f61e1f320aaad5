//! A folder with a log and SQLite stores, for tests of sinks on a real node.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use onelog::{KeyRange, NewTable, Node, Options, Position};
use onelog_record::TABLE_PARKED;
use onelog_sinks::{SinkError, Sinks};
use onelog_store::{SinkDefinition, Verification};
use onelog_stores::KINDS;
use rusqlite::Connection;
use serde_json::{Value, json};

/// A test that hangs must fail; nothing is measured with this.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn options(&self) -> Options {
        Options::new(self.path("log"))
    }

    pub fn open(&self) -> (Node, Sinks) {
        open(self.options())
    }

    pub fn store(&self, name: &str) -> Connection {
        let store = Connection::open(self.path(name)).unwrap();
        store.busy_timeout(PATIENCE).unwrap();
        store
    }

    /// A definition of a SQLite sink with orders in columns, and more fields.
    pub fn definition(&self, name: &str, more: &Value) -> SinkDefinition {
        let mut value = json!({
            "name": name, "kind": "sqlite", "path": self.path(&format!("{name}.db")),
            "mappings": [{"table": "shop.orders", "into": "orders", "columns": {
                "id": {"from": "$key", "type": "text"},
                "total": {"from": "/total", "type": "integer"},
                "note": {"from": "/note", "type": "text"}}}],
        });
        for (field, more) in more.as_object().unwrap() {
            value[field] = more.clone();
        }
        SinkDefinition::from_json(KINDS, &value).unwrap()
    }
}

/// A store's file that is somewhere else for a while; its name leads to a folder meanwhile. Both steps
/// are atomic: a sink that looks in between must not find a name without a file, and make one.
pub struct Away {
    place: PathBuf,
    kept: PathBuf,
}

impl Away {
    pub fn take(place: PathBuf) -> Self {
        let (kept, link) = (place.with_extension("kept"), place.with_extension("link"));
        let folder = place.parent().unwrap();
        std::os::unix::fs::symlink(folder, &link).unwrap();
        std::fs::hard_link(&place, &kept).unwrap();
        std::fs::rename(&link, &place).unwrap();
        Self { place, kept }
    }

    pub fn put_back(self) {
        std::fs::rename(&self.kept, &self.place).unwrap();
    }
}

pub fn open(options: Options) -> (Node, Sinks) {
    let node = Node::open(options).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

pub fn close(node: &Node, sinks: &Sinks) {
    sinks.stop();
    node.stop().unwrap();
}

pub fn with_orders(node: &Node) {
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
}

pub fn put(node: &Node, key: &str, value: &Value) -> Position {
    node.transact(|tx| tx.put_json("shop.orders", key, value))
        .unwrap()
        .position
}

pub fn order(node: &Node, key: &str, total: i64, note: &str) -> Position {
    put(node, key, &json!({"total": total, "note": note}))
}

pub fn delete(node: &Node, key: &str) -> Position {
    node.transact(|tx| tx.delete("shop.orders", key))
        .unwrap()
        .position
}

pub fn wait(sinks: &Sinks, name: &str, position: Position) {
    sinks.wait_blocking(name, position, PATIENCE).unwrap();
}

pub fn verified(sinks: &Sinks, name: &str) -> Verification {
    sinks.verify(name).unwrap()
}

pub fn assert_equal(sinks: &Sinks, name: &str, at_least: Position) -> Verification {
    wait(sinks, name, at_least);
    let found = verified(sinks, name);
    assert!(found.equal, "{found:#?}");
    assert!(found.position >= at_least);
    found
}

pub fn wait_for_stop(sinks: &Sinks, name: &str) -> String {
    let error = sinks
        .wait_blocking(name, Position(u64::MAX), PATIENCE)
        .unwrap_err();
    assert!(matches!(error, SinkError::Stopped { .. }), "{error}");
    error.to_string()
}

/// How many records `onelog.parked` has.
pub fn parked_records(node: &Node) -> usize {
    let range = KeyRange {
        table: TABLE_PARKED,
        from: Bytes::new(),
        to: None,
    };
    node.snapshot().scan(&range, false).unwrap().count()
}

pub fn one<T: rusqlite::types::FromSql>(store: &Connection, sql: &str) -> T {
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}
