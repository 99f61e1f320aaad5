//! A checkpoint that finds no room on the disk.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onelog_log::{Fault, SimulatedDisk};
use onelog_record::TableId;
use onelog_state::{CheckpointError, STATE_FILE, State};
use support::{Change, Log, checkpoint, key, put, range, ranges, small};

#[test]
fn a_checkpoint_without_room_changes_nothing_and_can_be_run_again() {
    // Given a state with a checkpoint, and changes that need more room than there is,
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    log.append(&[put(1)]);
    log.replay(&state);
    checkpoint(&state);
    let before = state.checkpointed();
    let length = || disk.files()[STATE_FILE].len();
    let length_before = length();
    for number in 0..60 {
        log.append(&[vec![Change::Put(1, key(number), 100_000)]]);
    }
    log.replay(&state);
    let mut next = state.freeze().unwrap();
    for step in 0..4 {
        // when the disk is full from some step on,
        disk.fail_at(disk.steps() + step * 3, Fault::Full);
        next = match next.run() {
            Err(CheckpointError::NoSpace { checkpoint, .. }) => *checkpoint,
            other => panic!("{other:?}"),
        };
        disk.mend();
        // then the room that it took is free again,
        assert_eq!(length(), length_before);
        // everything reads as before, from memory and from the tree,
        assert_eq!(state.checkpointed(), before);
        assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
    }
    // and once there is room the same checkpoint is made.
    next.run().unwrap();
    assert!(length() > length_before);
    assert_eq!(state.checkpointed(), log.applied());
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
    // The file is whole: the next start reads it.
    drop(state);
    let (state, _) = log.open(Arc::new(disk), small());
    assert_eq!(state.checkpointed(), log.applied());
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn reads_go_on_while_a_checkpoint_finds_no_room() {
    // Given a state with a checkpoint of many rows, a snapshot and scans that have begun,
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    for number in 0..60 {
        log.append(&[vec![Change::Put(1, key(number), 60_000)]]);
    }
    log.replay(&state);
    checkpoint(&state);
    let rows = |state: &State, is_reverse| {
        let snapshot = state.snapshot();
        let scan = snapshot.scan(&range(1, b"", None), is_reverse).unwrap();
        scan.map(|row| row.unwrap().key)
    };
    let expected: Vec<_> = rows(&state, false).collect();
    assert!(expected.len() > 20);
    let snapshot = state.snapshot();
    let mut up = rows(&state, false);
    let mut down = rows(&state, true);
    assert_eq!(up.next().as_ref(), expected.first());
    assert_eq!(down.next().as_ref(), expected.last());
    for number in 0..60 {
        log.append(&[vec![Change::Put(2, key(number), 100_000)]]);
    }
    log.replay(&state);
    // when checkpoints fail for want of room while others read,
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(rows(&state, true).count(), expected.len());
            }
        });
        let mut next = state.freeze().unwrap();
        for _ in 0..20 {
            disk.fail_at(disk.steps(), Fault::Full);
            next = match next.run() {
                Err(CheckpointError::NoSpace { checkpoint, .. }) => *checkpoint,
                other => panic!("{other:?}"),
            };
            disk.mend();
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        next.run().unwrap();
    });
    // then every row is read once, also by what had begun before.
    assert!(up.eq(expected[1..].iter().cloned()));
    assert!(down.eq(expected[..expected.len() - 1].iter().rev().cloned()));
    for key in &expected {
        assert!(snapshot.get(TableId(1), key).unwrap().is_some());
    }
}
