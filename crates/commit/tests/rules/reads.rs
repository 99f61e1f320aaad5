//! Point reads, range reads and read positions.

use onelog_commit::{Decision, ValidatorOptions};
use onelog_record::{Offset, Position, Refusal, Subject};

use crate::fixture::{EVENTS, Node, RequestParts, STOCK, UNKNOWN, new_request};

fn one_write_window() -> ValidatorOptions {
    ValidatorOptions {
        window_writes_max: 1,
        ..ValidatorOptions::default()
    }
}

#[test]
fn a_key_written_since_it_was_read_is_a_conflict_that_says_where_to_read_again() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", "1"));
    node.commit(&new_request().put(STOCK, "bolt", "2"));
    node.commit(&new_request().put(STOCK, "nut", "3"));

    let (refusal, after) =
        node.refuse(&new_request().at(1).read(STOCK, "bolt").put(STOCK, "x", "0"));

    let expected = Refusal::Conflict {
        subject: Subject::PointRead(0),
        table: STOCK,
        key: "bolt".into(),
        version: Offset(1),
        retry_at: Position(3),
    };
    assert_eq!((refusal, after), (expected, 0));
}

#[test]
fn reading_right_behind_a_write_sees_it_and_right_before_it_does_not() {
    for options in [ValidatorOptions::default(), one_write_window()] {
        let mut node = Node::with(options);
        node.commit(&new_request().put(STOCK, "bolt", "1")); // offset 0
        node.commit(&new_request().put(STOCK, "bolt", "2")); // offset 1
        node.commit(&new_request().put(STOCK, "other", "2"));
        let read = |at| {
            new_request()
                .at(at)
                .read(STOCK, "bolt")
                .put(STOCK, "x", "0")
        };

        assert!(matches!(node.refuse(&read(1)).0, Refusal::Conflict { .. }));
        node.accept(&read(2));
    }
}

#[test]
fn a_key_that_was_read_as_absent_conflicts_when_it_appears() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", "1"));
    let read = new_request().at(1).read(STOCK, "nut").put(STOCK, "x", "0");
    node.commit(&read);
    node.commit(&new_request().put(STOCK, "nut", "1"));
    assert!(matches!(node.refuse(&read).0, Refusal::Conflict { .. }));
}

#[test]
fn a_delete_is_a_write_to_all_that_read_the_key() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "bolt", "1"));
    node.commit(&new_request().delete(STOCK, "bolt"));
    let (refusal, _) = node.refuse(&new_request().at(1).read(STOCK, "bolt").put(STOCK, "x", "0"));
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            version: Offset(1),
            ..
        }
    ));
    let (refusal, _) = node.refuse(
        &new_request()
            .at(1)
            .scan(STOCK, "a", "c")
            .put(STOCK, "x", "0"),
    );
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            version: Offset(1),
            ..
        }
    ));
}

#[test]
fn a_range_conflicts_with_a_phantom_but_not_with_a_key_at_its_end() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.commit(&new_request().put(STOCK, "c", "1"));
    node.accept(
        &new_request()
            .at(1)
            .scan(STOCK, "a", "c")
            .put(STOCK, "x", "0"),
    );
    node.commit(&new_request().put(STOCK, "b", "1"));

    let (refusal, _) = node.refuse(
        &new_request()
            .at(1)
            .scan(STOCK, "a", "c")
            .put(STOCK, "x", "0"),
    );

    let Refusal::Conflict { subject, key, .. } = refusal else {
        panic!("no conflict: {refusal:?}")
    };
    assert_eq!((subject, &key[..]), (Subject::RangeRead(0), &b"b"[..]));
}

#[test]
fn below_the_window_a_present_key_is_still_decided_by_its_version() {
    let mut node = Node::with(one_write_window());
    node.commit(&new_request().put(STOCK, "old", "1"));
    node.commit(&new_request().put(STOCK, "new", "1"));
    node.commit(&new_request().put(STOCK, "newest", "1"));
    node.state.floor = Position(3);
    node.accept(&new_request().at(1).read(STOCK, "old").put(STOCK, "x", "0"));
    let (refusal, _) = node.refuse(&new_request().at(1).read(STOCK, "new").put(STOCK, "x", "0"));
    assert!(matches!(
        refusal,
        Refusal::Conflict {
            version: Offset(1),
            ..
        }
    ));
}

