//! Every request is bounded, also by what it makes of what it meets.

use onelog_commit::{JSON_BYTES_READ_MAX, TRANSACTION_BODY_BYTES_MAX};
use onelog_record::{
    BODY_BYTES_MAX, Compare, KEY_BYTES_MAX, Operation, Refusal, TRANSACTION_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use serde_json::json;

use crate::fixture::{BLOBS, Node, RequestParts, STOCK, new_request, path};

fn limit(node: &mut Node, request: &onelog_record::CommitRequest) -> (&'static str, u64) {
    match node.refuse(request) {
        (Refusal::TooLarge(fault), after) => (fault.limit, after),
        other => panic!("not too large: {other:?}"),
    }
}

#[test]
fn a_transaction_always_leaves_room_for_those_before_it_in_the_body() {
    const { assert!(TRANSACTION_BYTES_MAX < TRANSACTION_BODY_BYTES_MAX) };
    const { assert!(TRANSACTION_BODY_BYTES_MAX < BODY_BYTES_MAX) };
}

#[test]
fn limits_that_need_no_state_are_checked_here_too() {
    let mut node = Node::new();
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(
        limit(&mut node, &new_request().put(STOCK, &long, "1")),
        ("KEY_BYTES_MAX", 0)
    );
}

#[test]
fn a_value_that_grows_over_its_limit_is_refused_once_what_it_met_is_committed() {
    let mut node = Node::new();
    let full = "x".repeat(VALUE_BYTES_MAX);
    let tail = || Operation::AppendBytes("y".into());
    node.accept(&new_request().put(BLOBS, "b", &full));
    assert_eq!(
        limit(&mut node, &new_request().write(BLOBS, "b", tail())),
        ("VALUE_BYTES_MAX", 1)
    );

    let text = format!("[\"{}\"]", "x".repeat(VALUE_BYTES_MAX - 5));
    node.commit(&new_request().put(STOCK, "a", &text));
    let append = new_request().write(STOCK, "a", Operation::Append(path(""), json!(1).into()));
    assert_eq!(limit(&mut node, &append), ("VALUE_BYTES_MAX", 0));
}

#[test]
fn small_operations_on_large_values_cannot_grow_a_transaction_without_bound() {
    let mut node = Node::new();
    node.commit(&new_request().put(BLOBS, "b", &"x".repeat(VALUE_BYTES_MAX - 100)));
    let grow = |n| {
        (0..n).fold(new_request(), |request, _| {
            request.write(BLOBS, "b", Operation::AppendBytes("y".into()))
        })
    };
    assert_eq!(limit(&mut node, &grow(9)), ("TRANSACTION_BYTES_MAX", 0));
    node.accept(&grow(8));
}

#[test]
fn guards_cannot_make_the_deciding_thread_parse_without_bound() {
    let mut node = Node::new();
    let text = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2));
    node.commit(&new_request().put(STOCK, "a", &text));
    let guarded = |n| {
        (0..n).fold(new_request(), |request, _| {
            request.field("a", "", Compare::Ne, json!(1))
        })
    };
    let most = JSON_BYTES_READ_MAX / VALUE_BYTES_MAX;
    assert_eq!(
        limit(&mut node, &guarded(most + 1)),
        ("JSON_BYTES_READ_MAX", 0)
    );
    assert!(matches!(
        node.decide(&guarded(most)),
        onelog_commit::Decision::Validated(_)
    ));
}

#[test]
fn a_document_never_nests_deeper_than_can_be_read_back() {
    let mut node = Node::new();
    let deep = "/a".repeat(200);
    let add = new_request().add(STOCK, "a", &deep, 1);
    assert_eq!(limit(&mut node, &add), ("JSON_DEPTH_MAX", 0));
    node.commit(&new_request().add(STOCK, "a", &"/a".repeat(127), 1));
    node.accept(&new_request().add(STOCK, "a", &"/a".repeat(127), 1));
}
