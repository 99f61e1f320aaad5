//! Clocks that are wrong, line by line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod story;

use story::{Story, options};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_log_whose_timestamps_are_ahead_of_the_clock_says_by_how_much_until_the_clock_has_caught_up() {
    // Given an entry that was stamped while the clock was an hour ahead,
    let mut story = Story::leading(options());
    let right_ms = story.now.unix_ms;
    story.now.unix_ms = right_ms + HOUR_MS;
    story.tell(
        "
        define t as 1   |
        turn            | flush 2
        flushed 2       | 1 committed at 1
        wait 1000       |
        turn            |
        ",
    );
    assert_eq!(story.replica().log_ahead_ms(), 0);
    // when the clock is put right, then the replica says by how much the log is ahead,
    story.now.unix_ms = right_ms;
    story.tell(
        "
        wait 1000       |
        turn            |
        ",
    );
    let ahead_ms = story.replica().log_ahead_ms();
    let passed_ms = story.now.unix_ms - right_ms;
    assert_eq!(ahead_ms, HOUR_MS - passed_ms);
    // also of what is written then,
    story.tell(
        "
        put a in t as 2 |
        turn            | flush 3
        flushed 3       | 2 committed at 2
        wait 1000       |
        turn            |
        ",
    );
    let passed_ms = story.now.unix_ms - right_ms;
    assert_eq!(story.replica().log_ahead_ms(), HOUR_MS - passed_ms);
    // and no more once the clock has caught up.
    story.now.unix_ms = right_ms + HOUR_MS;
    story.tell(
        "
        wait 1000       |
        turn            |
        ",
    );
    assert_eq!(story.replica().log_ahead_ms(), 0);
}
