//! Each planted bug is found by the model.
#![cfg(feature = "planted-bugs")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::result_large_err)]

mod model;

use model::driver::run_episode;
use onelog_commit::planted::{self, Bug};

/// One test, because a bug is planted in the whole process.
#[test]
fn every_planted_bug_is_found_by_the_model() {
    for bug in [
        Bug::SkipRangeCheck,
        Bug::ValidateCommittedOnly,
        Bug::OffByOneFloor,
        Bug::OffByOneRead,
        Bug::IdsInMemoryOnly,
        Bug::RefusalAnsweredTooEarly,
    ] {
        planted::set(bug);
        let found = (1..=50).find_map(|seed| run_episode(seed).err());
        planted::set(Bug::None);
        let text = found.unwrap_or_else(|| panic!("{bug:?} was not found in 50 episodes"));
        println!("{bug:?}: {}", text.lines().next().unwrap_or_default());
    }
    for seed in 1..=3 {
        run_episode(seed).unwrap_or_else(|text| panic!("without a bug: {text}"));
    }
}
