//! What a replica does, line by line: no threads, no clock, disks in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod story;

use std::sync::Arc;

use onelog_log::{Fault, FlushError, SimulatedDisk};
use onelog_record::Position;
use onelog_replica::{Event, Recovered, ReplicaOptions, StartError, removal};
use story::{Story, options, put};

#[test]
fn an_empty_log_admits_nothing_before_its_first_entry_is_durable() {
    let mut story = Story::new(options());
    story.tell(
        "
        start                 | flush 1
        put a in #1024 as 1   | 1 refused NotLeader
        barrier as 2          | 2 refused NotLeader
        flushed 1             |
        start                 |
        barrier as 3          | 3 readable at 0
        ",
    );
    assert!(story.replica().admits());
}

#[test]
fn an_answer_waits_for_its_flush_and_every_flush_before_it() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        put b in t as 3   |
        turn              | flush 3
        put c in t as 4   |
        turn              | flush 4
        flushed 4         |
        barrier as 5      | 5 readable at 1
        flushed 3         | 2 committed at 2, 3 committed at 3, 4 committed at 4
        barrier as 6      | 6 readable at 4
        ",
    );
}

#[test]
fn a_group_grows_while_no_flush_may_begin() {
    let mut story = Story::leading(ReplicaOptions {
        flushes_in_flight: 1,
        ..options()
    });
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        turn              | flush 3
        put b in t as 3   |
        turn              |
        put c in t as 4   |
        turn              |
        flushed 3         | 2 committed at 2
        turn              | flush 4
        flushed 4         | 3 committed at 3, 4 committed at 4
        ",
    );
}

#[test]
fn requests_behind_a_definition_are_held_and_decided_by_the_new_tables() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1           |
        put a in #1024 as 2     |
        put a in #1025 as 3     |
        turn                    | flush 2
        turn                    |
        flushed 2               | 1 committed at 1
        turn                    | flush 3, 3 refused UnknownTable
        flushed 3               | 2 committed at 2
        drop t as 4             |
        put b in #1024 as 5     |
        turn                    | flush 4
        flushed 4               | 4 committed at 4
        turn                    | 5 refused UnknownTable
        ",
    );
}

#[test]
fn a_drop_never_hits_a_younger_table_of_the_same_name() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    let late = removal(story.replica().catalog(), "t").unwrap();
    story.tell(
        "
        drop t as 2     |
        turn            | flush 3
        flushed 3       | 2 committed at 3
        define t as 3   |
        turn            | flush 4
        flushed 4       | 3 committed at 4
        ",
    );
    story.submit("4", late).unwrap();
    assert_eq!(story.taken_out(), ["4 refused GuardFailed"]);
    assert_eq!(story.table("t").0, 1025);
}

#[test]
fn a_request_that_waited_too_long_is_refused_and_not_decided() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        wait 10001      |
        ",
    );
    let table = story.table("t");
    story.submit_queued("2", put(table, "a", "1"), 0).unwrap();
    assert_eq!(story.taken_out(), ["2 refused Overloaded"]);
    story.tell("turn | ");
}

#[test]
fn checkpoints_come_in_time_one_at_a_time_and_only_when_something_changed() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        turn              |
        wait 30000        |
        turn              | checkpoint
        wait 30000        |
        turn              |
        checkpointed      |
        turn              |
        wait 30000        |
        turn              |
        put a in t as 2   |
        turn              | flush 3
        flushed 3         | 2 committed at 2
        wait 30000        |
        turn              | checkpoint
        ",
    );
}

#[test]
fn no_request_is_taken_while_the_memtables_are_full() {
    let mut story = Story::leading(ReplicaOptions {
        segment_bytes: 1 << 20,
        memtable_bytes: 4 << 10,
        memtable_bytes_max: 8 << 10,
        ..options()
    });
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        turn            |
        ",
    );
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(3_000));
    for (ticket, flush) in [("2", 3), ("3", 4), ("4", 5)] {
        assert!(story.replica().may_take());
        story.submit(ticket, put(table, ticket, &value)).unwrap();
        story.tell(&format!("turn | flush {flush}"));
    }
    story.tell(
        "
        flushed 3      | 2 committed at 2
        flushed 4      | 3 committed at 3
        flushed 5      | 4 committed at 4
        ",
    );
    assert!(!story.replica().may_take(), "a checkpoint must end first");
    story.tell(
        "
        turn           | checkpoint
        checkpointed   |
        ",
    );
    assert!(story.replica().may_take());
}

