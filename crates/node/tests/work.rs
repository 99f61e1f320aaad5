//! One request must not stop all others: what its decision costs is bounded, in steps.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use onelog::{
    CommitRequest, Guard, KeyRange, NewTable, Node, Operation, Options, Position, Predicate,
    Refusal, TableId, Write,
};
use onelog_log::SimulatedDisk;
use serde_json::json;

const ROWS: usize = 20_000;
/// As many range reads as a request may declare.
const COPIES: usize = 10_000;
/// As many levels of a schema, each of which doubles the work.
const LEVELS: usize = 60;

fn put(table: TableId, key: &str, value: &Bytes) -> Write {
    Write {
        table,
        key: Bytes::copy_from_slice(key.as_bytes()),
        operation: Operation::Put(value.clone()),
        headers: Vec::new(),
    }
}

fn commit(node: &Node, request: CommitRequest) -> Position {
    node.submit(request).wait().unwrap().position
}

fn fill(node: &Node, table: TableId) {
    let value = Bytes::from_static(b"1");
    let writes: Vec<_> = (0..ROWS)
        .map(|n| put(table, &format!("row {n:06}"), &value))
        .collect();
    for writes in writes.chunks(5_000) {
        let writes = writes.to_vec();
        commit(
            node,
            CommitRequest {
                writes,
                ..CommitRequest::default()
            },
        );
    }
}

fn steps(node: &Node) -> u64 {
    let text = node.metrics_text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("onelog_decision_steps_total "));
    line.unwrap().parse().unwrap()
}

fn opened() -> (Node, [TableId; 2]) {
    let disks = [1, 2].map(|seed| Arc::new(SimulatedDisk::new(seed)));
    let [log, state] = disks;
    let options = Options {
        segment_bytes: 4 << 20,
        ..Options::new("in memory")
    };
    let node = Node::open_on(log, state, options).unwrap();
    let tables = ["read", "written"].map(|name| {
        let made = node.create_table_blocking(NewTable::keyed(format!("t.{name}")));
        made.unwrap().0.id
    });
    (node, tables)
}

#[test]
fn ten_thousand_reads_of_a_whole_table_cost_as_much_as_none_when_it_was_not_written() {
    // Given a large table, and many writes elsewhere since it was read,
    let (node, [read, written]) = opened();
    fill(&node, read);
    let at = node.position();
    fill(&node, written);
    fill(&node, written);
    let before = steps(&node);
    // when a transaction declares that it read all of it, again and again,
    let everything = KeyRange {
        table: read,
        from: Bytes::new(),
        to: None,
    };
    commit(
        &node,
        CommitRequest {
            read_position: Some(at),
            range_reads: vec![everything; COPIES],
            writes: vec![put(written, "x", &Bytes::from_static(b"1"))],
            ..CommitRequest::default()
        },
    );
    // then next to nothing was looked at.
    node.stop().unwrap();
    let cost = steps(&node) - before;
    assert!(cost < 100, "{cost} steps");
}

#[test]
fn values_that_a_schema_takes_for_ever_to_check_are_refused_and_the_others_go_on() {
    // Given a table whose schema doubles the work at each level,
    let (node, [table, _]) = opened();
    let level = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        (n.to_string(), json!({"allOf": [next, next]}))
    };
    let mut levels: serde_json::Map<_, _> = (0..LEVELS).map(level).collect();
    levels.insert(LEVELS.to_string(), json!({"type": "integer"}));
    let schema = json!({"properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": levels});
    let strict = NewTable {
        schema: Some(schema),
        ..NewTable::keyed("t.strict")
    };
    let strict = node.create_table_blocking(strict).unwrap().0.id;
    let value = |field: &str| {
        let text = json!({field: 1}).to_string();
        CommitRequest {
            writes: vec![put(strict, "k", &Bytes::from(text))],
            ..CommitRequest::default()
        }
    };
    commit(&node, value("b"));
    // when a value goes through all levels, then it is refused by the limit,
    let refusal = node.submit(value("a")).wait().unwrap_err();
    let Refusal::TooLarge(fault) = &refusal else {
        panic!("not too large: {refusal:?}")
    };
    assert_eq!(fault.limit, "SCHEMA_STEPS_MAX");
    // and what others write is decided.
    let next = vec![put(table, "next", &Bytes::from_static(b"1"))];
    commit(
        &node,
        CommitRequest {
            writes: next,
            ..CommitRequest::default()
        },
    );
}

#[test]
fn a_transaction_that_would_stop_all_others_is_refused_and_they_go_on() {
    let (node, [table, _]) = opened();
    let large = Bytes::from(format!("\"{}\"", "x".repeat(1_000_000)));
    commit(
        &node,
        CommitRequest {
            writes: vec![put(table, "large", &large)],
            ..CommitRequest::default()
        },
    );
    let guard = Guard {
        table,
        key: Bytes::from_static(b"large"),
        predicate: Predicate::Exists,
    };
    let costly = CommitRequest {
        guards: vec![guard; COPIES],
        ..CommitRequest::default()
    };
    let refusal = node.submit(costly).wait().unwrap_err();
    let Refusal::TooLarge(fault) = &refusal else {
        panic!("not too large: {refusal:?}")
    };
    assert_eq!(fault.limit, "DECISION_STEPS_MAX");
    assert_eq!(refusal.code(), "too_large");
    let next = vec![put(table, "next", &Bytes::from_static(b"1"))];
    commit(
        &node,
        CommitRequest {
            writes: next,
            ..CommitRequest::default()
        },
    );
}
