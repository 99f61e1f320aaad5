//! Every request is bounded, also by what it makes of what it meets.

use onelog_commit::{JSON_BYTES_READ_MAX, TRANSACTION_BODY_BYTES_MAX};
use onelog_record::{
    BODY_BYTES_MAX, CommitRequest, Compare, FOUND_AT_ONCE_MAX, KEY_BYTES_MAX, Operation, Refusal,
    TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX,
};
use serde_json::json;

use crate::fixture::{BLOBS, Node, RequestParts, STOCK, new_request, path};

fn limit(node: &mut Node, request: &CommitRequest) -> (String, u64) {
    match node.refuse(request) {
        (Refusal::TooLarge(fault), after) => (fault.limit.into_owned(), after),
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
        ("KEY_BYTES_MAX".to_owned(), 0)
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
        ("VALUE_BYTES_MAX".to_owned(), 1)
    );

    let text = format!("[\"{}\"]", "x".repeat(VALUE_BYTES_MAX - 5));
    node.commit(&new_request().put(STOCK, "a", &text));
    let append = new_request().write(STOCK, "a", Operation::Append(path(""), json!(1).into()));
    assert_eq!(limit(&mut node, &append), ("VALUE_BYTES_MAX".to_owned(), 0));
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
    assert_eq!(
        limit(&mut node, &grow(9)),
        ("TRANSACTION_BYTES_MAX".to_owned(), 0)
    );
    node.accept(&grow(8));
}

/// Guards of fields of the two large documents `a` and `b`: `runs` times one after the other, so many
/// of each at once.
fn guarded(runs: usize, of_each: usize) -> CommitRequest {
    let keys = (0..runs).flat_map(|n| std::iter::repeat_n(["a", "b"][n % 2], of_each));
    keys.enumerate().fold(new_request(), |request, (n, key)| {
        request.field(key, &format!("field {n}"), Compare::Eq, json!(null))
    })
}

fn with_large_documents() -> Node {
    let mut node = Node::new();
    let text = format!("[\"{}\"]", "x".repeat(VALUE_BYTES_MAX - 4));
    node.commit(&new_request().put(STOCK, "a", &text).put(STOCK, "b", &text));
    node
}

#[test]
fn a_document_is_read_once_for_the_guards_that_follow_one_another() {
    let mut node = with_large_documents();
    let most = JSON_BYTES_READ_MAX / VALUE_BYTES_MAX;
    for of_each in [1, FOUND_AT_ONCE_MAX] {
        assert!(matches!(
            node.decide(&guarded(most, of_each)),
            onelog_commit::Decision::Validated(_)
        ));
    }
}

#[test]
fn guards_cannot_make_the_deciding_thread_read_without_bound() {
    let mut node = with_large_documents();
    let most = JSON_BYTES_READ_MAX / VALUE_BYTES_MAX;
    for (runs, of_each) in [(most + 1, 1), (most / 2 + 1, FOUND_AT_ONCE_MAX + 1)] {
        assert_eq!(
            limit(&mut node, &guarded(runs, of_each)),
            ("JSON_BYTES_READ_MAX".to_owned(), 0)
        );
    }
}

#[test]
fn comparing_objects_and_arrays_counts_more_than_passing_over_them() {
    let mut node = with_large_documents();
    let differing = |n| {
        (0..n).fold(new_request(), |request, _| {
            request.field("a", "", Compare::Ne, json!([1]))
        })
    };
    node.commit(&differing(3).put(STOCK, "c", "1"));
    assert_eq!(
        limit(&mut node, &differing(4)),
        ("JSON_BYTES_READ_MAX".to_owned(), 0)
    );
    // A value of another type is another value, without a look into it.
    let others = (0..FOUND_AT_ONCE_MAX).fold(new_request(), |request, _| {
        request.field("a", "", Compare::Ne, json!({"0": 1}))
    });
    node.accept(&others.put(STOCK, "c", "1"));
}

#[test]
fn a_document_never_nests_deeper_than_can_be_read_back() {
    let mut node = Node::new();
    let deep = "/a".repeat(200);
    let add = new_request().add(STOCK, "a", &deep, 1);
    assert_eq!(limit(&mut node, &add), ("JSON_DEPTH_MAX".to_owned(), 0));
    node.commit(&new_request().add(STOCK, "a", &"/a".repeat(127), 1));
    node.accept(&new_request().add(STOCK, "a", &"/a".repeat(127), 1));
}