#[test]
fn a_crash_keeps_tables_and_ids_that_no_checkpoint_has() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        turn              | flush 3
        flushed 3         | 2 committed at 2
        put b in t as 3   |
        turn              | flush 4
        ",
    );
    story.crash();
    story.tell(
        "
        start             | flush 1
        flushed 1         |
        put a in t as 2   | 2 committed at 2
        put b in t as 3   |
        turn              | flush 2
        flushed 2         | 3 committed at 3
        ",
    );
}

#[test]
fn a_start_that_replays_more_than_memory_may_hold_waits_for_a_checkpoint() {
    let mut story = Story::leading(ReplicaOptions {
        segment_bytes: 64 << 20,
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
    let value = format!("\"{}\"", "x".repeat(900_000));
    for ticket in 2..=24 {
        let ticket = ticket.to_string();
        story.submit(&ticket, put(table, &ticket, &value)).unwrap();
        story.step_turn();
        story.tell(&format!(
            "flushed {} | {ticket} committed at {ticket}",
            ticket.parse::<u32>().unwrap() + 1
        ));
    }
    story.crash();
    story.options.memtable_bytes = 1 << 20;
    story.options.memtable_bytes_max = 1 << 20;
    story.tell(
        "
        start          | checkpoint
        checkpointed   |
        start          | flush 1
        ",
    );
}

/// Three rows of table t, each so large that it needs a segment.
fn put_a_segment_each(story: &mut Story) {
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(6_000));
    for (ticket, flush) in [("2", 3), ("3", 4), ("4", 5)] {
        story.submit(ticket, put(table, ticket, &value)).unwrap();
        let turn = story.step_turn();
        assert!(turn.contains(&format!("flush {flush}")), "{turn:?}");
        story.tell(&format!("flushed {flush} | {ticket} committed at {ticket}"));
        story.end_preparation();
    }
}

#[test]
fn retention_waits_for_the_checkpoint_and_for_followers() {
    let mut story = Story::leading(ReplicaOptions {
        retain_bytes: Some(0),
        ..options()
    });
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    put_a_segment_each(&mut story);
    story.tell(
        "
        turn           | prepare
        prepared       |
        wait 1000      |
        idle           | save
        saved          |
        ",
    );
    assert_eq!(
        story.replica().log_start(),
        Position(0),
        "no checkpoint has it"
    );

    let follower = story.replica().followers().join("sink", Position(2));
    story.tell(
        "
        wait 30000     |
        turn           | checkpoint
        checkpointed   | retain
        retained       |
        ",
    );
    assert_eq!(
        story.replica().log_start(),
        Position(1),
        "the follower needs the rest, and the checksum of the entry below it"
    );

    drop(follower);
    story.tell(
        "
        wait 999       |
        idle           |
        ",
    );
    assert_eq!(
        story.replica().log_start(),
        Position(1),
        "it is looked at once a second"
    );
    story.tell(
        "
        wait 1         |
        idle           | retain
        wait 1000      |
        idle           |
        retained       |
        ",
    );
    assert_eq!(
        story.replica().log_start(),
        Position(3),
        "the last segment always stays"
    );
}

#[test]
fn silence_saves_the_durable_watermark_once() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        idle            |
        flushed 2       | 1 committed at 1
        ",
    );
    let before = story.log.steps();
    story.tell("idle | save");
    assert_eq!(story.log.steps(), before, "a job does it");
    story.tell(
        "
        idle            |
        saved           |
        ",
    );
    let saved = story.log.steps();
    assert!(saved > before, "it is saved when nothing is under way");
    story.tell("idle | ");
    assert_eq!(
        story.log.steps(),
        saved,
        "and not again when nothing has changed"
    );
}

