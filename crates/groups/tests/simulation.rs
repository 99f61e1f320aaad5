//! Seeds of the simulation, see `simulate`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod simulate;

const SEEDS: u64 = 150;

#[test]
fn a_group_of_dynamic_members_keeps_the_rules_and_becomes_stable() {
    (0..SEEDS).for_each(|seed| simulate::run(seed, 0));
}

#[test]
fn a_group_with_instances_keeps_the_rules_and_becomes_stable() {
    (SEEDS..SEEDS * 2).for_each(|seed| simulate::run(seed, 3));
}
