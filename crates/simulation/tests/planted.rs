//! The checks are checked: with a bug planted, each must fail, and for the right reason, within a
//! bounded number of seeds. Without one the same hunts find nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onelog_commit::planted as commit;
use onelog_engine::planted as engine;
use onelog_log::{CrashMode, planted as log};
use onelog_record::panic_message;
use onelog_replica::planted as replica;
use onelog_simulation::machine::{MachineOptions, World, crash_at, survey};
use onelog_simulation::workloads::{self, Workload};
use onelog_simulation::{Report, Rule};
use onelog_state::planted as state;

/// How many seeds a bug may hide behind.
const SEEDS_MAX: u64 = 40;
/// How many steps of each seed are crashed, in every mode.
const CRASHES_MAX: usize = 24;
const ACTIONS: usize = 1_500;
/// A segment's header block.
const HEADER_BYTES: u64 = 4_096;

/// Some bugs are planted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is planted; everything is taken out again at the end.
struct Planted(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Planted {
    fn nothing() -> Self {
        Self(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn in_commit(bug: commit::Bug) -> Self {
        let planted = Self::nothing();
        commit::set(bug);
        planted
    }

    fn in_engine(bug: engine::Bug) -> Self {
        let planted = Self::nothing();
        engine::set(bug);
        planted
    }

    fn in_log(bug: log::Bug) -> Self {
        let planted = Self::nothing();
        log::set(bug);
        planted
    }

    fn in_state(bug: state::Bug) -> Self {
        let planted = Self::nothing();
        state::set(bug);
        planted
    }
}

impl Planted {
    fn in_replica(bug: replica::Bug) -> Self {
        let planted = Self::nothing();
        replica::set(bug);
        planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        commit::set(commit::Bug::None);
        log::set(log::Bug::None);
        state::set(state::Bug::None);
        engine::set(engine::Bug::None);
        replica::set(replica::Bug::None);
    }
}

/// What is done to the node before it is looked at.
#[derive(Clone, Copy, Debug)]
enum Hunt {
    Calm,
    /// A clean stop and start.
    Restart,
    /// Power fails, at many steps, in every mode.
    Power,
    /// A bit of what was acknowledged flips while the node is down.
    Rot,
}

fn plain() -> MachineOptions {
    MachineOptions {
        actions: ACTIONS,
        ..MachineOptions::default()
    }
}

/// A checkpoint that has what the log lost would notice it first, and refuse to start.
fn without_checkpoints() -> MachineOptions {
    MachineOptions {
        checkpoint_interval_ms: u64::MAX,
        memtable_bytes: 1 << 20,
        ..plain()
    }
}

type Wanted<'w> = &'w dyn Fn(&Report) -> bool;

/// The first report that is wanted, and its seed.
fn hunt(how: Hunt, options: &MachineOptions, wanted: Wanted<'_>) -> Option<(u64, Report)> {
    (0..SEEDS_MAX).find_map(|seed| Some((seed, hunt_seed(how, seed, options, wanted)?)))
}

fn hunt_seed(how: Hunt, seed: u64, options: &MachineOptions, wanted: Wanted<'_>) -> Option<Report> {
    let make = || World::new(seed, options.clone(), workloads::with_definitions());
    let run = || {
        let mut world = make();
        world.run().unwrap();
        world
    };
    let report = match how {
        Hunt::Calm => survey(&make).unwrap().1,
        Hunt::Restart => {
            let mut world = run();
            world.close().unwrap();
            world.prove()
        }
        Hunt::Power => {
            let (points, _) = survey(&make).unwrap();
            let step = (points.len() / CRASHES_MAX).max(1);
            let points = points.into_iter().skip(seed as usize % step).step_by(step);
            return points
                .flat_map(|point| CrashMode::ALL.map(|mode| (point, mode)))
                .map(|(point, mode)| crash_at(&make, point, mode))
                .find(wanted);
        }
        Hunt::Rot => {
            let mut world = run();
            world.settle().unwrap();
            world.kill();
            rot(&world);
            world.prove()
        }
    };
    wanted(&report).then_some(report)
}

/// Flips a bit of the first frame of the last segment, right behind the segment's header block.
fn rot(world: &World) {
    let disk = &world.image().log;
    let files = disk.files();
    let name = files.keys().rfind(|name| name.ends_with(".log"));
    let name = name.unwrap_or_else(|| panic!("no segment among {:?}", files.keys()));
    disk.flip(name, (HEADER_BYTES + 20) * 8 + 3);
}

/// One of the rules is reported as broken, whatever else is.
#[track_caller]
fn assert_caught(how: Hunt, options: &MachineOptions, rules: &[Rule]) -> Report {
    let wanted = |report: &Report| rules.iter().any(|rule| report.broke(*rule));
    let Some((seed, report)) = hunt(how, options, &wanted) else {
        let dirty = hunt(how, options, &is_dirty);
        panic!("{SEEDS_MAX} seeds broke none of {rules:?}; what they broke: {dirty:?}");
    };
    let reason = report
        .violations
        .iter()
        .find(|found| rules.contains(&found.rule));
    println!("seed {seed}: {reason:?}");
    report
}

fn is_dirty(report: &Report) -> bool {
    !report.is_clean()
}

#[test]
fn without_a_bug_the_hunts_find_nothing() {
    let _planted = Planted::nothing();
    for how in [Hunt::Calm, Hunt::Restart] {
        assert_eq!(hunt(how, &plain(), &is_dirty), None);
    }
    for seed in 0..2 {
        assert_eq!(hunt_seed(Hunt::Power, seed, &plain(), &is_dirty), None);
    }
}

#[test]
fn without_a_bug_rotten_acknowledged_bytes_are_refused_not_served() {
    let _planted = Planted::nothing();
    for seed in 0..4 {
        let report = hunt_seed(Hunt::Rot, seed, &plain(), &|_| true).unwrap();
        let refusal = &report.violations[0];
        assert_eq!(refusal.rule, Rule::CannotGoOn, "{report}");
        assert!(refusal.message.contains("corrupt"), "{report}");
    }
}

#[test]
fn an_unchecked_range_is_caught() {
    let _planted = Planted::in_commit(commit::Bug::SkipRangeCheck);
    let report = assert_caught(Hunt::Calm, &plain(), &[Rule::Phantom]);
    assert!(report.to_string().contains("in between"), "{report}");
}

#[test]
fn validation_against_committed_transactions_only_is_caught() {
    let _planted = Planted::in_commit(commit::Bug::ValidateCommittedOnly);
    let rules = [Rule::StaleRead, Rule::GuardBroken, Rule::WrongRecords];
    assert_caught(Hunt::Calm, &plain(), &rules);
}

#[test]
fn a_floor_that_is_off_by_one_is_caught() {
    let _planted = Planted::in_commit(commit::Bug::OffByOneFloor);
    // A window of two writes: the floor is always near.
    let options = MachineOptions {
        window_writes_max: 2,
        ..plain()
    };
    assert_caught(Hunt::Calm, &options, &[Rule::StaleRead]);
}

#[test]
fn a_write_at_the_read_position_taken_as_seen_is_caught() {
    let _planted = Planted::in_commit(commit::Bug::OffByOneRead);
    let rules = [Rule::StaleRead, Rule::Phantom];
    assert_caught(Hunt::Calm, &plain(), &rules);
}

#[test]
fn ids_that_are_remembered_in_memory_only_are_caught() {
    let _planted = Planted::in_commit(commit::Bug::IdsInMemoryOnly);
    let rules = [Rule::AppliedTwice, Rule::IdForgotten];
    assert_caught(Hunt::Restart, &plain(), &rules);
}

#[test]
fn a_refusal_that_is_answered_too_early_is_caught() {
    let _planted = Planted::in_commit(commit::Bug::RefusalAnsweredTooEarly);
    let rules = [Rule::RealTime, Rule::WrongRefusal];
    assert_caught(Hunt::Calm, &plain(), &rules);
}

#[test]
fn an_acknowledgement_without_a_flush_is_caught() {
    let _planted = Planted::in_log(log::Bug::AcknowledgeBeforeFlush);
    let options = without_checkpoints();
    assert_caught(Hunt::Power, &options, &[Rule::AcknowledgedLost]);
}

#[test]
fn a_tail_cut_below_the_watermark_is_caught() {
    let _planted = Planted::in_log(log::Bug::CutBelowWatermark);
    // Where the hard state knows what was committed, the start is refused.
    let rules = [Rule::AcknowledgedLost, Rule::LogBroken, Rule::CannotGoOn];
    assert_caught(Hunt::Rot, &without_checkpoints(), &rules);
}

#[test]
fn a_position_outside_the_checkpoint_is_caught() {
    let _planted = Planted::in_state(state::Bug::PositionOutsideCheckpoint);
    assert_caught(Hunt::Power, &plain(), &[Rule::WrongRead]);
}

#[test]
fn a_lost_tombstone_is_caught() {
    let _planted = Planted::in_state(state::Bug::TombstoneLost);
    assert_caught(Hunt::Calm, &plain(), &[Rule::WrongRead]);
}

#[test]
fn an_answer_on_staging_is_caught() {
    let _planted = Planted::in_replica(replica::Bug::AnswerOnStage);
    let options = without_checkpoints();
    assert_caught(Hunt::Power, &options, &[Rule::AcknowledgedLost]);
}

#[test]
fn flushes_that_count_out_of_order_are_caught() {
    let _planted = Planted::in_log(log::Bug::FlushOutOfOrder);
    let rules = [Rule::AcknowledgedLost, Rule::LogBroken];
    assert_caught(Hunt::Power, &without_checkpoints(), &rules);
}

#[test]
fn a_segment_whose_name_was_not_flushed_is_caught() {
    let _planted = Planted::in_log(log::Bug::NameUnflushed);
    let rules = [Rule::AcknowledgedLost, Rule::CannotGoOn];
    assert_caught(Hunt::Power, &without_checkpoints(), &rules);
}

#[test]
fn a_cut_that_was_not_recorded_is_caught() {
    let _planted = Planted::in_log(log::Bug::DropUnrecorded);
    let options = MachineOptions {
        segment_bytes: 8 << 10,
        retain_bytes: Some(8 << 10),
        ..plain()
    };
    assert_caught(Hunt::Power, &options, &[Rule::CannotGoOn]);
}

/// The start finds that a checkpoint has what the log lost, and refuses.
/// How the log's end is refused: the checkpoint, or the hard state, knows of more.
const LOST: [&str; 2] = [
    "the state covers the log up to index",
    "the log was committed up to index",
];
const NOT_DURABLE: &str = "what is applied is durable on this node";

fn is_refused_for_what_the_log_lost(report: &Report) -> bool {
    report.violations.iter().any(|found| {
        let is_named = LOST.iter().any(|text| found.message.contains(text));
        found.rule == Rule::CannotGoOn && is_named
    })
}

#[test]
fn with_checkpoints_the_start_refuses_a_log_that_lost_what_they_have() {
    let bugs: [(fn() -> Planted, Hunt); 3] = [
        (
            || Planted::in_replica(replica::Bug::AnswerOnStage),
            Hunt::Power,
        ),
        (|| Planted::in_log(log::Bug::FlushOutOfOrder), Hunt::Power),
        (|| Planted::in_log(log::Bug::CutBelowWatermark), Hunt::Rot),
    ];
    // A loss shows here only when a checkpoint has just covered it, so there are many of them.
    let options = MachineOptions {
        checkpoint_interval_ms: 100,
        ..plain()
    };
    for (number, (plant, how)) in bugs.into_iter().enumerate() {
        let _planted = plant();
        let hunted = catch_unwind(|| hunt(how, &options, &is_refused_for_what_the_log_lost));
        // A checkpoint of what is not durable is noticed before it is made.
        let is_caught = match &hunted {
            Ok(found) => found.is_some(),
            Err(panic) => panic_message(panic.as_ref()) == Some(NOT_DURABLE),
        };
        assert!(is_caught, "bug {number}: no start was refused");
    }
}

#[test]
fn retention_past_the_checkpoint_is_caught() {
    let _planted = Planted::in_replica(replica::Bug::RetainPastCheckpoint);
    let options = MachineOptions {
        segment_bytes: 8 << 10,
        retain_bytes: Some(8 << 10),
        checkpoint_interval_ms: 5_000,
        memtable_bytes: 64 << 10,
        actions: 2 * ACTIONS,
        ..plain()
    };
    assert_caught(Hunt::Power, &options, &[Rule::CannotGoOn]);
}

#[test]
fn retention_past_a_follower_is_caught() {
    let _planted = Planted::in_replica(replica::Bug::RetainPastFollowers);
    let options = MachineOptions {
        segment_bytes: 8 << 10,
        retain_bytes: Some(16 << 10),
        actions: 2 * ACTIONS,
        ..plain()
    };
    assert_caught(Hunt::Calm, &options, &[Rule::CutTooFar]);
}

#[test]
fn a_replay_that_stops_short_is_caught() {
    let _planted = Planted::in_replica(replica::Bug::ReplayShort);
    assert_caught(Hunt::Power, &plain(), &[Rule::WrongRead]);
}

#[test]
fn tables_that_only_the_checkpoint_knows_are_caught() {
    let _planted = Planted::in_replica(replica::Bug::CatalogOfCheckpoint);
    let rules = [Rule::WrongRefusal, Rule::NoSuchTable];
    assert_caught(Hunt::Power, &plain(), &rules);
}

#[test]
fn a_decision_by_tables_that_are_about_to_change_is_caught() {
    let _planted = Planted::in_engine(engine::Bug::DecideBehindDefinition);
    assert_caught(Hunt::Calm, &plain(), &[Rule::NoSuchTable]);
}

#[test]
fn rows_that_are_shown_before_their_table_are_caught() {
    let _planted = Planted::in_replica(replica::Bug::CatalogLags);
    assert_caught(Hunt::Calm, &plain(), &[Rule::Published]);
}

#[test]
fn a_dropped_table_that_still_takes_writes_is_caught() {
    let _planted = Planted::in_replica(replica::Bug::DropForgotten);
    assert_caught(Hunt::Calm, &plain(), &[Rule::NoSuchTable]);
}

/// The bug breaks what clients saw of lists in this way, whatever the log and its positions say.
#[track_caller]
fn assert_seen_by_clients(how: Hunt, options: &MachineOptions, kinds: &[&str]) {
    let wanted = |report: &Report| {
        report.violations.iter().any(|found| {
            let is_named = kinds.iter().any(|kind| found.message.starts_with(kind));
            found.rule == Rule::NotSerializable && is_named
        })
    };
    let Some((seed, report)) = hunt(how, options, &wanted) else {
        let any = |report: &Report| report.broke(Rule::NotSerializable);
        panic!(
            "{SEEDS_MAX} seeds showed none of {kinds:?}: {:?}",
            hunt(how, options, &any)
        );
    };
    let mut found = report.violations.iter();
    if let Some(found) = found.find(|found| found.rule == Rule::NotSerializable) {
        println!("seed {seed}: {}", found.message);
    }
}

#[test]
fn cycles_alone_show_an_unchecked_range() {
    let _planted = Planted::in_commit(commit::Bug::SkipRangeCheck);
    assert_seen_by_clients(
        Hunt::Calm,
        &plain(),
        &["G2-item", "G-single", "lost update"],
    );
}

#[test]
fn cycles_alone_show_validation_against_committed_transactions_only() {
    let _planted = Planted::in_commit(commit::Bug::ValidateCommittedOnly);
    assert_seen_by_clients(
        Hunt::Calm,
        &plain(),
        &["G2-item", "G-single", "lost update"],
    );
}

#[test]
fn cycles_alone_show_a_write_at_the_read_position_taken_as_seen() {
    let _planted = Planted::in_commit(commit::Bug::OffByOneRead);
    assert_seen_by_clients(
        Hunt::Calm,
        &plain(),
        &["G2-item", "G-single", "lost update"],
    );
}

#[test]
fn cycles_alone_show_an_append_that_a_forgotten_id_repeats() {
    let _planted = Planted::in_commit(commit::Bug::IdsInMemoryOnly);
    assert_seen_by_clients(Hunt::Restart, &plain(), &["duplicate"]);
}

#[test]
fn cycles_alone_show_an_acknowledged_append_that_is_lost() {
    let _planted = Planted::in_log(log::Bug::AcknowledgeBeforeFlush);
    assert_seen_by_clients(Hunt::Power, &without_checkpoints(), &["stale read"]);
}

#[test]
fn cycles_alone_show_a_replay_that_stops_short() {
    let _planted = Planted::in_replica(replica::Bug::ReplayShort);
    assert_seen_by_clients(Hunt::Power, &plain(), &["stale read", "incompatible"]);
}

type Make = Box<dyn Fn() -> Box<dyn Workload>>;

#[test]
fn each_workload_alone_finds_a_bug_of_its_own() {
    let table = onelog_record::USER_TABLES_FROM;
    let cases: [(Make, commit::Bug); 3] = [
        (
            Box::new(move || Box::new(workloads::Bookings { table })),
            commit::Bug::SkipRangeCheck,
        ),
        (
            Box::new(move || Box::new(workloads::Ring { table })),
            commit::Bug::ValidateCommittedOnly,
        ),
        (
            Box::new(move || Box::new(workloads::Bank { table })),
            commit::Bug::OffByOneRead,
        ),
    ];
    for (workload, bug) in cases {
        let _planted = Planted::in_commit(bug);
        let found = (0..SEEDS_MAX).any(|seed| {
            let make = || World::new(seed, plain(), vec![workload()]);
            survey(&make).unwrap().1.broke(Rule::Invariant)
        });
        assert!(found, "{:?} kept its invariant under {bug:?}", workload());
    }
}