#[test]
fn what_may_have_been_deleted_unseen_is_too_old_to_be_decided() {
    let mut node = Node::with(one_write_window());
    for key in ["a", "b", "c"] {
        node.commit(&new_request().put(STOCK, key, "1"));
    }
    let absent = new_request()
        .at(1)
        .read(STOCK, "never")
        .put(STOCK, "x", "0");
    let range = new_request()
        .at(1)
        .scan(STOCK, "x", "z")
        .put(BLIND, "y", "0");

    node.state.floor = Position(2);
    let too_old = Refusal::SnapshotTooOld {
        read_position: Position(1),
        floor: Position(2),
    };
    assert_eq!(node.refuse(&absent), (too_old.clone(), 0));
    assert_eq!(node.refuse(&range), (too_old, 0));

    node.state.floor = Position(1);
    node.accept(&range);
    node.accept(&absent);
}

const BLIND: onelog_record::TableId = crate::fixture::BLOBS;

#[test]
fn a_blind_write_is_never_too_old_and_never_conflicts() {
    let mut node = Node::with(one_write_window());
    for _ in 0..3 {
        node.commit(&new_request().put(STOCK, "a", "1"));
    }
    node.state.floor = Position(3);
    node.accept(&new_request().put(STOCK, "a", "2"));
    node.accept(&new_request().at(0).put(STOCK, "a", "3"));
}

#[test]
fn nobody_can_have_read_above_what_is_applied() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.accept(&new_request().put(STOCK, "a", "2"));
    for at in [2, 3, u64::MAX] {
        let expected = Refusal::SnapshotInFuture {
            read_position: Position(at),
            latest: Position(1),
        };
        let request = new_request().at(at).read(STOCK, "b").put(STOCK, "x", "0");
        assert_eq!(node.refuse(&request), (expected, 0));
    }
}

#[test]
fn reads_need_a_read_position_and_a_table_that_has_state() {
    let mut node = Node::new();
    for request in [
        new_request().read(STOCK, "a").put(STOCK, "x", "0"),
        new_request().scan(STOCK, "a", "b").put(STOCK, "x", "0"),
        new_request().at(0).read(EVENTS, "a").put(STOCK, "x", "0"),
        new_request()
            .at(0)
            .scan(EVENTS, "a", "b")
            .put(STOCK, "x", "0"),
    ] {
        assert!(matches!(node.refuse(&request), (Refusal::Malformed(_), 0)));
    }
    let unknown = |subject| {
        let table = UNKNOWN;
        (Refusal::UnknownTable { subject, table }, 0)
    };
    let request = new_request().at(0).read(STOCK, "a").read(UNKNOWN, "a");
    assert_eq!(node.refuse(&request), unknown(Subject::PointRead(1)));
    let request = new_request().at(0).scan(UNKNOWN, "a", "b");
    assert_eq!(node.refuse(&request), unknown(Subject::RangeRead(0)));
}

#[test]
fn a_request_without_writes_is_a_check_of_what_was_read_and_leaves_no_trace() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.accept(&new_request().put(STOCK, "b", "1")); // in flight
    let check = new_request().id(9).at(1).read(STOCK, "a");

    for _ in 0..2 {
        let Decision::Validated(committed) = node.decide(&check) else {
            panic!("a check that holds is answered so")
        };
        assert_eq!(
            committed.position,
            Position(2),
            "answered once all before it is applied"
        );
        assert_eq!((committed.records, committed.repeated), (0, false));
    }

    node.accept(&new_request().put(STOCK, "a", "2"));
    assert!(matches!(node.refuse(&check), (Refusal::Conflict { .. }, 3)));
}

#[test]
fn a_state_that_cannot_be_read_decides_nothing() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "1"));
    node.state.unreadable = true;
    let add = new_request().add(STOCK, "a", "", 1);
    let error = node.try_decide(&add).unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    node.state.unreadable = false;
    node.accept(&add);
}
