//! The program that the README shows, in a fresh folder and again in the same one; and what
//! programs of its kind do with numbers that a `serde_json::Value` rounds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

#[allow(dead_code)] // its `main`
#[path = "../../../examples/embedded.rs"]
mod embedded;

use onelog::{FieldPath, NewTable, Node, Options, TransactError};

const README: &str = include_str!("../../../README.md");
const PROGRAM: &str = include_str!("../../../examples/embedded.rs");

#[test]
fn the_program_of_the_readme_runs() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let left = embedded::order_apples(folder.path()).unwrap();
        assert_eq!(left, r#"left in stock: {"count":1}"#);
    }
}

#[test]
fn the_readme_shows_the_program_that_runs() {
    let (_, program) = PROGRAM.split_once("\n\n").unwrap();
    assert!(README.contains(&format!("```rust\n{program}```")));
}

#[test]
fn get_json_refuses_a_number_that_it_would_round_and_names_its_field_and_what_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(Options::new(folder.path())).unwrap();
    node.create_table_blocking(NewTable::keyed("t")).unwrap();
    for (row, field, number) in [
        (
            r#"{"count":3,"wei":10000000000000000000000001}"#,
            "/wei",
            "10000000000000000000000001",
        ),
        (
            r#"{"count":3,"a/b":[1,{"c":12345678901234567.89}]}"#,
            "/a~1b/1/c",
            "12345678901234567.89",
        ),
        ("0.1234567890123456789", "", "0.1234567890123456789"),
    ] {
        node.transact(|tx| tx.put("t", "k", row)).unwrap();

        let read = node.transact(|tx| tx.get_json("t", "k").map(drop));

        let error = read.unwrap_err();
        let TransactError::Rounded {
            field: at,
            number: shown,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((at.as_str(), shown.as_str()), (field, number), "{row}");
        let said = error.to_string();
        assert!(said.contains("`get`") && said.contains("`add`"), "{said}");
        let kept = node.begin().get("t", "k").unwrap();
        assert_eq!(kept.as_deref(), Some(row.as_bytes()));
    }
    node.stop().unwrap();
}

#[test]
fn get_json_reads_every_number_that_it_keeps_exactly_and_operations_keep_all() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(Options::new(folder.path())).unwrap();
    node.create_table_blocking(NewTable::keyed("t")).unwrap();
    let kept = r#"[1.10,-0,1e3,18446744073709551615,-9223372036854775808,0.1,1.5e300]"#;
    node.transact(|tx| tx.put("t", "kept", kept)).unwrap();
    let long = r#"{"count":3,"wei":10000000000000000000000001}"#;
    node.transact(|tx| tx.put("t", "long", long)).unwrap();

    assert!(node.begin().get_json("t", "kept").unwrap().is_some());
    assert!(node.begin().get_json("t", "absent").unwrap().is_none());
    let count = FieldPath::parse("count").unwrap();
    node.transact(|tx| tx.add("t", "long", count.clone(), -2))
        .unwrap();

    let left = node.begin().get("t", "long").unwrap().unwrap();
    assert_eq!(left, r#"{"count":1,"wei":10000000000000000000000001}"#);
    node.stop().unwrap();
}
