//! The tests of clusters are tested: with a bug planted the random ones must fail. One test, for the
//! bugs are global.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::catch_unwind;

use onelog_replica::Failure;
use onelog_replica::planted::{self, Bug};
use onelog_simulation::cluster::run;

use world::{World, node};

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
    a_replica_whose_state_differs_stops_and_no_other_one();
}

fn a_replica_whose_state_differs_stops_and_no_other_one() {
    planted::set(Bug::AppliesOtherwise);
    let (mut world, differs) = (World::of(3, 52), node(3));
    world.get(differs).may_fail = true;
    for ticket in 1..=200 {
        world.put(node(1), ticket);
        world.run(1);
    }
    planted::set(Bug::None);
    let failure = world.get(differs).failure.take().expect("it has stopped");
    let is_named = matches!(failure, Failure::StateDiverged { node, .. } if node == differs);
    assert!(is_named, "{failure}");
    assert!(world.nodes[&node(1)].admits() && world.nodes[&node(2)].runs());
    assert!(world.is_acknowledged(200));
}
