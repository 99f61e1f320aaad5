//! Changes of tables, line by line: whatever a client sends, the tables stay whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod story;

use bytes::Bytes;
use onelog_record::{
    CommitRequest, FieldPath, Operation, TABLE_SETTINGS, TABLE_TABLES, TABLE_UNIQUE, TableId, Write,
};
use onelog_replica::removal;
use story::{Story, options};

fn write(key: &str, operation: Operation) -> Write {
    Write {
        table: TABLE_TABLES,
        key: Bytes::copy_from_slice(key.as_bytes()),
        operation,
        headers: Vec::new(),
    }
}

fn put(key: &str, value: &str) -> Write {
    write(
        key,
        Operation::Put(Bytes::copy_from_slice(value.as_bytes())),
    )
}

fn delete(key: &str) -> Write {
    write(key, Operation::Delete)
}

/// A definition under a key, with more fields.
fn define_as(key: &str, id: u32, name: &str, more: &str) -> Write {
    let text = format!(r#"{{"id":{id},"name":"{name}","kind":"keyed","value":"json"{more}}}"#);
    put(key, &text)
}

fn define(id: u32, name: &str, more: &str) -> Write {
    define_as(name, id, name, more)
}

/// The end of the table `t`, which has number 1024, under a key.
fn ended(key: &str) -> Write {
    define_as(key, 1024, "t", r#","dropped":true"#)
}

fn in_table(table: TableId) -> Write {
    Write {
        table,
        ..put("k", "1")
    }
}

#[test]
fn a_drop_that_comes_late_never_reaches_the_successor_of_its_table() {
    // Given the drop of a table, prepared by a client that guards nothing,
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        ",
    );
    let mut late = removal(story.replica().catalog(), "t").unwrap();
    late.guards.clear();
    // and another table that got the name meanwhile, with a row in it,
    story.tell(
        "
        drop t as 2       |
        turn              | flush 3
        flushed 3         | 2 committed at 3
        define t as 3     |
        turn              | flush 4
        flushed 4         | 3 committed at 4
        put a in t as 4   |
        turn              | flush 5
        flushed 5         | 4 committed at 5
        ",
    );
    let successor = story.table("t");
    // when the drop arrives, then it is refused, and no number is given out twice,
    story.submit("5", late).unwrap();
    assert_eq!(story.taken_out(), ["5 refused Malformed"]);
    assert_eq!(story.table("t"), successor);
    story.tell(
        "
        define u as 6     |
        turn              | flush 6
        flushed 6         | 6 committed at 6
        ",
    );
    assert!(story.table("u") > successor);
    // and the row is there, also when the state comes from a checkpoint.
    story.tell(
        "
        stop              |
        close             |
        ",
    );
    story.end();
    story.tell("start | flush 1");
    let snapshot = story.replica().state().snapshot();
    assert!(snapshot.get(successor, b"a").unwrap().is_some());
}

/// Requests that no catalog with the one table `t`, which has number 1024, could take in.
fn spoiling() -> Vec<Vec<Write>> {
    let append = Operation::Append(FieldPath::parse("/a").unwrap(), serde_json::json!(1).into());
    vec![
        vec![put("u", "garbage")],
        vec![put("u", "{}")],
        vec![write("u", append)],
        vec![define(1025, "bad name", "")],
        vec![define(1025, "onelog.more", "")],
        vec![define(1024, "u", "")],
        vec![define(1026, "u", "")],
        vec![define(3, "u", "")],
        vec![define(1025, "t", "")],
        vec![define(1025, "u", r#","schema":{"type":"no such type"}"#)],
        vec![define(1025, "u", r#","unique":[""]"#)],
        vec![define(1025, "u", r#","dropped":true"#)],
        vec![define_as("v", 1025, "u", "")],
        vec![define(1025, "u", ""), define(1026, "v", "")],
        vec![delete("t")],
        vec![ended("#1024")],
        vec![delete("u"), ended("#1024")],
        vec![delete("t"), ended("#1025")],
        vec![
            delete("t"),
            define_as("#1024", 1024, "t", r#","unique":["/a"],"dropped":true"#),
        ],
        vec![delete("t"), ended("#1024"), define(1025, "t", "")],
        vec![in_table(TABLE_UNIQUE)],
        vec![in_table(TABLE_SETTINGS)],
    ]
}

#[test]
fn what_would_spoil_the_tables_is_refused_and_never_in_the_log() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        ",
    );
    for (n, writes) in spoiling().into_iter().enumerate() {
        let text = format!("{writes:?}");
        let request = CommitRequest {
            writes,
            ..CommitRequest::default()
        };
        story.submit(&format!("{}", n + 10), request).unwrap();
        let answers = story.taken_out();
        assert_eq!(answers, [format!("{} refused Malformed", n + 10)], "{text}");
    }
    assert_eq!(story.step_turn(), Vec::<String>::new(), "nothing is sealed");
    story.crash();
    story.tell("start | flush 1");
    assert!(story.replica().catalog().by_name("t").is_some());
}
