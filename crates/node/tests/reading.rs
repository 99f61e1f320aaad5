//! Reading the log by table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

use onelog::{LogTransaction, NewTable, Node, Options};
use onelog_record::{Position, TableId};

const PIECE_BYTES: usize = 64 << 10;

/// Reads what concerns these tables, in pieces, until nothing is left; answers it and the pieces.
fn read_all(node: &Node, tables: &[TableId]) -> (Vec<LogTransaction>, usize) {
    let (mut all, mut next, mut pieces) = (Vec::new(), Position::ZERO, 0);
    loop {
        let batch = node.read_log_of(tables, next, PIECE_BYTES).unwrap();
        if batch.next == next {
            return (all, pieces);
        }
        // The chain goes with the position, whatever was passed over before it.
        assert_eq!(batch.chain, node.chain_at(batch.next).unwrap());
        pieces += 1;
        next = batch.next;
        all.extend(batch.transactions);
    }
}

#[test]
fn the_transactions_of_a_rare_table_are_found_whole_among_those_of_a_busy_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 64 << 10,
        ..Options::new(folder.path())
    };
    let node = Node::open(options.clone()).unwrap();
    for name in ["t.busy", "t.rare"] {
        node.create_table_blocking(NewTable::keyed(name)).unwrap();
    }
    // Given a log of some segments in which every 500th transaction writes both tables,
    let value = format!("\"{}\"", "x".repeat(400));
    for n in 0..2_000 {
        node.transact(|tx| {
            tx.put("t.busy", format!("k{n}"), &value)?;
            match n % 500 {
                250 => tx.put("t.rare", format!("k{n}"), "1"),
                _ => Ok(()),
            }
        })
        .unwrap();
    }
    let catalog = node.catalog();
    let id = |name: &str| catalog.tables().find(|t| t.name == name).unwrap().id;
    let (busy, rare) = (id("t.busy"), id("t.rare"));
    let whole = |node: &Node| {
        let (found, pieces) = read_all(node, &[rare]);
        // then each of those is there, with the records of both,
        assert_eq!(found.len(), 4);
        for transaction in &found {
            let tables: Vec<_> = transaction.records.iter().map(|r| r.table).collect();
            assert_eq!(tables, [busy, rare]);
        }
        pieces
    };
    // when the rare table is read, also after a restart,
    whole(&node);
    let (all, pieces) = read_all(&node, &[busy]);
    assert_eq!(all.len(), 2_000);
    drop(node);
    let node = Node::open(options).unwrap();
    whole(&node);
    assert_eq!(read_all(&node, &[busy]).1, pieces);
    // and a table without records is passed over.
    assert_eq!(read_all(&node, &[TableId(9_999)]).0, []);
}
