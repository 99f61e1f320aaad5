//! Transcripts: an event on the left, what the thread does next and the state that is shown on the
//! right.

use super::*;

const OPEN: Event = Event::Connected(Some(Position(7)));
const EMPTY: Event = Event::Connected(None);
const LOST: Event = Event::Failed { retryable: true };
const FINAL: Event = Event::Failed { retryable: false };

/// Applies the events and writes down what comes of each.
fn transcript(paused: bool, events: &[Event]) -> String {
    let mut lifecycle = Lifecycle::new(paused);
    let line = |lifecycle: &Lifecycle| {
        let rebuild = if lifecycle.is_rebuilding() {
            ", rebuild"
        } else {
            ""
        };
        format!(
            "{:?} ({:?}{rebuild})\n",
            lifecycle.action(),
            lifecycle.shown()
        )
    };
    let mut out = format!("start -> {}", line(&lifecycle));
    for event in events {
        lifecycle.apply(*event);
        out += &format!("{event:?} -> {}", line(&lifecycle));
    }
    out
}

#[track_caller]
fn assert_transcript(paused: bool, events: &[Event], expected: &[&str]) {
    let found = transcript(paused, events);
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found, expected);
}

#[test]
fn an_empty_store_is_backfilled_and_then_follows() {
    assert_transcript(
        false,
        &[
            EMPTY,
            Event::Backfilled(Position(5)),
            Event::Applied(Position(9)),
            Event::Idle,
            Event::Confirmed,
            Event::LogCut,
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(None) -> Backfill { old: None } (Bootstrapping)",
            "Backfilled(Position(5)) -> Follow(Position(5)) (Running)",
            "Applied(Position(9)) -> Follow(Position(9)) (Running)",
            "Idle -> Confirm(Position(9)) (Running)",
            "Confirmed -> Follow(Position(9)) (Running)",
            "LogCut -> Backfill { old: None } (Bootstrapping)",
        ],
    );
}

#[test]
fn a_paused_sink_stands_by_and_confirms_its_position_when_it_goes_on() {
    assert_transcript(
        true,
        &[
            OPEN,
            Event::Idle,
            Event::Pause,
            Event::Resume,
            Event::Confirmed,
            Event::Pause,
        ],
        &[
            "start -> Connect (Paused)",
            "Connected(Some(Position(7))) -> StandBy(Some(Position(7))) (Paused)",
            "Idle -> StandBy(Some(Position(7))) (Paused)",
            "Pause -> StandBy(Some(Position(7))) (Paused)",
            "Resume -> Confirm(Position(7)) (Running)",
            "Confirmed -> Follow(Position(7)) (Running)",
            "Pause -> StandBy(Some(Position(7))) (Paused)",
        ],
    );
}

#[test]
fn a_paused_sink_backfills_nothing_until_it_is_resumed_or_rebuilt() {
    assert_transcript(
        true,
        &[EMPTY, Event::Resume],
        &[
            "start -> Connect (Paused)",
            "Connected(None) -> StandBy(None) (Paused)",
            "Resume -> Backfill { old: None } (Bootstrapping)",
        ],
    );
    assert_transcript(
        true,
        &[EMPTY, Event::Rebuild, Event::Backfilled(Position(5))],
        &[
            "start -> Connect (Paused)",
            "Connected(None) -> StandBy(None) (Paused)",
            "Rebuild -> Backfill { old: None } (Rebuilding, rebuild)",
            "Backfilled(Position(5)) -> StandBy(Some(Position(5))) (Paused)",
        ],
    );
}

#[test]
fn a_rebuild_keeps_the_old_rows_until_it_is_done_and_takes_the_place_of_a_backfill_under_way() {
    assert_transcript(
        false,
        &[
            OPEN,
            Event::Rebuild,
            Event::Rebuild,
            Event::Backfilled(Position(8)),
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Rebuild -> Backfill { old: Some(Position(7)) } (Rebuilding, rebuild)",
            "Rebuild -> Backfill { old: Some(Position(7)) } (Rebuilding, rebuild)",
            "Backfilled(Position(8)) -> Follow(Position(8)) (Running)",
        ],
    );
    assert_transcript(
        false,
        &[
            EMPTY,
            Event::Rebuild,
            Event::Pause,
            Event::Backfilled(Position(8)),
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(None) -> Backfill { old: None } (Bootstrapping)",
            "Rebuild -> Backfill { old: None } (Rebuilding, rebuild)",
            "Pause -> Backfill { old: None } (Rebuilding, rebuild)",
            "Backfilled(Position(8)) -> StandBy(Some(Position(8))) (Paused)",
        ],
    );
}

