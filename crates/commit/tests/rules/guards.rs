//! Conditions at the commit point.

use onelog_record::{Compare, Offset, Position, Predicate, Refusal, Subject};
use serde_json::json;

use crate::fixture::{BLOBS, EVENTS, Node, RequestParts, STOCK, UNKNOWN, new_request, path};

#[test]
fn a_guard_that_does_not_hold_says_what_it_met() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", r#"{"n":3}"#));
    let request = new_request()
        .guard(STOCK, "bolt", Predicate::Exists)
        .field("bolt", "n", Compare::Ge, json!(4))
        .add(STOCK, "bolt", "n", -4);

    let expected = Refusal::GuardFailed {
        index: 1,
        met: Some(r#"{"n":3}"#.into()),
        version: Some(Offset(0)),
        retry_at: Position(1),
    };
    assert_eq!(node.refuse(&request), (expected, 0));
}

#[test]
fn each_predicate_holds_when_it_should() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", r#"{"n":3,"s":"b","x":null}"#));
    node.commit(&new_request().put(STOCK, "gone", "1").delete(STOCK, "gone"));
    let version = |offset| Predicate::Version(Offset(offset));
    for (holds, key, predicate) in [
        (true, "bolt", Predicate::Exists),
        (false, "bolt", Predicate::Absent),
        (false, "gone", Predicate::Exists),
        (true, "gone", Predicate::Absent),
        (true, "never", Predicate::Absent),
        (true, "bolt", version(0)),
        (false, "bolt", version(1)),
        (false, "gone", version(2)),
    ] {
        let request = new_request().guard(STOCK, key, predicate.clone());
        let refused = matches!(
            node.decide(&request),
            onelog_commit::Decision::Refused { .. }
        );
        assert_eq!(!refused, holds, "{key} {predicate:?}");
    }
    use Compare::{Eq, Ge, Gt, Le, Lt, Ne};
    for (holds, key, field, compare, value) in [
        (true, "bolt", "n", Eq, json!(3.0)),
        (true, "bolt", "n", Lt, json!(3.5)),
        (false, "bolt", "n", Gt, json!("2")),
        (true, "bolt", "n", Ne, json!("3")),
        (true, "bolt", "s", Gt, json!("Z")),
        (true, "bolt", "x", Eq, json!(null)),
        (true, "bolt", "missing", Eq, json!(null)),
        (false, "bolt", "missing", Le, json!(null)),
        (true, "never", "n", Eq, json!(null)),
        (true, "never", "n", Ne, json!(0)),
        (false, "never", "n", Ge, json!(0)),
        (true, "bolt", "", Eq, json!({"x": null, "s": "b", "n": 3})),
    ] {
        let request = new_request().field(key, field, compare, value.clone());
        let refused = matches!(
            node.decide(&request),
            onelog_commit::Decision::Refused { .. }
        );
        assert_eq!(!refused, holds, "{key} {field} {compare:?} {value}");
    }
}

#[test]
fn a_guard_sees_what_is_in_flight_and_its_refusal_waits_for_it() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", r#"{"n":1}"#));
    let take_one = new_request()
        .field("bolt", "n", Compare::Ge, json!(1))
        .add(STOCK, "bolt", "n", -1);
    let taken = node.accept(&take_one);

    let expected = Refusal::GuardFailed {
        index: 0,
        met: Some(r#"{"n":0}"#.into()),
        version: Some(Offset(1)),
        retry_at: taken.position,
    };
    assert_eq!(node.refuse(&take_one), (expected, 2));
}

#[test]
fn a_guard_may_rest_on_a_delete_in_flight() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", "1"));
    node.accept(&new_request().delete(STOCK, "bolt"));
    let (refusal, after) = node.refuse(&new_request().guard(STOCK, "bolt", Predicate::Exists));
    let expected = Refusal::GuardFailed {
        index: 0,
        met: None,
        version: None,
        retry_at: Position(2),
    };
    assert_eq!((refusal, after), (expected, 2));
    node.accept(
        &new_request()
            .guard(STOCK, "bolt", Predicate::Absent)
            .put(STOCK, "bolt", "2"),
    );
}

#[test]
fn a_guard_needs_a_table_whose_values_it_can_look_into() {
    let mut node = Node::new();
    node.commit(
        &new_request()
            .put(STOCK, "text", "no JSON")
            .put(BLOBS, "b", "1"),
    );
    let field = || Predicate::Field {
        path: path("n"),
        compare: Compare::Ne,
        value: json!(1).into(),
    };
    for table in [BLOBS, EVENTS] {
        let (refusal, _) = node.refuse(&new_request().guard(table, "b", field()));
        assert!(matches!(refusal, Refusal::Malformed(_)));
    }
    let (refusal, _) = node.refuse(&new_request().guard(STOCK, "text", field()));
    assert!(matches!(refusal, Refusal::GuardFailed { .. }));
    let expected = Refusal::UnknownTable {
        subject: Subject::Guard(0),
        table: UNKNOWN,
    };
    assert_eq!(
        node.refuse(&new_request().guard(UNKNOWN, "b", field())),
        (expected, 0)
    );
}
