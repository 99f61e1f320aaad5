//! The simulator of clusters is tested: with a bug planted a seed must break a rule that the same seed
//! keeps without the bug. One test, for the bugs are global.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use onelog_replica::Failure;
use onelog_simulation::Report;
use onelog_simulation::cluster::{STEPS, World, node, run};

#[path = "cluster/deposed.rs"]
mod deposed;
#[path = "cluster/only_voter.rs"]
mod only_voter;

/// How many seeds a bug may hide behind.
const SEEDS_MAX: u64 = 1_000;
const THREADS: usize = 2;
/// The fewest bugs that say something about a simulator.
const BUGS_MIN: usize = 15;

/// A bug of one of the crates.
struct Planted {
    name: &'static str,
    set: fn(),
    clear: fn(),
}

macro_rules! bugs {
    ($($krate:ident: $($bug:ident),+;)+) => {
        [$($(Planted {
            name: concat!(stringify!($krate), "::", stringify!($bug)),
            set: || $krate::planted::set($krate::planted::Bug::$bug),
            clear: || $krate::planted::set($krate::planted::Bug::None),
        }),+),+]
    };
}

const BUGS: &[Planted] = &bugs! {
    onelog_engine: DecideBehindDefinition, BarrierUnconfirmed, OverlayKept, RepliesKept, AnswerOnDecision, AdmitsTooEarly,
        IdsNotInstalled, ReportedUnflushed, VoteForgotten, BarrierByLease;
    onelog_replica: AnswerOnStage, DurableIsCommitted, StoredBeforeCut, CommitBehindCheckpoint, MembersNotKept,
        ChangesNotLookedFor, CatalogNotInstalled, CatalogOfCheckpoint, RetainPastCheckpoint, ReplayShort;
    onelog_log: AcknowledgeBeforeFlush, FlushOutOfOrder, CutKeepsWatermark, CutUnflushed;
    onelog_commit: ValidateCommittedOnly, SkipRangeCheck, OffByOneRead, IdsInMemoryOnly;
    onelog_state: TombstoneLost, PositionOutsideCheckpoint, MembersOfLaterEntry;
};

/// The lowest of the first seeds that broke a rule, with what it broke.
fn first_broken(from: u64) -> Option<(u64, Report)> {
    let (next, found) = (AtomicU64::new(from), Mutex::new(None::<(u64, Report)>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS_MAX || found.lock().unwrap().is_some() {
                return;
            }
            let report = run(seed, STEPS).report;
            let mut found = found.lock().unwrap();
            if !report.is_clean() && found.as_ref().is_none_or(|(known, _)| seed < *known) {
                *found = Some((seed, report));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap()
}

/// The first seed that only the bug breaks, with what it breaks.
fn caught(bug: &Planted) -> Option<(u64, Report)> {
    let mut from = 0;
    loop {
        (bug.set)();
        let found = first_broken(from);
        (bug.clear)();
        let (seed, report) = found?;
        if run(seed, STEPS).report.is_clean() {
            return Some((seed, report));
        }
        from = seed + 1;
    }
}

#[test]
fn each_planted_bug_is_caught() {
    let only = std::env::var("ONELOG_TEST_BUG").ok();
    let is_meant = |bug: &&Planted| only.as_ref().is_none_or(|part| bug.name.contains(part));
    let mut missed = Vec::new();
    let mut count = 0;
    for bug in BUGS.iter().filter(is_meant) {
        count += 1;
        match caught(bug) {
            Some((seed, report)) => {
                let first = &report.violations[0];
                println!("{}: seed {seed}: {first}", bug.name);
            }
            None => {
                println!("{}: not within {SEEDS_MAX} seeds", bug.name);
                missed.push(bug.name);
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    assert!(only.is_some() || count >= BUGS_MIN, "only {count} bugs");
    the_only_voter_does_not_lead_before_all_is_durable();
    a_replica_whose_state_differs_stops_and_no_other_one();
    a_story_catches_a_refusal_that_nothing_has_confirmed();
}

fn a_story_catches_a_refusal_that_nothing_has_confirmed() {
    use onelog_engine::planted::{Bug, set};
    let (_, said) = deposed::requests_to_a_deposed_leader();
    assert!(said.is_empty(), "without the bug: {said:?}");
    set(Bug::RefusedUnconfirmed);
    let (_, said) = deposed::requests_to_a_deposed_leader();
    set(Bug::None);
    assert_eq!(said.len(), deposed::TICKETS.len(), "{said:?}");
}

fn the_only_voter_does_not_lead_before_all_is_durable() {
    use onelog_engine::planted::{Bug, set};
    let (_, has_led) = only_voter::becomes_the_only_voter();
    assert!(!has_led, "without the bug");
    set(Bug::CampaignsUnflushed);
    let led = std::panic::catch_unwind(|| only_voter::becomes_the_only_voter().1);
    set(Bug::None);
    // Where it leads, what it counts on is asserted.
    assert!(!matches!(led, Ok(false)), "it has not led");
}

fn a_replica_whose_state_differs_stops_and_no_other_one() {
    use onelog_replica::planted::{Bug, set};
    set(Bug::AppliesOtherwise);
    let (mut world, differs) = (World::of(3, 52), node(3));
    world.get(differs).may_fail = true;
    for ticket in 1..=200 {
        world.put(node(1), ticket);
        world.run(1);
    }
    set(Bug::None);
    let failure = world.get(differs).failure.take().expect("it has stopped");
    let is_named = matches!(failure, Failure::StateDiverged { node, .. } if node == differs);
    assert!(is_named, "{failure}");
    assert!(world.nodes[&node(1)].admits() && world.nodes[&node(2)].runs());
    assert!(world.is_acknowledged(200));
}
