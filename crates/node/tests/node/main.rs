//! A node in a folder: commits, reads, stops, starts, fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod backup;
mod damage;
mod folder;
mod full_disk;

use std::time::Duration;

use bytes::Bytes;
use onelog::record::{PointRead, TABLE_TABLES, TABLE_UNIQUE};
use onelog::{
    BackupError, CommitRequest, FieldPath, Guard, KeyRange, NewTable, Node, OpenError, Operation,
    Options, Position, Predicate, ReadLogError, Refusal, SnapshotError, TableDefinition,
    TableError, TableId, TransactError, TxnId, WaitError, Write,
};
use serde_json::json;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn small(folder: &tempfile::TempDir) -> Options {
    Options {
        segment_bytes: 256 << 10,
        memtable_bytes: 64 << 10,
        ..Options::new(folder.path())
    }
}

fn table(node: &Node, name: &str) -> TableId {
    node.create_table_blocking(NewTable::keyed(name))
        .unwrap()
        .0
        .id
}

fn put(table: TableId, key: &str, value: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
            operation: Operation::Put(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn value(node: &Node, table: TableId, key: &str) -> Option<String> {
    let found = node.snapshot().get(table, key.as_bytes()).unwrap();
    found.map(|found| String::from_utf8(found.value.to_vec()).unwrap())
}

#[test]
fn what_is_answered_can_be_read_and_is_there_after_a_restart() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "shop.orders");
    let committed = node.submit(put(t, "a", "1")).wait().unwrap();
    assert!(node.position() >= committed.position);
    assert_eq!(value(&node, t, "a").as_deref(), Some("1"));
    node.stop().unwrap();
    assert!(matches!(
        node.submit(put(t, "b", "1")).wait(),
        Err(Refusal::Stopped(_))
    ));
    drop(node);

    let node = Node::open(small(&folder)).unwrap();
    assert_eq!(
        node.position(),
        committed.position,
        "no position is invented"
    );
    assert_eq!(value(&node, t, "a").as_deref(), Some("1"));
    assert_eq!(node.catalog().by_name("shop.orders").unwrap().id, t);
}

#[test]
fn ids_are_remembered_across_restarts() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let request = CommitRequest {
        id: Some(TxnId(9)),
        ..put(t, "a", "1")
    };
    let first = node.submit(request.clone()).wait().unwrap();
    drop(node);

    let node = Node::open(small(&folder)).unwrap();
    let again = node.submit(request).wait().unwrap();
    assert!(again.repeated);
    assert_eq!(
        (again.position, again.first_offset),
        (first.position, first.first_offset)
    );
    let other = CommitRequest {
        id: Some(TxnId(9)),
        ..put(t, "a", "2")
    };
    assert!(matches!(
        node.submit(other).wait(),
        Err(Refusal::IdMismatch { .. })
    ));
}

#[test]
fn a_write_between_read_and_commit_is_a_conflict_and_transact_tries_again() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    node.submit(put(t, "n", "1")).wait().unwrap();

    let mut slow = node.begin();
    let read = slow.get("t", "n").unwrap();
    assert_eq!(read.as_deref(), Some(&b"1"[..]));
    node.submit(put(t, "n", "2")).wait().unwrap();
    slow.put("t", "n", "9").unwrap();
    let refusal = slow.commit_blocking().unwrap_err();
    assert!(matches!(refusal, Refusal::Conflict { .. }), "{refusal}");

    let mut first = true;
    let done = node
        .transact(|tx| {
            let n = tx.get_json("t", "n")?.unwrap().as_i64().unwrap();
            if std::mem::take(&mut first) {
                node.submit(put(t, "n", "10")).wait().unwrap();
            }
            tx.put_json("t", "n", &(n + 1))
        })
        .unwrap();
    assert_eq!(done.attempts, 2);
    assert_eq!(value(&node, t, "n").as_deref(), Some("11"));
}

