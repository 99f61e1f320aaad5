//! The checkers are checked: with a bug planted they must fail. One test, for the bugs are global.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::damage::Acknowledged;
use common::pausing::Pause;
use common::workload::{Workload, judge_after_crash};
use common::{LAST, cut, open, read_all, restart};
use onelog_log::planted::{self, Bug};
use onelog_log::{CrashMode, Fault, SimulatedDisk};
use onelog_record::Index;

const SEEDS: u64 = 2;
/// How many a rare bug may hide behind.
const SEEDS_MAX: u64 = 40;
const OPERATIONS: u64 = 150;

/// Whether the crash sweep is content.
fn crash_sweep_passes() -> bool {
    (0..SEEDS).all(crash_sweep_of)
}

/// Whether it is with this seed. A run that a bug ends by itself is not.
fn crash_sweep_of(seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        let disk = SimulatedDisk::new(seed);
        Workload::new(&disk, seed, false).run(OPERATIONS).unwrap();
        for step in 0..disk.steps() {
            let disk = SimulatedDisk::new(step);
            disk.fail_at(step, Fault::CrashNow);
            let mut workload = Workload::new(&disk, seed, false);
            workload.run(OPERATIONS).unwrap_err();
            disk.crash(CrashMode::LoseAll);
            judge_after_crash(&disk, &mut workload.model);
        }
    }))
    .is_ok()
}

/// Whether the flips are noticed.
fn flips_pass() -> bool {
    let log = Acknowledged::new(false);
    let last = log.places.last().unwrap();
    (0..64).all(|bit| log.judge_flip(last, bit * 7).is_ok())
}

/// Whether cuts hold whenever the power goes.
fn cuts_pass() -> bool {
    let from = LAST / 3;
    catch_unwind(|| {
        for step in 0.. {
            let disk = SimulatedDisk::new(step);
            let (mut log, all) = cut::long_log(&disk);
            disk.fail_at(disk.steps() + step, Fault::CrashNow);
            let is_cut = log.cut_end(Index(from)).is_ok();
            drop(log);
            disk.crash(CrashMode::LoseAll);
            if is_cut {
                let left = read_all(&open(&disk).unwrap().0).len();
                assert_eq!(left as u64, from - 1, "what was cut is back");
            }
            cut::goes_on(&disk, &all, from);
            if is_cut {
                break;
            }
        }
    })
    .is_ok()
}

/// Whether restarts behind an entry of the log, and behind one before all that it has, do.
fn restarts_pass() -> bool {
    let restart_behind = |index: u64| {
        let at = restart::behind(index);
        for step in 0.. {
            let disk = SimulatedDisk::new(step);
            let (mut log, old) = restart::long_log(&disk);
            disk.fail_at(disk.steps() + step, Fault::CrashNow);
            let is_done = log.restart_behind(at).is_ok();
            drop(log);
            disk.crash(CrashMode::LoseAll);
            restart::goes_on(&disk, &old, at);
            if is_done {
                break;
            }
        }
    };
    catch_unwind(|| [0, 50].into_iter().for_each(restart_behind)).is_ok()
}

fn readers_pass() -> bool {
    catch_unwind(|| cut::reader_across_a_cut(Pause::AfterReading, 120)).is_ok()
}

#[test]
fn each_planted_bug_is_caught() {
    assert!(
        crash_sweep_passes() && flips_pass() && cuts_pass() && restarts_pass() && readers_pass(),
        "as it is, all is well"
    );
    planted::set(Bug::AcknowledgeBeforeFlush);
    assert!(!crash_sweep_passes(), "acknowledging before the flush");
    planted::set(Bug::NameUnflushed);
    assert!(!crash_sweep_passes(), "a name that was not flushed");
    planted::set(Bug::DropUnrecorded);
    assert!(!crash_sweep_passes(), "a cut that was not recorded");
    planted::set(Bug::DropBeforeRoll);
    let found = (0..SEEDS_MAX).find(|seed| !crash_sweep_of(*seed));
    println!("a cut before the next segment is there: found with seed {found:?}");
    assert!(found.is_some());
    planted::set(Bug::CutBelowWatermark);
    assert!(!flips_pass(), "cutting below the watermark");
    planted::set(Bug::CutUnflushed);
    assert!(!cuts_pass(), "a cut that was not flushed");
    planted::set(Bug::CutKeepsWatermark);
    assert!(!cuts_pass(), "a cut below the saved watermark");
    planted::set(Bug::StaleEvidence);
    assert!(!cuts_pass(), "stale frames as evidence");
    planted::set(Bug::RestartUncounted);
    assert!(!restarts_pass(), "a restart that was not recorded");
    planted::set(Bug::RestartKeepsSpares);
    assert!(!restarts_pass(), "a restart on files with old frames");
    planted::set(Bug::ReadAcrossCut);
    assert!(!readers_pass(), "a reader that mixes");
    planted::set(Bug::None);
    assert!(crash_sweep_passes() && flips_pass());
}
