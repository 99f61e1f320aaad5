//! The disk fails or is full at every single call. The log stops or refuses; it never answers
//! wrongly, and what it acknowledged is there after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::size;
use common::workload::{Workload, judge_after_crash};
use onelog_log::{CrashMode, Fault, SimulatedDisk};

fn run(seed: u64, step: u64, fault: Fault, keep_going: bool, operations: u64) {
    let disk = SimulatedDisk::new(seed + step);
    disk.fail_at(step, fault);
    let mut workload = Workload::new(&disk, seed, keep_going);
    // An error is allowed, a wrong answer is not: the workload itself judges what it reads.
    let _ = workload.run(operations);
    let mut model = std::mem::take(&mut workload.model);
    drop(workload);
    disk.mend();
    if step.is_multiple_of(2) {
        disk.crash(CrashMode::ALL[step as usize / 2 % 4]);
    }
    judge_after_crash(&disk, &mut model);
}

#[test]
fn a_failing_or_full_disk_never_makes_an_answer_wrong() {
    for seed in 20..size(21, 26) {
        let operations = size(120, 500);
        let disk = SimulatedDisk::new(seed);
        Workload::new(&disk, seed, false).run(operations).unwrap();
        for step in 0..disk.steps() {
            for fault in [Fault::Error, Fault::Full] {
                for keep_going in [false, true] {
                    run(seed, step, fault, keep_going, operations);
                }
            }
        }
    }
}
