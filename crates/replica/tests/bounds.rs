//! What is bounded, line by line: requests that wait inside, memory, and how much of the log goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod story;

use bytes::Bytes;
use onelog_record::{CommitRequest, Guard, Position, Predicate, TABLE_SINKS, TableId};
use onelog_replica::{ReplicaOptions, sink_follower};
use story::{Story, options, put};

/// More than may wait inside the replica at any time.
const MANY: u32 = 30_000;

/// Submits requests while the replica takes them; answers how many it took.
fn submit_many(story: &mut Story, request: &CommitRequest) -> u32 {
    for n in 0..MANY {
        if !story.replica().may_take() {
            // A turn ends also because completions are looked at.
            assert_eq!(story.step_turn(), Vec::<String>::new(), "the flush hangs");
            if !story.replica().may_take() {
                return n;
            }
        }
        story
            .submit(&format!("{}", 100 + n), request.clone())
            .unwrap();
    }
    MANY
}

#[test]
fn requests_that_wait_for_a_definition_are_bounded_while_a_flush_hangs() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        ",
    );
    let taken = submit_many(&mut story, &put(TableId(1024), "k", "1"));
    assert!(taken < MANY, "{taken} requests wait inside");
    // They are decided once the definition is there.
    story.tell("flushed 2 | 1 committed at 1");
    assert!(story.step_turn().iter().any(|line| line == "flush 3"));
    assert!(story.replica().may_take());
}

#[test]
fn large_requests_that_wait_for_a_definition_are_bounded_by_their_bytes() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        ",
    );
    let large = "x".repeat(1_000_000);
    let taken = submit_many(&mut story, &put(TableId(1024), "k", &large));
    assert!(taken < 100, "{taken} MB wait inside");
}

#[test]
fn refusals_that_rest_on_what_is_in_flight_are_bounded_while_a_flush_hangs() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        turn              | flush 3
        ",
    );
    let table = story.table("t");
    let guarded = CommitRequest {
        guards: vec![Guard {
            table,
            key: Bytes::from_static(b"a"),
            predicate: Predicate::Absent,
        }],
        ..put(table, "b", "1")
    };
    let taken = submit_many(&mut story, &guarded);
    assert!(taken < MANY, "{taken} refusals wait inside");
    story.step("flushed 3").unwrap();
    assert_eq!(story.taken_out().len() as u32, taken + 1);
    assert!(story.replica().may_take());
}

#[test]
fn a_checkpoint_makes_room_at_once_where_one_memtable_takes_all_memory() {
    let mut story = Story::leading(ReplicaOptions {
        segment_bytes: 1 << 20,
        memtable_bytes: 8 << 10,
        memtable_bytes_max: 8 << 10,
        ..options()
    });
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(9_000));
    story.submit("2", put(table, "k", &value)).unwrap();
    story.tell(
        "
        turn            | flush 3
        flushed 3       | 2 committed at 2
        ",
    );
    assert!(!story.replica().may_take(), "a checkpoint must end first");
    story.tell(
        "
        turn            | checkpoint
        checkpointed    |
        ",
    );
    assert!(story.replica().may_take());
}

#[test]
fn the_log_is_kept_for_a_sink_that_is_defined_and_not_running() {
    // Given a log of which nothing is wanted but for its sink,
    let mut story = Story::leading(ReplicaOptions {
        retain_bytes: Some(0),
        ..options()
    });
    story.submit("1", put(TABLE_SINKS, "s", "{}")).unwrap();
    story.tell(
        "
        turn            | flush 2
        flushed 2       | 1 committed at 1
        define t as 2   |
        turn            | flush 3
        flushed 3       | 2 committed at 2
        ",
    );
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(6_000));
    for (ticket, flush) in [("3", 4), ("4", 5), ("5", 6)] {
        story.submit(ticket, put(table, ticket, &value)).unwrap();
        let turn = story.step_turn();
        assert!(turn.contains(&format!("flush {flush}")), "{turn:?}");
        story.tell(&format!("flushed {flush} | {ticket} committed at {ticket}"));
        story.end_preparation();
    }
    // when a program runs it without its sinks, then the log stays whole,
    story.step("turn").unwrap();
    story.taken_out();
    story.end_preparation();
    story.tell(
        "
        wait 30000      |
        turn            | checkpoint
        checkpointed    |
        wait 1000       |
        idle            | save
        saved           |
        ",
    );
    assert_eq!(story.replica().log_start(), Position(0));
    // and when the sink has come so far, then it is cut.
    let sink = sink_follower("s");
    let _follower = story.replica().followers().join(&sink, Position(5));
    story.tell(
        "
        wait 1000       |
        idle            | retain
        retained        |
        ",
    );
    assert!(story.replica().log_start() > Position(0));
}