#[test]
fn a_transaction_sees_its_own_writes_and_ranges_have_no_phantoms() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    for key in ["a", "b", "c", "d"] {
        node.submit(put(t, key, "1")).wait().unwrap();
    }
    let mut tx = node.begin();
    tx.put("t", "bb", "2").unwrap();
    tx.delete("t", "c").unwrap();
    let keys = |rows: Vec<(Bytes, Bytes)>| {
        rows.into_iter()
            .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(tx.range("t", b"a", None, 10).unwrap()),
        ["a", "b", "bb", "d"]
    );
    assert_eq!(
        keys(tx.range("t", b"a", Some(b"bb"), 10).unwrap()),
        ["a", "b"]
    );
    assert_eq!(keys(tx.range("t", b"", None, 2).unwrap()), ["a", "b"]);
    assert_eq!(tx.get("t", "c").unwrap(), None);

    node.submit(put(t, "aa", "phantom")).wait().unwrap();
    assert!(matches!(
        tx.commit_blocking(),
        Err(Refusal::Conflict { .. })
    ));

    let mut limited = node.begin();
    limited.range("t", b"", None, 1).unwrap();
    limited.put("t", "x", "1").unwrap();
    node.submit(put(t, "z", "behind what was read"))
        .wait()
        .unwrap();
    assert!(
        limited.commit_blocking().is_ok(),
        "only what was looked at counts as read"
    );
}

#[test]
fn pending_operations_and_unknown_tables_are_reported() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    table(&node, "shop.stock");
    let mut tx = node.begin();
    tx.add("shop.stock", "apple", FieldPath::parse("count").unwrap(), 3)
        .unwrap();
    assert!(matches!(
        tx.get("shop.stock", "apple"),
        Err(TransactError::Pending { .. })
    ));
    let error = tx.put("shop.stok", "apple", "1").unwrap_err();
    assert!(
        error.to_string().contains("did you mean 'shop.stock'"),
        "{error}"
    );
    tx.commit_blocking().unwrap();
    assert_eq!(
        node.begin().get_json("shop.stock", "apple").unwrap(),
        Some(json!({"count": 3}))
    );
}

#[test]
fn guards_are_checked_on_the_newest_state() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let absent = || CommitRequest {
        guards: vec![Guard {
            table: t,
            key: Bytes::from_static(b"k"),
            predicate: Predicate::Absent,
        }],
        ..put(t, "k", "1")
    };
    node.submit(absent()).wait().unwrap();
    let Err(Refusal::GuardFailed { index: 0, met, .. }) = node.submit(absent()).wait() else {
        panic!()
    };
    assert_eq!(met.as_deref(), Some(&b"1"[..]));
}

#[test]
fn tables_are_made_deleted_and_made_again() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let first = table(&node, "t");
    node.submit(put(first, "k", "1")).wait().unwrap();
    assert_eq!(
        node.create_table_blocking(NewTable::keyed("t"))
            .unwrap()
            .0
            .id,
        first,
        "the same definition is no error"
    );
    let other = NewTable {
        unique: vec![FieldPath::parse("e").unwrap()],
        ..NewTable::keyed("t")
    };
    assert!(matches!(
        node.create_table_blocking(other),
        Err(TableError::Exists { .. })
    ));

    node.drop_table_blocking("t").unwrap();
    assert!(matches!(
        node.submit(put(first, "k", "2")).wait(),
        Err(Refusal::UnknownTable { .. })
    ));
    assert!(
        node.catalog().by_id(first).unwrap().dropped,
        "old records still have a name"
    );
    let error = node.drop_table_blocking("tt").unwrap_err();
    assert!(matches!(error, TableError::Unknown { .. }));

    let second = table(&node, "t");
    assert_ne!(first, second);
    assert_eq!(value(&node, second, "k"), None);
    drop(node);
    let node = Node::open(small(&folder)).unwrap();
    assert_eq!(node.catalog().by_name("t").unwrap().id, second);
    assert!(node.catalog().by_id(first).unwrap().dropped);
}

#[test]
fn tables_made_at_the_same_time_have_different_numbers() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let ids: std::collections::HashSet<TableId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let node = &node;
                scope.spawn(move || table(node, &format!("t{n}")))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(ids.len(), 8);
}

