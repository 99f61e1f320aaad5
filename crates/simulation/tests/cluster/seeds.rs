//! Many seeds, which together must reach everything that is rare.

use std::time::Duration;

use onelog_simulation::cluster::{Batch, Outcome, STEPS, run, run_all};
use onelog_simulation::is_full;

/// As many as a seed has, or as many as run in this time.
const SEEDS: u64 = 500;
const AT_MOST: Duration = Duration::from_secs(8 * 60);
const SEEDS_FULL: u64 = 20_000;
const THREADS: usize = 2;

#[test]
fn whatever_happens_the_history_is_serializable_and_all_agree_in_the_end() {
    let batch = Batch {
        from: 0,
        seeds: if is_full() { SEEDS_FULL } else { SEEDS },
        steps: STEPS,
        at_most: (!is_full()).then_some(AT_MOST),
        threads: THREADS,
    };
    let progress = |outcome: &Outcome| println!("seed {}: {}", outcome.seed, outcome.report);
    let ran = run_all(&batch, &progress);
    if let Some(broken) = &ran.broken {
        panic!("seed {}: {}", broken.seed, broken.report);
    }
    println!(
        "{} of {} seeds, {} transactions, {} reads; {:#?}",
        ran.seeds, batch.seeds, ran.transactions, ran.reads, ran.reached
    );
    // Without these it would say little.
    assert_eq!(
        ran.missed(),
        Vec::<&str>::new(),
        "never: {:#?}",
        ran.reached
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| run(seed, STEPS).trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4), "the trace says nothing");
}

/// Once a leader sent a follower what it had confirmed already: a refusal from before came late, by
/// which the follower had less than that.
#[test]
fn seed_1626_a_late_refusal_is_not_believed() {
    let outcome = run(1626, STEPS);
    assert!(outcome.report.violations.is_empty(), "{}", outcome.report);
}

/// Once a node that was removed while it sought the leadership got the last vote that it needed, and
/// the library panicked.
#[test]
fn seed_631_a_vote_for_a_node_that_was_removed_is_not_counted() {
    let outcome = run(631, STEPS);
    assert!(outcome.report.violations.is_empty(), "{}", outcome.report);
}
