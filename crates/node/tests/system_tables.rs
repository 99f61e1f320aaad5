//! The tables of onelog itself, as an embedding program meets them.

#![allow(clippy::unwrap_used, clippy::panic)]

use onelog::record::SYSTEM_TABLES;
use onelog::{
    CommitRequest, NewTable, Node, Operation, Options, Refusal, TableId, TransactError, Write,
};

fn write(table: TableId, operation: Operation) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: "t".into(),
            operation,
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

#[test]
fn they_can_be_read_and_nothing_that_a_program_writes_there_is_taken() {
    // Given a node with a table,
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(Options::new(folder.path())).unwrap();
    node.create_table_blocking(NewTable::keyed("t")).unwrap();
    let end = node.position();
    // when a program writes to the tables of onelog, then it is refused by name,
    for (id, name) in SYSTEM_TABLES {
        let put = node.transact(|tx| tx.put(name, "x", "garbage"));
        let Err(TransactError::Refused(refusal)) = put else {
            panic!("{name}: {put:?}");
        };
        assert!(
            matches!(refusal, Refusal::ReservedTable { .. }),
            "{refusal}"
        );
        assert!(refusal.to_string().contains(name), "{refusal}");
        for operation in [Operation::Put("{}".into()), Operation::Delete] {
            let answer = node.submit(write(id, operation)).wait();
            let is_refused = matches!(answer, Err(Refusal::ReservedTable { index: 0, .. }));
            assert!(is_refused, "{name}: {answer:?}");
        }
    }
    assert_eq!(node.position(), end, "nothing is in the log");
    // and the node works as before, and can be opened again.
    let definition = node.begin().get_json("onelog.tables", "t").unwrap();
    assert_eq!(definition.unwrap()["name"], "t");
    node.transact(|tx| tx.put("t", "k", "1")).unwrap();
    node.stop().unwrap();
    drop(node);
    let node = Node::open(Options::new(folder.path())).unwrap();
    assert!(node.begin().get("t", "k").unwrap().is_some());
}
