//! Retries under the same id.

use onelog_commit::{Decision, Remembered, Validator, ValidatorOptions};
use onelog_record::{Position, Refusal, TxnId};

use crate::fixture::{Node, RequestParts, STOCK, new_request};

#[test]
fn a_retry_gets_the_original_answer_in_flight_and_after() {
    let mut node = Node::new();
    let request = new_request()
        .id(7)
        .add(STOCK, "n", "", 1)
        .add(STOCK, "n", "", 1);
    let first = node.accept(&request);
    for _ in 0..2 {
        let Decision::Repeated(again) = node.decide(&request) else {
            panic!("a retry is not run again")
        };
        assert!(again.repeated);
        assert_eq!(
            (again.position, again.first_offset, again.records),
            (first.position, first.first_offset, first.records)
        );
        node.apply();
    }
}

#[test]
fn a_retry_is_answered_even_where_the_request_would_be_refused_now() {
    let mut node = Node::new();
    let request = new_request()
        .id(7)
        .at(0)
        .read(STOCK, "n")
        .put(STOCK, "n", "1");
    node.commit(&request);
    node.commit(&new_request().put(STOCK, "n", "2"));
    assert!(matches!(node.decide(&request), Decision::Repeated(_)));
}

#[test]
fn another_request_under_a_used_id_is_refused_as_such() {
    let mut node = Node::new();
    node.accept(&new_request().id(7).put(STOCK, "n", "1"));
    let other = new_request().id(7).put(STOCK, "n", "2");
    let expected = Refusal::IdMismatch {
        id: TxnId(7),
        position: Position(1),
    };
    assert_eq!(
        node.refuse(&other),
        (expected.clone(), 1),
        "answered once that one is applied"
    );
    node.apply();
    assert_eq!(node.refuse(&other), (expected, 0));
}

#[test]
fn an_id_that_may_be_forgotten_is_refused_rather_than_run_twice() {
    let mut node = Node::with(ValidatorOptions {
        ids_max: 1,
        ..ValidatorOptions::default()
    });
    let old = new_request().id(1).at(0).put(STOCK, "n", "1");
    node.commit(&old);
    node.commit(&new_request().id(2).put(STOCK, "n", "2"));

    let expected = Refusal::IdExpired {
        id: TxnId(1),
        floor: Position(1),
    };
    assert_eq!(node.refuse(&old), (expected, 0));
    node.accept(&new_request().id(3).at(1).put(STOCK, "n", "3"));
    node.accept(
        &new_request()
            .at(0)
            .put(STOCK, "n", "without an id of the client"),
    );
}

#[test]
fn a_new_leader_answers_a_retry_from_the_log() {
    let mut leader = Node::new();
    let request = new_request().id(7).put(STOCK, "n", "1");
    let first = leader.accept(&request);
    let entries = leader.lose();

    let mut follower = Node::new();
    for (base, body) in entries {
        follower.replay(base, body);
    }
    let Decision::Repeated(again) = follower.decide(&request) else {
        panic!("the id is in the log")
    };
    assert_eq!(again.position, first.position);
}

#[test]
fn what_was_lost_with_its_term_may_be_run_again() {
    let mut node = Node::new();
    let request = new_request().id(7).put(STOCK, "n", "1");
    node.commit(&new_request().put(STOCK, "n", "0"));
    node.accept(&request);
    node.lose();
    assert!(!node.accept(&request).repeated);
}

#[test]
fn a_restart_remembers_the_ids_that_the_state_remembers() {
    let remembered = Remembered {
        id: TxnId(7),
        fingerprint: new_request().id(7).put(STOCK, "n", "1").fingerprint(),
        position: Position(70_001),
        records: 70_000,
    };
    let mut node = Node::new();
    node.state.position = Position(80_000);
    node.next = onelog_record::Offset(80_000);
    let ids = std::iter::once(remembered);
    node.validator = Validator::new(ValidatorOptions::default(), Position(80_000), ids);

    let Decision::Repeated(again) = node.decide(&new_request().id(7).put(STOCK, "n", "1")) else {
        panic!("the state remembers the id")
    };
    assert_eq!((again.first_offset.0, again.records), (1, 70_000));
    assert_eq!(node.validator.ids_floor(), Position(1));
}
