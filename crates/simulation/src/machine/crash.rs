//! Crash runs: the same world again and again, stopped at another step each time.

use onelog_log::{CrashMode, Fault, SimulatedDisk};

use super::world::{Stopped, World};
use crate::checker::Report;

/// Which of the two disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Log,
    State,
}

/// A call of one of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    pub which: Which,
    pub step: u64,
}

impl CrashPoint {
    fn disk(self, world: &World) -> SimulatedDisk {
        match self.which {
            Which::Log => world.image.log.clone(),
            Which::State => world.image.state.clone(),
        }
    }
}

fn points_of(world: &World) -> Vec<CrashPoint> {
    let all = |which, steps| (0..steps).map(move |step| CrashPoint { which, step });
    all(Which::Log, world.image.log.steps())
        .chain(all(Which::State, world.image.state.steps()))
        .collect()
}

/// Runs without a fault. Answers every call of the disks that the run made, and the proof.
pub fn survey(make: &dyn Fn() -> World) -> Result<(Vec<CrashPoint>, Report), Stopped> {
    let mut world = make();
    world.run()?;
    let points = points_of(&world);
    Ok((points, world.prove()))
}

/// Runs until the call at `point`, lets power fail there, and proves what a new life finds.
pub fn crash_at(make: &dyn Fn() -> World, point: CrashPoint, mode: CrashMode) -> Report {
    crashed_at(make, point, mode).prove()
}

fn crashed_at(make: &dyn Fn() -> World, point: CrashPoint, mode: CrashMode) -> World {
    let mut world = make();
    point.disk(&world).fail_at(point.step, Fault::CrashNow);
    // A run that ends well did not come to the point, or met it where a failure is no end.
    let _ = world.run();
    world.crash(mode);
    world
}

/// As [`crash_at`], but every `stride`th call of the recovery crashes too. Answers the reports of
/// all of these recoveries that are not clean, and how many there were.
pub fn crash_again(
    make: &dyn Fn() -> World,
    point: CrashPoint,
    mode: CrashMode,
    stride: usize,
) -> (usize, Vec<(CrashPoint, Report)>) {
    let crashed = crashed_at(make, point, mode);
    let mut probe = crashed.fork(point.step);
    let _ = probe.open();
    let points = points_of(&probe);
    let mut count = 0;
    let mut broken = Vec::new();
    for (n, again) in points.into_iter().step_by(stride.max(1)).enumerate() {
        let mut world = crashed.fork(point.step);
        again.disk(&world).fail_at(again.step, Fault::CrashNow);
        let _ = world.open();
        world.crash(CrashMode::ALL[n % CrashMode::ALL.len()]);
        let report = world.prove();
        count += 1;
        if !report.is_clean() {
            broken.push((again, report));
        }
    }
    (count, broken)
}

/// Runs with a failing call, or a disk that is full from there on, then restarts the process on
/// the mended disk (`power` is `None`) or after a power failure, and proves everything; after a
/// mere restart once more, when power has failed then.
pub fn fail_at(
    make: &dyn Fn() -> World,
    point: CrashPoint,
    fault: Fault,
    power: Option<CrashMode>,
) -> Report {
    let mut world = make();
    point.disk(&world).fail_at(point.step, fault);
    let _ = world.run();
    match power {
        None => world.kill(),
        Some(mode) => world.crash(mode),
    }
    let report = world.prove();
    if power.is_some() || !report.is_clean() {
        return report;
    }
    // What the second life found in the system's cache must have become durable.
    world.crash(CrashMode::LoseAll);
    world.prove()
}
