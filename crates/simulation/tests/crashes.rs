//! A whole node on simulated disks, stopped at every step of a workload that appends, rolls,
//! indexes, checkpoints, cuts the log's start and saves its hard state: by a power failure in each
//! of four ways, by a failing call, by a full disk. What the next life finds is proved.

#![allow(clippy::unwrap_used, clippy::panic)]

use onelog_log::{CrashMode, Fault};
use onelog_record::{Compression, Op, Position, Refusal, TABLE_TABLES, TableId, USER_TABLES_FROM};
use onelog_simulation::machine::{
    CrashPoint, MachineOptions, Which, World, crash_again, crash_at, fail_at, survey,
};
use onelog_simulation::workloads::Random;
use onelog_simulation::{Answer, Report, is_full, workloads};
use rand::{Rng, SeedableRng};

const SEED: u64 = 7;
/// The tables behind this one come and go.
const LAST_FIXED: TableId = TableId(USER_TABLES_FROM.0 + 6);
/// So many steps the workload has at least, and so many of each disk.
const STEPS_MIN: usize = 2_000;
const DISK_STEPS_MIN: usize = 500;
/// Every so many steps are crashed in a quick run.
const STRIDE: usize = 20;
/// And every so many meet a failing call or a full disk.
const FAULT_STRIDE: usize = 40;
const ACTIONS: usize = 6_600;
/// How many crashes are crashed again in their recovery, and how densely.
const CRASHED_AGAIN: usize = 200;
const CRASHED_AGAIN_QUICK: usize = 8;
const AGAIN_STRIDE_QUICK: usize = 6;

fn world_of(seed: u64) -> World {
    let options = MachineOptions {
        actions: ACTIONS,
        ..MachineOptions::default()
    };
    World::new(seed, options, workloads::with_definitions())
}

fn world() -> World {
    world_of(SEED)
}

fn stride(quick: usize) -> usize {
    if is_full() { 1 } else { quick }
}

/// All steps of the run without a fault.
fn points() -> Vec<CrashPoint> {
    survey(&world).unwrap().0
}

#[track_caller]
fn assert_clean(report: &Report, what: impl std::fmt::Debug) {
    assert!(report.is_clean(), "{what:?}\n{report}");
}

#[test]
fn a_run_without_faults_is_proved_and_walks_every_path() {
    let (points, report) = survey(&world).unwrap();
    println!("{} steps; {report}", points.len());
    assert_clean(&report, "no fault");
    assert!(points.len() >= STEPS_MIN, "only {} steps", points.len());
    for which in [Which::Log, Which::State] {
        let count = points.iter().filter(|point| point.which == which).count();
        assert!(count >= DISK_STEPS_MIN, "only {count} steps of {which:?}");
    }
    assert!(
        report.acknowledged > 500 && report.refused > 100,
        "{report}"
    );
}

#[test]
fn tables_come_and_go_the_log_is_cut_and_requests_wait_too_long() {
    let mut world = world();
    world.run().unwrap();
    assert!(
        world.log_start() > Some(Position(0)),
        "the log was never cut"
    );
    assert_clean(&world.prove(), "no fault");
    let (history, log, _) = world.into_witness();
    let refused = |is_meant: fn(&Refusal) -> bool| {
        let answers = history.commits.iter().map(|call| &call.answer);
        answers
            .filter(|answer| matches!(answer, Answer::Refused(refusal) if is_meant(refusal)))
            .count()
    };
    let unknown = refused(|refusal| matches!(refusal, Refusal::UnknownTable { .. }));
    let overloaded = refused(|refusal| matches!(refusal, Refusal::Overloaded { .. }));
    let records = || log.iter().flat_map(|logged| &logged.records);
    let dropped = records()
        .filter(|record| record.table == TABLE_TABLES && record.op == Op::Delete)
        .count();
    let passing = records().filter(|record| record.table > LAST_FIXED).count();
    println!(
        "{dropped} drops, {passing} records in passing tables, {unknown} refused as unknown, {overloaded} waited too long"
    );
    assert!(dropped > 5, "{dropped}");
    assert!(passing > 10, "{passing}");
    assert!(unknown > 5, "{unknown}");
    assert!(overloaded > 0, "{overloaded}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = world_of(seed);
        world.run().unwrap();
        world.trace()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2), "the trace says nothing");
}

