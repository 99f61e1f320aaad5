//! The tests of clusters are tested: with a bug planted the random ones must fail. One test, for the
//! bugs are global.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::catch_unwind;

use onelog_replica::planted::{self, Bug};
use onelog_simulation::cluster::run;

/// How many seeds a bug may hide behind.
const SEEDS_MAX: u64 = 300;

fn first_that_fails() -> Option<u64> {
    (0..SEEDS_MAX).find(|seed| catch_unwind(|| run(*seed)).is_err())
}

#[test]
fn each_planted_bug_is_caught() {
    for bug in [
        Bug::AnswerOnStage,
        Bug::DurableIsCommitted,
        Bug::StoredBeforeCut,
        Bug::CommitBehindCheckpoint,
        Bug::MembersNotKept,
        Bug::ChangesNotLookedFor,
    ] {
        planted::set(bug);
        let found = first_that_fails();
        planted::set(Bug::None);
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} was not caught");
    }
}