#[test]
fn a_stop_answers_everything_and_a_clean_end_leaves_nothing_to_replay() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        stop              |
        ",
    );
    assert!(!story.replica().is_drained());
    story.tell(
        "
        turn              | flush 3
        flushed 3         | 2 committed at 2
        ",
    );
    assert!(story.replica().is_drained());
    assert!(!story.replica().has_background_job());
    story.tell("close | ");
    story.end();
    story.tell("start | flush 1");
    assert_eq!(story.replica().applied().position, Position(2));
    assert_eq!(story.replica().state().checkpointed().position, Position(2));
}

#[test]
fn the_view_before_a_checkpoint_is_released_when_it_is_old_by_the_drivers_clock() {
    // Given a view that a checkpoint replaced,
    let mut story = Story::leading(ReplicaOptions {
        snapshot_age_ms_max: 1_000,
        ..options()
    });
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        wait 30000        |
        turn              | checkpoint
        wait 5000         |
        checkpointed      |
        ",
    );
    let state = story.replica().state();
    // when less than its time has passed since, then it can be read,
    story.tell(
        "
        wait 999          |
        turn              |
        ",
    );
    assert_eq!(state.floor(), Position(0));
    // and afterwards it is released, although requests go on.
    story.tell(
        "
        put a in t as 2   |
        wait 200          |
        turn              | flush 3, release
        ",
    );
    assert_eq!(state.floor(), Position(1));
}

#[test]
fn a_failed_flush_is_final_and_leaves_every_ticket_to_be_answered() {
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1     |
        turn              | flush 2
        flushed 2         | 1 committed at 1
        put a in t as 2   |
        turn              | flush 3
        put b in t as 3   |
        ",
    );
    story.log.fail_at(story.log.steps(), Fault::Error);
    let failure = story.fails("flushed 3");
    assert!(
        failure.contains("the log could not be flushed"),
        "{failure}"
    );
    assert_eq!(story.taken_out(), Vec::<String>::new());
    assert_eq!(story.replica().abandon(), [2, 3]);
}

#[test]
fn time_alone_changes_nothing_for_a_single_voter() {
    let mut story = Story::leading(ReplicaOptions {
        checkpoint_interval_ms: u64::MAX,
        ..options()
    });
    for _ in 0..200 {
        story.tell(
            "
            wait 250   |
            turn       |
            ",
        );
    }
    assert!(story.replica().admits());
}

#[test]
fn the_failure_names_what_stopped_the_log_and_not_what_was_refused_because_of_it() {
    // Given a flush whose disk fails, and a later one that was refused and has ended first,
    let mut story = Story::leading(options());
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        ",
    );
    let later = Event::Flushed {
        number: 3,
        result: Err(FlushError::Stopped),
    };
    story.handle(later).unwrap();
    // when the first has ended too, then its own reason is the failure.
    story.log.fail_at(story.log.steps(), Fault::Error);
    let failure = story.fails("flushed 2");
    assert!(failure.contains("planned failure"), "{failure}");
}

#[test]
fn a_hard_state_that_is_older_than_the_log_is_refused() {
    // Given a log whose last entry is of the second term,
    let mut story = Story::leading(options());
    let older = story.log.files()["hard-state"].clone();
    story.end();
    story.tell("start | flush 1\nflushed 1 |");
    story.end();
    let mut files = story.log.files();
    let whole = SimulatedDisk::with_files(1, files.clone());
    // when the hard state of the first one is put back,
    files.insert("hard-state".to_owned(), older);
    let log = SimulatedDisk::with_files(1, files);
    let open = |log: &SimulatedDisk| {
        let disks = (Arc::new(log.clone()), Arc::new(story.state.clone()));
        Recovered::open(disks.0, disks.1, options())
    };
    // then the node does not start,
    let refused = open(&log).unwrap_err();
    let said = refused.to_string();
    let is_named = matches!(refused, StartError::OldHardState { term, found, .. } if term < found);
    assert!(is_named && said.contains("add a new one"), "{said}");
    // and it does with its own.
    open(&whole).unwrap();
}
