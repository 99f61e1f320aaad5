//! Transactions that are accepted but not yet applied count, and refusals wait for them.

use onelog_record::{Number, Offset, Operation, OperationFault, Position, Refusal};

use crate::fixture::{Node, RequestParts, STOCK, USERS, new_request, path};

#[test]
fn two_that_read_the_same_key_cannot_both_write_it() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", "1"));
    let take = |value| {
        new_request()
            .at(1)
            .read(STOCK, "bolt")
            .put(STOCK, "x", "0")
            .put(STOCK, "bolt", value)
    };
    let winner = node.accept(&take("0"));

    let (refusal, after) = node.refuse(&take("0"));

    let Refusal::Conflict {
        version, retry_at, ..
    } = refusal
    else {
        panic!("no conflict: {refusal:?}")
    };
    assert_eq!(version, Offset(2), "the second record of the winner");
    assert_eq!((retry_at, after), (winner.position, winner.position.0));
}

#[test]
fn a_range_meets_a_phantom_in_flight() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.accept(&new_request().put(STOCK, "b", "1").put(STOCK, "z", "1"));
    let (refusal, after) = node.refuse(
        &new_request()
            .at(1)
            .scan(STOCK, "a", "c")
            .put(STOCK, "d", "0"),
    );
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            retry_at: Position(3),
            ..
        }
    ));
    assert_eq!(after, 3);
}

#[test]
fn a_conflict_in_flight_is_seen_even_when_the_window_has_forgotten_it() {
    let mut node = Node::with(onelog_commit::ValidatorOptions {
        window_writes_max: 1,
        ..onelog_commit::ValidatorOptions::default()
    });
    node.accept(&new_request().put(STOCK, "a", "1").put(STOCK, "b", "1"));
    node.accept(&new_request().put(STOCK, "c", "1"));
    let (refusal, after) = node.refuse(&new_request().at(0).read(STOCK, "a").put(STOCK, "x", "0"));
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            version: Offset(0),
            ..
        }
    ));
    assert_eq!(after, 2);
}

#[test]
fn operations_meet_what_is_in_flight_and_their_faults_wait_for_it() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "n", "1"));
    node.accept(&new_request().add(STOCK, "n", "", i64::MAX - 1));
    let (refusal, after) = node.refuse(&new_request().put(STOCK, "m", "1").add(STOCK, "n", "", 1));
    let expected = Refusal::BadOperation {
        index: 1,
        fault: OperationFault::Overflow,
    };
    assert_eq!((refusal, after), (expected, 2));
    node.accept(&new_request().add(STOCK, "n", "", -1));
}

#[test]
fn a_unique_value_taken_in_flight_is_taken() {
    let mut node = Node::new();
    node.accept(&new_request().put(USERS, "1", r#"{"name":"ada"}"#));
    let (refusal, after) = node.refuse(&new_request().put(USERS, "2", r#"{"name":"ada"}"#));
    assert!(matches!(refusal, Refusal::NotUnique { .. }));
    assert_eq!(after, 2, "behind the transaction and its unique row");
}

#[test]
fn what_is_lost_with_its_term_conflicts_with_nothing() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.accept(&new_request().put(STOCK, "a", "2"));
    node.accept(&new_request().put(STOCK, "b", "2"));
    node.lose();
    let read = new_request().at(1).read(STOCK, "a").scan(STOCK, "b", "c");
    assert_eq!(
        node.accept(&read.put(STOCK, "a", "3")).first_offset,
        Offset(1)
    );
}

#[test]
fn after_a_term_change_an_older_write_still_conflicts() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.commit(&new_request().put(STOCK, "a", "2"));
    node.accept(&new_request().put(STOCK, "a", "3")); // overwrites the window's row, then is lost
    node.lose();
    let (refusal, after) = node.refuse(&new_request().at(1).read(STOCK, "a").put(STOCK, "x", "0"));
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            version: Offset(1),
            ..
        }
    ));
    assert_eq!(after, 0);
}

#[test]
fn what_survives_a_term_change_is_seen_before_it_is_applied() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "n", "1"));
    node.accept(&new_request().add(STOCK, "n", "", 4).put(STOCK, "m", "1"));
    for (base, body) in node.lose() {
        node.replay(base, body);
    }
    let (refusal, after) = node.refuse(&new_request().at(1).read(STOCK, "n").put(STOCK, "x", "0"));
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            retry_at: Position(3),
            ..
        }
    ));
    assert_eq!(after, 3);
    node.accept(&new_request().write(STOCK, "n", Operation::Add(path(""), Number::from(1))));
    assert_eq!(node.last_records()[0].value.as_deref(), Some(&b"6"[..]));
}

#[test]
#[should_panic(expected = "offset 0 is taken")]
fn an_offset_is_never_given_twice() {
    let mut node = Node::new();
    node.accept(&new_request().put(STOCK, "a", "1"));
    node.next = Offset(0);
    node.decide(&new_request().put(STOCK, "a", "2"));
}

#[test]
#[should_panic(expected = "the view shows 0")]
fn what_the_view_does_not_show_yet_must_not_be_called_applied() {
    let mut node = Node::new();
    node.accept(&new_request().put(STOCK, "a", "1"));
    node.validator.applied(Position(1));
    node.decide(&new_request().add(STOCK, "a", "", 1));
}
