//! Bugs planted on purpose: each must be caught by the checks that the other tests rest on.
//! One test, because a bug is planted for the whole process.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use onelog_log::SimulatedDisk;
use onelog_state::planted::{self, Bug};
use support::crash::{check, crash_everywhere, log, work};
use support::members::later_members_stay_out;
use support::transfer::follow_everywhere;

#[test]
fn every_planted_bug_is_caught() {
    assert!(
        crash_everywhere(5, 1).is_ok(),
        "without a bug nothing is found"
    );
    assert_eq!(later_members_stay_out(), Ok(()));
    assert!(follow_everywhere(5, 3).is_ok());

    planted::set(Bug::PositionOutsideCheckpoint);
    let found = crash_everywhere(5, 1).unwrap_err();
    assert!(found.contains("the B-tree at"), "{found}");

    planted::set(Bug::TombstoneLost);
    let log = log(5);
    let disk = SimulatedDisk::new(5);
    let reached = work(&log, &disk);
    let found = check(&log, &disk, &reached).unwrap_err();
    assert!(found.contains("the B-tree at"), "{found}");

    planted::set(Bug::MembersOfLaterEntry);
    let found = later_members_stay_out().unwrap_err();
    assert!(found.contains("the members at"), "{found}");

    planted::set(Bug::DigestForgetsDeletes);
    let disk = SimulatedDisk::new(5);
    let reached = work(&log, &disk);
    let found = check(&log, &disk, &reached).unwrap_err();
    assert!(found.contains("the digest is"), "{found}");

    planted::set(Bug::InstallNotFlushed);
    let found = follow_everywhere(5, 1).unwrap_err();
    assert!(found.contains("was durable"), "{found}");

    planted::set(Bug::None);
}
