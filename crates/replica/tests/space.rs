//! A disk that fills up, line by line: what is refused, what goes on, and what comes back by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod story;

use onelog_log::Fault;
use onelog_replica::ReplicaOptions;
use story::{Story, options, put};

const MIB: u64 = 1 << 20;

/// Segments of 1 MiB, and as much as a reserve.
fn reserved() -> ReplicaOptions {
    ReplicaOptions {
        segment_bytes: MIB,
        disk_reserve_bytes: MIB,
        ..options()
    }
}

fn with_a_table(options: ReplicaOptions) -> Story {
    let mut story = Story::leading(options);
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    story
}

/// Writes a value of so many bytes.
fn put_large(story: &mut Story, ticket: u32, bytes: usize) -> Vec<String> {
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(bytes));
    story
        .submit(
            &ticket.to_string(),
            put(table, &format!("k{ticket}"), &value),
        )
        .unwrap();
    let mut lines = story.taken_out();
    if lines.is_empty() {
        lines = story.step_turn();
        let flush = lines.iter().find_map(|line| line.strip_prefix("flush "));
        let flush = flush.expect("what was taken is written").to_owned();
        story.step(&format!("flushed {flush}")).unwrap();
        lines.extend(story.taken_out());
    }
    lines
}

fn files_beginning(story: &Story, begin: &str) -> usize {
    let files = story.log.files();
    files.keys().filter(|name| name.starts_with(begin)).count()
}

#[test]
fn below_the_reserve_writes_are_refused_reads_go_on_and_writes_come_back_by_themselves() {
    let mut story = with_a_table(reserved());
    story.tell(
        "
        free 5000000    |
        put a in t as 2 |
        turn            | flush 3
        free 1000000    |
        put b in t as 3 | 3 refused DiskFull
        define u as 4   | 4 refused DiskFull
        flushed 3       | 2 committed at 2
        put a in t as 2 | 2 committed at 2
        barrier as 5    | 5 readable at 2
        turn            |
        free 1100000    |
        put b in t as 6 | 6 refused DiskFull
        free 1400000    |
        put b in t as 7 |
        turn            | flush 4
        flushed 4       | 7 committed at 3
        ",
    );
}

#[test]
fn requests_that_only_read_are_decided_while_nothing_is_written() {
    let mut story = with_a_table(reserved());
    story.tell("free 1000 | ");
    let table = story.table("t");
    let mut request = put(table, "k", "1");
    request.writes.clear();
    story.submit("2", request).unwrap();
    assert_eq!(story.taken_out(), ["2 committed at 1"]);
}

