//! The members: kept by the checkpoint of their place, opaque, in files of any age.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use onelog_log::{Fault, SimulatedDisk};
use onelog_state::{CheckpointError, State};
use support::members::later_members_stay_out;
use support::{Change, Log, checkpoint, key, put, small};

#[test]
fn members_are_kept_by_the_next_checkpoint_and_by_those_behind_it() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, opened) = log.open(Arc::new(disk.clone()), small());
    assert_eq!(opened.members, None);
    // When members were set behind an entry,
    log.append(&[put(1)]);
    log.replay(&state);
    state.set_members(b"one".to_vec());
    // then they are gone without a checkpoint,
    drop(state);
    let (state, opened) = log.open(Arc::new(disk.clone()), small());
    assert_eq!(opened.members, None);
    // there with one, and still there with a later one that changes other things.
    state.set_members(b"one".to_vec());
    checkpoint(&state);
    for number in 2..4 {
        log.append(&[put(number)]);
        log.replay(&state);
        checkpoint(&state);
        let (_, opened) = State::open(Arc::new(disk.clone()), small()).unwrap();
        assert_eq!(opened.members.as_deref(), Some(&b"one"[..]));
    }
    // No bytes are members too.
    log.append(&[put(1)]);
    log.replay(&state);
    state.set_members(Vec::new());
    checkpoint(&state);
    drop(state);
    let (_, opened) = State::open(Arc::new(disk), small()).unwrap();
    assert_eq!(opened.members.as_deref(), Some(&b""[..]));
}

#[test]
fn a_checkpoint_never_has_the_members_of_a_later_entry() {
    assert_eq!(later_members_stay_out(), Ok(()));
}

#[test]
fn a_checkpoint_that_found_no_room_keeps_its_members() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    for number in 0..60 {
        log.append(&[vec![Change::Put(1, key(number), 100_000)]]);
    }
    log.replay(&state);
    state.set_members(b"one".to_vec());
    let frozen = state.freeze().unwrap();
    disk.fail_at(disk.steps(), Fault::Full);
    let frozen = match frozen.run() {
        Err(CheckpointError::NoSpace { checkpoint, .. }) => *checkpoint,
        other => panic!("{other:?}"),
    };
    disk.mend();
    state.set_members(b"two".to_vec());
    frozen.run().unwrap();
    let (_, opened) = State::open(Arc::new(disk), small()).unwrap();
    assert_eq!(opened.members.as_deref(), Some(&b"one"[..]));
}

#[test]
fn a_copy_has_the_members() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[put(1)]);
    log.replay(&state);
    state.set_members(b"one".to_vec());
    checkpoint(&state);
    let other = SimulatedDisk::new(2);
    state.copy_base(&other).unwrap();
    let (_, opened) = State::open(Arc::new(other), small()).unwrap();
    assert_eq!(opened.members.as_deref(), Some(&b"one"[..]));
}