#[test]
fn a_clean_shutdown_keeps_everything() {
    let mut world = world();
    world.run().unwrap();
    world.close().unwrap();
    assert_clean(&world.prove(), "a clean shutdown");
}

#[test]
fn power_may_fail_after_every_step() {
    let mut count = 0;
    for point in points().into_iter().step_by(stride(STRIDE)) {
        for mode in CrashMode::ALL {
            assert_clean(&crash_at(&world, point, mode), (point, mode));
            count += 1;
        }
    }
    println!("{count} crashes");
}

#[test]
fn power_may_fail_again_at_every_step_of_recovery() {
    let (crashes, stride) = if is_full() {
        (CRASHED_AGAIN, 1)
    } else {
        (CRASHED_AGAIN_QUICK, AGAIN_STRIDE_QUICK)
    };
    let points = points();
    let step = (points.len() / crashes).max(1);
    let mut count = 0;
    for (n, point) in points.into_iter().step_by(step).enumerate() {
        let mode = CrashMode::ALL[n % CrashMode::ALL.len()];
        let (again, broken) = crash_again(&world, point, mode, stride);
        count += again;
        if let Some((second, report)) = broken.first() {
            assert_clean(report, (point, mode, second));
        }
    }
    println!("{count} crashes of recoveries");
}

#[test]
fn many_lives_in_a_row_are_one_history() {
    let (seeds, lives) = if is_full() { (200, 12) } else { (6, 5) };
    for seed in 0..seeds {
        let mut random = Random::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let options = MachineOptions {
            actions: 700,
            segment_bytes: pick(&[8 << 10, 16 << 10, 64 << 10]),
            memtable_bytes: pick(&[4 << 10, 8 << 10, 1 << 20]) as usize,
            window_writes_max: pick(&[2, 16, 1_000]) as usize,
            ids_max: pick(&[40, 400, 100_000]) as usize,
            flushes_in_flight: pick(&[1, 2, 4]) as usize,
            memtable_bytes_max: pick(&[8 << 10, 256 << 10]) as usize,
            checkpoint_interval_ms: pick(&[100, 1_000, 30_000]),
            snapshot_age_ms_max: pick(&[0, 400, u64::MAX]),
            retain_bytes: [None, Some(0), Some(64 << 10)][pick(&[0, 1, 2]) as usize],
            retain_ms: [None, Some(1 << 20)][pick(&[0, 1]) as usize],
            compression: [Compression::None, Compression::Lz4][seed as usize % 2],
            ..MachineOptions::default()
        };
        let mut world = World::new(seed, options.clone(), workloads::with_definitions());
        for life in 0..lives {
            let image = world.image().clone();
            let disk = if pick(&[0, 1, 2]) == 0 {
                &image.state
            } else {
                &image.log
            };
            disk.fail_at(disk.steps() + pick(&[9, 60, 150, 260]), Fault::CrashNow);
            // A life that meets no fault ends well, and is crashed behind its end.
            let _ = world.run();
            let mode = CrashMode::ALL[pick(&[0, 1, 2, 3]) as usize];
            world.crash(mode);
            assert_clean(&world.prove(), (seed, life, mode, &options));
        }
    }
}

#[test]
fn a_failing_call_stops_the_node_or_is_survived() {
    prove_fault(Fault::Error);
}

#[test]
fn a_full_disk_stops_the_node_or_is_survived() {
    prove_fault(Fault::Full);
}

fn prove_fault(fault: Fault) {
    let ends = [
        None,
        Some(CrashMode::LoseAll),
        Some(CrashMode::RandomPart),
        Some(CrashMode::Reorder),
    ];
    let mut count = 0;
    let stride = stride(FAULT_STRIDE);
    // Beside the crashes: the steps in between.
    let points = points().into_iter().skip(stride / 2).step_by(stride);
    for (n, point) in points.enumerate() {
        for (at, end) in ends.into_iter().enumerate() {
            if !is_full() && at % 2 != n % 2 {
                continue;
            }
            assert_clean(&fail_at(&world, point, fault, end), (point, fault, end));
            count += 1;
        }
    }
    println!("{count} faults");
}