#[test]
fn a_segment_is_not_made_from_the_reserve_and_the_last_one_is_never_filled_to_its_end() {
    // Given a disk on which the next segment was not made ready, for want of room,
    let mut story = Story::new(reserved());
    story.tell(
        "
        start           | flush 1
        free 1500000    |
        flushed 1       |
        turn            |
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    // when entries fill the segment,
    let mut accepted = 0;
    while put_large(&mut story, 10 + accepted, 100_000).len() > 1 {
        accepted += 1;
    }
    // then writes end while there is a place for the largest one and for many starts,
    assert!((3..=6).contains(&accepted), "{accepted}");
    assert_eq!(files_beginning(&story, "spare-"), 0);
    for _ in 0..20 {
        story.crash();
        story.step("start").unwrap();
        let started = story.taken_out();
        story.tell(&format!(
            "flushed {} | ",
            started[0].trim_start_matches("flush ")
        ));
    }
    // and with room for a segment they are taken again.
    story.tell(
        "
        free 1500000    |
        put b in t as 3 | 3 refused DiskFull
        free 3000000    |
        turn            | prepare
        prepared        |
        put b in t as 4 |
        ",
    );
}

#[test]
fn a_segment_that_could_not_be_made_leaves_nothing_and_turns_writes_off_at_once() {
    let mut story = Story::new(reserved());
    story.tell(
        "
        start           | flush 1
        free 9000000    |
        flushed 1       |
        turn            | prepare
        ",
    );
    // Another program fills the disk.
    story.log.fail_at(story.log.steps(), Fault::Full);
    story.tell(
        "
        prepared        |
        define t as 2   | 2 refused DiskFull
        ",
    );
    assert_eq!(
        files_beginning(&story, "spare-"),
        0,
        "half a file takes room"
    );
    story.log.mend();
    story.tell(
        "
        free 9000000    |
        wait 5000       |
        turn            | prepare
        prepared        |
        define t as 3   |
        turn            | flush 2
        flushed 2       | 3 committed at 1
        ",
    );
}

#[test]
fn what_was_taken_waits_for_room_for_its_segment_rather_than_fails_to_be_written() {
    // Given a segment that is full, while the next one is being made,
    let mut story = Story::new(reserved());
    story.tell(
        "
        start           | flush 1
        free 9000000    |
        flushed 1       |
        turn            | prepare
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        ",
    );
    for ticket in 10..18 {
        put_large(&mut story, ticket, 120_000);
    }
    // when another program takes the room behind what was just taken,
    let table = story.table("t");
    let value = format!("\"{}\"", "x".repeat(120_000));
    story.submit("20", put(table, "k20", &value)).unwrap();
    assert!(story.taken_out().is_empty());
    story.tell(
        "
        free 1000       |
        turn            |
        ",
    );
    // then it is written when there is room.
    story.step("free 9000000").unwrap();
    let lines = story.step_turn();
    let flush = lines.iter().find_map(|line| line.strip_prefix("flush "));
    let flush = flush.expect("it is written").to_owned();
    story.tell(&format!("flushed {flush} | 20 committed at 10"));
}

/// More than a new state file has room for.
const LARGE: u32 = 30;

#[test]
fn a_checkpoint_that_finds_no_room_is_made_later_and_reads_go_on() {
    // Given a memtable that does not fit the state's disk,
    let mut story = with_a_table(ReplicaOptions {
        memtable_bytes: 64 * MIB as usize,
        memtable_bytes_max: 256 * MIB as usize,
        ..reserved()
    });
    for ticket in 0..LARGE {
        put_large(&mut story, 10 + ticket, 100_000);
        story.end_preparation();
    }
    let applied = story.replica().applied().position;
    story.tell(
        "
        wait 30000      |
        turn            | checkpoint
        ",
    );
    story.state.fail_at(story.state.steps() + 3, Fault::Full);
    // when it ends for want of room,
    story.tell("checkpointed | ");
    // then everything can be read, also what an earlier checkpoint has,
    let table = story.table("t");
    let snapshot = story.replica().state().snapshot();
    for ticket in 0..LARGE {
        let key = format!("k{}", 10 + ticket);
        assert!(snapshot.get(table, key.as_bytes()).unwrap().is_some());
    }
    assert!(snapshot.get(table, b"no such key").unwrap().is_none());
    drop(snapshot);
    // and with more room it is made.
    story.tell(
        "
        wait 1000       |
        turn            |
        wait 9000       |
        turn            | checkpoint
        checkpointed    |
        wait 10000      |
        ",
    );
    story.state.mend();
    story.tell(
        "
        turn            | checkpoint
        checkpointed    |
        ",
    );
    let state = story.replica().state();
    assert_eq!(state.checkpointed().position, applied);
    story.end();
    drop(state);
    story.step("start").unwrap();
    let snapshot = story.replica().state().snapshot();
    assert!(snapshot.get(table, b"k10").unwrap().is_some());
}

#[test]
fn a_checkpoint_waits_for_more_room_than_it_found_but_not_for_ever() {
    let mut story = with_a_table(ReplicaOptions {
        memtable_bytes: 64 * MIB as usize,
        memtable_bytes_max: 256 * MIB as usize,
        ..reserved()
    });
    story.tell("free 300000000 | ");
    for ticket in 0..LARGE {
        put_large(&mut story, 10 + ticket, 100_000);
        story.end_preparation();
    }
    // Given a checkpoint during which others took the room that there was,
    story.tell(
        "
        wait 30000      |
        turn            | checkpoint
        ",
    );
    story.state.fail_at(story.state.steps() + 3, Fault::Full);
    story.tell("checkpointed | ");
    // when they give most of it back,
    story.state.mend();
    story.tell(
        "
        free 200000000  |
        wait 10000      |
        turn            |
        wait 20000      |
        turn            | checkpoint
        checkpointed    |
        ",
    );
    // then it is made with what there is.
    let applied = story.replica().applied().position;
    assert_eq!(story.replica().state().checkpointed().position, applied);
    story.end();
}

#[test]
fn a_replica_stops_in_order_on_a_full_disk_and_starts_on_it() {
    let mut story = with_a_table(ReplicaOptions {
        memtable_bytes: 64 * MIB as usize,
        memtable_bytes_max: 256 * MIB as usize,
        ..reserved()
    });
    for ticket in 0..LARGE {
        put_large(&mut story, 10 + ticket, 100_000);
        story.end_preparation();
    }
    story.state.fail_at(story.state.steps(), Fault::Full);
    story.log.fail_at(story.log.steps(), Fault::Full);
    story.tell(
        "
        free 0          |
        stop            |
        close           |
        ",
    );
    story.end();
    story.step("start").unwrap();
    let table = story.table("t");
    let snapshot = story.replica().state().snapshot();
    assert!(snapshot.get(table, b"k39").unwrap().is_some());
}
