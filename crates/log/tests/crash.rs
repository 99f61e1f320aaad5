//! Power is lost at every single step of a workload, in four ways, and again at every step of the
//! recovery. Nothing acknowledged is lost, nothing is half there, nothing is invented.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::workload::{Workload, judge_after_crash};
use common::{open, size};
use onelog_log::{CrashMode, Fault, SimulatedDisk};

/// Runs the workload until the power goes at `step`.
fn until(seed: u64, step: u64, operations: u64, mode: CrashMode) -> (SimulatedDisk, Workload) {
    let disk = SimulatedDisk::new(seed * 1_000_003 + step);
    disk.fail_at(step, Fault::CrashNow);
    let mut workload = Workload::new(&disk, seed, false);
    let ended = workload.run(operations);
    assert!(ended.is_err() || disk.steps() <= step, "the power went");
    disk.crash(mode);
    (disk, workload)
}

fn steps_of(seed: u64, operations: u64) -> u64 {
    let disk = SimulatedDisk::new(seed);
    Workload::new(&disk, seed, false).run(operations).unwrap();
    disk.steps()
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    for seed in 0..size(2, 6) {
        let operations = size(150, 600);
        let steps = steps_of(seed, operations);
        assert!(steps > operations, "{steps}");
        for step in 0..steps {
            for mode in CrashMode::ALL {
                let (disk, mut workload) = until(seed, step, operations, mode);
                judge_after_crash(&disk, &mut workload.model);
            }
        }
    }
}

#[test]
fn recovery_itself_may_lose_power_at_any_step() {
    let operations = size(120, 500);
    let sample = size(20, 200);
    for seed in 10..size(11, 12) {
        let steps = steps_of(seed, operations);
        let mut recovery_steps = 0;
        for number in 0..sample {
            let step = steps * number / sample;
            let mode = CrashMode::ALL[number as usize % 4];
            let (disk, _) = until(seed, step, operations, mode);
            let left = disk.files();
            open(&disk).unwrap();
            let fresh = SimulatedDisk::with_files(0, left.clone());
            open(&fresh).unwrap();
            for at in 0..fresh.steps() {
                let second = CrashMode::ALL[(number + at) as usize % 4];
                let disk = SimulatedDisk::with_files(at, left.clone());
                disk.fail_at(at, Fault::CrashNow);
                open(&disk).unwrap_err();
                disk.crash(second);
                let (_, mut workload) = until(seed, step, operations, mode);
                judge_after_crash(&disk, &mut workload.model);
                recovery_steps += 1;
            }
        }
        assert!(recovery_steps > sample * 5, "{recovery_steps}");
    }
}

#[test]
fn power_may_go_while_threads_roll_cut_and_save_at_once() {
    let rounds = size(300, 5_000);
    for round in 0..rounds {
        let disk = SimulatedDisk::new(round);
        let mut workload = Workload::new(&disk, round, false);
        disk.fail_at(5 + round, Fault::CrashNow);
        workload.run_on_threads(size(60, 200));
        disk.crash(CrashMode::ALL[round as usize % 4]);
        judge_after_crash(&disk, &mut workload.model);
    }
}
