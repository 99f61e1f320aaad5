//! A sink into memory on a real node whose only kind of store it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use onelog::{NewTable, Node, Options, Position};
use onelog_sinks::{SinkDefinition, Sinks};
use onelog_store::Kinds;
use serde_json::json;

static KINDS: Kinds = Kinds::new(&[&onelog_memory::KIND]);
const PATIENCE: Duration = Duration::from_secs(60);

fn open(folder: &tempfile::TempDir) -> (Node, Sinks) {
    let node = Node::open(Options::new(folder.path())).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

fn order(node: &Node, key: &str, total: i64) -> Position {
    let done = node.transact(|tx| tx.put_json("shop.orders", key, &json!({"total": total})));
    done.unwrap().position
}

fn assert_equal(sinks: &Sinks, at_least: Position) {
    sinks.wait_blocking("shelf", at_least, PATIENCE).unwrap();
    let found = sinks.verify("shelf").unwrap();
    assert!(found.equal && found.position >= at_least, "{found:#?}");
}

#[test]
fn a_store_that_is_one_package_and_one_line_follows_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let (node, sinks) = open(&folder);
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    for n in 0..50 {
        order(&node, &format!("before {n}"), n);
    }
    let definition = json!({
        "name": "shelf", "kind": "memory", "place": "of a node",
        "mappings": [{"table": "shop.orders", "into": "orders", "columns": {
            "id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "integer"}}}],
    });
    sinks
        .create(SinkDefinition::from_json(KINDS, &definition).unwrap())
        .unwrap();
    for n in 0..200 {
        order(&node, &format!("k{}", n % 40), n);
    }
    let deleted = node.transact(|tx| tx.delete("shop.orders", "k7"));
    assert_equal(&sinks, deleted.unwrap().position);

    sinks.stop();
    node.stop().unwrap();
    drop((node, sinks));
    let (node, sinks) = open(&folder);
    let end = order(&node, "after the restart", 1);
    assert_equal(&sinks, end);
    sinks.rebuild("shelf").unwrap();
    let end = order(&node, "after the rebuild", 2);
    assert_equal(&sinks, end);
    sinks.stop();
    node.stop().unwrap();
}
