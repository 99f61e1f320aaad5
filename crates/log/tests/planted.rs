//! The checkers are checked: with a bug planted they must fail. One test, for the bugs are global.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::damage::Acknowledged;
use common::workload::{Workload, judge_after_crash};
use onelog_log::planted::{self, Bug};
use onelog_log::{CrashMode, Fault, SimulatedDisk};

/// Whether the crash sweep is content.
fn crash_sweep_passes() -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        for step in 0..200 {
            let disk = SimulatedDisk::new(step);
            disk.fail_at(step, Fault::CrashNow);
            let mut workload = Workload::new(&disk, 1, false);
            workload.run(150).unwrap_err();
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

#[test]
fn each_planted_bug_is_caught() {
    assert!(
        crash_sweep_passes() && flips_pass(),
        "as it is, all is well"
    );
    planted::set(Bug::AcknowledgeBeforeFlush);
    assert!(!crash_sweep_passes(), "acknowledging before the flush");
    planted::set(Bug::CutBelowWatermark);
    assert!(!flips_pass(), "cutting below the watermark");
    planted::set(Bug::None);
    assert!(crash_sweep_passes() && flips_pass());
}