#[test]
fn a_schema_and_unique_fields_are_enforced() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let users = NewTable {
        schema: Some(json!({"type": "object", "required": ["email"]})),
        unique: vec![FieldPath::parse("email").unwrap()],
        ..NewTable::keyed("users")
    };
    let t = node.create_table_blocking(users).unwrap().0.id;
    node.submit(put(t, "1", r#"{"email":"a@x"}"#))
        .wait()
        .unwrap();
    let refusal = node
        .submit(put(t, "2", r#"{"email":"a@x"}"#))
        .wait()
        .unwrap_err();
    assert!(matches!(refusal, Refusal::NotUnique { .. }), "{refusal}");
    let refusal = node.submit(put(t, "2", "{}")).wait().unwrap_err();
    assert!(refusal.to_string().contains("email"), "{refusal}");
    node.submit(put(t, "1", r#"{"email":"b@x"}"#))
        .wait()
        .unwrap();
    node.submit(put(t, "2", r#"{"email":"a@x"}"#))
        .wait()
        .unwrap();
}

#[test]
fn the_log_is_read_back_in_whole_transactions() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let from = node.position();
    let mut sent = Vec::new();
    for n in 0..200 {
        let mut request = put(t, "a", &n.to_string());
        request.writes.extend(put(t, "b", &n.to_string()).writes);
        sent.push(node.submit(request).wait().unwrap());
    }
    let mut at = from;
    let mut seen = Vec::new();
    while at < node.position() {
        let batch = node.read_log(at, 1000).unwrap();
        assert!(batch.next > at);
        for transaction in &batch.transactions {
            assert_eq!(transaction.records.len(), 2);
            seen.push((transaction.id, transaction.end));
        }
        at = batch.next;
    }
    let expected: Vec<_> = sent
        .iter()
        .map(|committed| (committed.id, committed.position))
        .collect();
    assert_eq!(seen, expected);
    assert!(matches!(
        node.read_log(Position(u64::MAX), 1),
        Err(ReadLogError::InFuture { .. })
    ));
    assert!(
        node.read_log(node.position(), 1)
            .unwrap()
            .transactions
            .is_empty()
    );
}

#[test]
fn old_positions_stay_readable_and_snapshots_never_change() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let first = node.submit(put(t, "k", "1")).wait().unwrap().position;
    let held = node.snapshot();
    for n in 2..3000 {
        node.submit(put(t, "k", &n.to_string())).wait().unwrap();
    }
    assert_eq!(held.position(), first);
    assert_eq!(held.get(t, b"k").unwrap().unwrap().value, "1");
    match node.snapshot_at(first) {
        Ok(snapshot) => assert_eq!(snapshot.get(t, b"k").unwrap().unwrap().value, "1"),
        Err(SnapshotError::TooOld { floor }) => assert!(floor > first),
        Err(error) => panic!("{error}"),
    }
    assert!(matches!(
        node.snapshot_at(Position(u64::MAX)),
        Err(SnapshotError::InFuture { .. })
    ));
}

#[test]
fn waiting_for_a_position_ends_when_it_is_applied() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let next = Position(node.position().get() + 1);
    let timed_out = node.wait_for_blocking(next, Duration::ZERO);
    assert!(matches!(timed_out, Err(WaitError::TimedOut { .. })));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| node.wait_for_blocking(next, Duration::from_secs(60)));
        node.submit(put(t, "k", "1")).wait().unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_second_process_is_refused_the_folder() {
    let folder = folder();
    let _node = Node::open(small(&folder)).unwrap();
    let error = Node::open(small(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error}");
}

#[test]
fn checkpoints_and_rolls_happen_while_commits_go_on_and_retention_keeps_what_is_needed() {
    let folder = folder();
    let options = Options {
        retain_bytes: Some(1 << 20),
        ..small(&folder)
    };
    let node = Node::open(options.clone()).unwrap();
    let t = table(&node, "t");
    let text = format!("\"{}\"", "x".repeat(4000));
    let slow = node.follower("slow", Position(0));
    let round = || {
        let tickets: Vec<_> = (0..500)
            .map(|n| node.submit(put(t, &format!("k{n}"), &text)))
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    };
    round();
    round();
    assert_eq!(node.log_start(), Position(0), "a follower holds the log");
    drop(slow);
    let mut rounds = 0;
    while node.log_start() == Position(0) {
        round();
        rounds += 1;
        assert!(rounds < 500, "the log is never cut");
    }
    // Until then it may be cut further.
    node.stop().unwrap();
    let start = node.log_start();
    assert!(matches!(
        node.read_log(Position(0), 1),
        Err(ReadLogError::Cut { .. })
    ));
    assert!(node.read_log(start, 1).is_ok());
    drop(node);

    let node = Node::open(options).unwrap();
    assert_eq!(node.log_start(), start);
    assert_eq!(value(&node, t, "k7").unwrap(), text);
}

#[test]
fn a_transaction_that_is_read_has_what_the_chain_says_behind_it() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    for n in 0..500 {
        node.submit(put(t, &format!("k{n}"), "1")).wait().unwrap();
    }
    let mut at = node.log_start();
    let mut transactions = 0;
    while at < node.position() {
        let batch = node.read_log(at, 4 << 10).unwrap();
        for transaction in &batch.transactions {
            let there = node.chain_at(transaction.end).unwrap();
            assert_eq!(there, Some(transaction.chain), "at {}", transaction.end);
        }
        transactions += batch.transactions.len();
        at = batch.next;
    }
    assert!(transactions >= 500, "{transactions}");
}

#[test]
fn definitions_are_records_like_all_else() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    table(&node, "t");
    let row = node.snapshot().get(TABLE_TABLES, b"t").unwrap().unwrap();
    let definition: TableDefinition = serde_json::from_slice(&row.value).unwrap();
    assert_eq!(definition.name, "t");
    let reads = CommitRequest {
        point_reads: vec![PointRead {
            table: TABLE_TABLES,
            key: Bytes::from_static(b"t"),
        }],
        ..put(definition.id, "k", "1")
    };
    assert!(
        matches!(node.submit(reads).wait(), Err(Refusal::Malformed(_))),
        "reads need a position"
    );
}

#[test]
fn the_values_of_unique_fields_go_with_their_table() {
    // Given a table with a unique field, one like it, and rows of both in a checkpoint and behind it,
    let folder = folder();
    let unique = |name: &str| NewTable {
        unique: vec![FieldPath::parse("/email").unwrap()],
        ..NewTable::keyed(name)
    };
    let rows = |node: &Node| {
        let all = KeyRange {
            table: TABLE_UNIQUE,
            from: Bytes::new(),
            to: None,
        };
        let owners = node.snapshot().scan(&all, false).unwrap();
        let owners = owners.map(|row| String::from_utf8(row.unwrap().value.to_vec()).unwrap());
        owners.collect::<Vec<_>>()
    };
    let email = |n: u32| json!({ "email": n }).to_string();
    let node = Node::open(small(&folder)).unwrap();
    let users = node.create_table_blocking(unique("users")).unwrap().0.id;
    let others = node.create_table_blocking(unique("others")).unwrap().0.id;
    node.submit(put(users, "u1", &email(1))).wait().unwrap();
    node.submit(put(others, "o1", &email(1))).wait().unwrap();
    node.stop().unwrap();
    drop(node);
    let node = Node::open(small(&folder)).unwrap();
    node.submit(put(users, "u2", &email(2))).wait().unwrap();
    node.submit(put(others, "o2", &email(2))).wait().unwrap();
    assert_eq!(rows(&node), ["u1", "u2", "o1", "o2"]);
    // when it is dropped, then the next checkpoint keeps the other one's alone.
    node.drop_table_blocking("users").unwrap();
    node.stop().unwrap();
    drop(node);
    let node = Node::open(small(&folder)).unwrap();
    assert_eq!(rows(&node), ["o1", "o2"]);
}
