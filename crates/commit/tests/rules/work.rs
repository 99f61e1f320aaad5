//! What a request may cost those who wait behind it, in steps.

use onelog_commit::{DECISION_STEPS_MAX, SCHEMA_STEPS_MAX};
use onelog_record::{CommitRequest, Predicate, READS_MAX, Refusal, VALUE_BYTES_MAX};

use crate::fixture::{BLOBS, Node, RequestParts, STOCK, STRICT, new_request};

const ROWS: u64 = 300;

/// A table with rows, all of them read at the position that is answered, and a write elsewhere.
fn filled() -> (Node, u64) {
    let mut node = Node::new();
    for row in 0..ROWS {
        node.commit(&new_request().put(STOCK, &format!("row {row:03}"), "1"));
    }
    node.commit(&new_request().put(BLOBS, "elsewhere", "1"));
    (node, ROWS)
}

fn steps(node: &mut Node, request: &CommitRequest) -> u64 {
    let before = node.validator.steps();
    node.accept(request);
    node.validator.steps() - before
}

#[test]
fn a_range_costs_the_same_however_often_and_in_whatever_pieces_it_was_declared() {
    let (mut node, at) = filled();
    let once = new_request().at(at).scan(STOCK, "r", "s");
    let cost = steps(&mut node, &once.clone().put(BLOBS, "x", "1"));
    assert!(cost > ROWS, "each row was looked at: {cost}");

    let copies = (1..READS_MAX).fold(once, |request, _| request.scan(STOCK, "r", "s"));
    assert_eq!(steps(&mut node, &copies.put(BLOBS, "x", "1")), cost);

    let pieces = (0..ROWS).rev().fold(new_request().at(at), |request, row| {
        request.scan(
            STOCK,
            &format!("row {row:03}"),
            &format!("row {:03}", row + 9),
        )
    });
    let pieces = pieces.scan(STOCK, "r", "row 000").scan(STOCK, "row 1", "s");
    assert_eq!(steps(&mut node, &pieces.put(BLOBS, "x", "1")), cost);
}

#[test]
fn of_ranges_that_share_the_written_key_the_first_one_is_named() {
    let (mut node, at) = filled();
    for row in [250, 7] {
        node.commit(&new_request().put(STOCK, &format!("row {row:03}"), "2"));
    }
    let request = new_request()
        .at(at)
        .scan(STOCK, "s", "r") // empty
        .scan(STOCK, "row 100", "row 200")
        .scan(STOCK, "row 24", "row 26")
        .scan(STOCK, "r", "s");
    let (refusal, _) = node.refuse(&request);
    let Refusal::Conflict { subject, key, .. } = refusal else {
        panic!("no conflict: {refusal:?}")
    };
    assert_eq!(subject, onelog_record::Subject::RangeRead(2));
    assert_eq!(&key[..], b"row 250");
}

#[test]
fn a_transaction_that_would_take_too_many_steps_is_refused_and_the_next_one_is_not() {
    let (mut node, at) = filled();
    node.state.steps_per_row = DECISION_STEPS_MAX / ROWS as usize;
    let wide = new_request()
        .at(at)
        .scan(STOCK, "r", "s")
        .put(BLOBS, "x", "1");
    let before = node.validator.steps();

    let (refusal, _) = node.refuse(&wide);

    let Refusal::TooLarge(fault) = refusal else {
        panic!("not too large: {refusal:?}")
    };
    assert_eq!(fault.limit, "DECISION_STEPS_MAX");
    let spent = node.validator.steps() - before;
    assert!(spent <= 1 + DECISION_STEPS_MAX as u64, "{spent} steps");
    let narrow = new_request()
        .at(at)
        .scan(STOCK, "row 1", "row 2")
        .put(BLOBS, "x", "1");
    node.accept(&narrow);
}

#[test]
fn guards_cannot_make_the_deciding_thread_copy_values_without_bound() {
    let mut node = Node::new();
    let large = "x".repeat(VALUE_BYTES_MAX);
    let two = new_request().put(BLOBS, "a", &large);
    node.commit(&two.put(BLOBS, "b", &large));
    let guarded = |n| {
        (0..n).fold(new_request(), |request, n| {
            request.guard(BLOBS, ["a", "b"][n % 2], Predicate::Exists)
        })
    };
    let (refusal, _) = node.refuse(&guarded(1_000));
    assert!(
        matches!(&refusal, Refusal::TooLarge(fault) if fault.limit == "DECISION_STEPS_MAX"),
        "{refusal:?}"
    );
    node.decide(&guarded(100));
}

#[test]
fn the_values_of_a_transaction_share_the_steps_that_schemas_may_take() {
    let mut node = Node::new();
    let costly = |n: usize| {
        let value = format!(r#"{{"name":"x","steps":{}}}"#, SCHEMA_STEPS_MAX / 4);
        (0..n).fold(new_request(), |request, row| {
            request.put(STRICT, &format!("{row}"), &value)
        })
    };
    let (refusal, _) = node.refuse(&costly(5));
    assert!(
        matches!(&refusal, Refusal::TooLarge(fault) if fault.limit == "SCHEMA_STEPS_MAX"),
        "{refusal:?}"
    );
    node.accept(&costly(4));
}

#[test]
fn a_transaction_that_uses_every_limit_up_is_still_decided() {
    let mut node = Node::new();
    let mut request = new_request().at(0);
    for n in 0..READS_MAX {
        let key = format!("{n:05}");
        request = request
            .read(STOCK, &key)
            .scan(STOCK, &key, &format!("{key} to"))
            .guard(STOCK, &key, Predicate::Absent)
            .put(
                crate::fixture::USERS,
                &key,
                &format!(r#"{{"name":{n},"mail":{{"work":{n}}}}}"#),
            );
    }
    node.accept(&request);
}
