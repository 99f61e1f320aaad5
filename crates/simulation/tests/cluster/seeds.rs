//! Many seeds, which together must reach everything that is rare.

use onelog_simulation::cluster::{RARE, Reached, run};

const SEEDS: u64 = 150;
const SEEDS_FULL: u64 = 4_000;

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_all_agree_in_the_end() {
    let is_full = std::env::var_os("ONELOG_TEST_FULL").is_some();
    let mut reached = Reached::default();
    let seeds = 0..if is_full { SEEDS_FULL } else { SEEDS };
    let only = std::env::var("ONELOG_TEST_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("a seed is a number"));
    for seed in only.map_or(seeds, |seed| seed..seed + 1) {
        println!("seed {seed}");
        reached.add(&run(seed));
    }
    if only.is_some() {
        return;
    }
    // Without these it would say little.
    let missed = RARE.into_iter().filter(|what| reached.often(what) == 0);
    let missed: Vec<_> = missed.collect();
    assert!(missed.is_empty(), "never: {missed:?}; {reached:#?}");
}
