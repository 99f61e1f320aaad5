//! What it costs to say whether a range was written, in steps.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use onelog_log::SimulatedDisk;
use onelog_record::{KeyRange, Position};
use onelog_state::{State, StateOptions, Written};
use support::{Change, Log, range, small};

const ROWS: u32 = 60_000;
const STEPS: usize = 1_000_000;

fn key(number: u32) -> Bytes {
    format!("customer/{number:06}").into()
}

fn write(log: &mut Log, table: u32, keys: impl Iterator<Item = u32>) {
    let changes: Vec<Change> = keys.map(|n| Change::Put(table, key(n), 0)).collect();
    for transaction in changes.chunks(1_000) {
        log.append(&[transaction.to_vec()]);
    }
}

/// A table of many rows in memory, written in a scattered order; and where it ends.
fn filled() -> (Log, State, Position) {
    let mut log = Log::default();
    let options = StateOptions {
        memtable_bytes: 64 << 20,
        memtable_bytes_max: 256 << 20,
        ..small()
    };
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), options);
    write(&mut log, 1, (0..ROWS).map(|n| n * 7_919 % ROWS));
    log.replay(&state);
    let since = state.position();
    (log, state, since)
}

fn steps(state: &State, range: &KeyRange, since: Position) -> (Written, usize) {
    let mut left = STEPS;
    let written = state.latest().written_since(range, since, &mut left);
    (written, STEPS - left)
}

#[test]
fn a_table_that_was_not_written_since_costs_no_step() {
    let (mut log, state, since) = filled();
    write(&mut log, 2, 0..40_000);
    log.replay(&state);
    let everything = range(1, b"", None);
    assert_eq!(steps(&state, &everything, since), (Written::Nothing, 0));
    assert_eq!(steps(&state, &range(3, b"", None), since).1, 0);
}

#[test]
fn the_cold_part_of_a_table_costs_a_step_for_each_block() {
    let (mut log, state, since) = filled();
    // Given a corner of the table that is written all the time,
    for _ in 0..400 {
        write(&mut log, 1, 100..200);
    }
    log.replay(&state);
    // when the rest is asked about,
    let rest = range(1, &key(200), None);
    let (written, cold) = steps(&state, &rest, since);
    // then the rows of the corner's own blocks are looked at, of the others their blocks alone.
    assert_eq!(written, Written::Nothing);
    assert!(cold < ROWS as usize / 50, "{cold} steps");
    // And what was written is found at once.
    let (written, hot) = steps(&state, &range(1, b"", None), since);
    assert!(matches!(written, Written::At(..)), "{written:?}");
    assert!(hot < 1_000, "{hot} steps");
}

#[test]
fn one_key_of_many_versions_is_not_walked_over() {
    let (mut log, state, since) = filled();
    for _ in 0..20_000 {
        log.append(&[vec![Change::Put(1, key(ROWS / 2), 0)]]);
    }
    log.replay(&state);
    let before = range(1, b"", Some(&key(ROWS / 2)));
    let behind = range(1, &key(ROWS / 2 + 1), None);
    for cold in [before, behind] {
        let (written, steps) = steps(&state, &cold, since);
        assert_eq!(written, Written::Nothing);
        assert!(steps < ROWS as usize / 50, "{steps} steps");
    }
}

#[test]
fn an_answer_that_needs_more_steps_than_there_are_is_not_guessed() {
    let (mut log, state, since) = filled();
    write(&mut log, 1, std::iter::once(ROWS - 1));
    log.replay(&state);
    let all_but_the_last = range(1, b"", Some(&key(ROWS - 1)));
    let (written, needed) = steps(&state, &all_but_the_last, since);
    assert_eq!(written, Written::Nothing);
    for (mut given, expected) in [
        (needed, Written::Nothing),
        (needed - 1, Written::OutOfSteps),
        (0, Written::OutOfSteps),
    ] {
        let latest = state.latest();
        let written = latest.written_since(&all_but_the_last, since, &mut given);
        assert_eq!((written, given), (expected, 0));
    }
    // Where it is known without a step, none is needed.
    let mut none = 0;
    let elsewhere = range(2, b"", None);
    let written = state.latest().written_since(&elsewhere, since, &mut none);
    assert_eq!(written, Written::Nothing);
}
