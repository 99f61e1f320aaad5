//! Power fails, disks fail and fill up: after each the state is a whole checkpoint, and the log
//! replays the rest.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use onelog_log::{CrashMode, Fault, SimulatedDisk};
use onelog_state::State;
use support::crash::{check, crash_everywhere, log, options, work};
use support::is_full;

#[test]
fn a_crash_at_any_step_of_a_checkpoint_returns_to_the_last_one() {
    let seeds = if is_full() { 0..10 } else { 0..1 };
    for seed in seeds {
        let steps = crash_everywhere(seed, 1).unwrap();
        assert!(
            steps > 100,
            "the workload is too small to mean anything: {steps} steps"
        );
    }
}

#[test]
fn a_crash_at_any_step_of_a_recovery_is_recovered_from() {
    let stride = if is_full() { 5 } else { 41 };
    let log = log(7);
    let disk = SimulatedDisk::new(7);
    work(&log, &disk);
    // Step 15 is one while the new file is made: it once got the name of an unfinished one.
    for step in (0..disk.steps()).step_by(stride).chain([15]) {
        for mode in CrashMode::ALL {
            // Given a disk that crashed while work went on,
            let crashed = || {
                let disk = SimulatedDisk::new(step);
                disk.fail_at(step, Fault::CrashNow);
                let reached = work(&log, &disk);
                disk.crash(mode);
                (disk, reached)
            };
            let (disk, _) = crashed();
            let before = disk.steps();
            drop(State::open(Arc::new(disk.clone()), options()).unwrap());
            let recovery_steps = disk.steps() - before;
            for again in 0..recovery_steps {
                // when it crashes again while it recovers, then nothing more is lost.
                let (disk, reached) = crashed();
                disk.fail_at(disk.steps() + again, Fault::CrashNow);
                drop(State::open(Arc::new(disk.clone()), options()));
                disk.crash(mode);
                let checked = check(&log, &disk, &reached);
                assert_eq!(checked, Ok(()), "step {step}, then {again}, {mode:?}");
            }
        }
    }
}

#[test]
fn a_failing_or_full_disk_ends_a_checkpoint_with_an_error() {
    let log = log(3);
    let disk = SimulatedDisk::new(3);
    work(&log, &disk);
    let steps = disk.steps();
    let mut stopped = 0;
    for step in 0..steps {
        for fault in [Fault::Error, Fault::Full] {
            // Given a disk that fails at one step, or is full from then on,
            let disk = SimulatedDisk::new(step);
            disk.fail_at(step, fault);
            // when the workload runs, it stops with an error or did not need that step.
            let reached = work(&log, &disk);
            stopped += u32::from(reached.is_stopped);
            // Then the process ends, is started again on a mended disk, and has lost nothing.
            disk.mend();
            let checked = check(&log, &disk, &reached);
            assert_eq!(checked, Ok(()), "step {step} of {steps}, {fault:?}");
        }
    }
    assert!(stopped > 10, "faults are met: {stopped}");
}

#[test]
fn the_workload_survives_without_a_crash() {
    let log = log(1);
    let disk = SimulatedDisk::new(1);
    let reached = work(&log, &disk);
    assert!(!reached.is_stopped);
    assert_eq!(check(&log, &disk, &reached), Ok(()));
}
