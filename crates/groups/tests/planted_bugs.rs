//! Each planted bug is found by the simulation.
#![cfg(feature = "planted-bugs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod simulate;

use onelog_groups::planted::{self, Bug};
use onelog_record::panic_message;

const SEEDS: u64 = 100;

/// One test, because a bug is planted in the whole process.
#[test]
fn every_planted_bug_is_found_by_the_simulation() {
    for bug in [
        Bug::AnyGenerationCommits,
        Bug::AnswerBeforeStored,
        Bug::AssignBeforeStored,
        Bug::ReplacedRequestUnanswered,
    ] {
        planted::set(bug);
        let found = (0..SEEDS).find_map(|seed| {
            let run = std::panic::catch_unwind(|| simulate::run(seed, 3));
            run.err()
                .map(|panic| (seed, panic_message(&*panic).unwrap_or_default().to_owned()))
        });
        planted::set(Bug::None);
        let (seed, text) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: seed {seed}: {text}");
    }
    simulate::run(0, 3);
}
