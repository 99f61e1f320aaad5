//! A workload with checkpoints, crashed at a chosen step of the disk, and the check of what is
//! found afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{CrashMode, Fault, SimulatedDisk};
use onelog_record::{Offset, Position};
use onelog_state::{Applied, State, StateOptions};

use super::{Change, KEYS, Log, key, range, ranges, small};

/// What the workload knew when power failed.
#[derive(Debug)]
pub struct Reached {
    /// The last checkpoint that was said to be durable.
    pub durable: Applied,
    /// Whether a step failed.
    pub is_stopped: bool,
}

/// Entries that put, overwrite and delete, in two tables.
pub fn log(seed: u64) -> Log {
    let mut log = Log::default();
    let mut random = seed;
    let mut number = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for at in 0..24 {
        if at % 8 == 7 {
            log.no_op();
            continue;
        }
        let transactions: Vec<Vec<Change>> = (0..3)
            .map(|_| {
                (0..1 + number(6))
                    .map(|_| {
                        let key = key(number(KEYS as u64) as usize);
                        let table = 1 + number(2) as u32;
                        match number(5) {
                            0 | 1 => Change::Delete(table, key),
                            // One value in a while takes pages of its own.
                            2 => Change::Put(table, key, 6_000),
                            _ => Change::Put(table, key, number(300) as usize),
                        }
                    })
                    .collect()
            })
            .collect();
        log.append(&transactions);
    }
    log
}

pub fn options() -> StateOptions {
    StateOptions {
        ids_max: 20,
        ..small()
    }
}

/// Opens, applies everything with a checkpoint after each sixth entry, until the disk fails.
pub fn work(log: &Log, disk: &SimulatedDisk) -> Reached {
    let mut reached = Reached {
        durable: Applied::default(),
        is_stopped: true,
    };
    let Ok((state, _)) = State::open(Arc::new(disk.clone()), options()) else {
        return reached;
    };
    for (at, entry) in log.entries.iter().enumerate() {
        state.apply(entry).unwrap();
        if at % 6 == 5 {
            let checkpoint = state.freeze().unwrap();
            let applied = state.applied();
            if checkpoint.run().is_err() {
                return reached;
            }
            reached.durable = applied;
        }
    }
    reached.is_stopped = false;
    reached
}

/// Opens the state after a crash and checks it against the log.
pub fn check(log: &Log, disk: &SimulatedDisk, reached: &Reached) -> Result<(), String> {
    let opened = State::open(Arc::new(disk.clone()), options());
    let (state, opened) = opened.map_err(|error| format!("open: {error}"))?;
    let applied = opened.applied;
    if applied.index < reached.durable.index {
        return Err(format!(
            "{:?} was durable, {applied:?} is there",
            reached.durable
        ));
    }
    if applied.index.0 % 6 != 0 {
        return Err(format!("no checkpoint ended at {applied:?}"));
    }
    compare_base(log, &state, applied.position)?;
    compare_digest(&state)?;
    let ids = log
        .ids
        .iter()
        .take_while(|id| id.position <= applied.position);
    let mut ids: Vec<_> = ids.copied().collect();
    ids.drain(..ids.len().saturating_sub(options().ids_max));
    if opened.ids != ids {
        return Err(format!("the ids are {:?}, should be {ids:?}", opened.ids));
    }
    log.replay(&state);
    log.compare_state(&state, &ranges()[..6])
}

/// Checks that the digest that checkpoints keep is that of all rows.
pub fn compare_digest(state: &State) -> Result<(), String> {
    let (kept, scanned) = (state.digest(), state.scan_digest().unwrap());
    if kept != Some(scanned) {
        return Err(format!("the digest is {kept:?}, should be {scanned:?}"));
    }
    Ok(())
}

/// Checks that the B-tree is exactly what the log makes true at a position.
pub fn compare_base(log: &Log, state: &State, position: Position) -> Result<(), String> {
    let mut found: Vec<(u32, Bytes, Offset, Bytes)> = Vec::new();
    let mut visit = |table: onelog_record::TableId, key: &[u8], version: Offset, value: &[u8]| {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        found.push((table.0, key, version, value));
        ControlFlow::Continue(())
    };
    state
        .scan_base(&mut visit)
        .map_err(|error| error.to_string())?;
    let rows = |table: u32| {
        let rows = log.rows(&range(table, b"", None), position.0);
        rows.into_iter()
            .map(move |(key, version, value)| (table, key, version, value))
    };
    let expected: Vec<_> = [1, 2, u32::MAX].into_iter().flat_map(rows).collect();
    if found != expected {
        return Err(format!(
            "the B-tree at {position} holds {found:?}, should hold {expected:?}"
        ));
    }
    Ok(())
}

/// Runs the workload with a crash at every `stride`-th step, in every mode; the first finding.
pub fn crash_everywhere(seed: u64, stride: usize) -> Result<u64, String> {
    let log = log(seed);
    let disk = SimulatedDisk::new(seed);
    assert!(!work(&log, &disk).is_stopped);
    let steps = disk.steps();
    for step in (0..steps).step_by(stride) {
        for mode in CrashMode::ALL {
            let disk = SimulatedDisk::new(seed.wrapping_add(step));
            disk.fail_at(step, Fault::CrashNow);
            let reached = work(&log, &disk);
            disk.crash(mode);
            check(&log, &disk, &reached).map_err(|error| {
                format!("seed {seed}, step {step} of {steps}, {mode:?}: {error}")
            })?;
        }
    }
    Ok(steps)
}
