//! The validator answers as the brute-force model does. `ONELOG_TEST_FULL=1` runs a million
//! transactions, `ONELOG_TEST_SEED=n` starts at another seed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::result_large_err)]

mod model;

use model::driver::{Counts, TRANSACTIONS_PER_EPISODE, run_episode};

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn every_answer_is_the_one_that_looking_at_all_history_gives() {
    let transactions = match number_from("ONELOG_TEST_FULL", 0) {
        0 => 20_000,
        _ => 1_000_000,
    };
    let first = number_from("ONELOG_TEST_SEED", 1);
    let mut counts = Counts::new();
    for seed in first..first + transactions / TRANSACTIONS_PER_EPISODE as u64 {
        for (name, count) in run_episode(seed).unwrap_or_else(|text| panic!("{text}")) {
            *counts.entry(name).or_default() += count;
        }
    }
    println!("{counts:?}");
    for name in [
        "accepted",
        "bad operation",
        "future",
        "guard failed",
        "id expired",
        "id mismatch",
        "malformed",
        "not unique",
        "point conflict",
        "range conflict",
        "repeated",
        "restarts",
        "term changes",
        "too old",
        "unknown table",
        "validated",
        "wrong table",
    ] {
        assert!(
            counts.contains_key(name),
            "'{name}' never happened: {counts:?}"
        );
    }
}
