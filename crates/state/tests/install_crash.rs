//! Power fails or the disk fails while a state is taken in and installed: the old one or the new one
//! is there, whole.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use onelog_log::{Fault, SimulatedDisk};
use support::is_full;
use support::transfer::{check_followed, follow, follow_everywhere, sender};

#[test]
fn a_crash_at_any_step_of_an_installation_leaves_one_of_both_states() {
    let seeds = if is_full() { 0..10 } else { 0..1 };
    for seed in seeds {
        let steps = follow_everywhere(seed, 1).unwrap();
        assert!(steps > 60, "{steps} steps mean little");
    }
}

#[test]
fn a_failing_or_full_disk_ends_an_installation_with_an_error() {
    let log = support::crash::log(3);
    let from = sender(&log);
    let disk = SimulatedDisk::new(3);
    assert!(!follow(&log, &from, &disk).is_stopped);
    let mut stopped = 0;
    for step in 0..disk.steps() {
        for fault in [Fault::Error, Fault::Full] {
            let disk = SimulatedDisk::new(step);
            disk.fail_at(step, fault);
            let followed = follow(&log, &from, &disk);
            stopped += u32::from(followed.is_stopped);
            disk.mend();
            let checked = check_followed(&log, &disk, &followed);
            assert_eq!(checked, Ok(()), "step {step}, {fault:?}");
        }
    }
    assert!(stopped > 10, "faults are met: {stopped}");
}