#[test]
fn a_rebuild_that_fails_is_remembered_until_it_succeeds() {
    assert_transcript(
        false,
        &[
            OPEN,
            Event::Rebuild,
            LOST,
            Event::DelayOver,
            EMPTY,
            FINAL,
            Event::Resume,
            EMPTY,
            Event::Backfilled(Position(8)),
            LOST,
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Rebuild -> Backfill { old: Some(Position(7)) } (Rebuilding, rebuild)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting, rebuild)",
            "DelayOver -> Connect (Starting, rebuild)",
            "Connected(None) -> Backfill { old: None } (Rebuilding, rebuild)",
            "Failed { retryable: false } -> AwaitCommand (Stopped, rebuild)",
            "Resume -> Connect (Starting, rebuild)",
            "Connected(None) -> Backfill { old: None } (Rebuilding, rebuild)",
            "Backfilled(Position(8)) -> Follow(Position(8)) (Running)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting)",
        ],
    );
}

#[test]
fn a_rebuild_that_has_stopped_is_given_up_by_a_pause() {
    assert_transcript(
        false,
        &[
            OPEN,
            Event::Rebuild,
            FINAL,
            Event::Pause,
            Event::Resume,
            OPEN,
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Rebuild -> Backfill { old: Some(Position(7)) } (Rebuilding, rebuild)",
            "Failed { retryable: false } -> AwaitCommand (Stopped, rebuild)",
            "Pause -> AwaitCommand (Stopped)",
            "Resume -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
        ],
    );
}

#[test]
fn delays_grow_until_something_succeeds() {
    assert_transcript(
        false,
        &[
            LOST,
            Event::DelayOver,
            LOST,
            Event::DelayOver,
            OPEN,
            LOST,
            Event::DelayOver,
            OPEN,
            Event::Applied(Position(8)),
            LOST,
        ],
        &[
            "start -> Connect (Starting)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting)",
            "DelayOver -> Connect (Starting)",
            "Failed { retryable: true } -> BackOff { attempt: 1 } (Waiting)",
            "DelayOver -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Failed { retryable: true } -> BackOff { attempt: 2 } (Waiting)",
            "DelayOver -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Applied(Position(8)) -> Follow(Position(8)) (Running)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting)",
        ],
    );
}

#[test]
fn a_pause_does_not_end_a_delay_and_a_resume_or_a_rebuild_does() {
    assert_transcript(
        false,
        &[LOST, Event::Pause, Event::DelayOver, OPEN],
        &[
            "start -> Connect (Starting)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting)",
            "Pause -> BackOff { attempt: 0 } (Paused)",
            "DelayOver -> Connect (Paused)",
            "Connected(Some(Position(7))) -> StandBy(Some(Position(7))) (Paused)",
        ],
    );
    assert_transcript(
        false,
        &[LOST, Event::Resume, LOST, Event::Rebuild],
        &[
            "start -> Connect (Starting)",
            "Failed { retryable: true } -> BackOff { attempt: 0 } (Waiting)",
            "Resume -> Connect (Starting)",
            "Failed { retryable: true } -> BackOff { attempt: 1 } (Waiting)",
            "Rebuild -> Connect (Starting, rebuild)",
        ],
    );
}

#[test]
fn a_final_failure_ends_only_by_a_command() {
    assert_transcript(
        false,
        &[
            OPEN,
            FINAL,
            Event::Idle,
            Event::DelayOver,
            Event::Pause,
            Event::Resume,
        ],
        &[
            "start -> Connect (Starting)",
            "Connected(Some(Position(7))) -> Follow(Position(7)) (Running)",
            "Failed { retryable: false } -> AwaitCommand (Stopped)",
            "Idle -> AwaitCommand (Stopped)",
            "DelayOver -> AwaitCommand (Stopped)",
            "Pause -> AwaitCommand (Stopped)",
            "Resume -> Connect (Starting)",
        ],
    );
}

#[test]
fn every_state_is_left_at_once_and_for_the_strongest_reason() {
    let ways: [&[Event]; 7] = [
        &[],
        &[EMPTY],
        &[OPEN],
        &[OPEN, Event::Idle],
        &[OPEN, Event::Pause],
        &[LOST],
        &[FINAL],
    ];
    for way in ways {
        let mut lifecycle = Lifecycle::new(false);
        for event in way {
            lifecycle.apply(*event);
        }
        lifecycle.apply(Event::Leave(Leave::HandOver));
        assert_eq!(
            lifecycle.action(),
            Action::Leave(Leave::HandOver),
            "{way:?}"
        );
    }
    assert_transcript(
        false,
        &[
            Event::Leave(Leave::Stop),
            Event::Resume,
            Event::Leave(Leave::HandOver),
            LOST,
            Event::Leave(Leave::Stop),
        ],
        &[
            "start -> Connect (Starting)",
            "Leave(Stop) -> Leave(Stop) (Stopped)",
            "Resume -> Leave(Stop) (Stopped)",
            "Leave(HandOver) -> Leave(HandOver) (Stopped)",
            "Failed { retryable: true } -> Leave(HandOver) (Stopped)",
            "Leave(Stop) -> Leave(HandOver) (Stopped)",
        ],
    );
}
