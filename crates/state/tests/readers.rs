//! Readers on other threads, while entries are applied and checkpoints run.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use onelog_log::SimulatedDisk;
use onelog_record::{Position, TableId};
use onelog_state::{CheckpointReport, Snapshot, State};
use support::{Change, Log, is_full, key, range, ranges, small};

const TABLE: u32 = 1;
const FIRST: &[u8] = b"a";
const LAST: &[u8] = b"z";
/// Each transaction writes both keys, `FIRST` first, so their versions are this far apart.
const DISTANCE: u64 = 3;

fn pair() -> Vec<Change> {
    let put = |key: &'static [u8]| Change::Put(TABLE, Bytes::from_static(key), 10);
    vec![
        put(FIRST),
        put(b"m"),
        Change::Delete(TABLE, key(20)),
        put(LAST),
    ]
}

/// Checks that a snapshot shows both keys of one transaction, by reading and by scanning.
fn check_pair(snapshot: &Snapshot) -> u64 {
    let version = |key| {
        let row = snapshot.get(TableId(TABLE), key).unwrap();
        row.map(|row| row.version.0)
    };
    let (first, last) = (version(FIRST), version(LAST));
    assert_eq!(first.map(|version| version + DISTANCE), last);
    for reverse in [false, true] {
        let rows = snapshot.scan(&range(TABLE, b"", None), reverse).unwrap();
        let mut rows: Vec<_> = rows.map(Result::unwrap).collect();
        if reverse {
            rows.reverse();
        }
        let ends = rows.first().map(|row| row.version.0 + DISTANCE);
        assert_eq!(ends, rows.last().map(|row| row.version.0));
        assert_eq!(ends, last, "reading and scanning see the same");
    }
    last.map_or(0, |version| version + 1)
}

#[test]
fn no_reader_ever_sees_half_an_entry() {
    let entries = if is_full() { 20_000 } else { 1_500 };
    let mut log = Log::default();
    for _ in 0..entries {
        log.append(&[pair(), pair()]);
    }
    let disk = Arc::new(SimulatedDisk::new(1));
    let (state, _) = State::open(disk, small()).unwrap();
    let is_done = AtomicBool::new(false);
    let read = |state: &State| {
        let mut snapshots = 0u64;
        let mut before = 0;
        while !is_done.load(Ordering::Acquire) || snapshots == 0 {
            let snapshot = state.snapshot();
            let position = check_pair(&snapshot);
            assert_eq!(Position(position), snapshot.position());
            assert!(position >= before, "the position never moves back");
            let newest = state.newest(TableId(TABLE), FIRST).unwrap();
            let newest = newest.map_or(0, |latest| latest.version.0 + 1);
            assert!(newest <= state.position().0);
            // The window moves on meanwhile; whatever it serves is whole.
            if let Ok(older) = state.snapshot_at(Position(position.saturating_sub(8))) {
                assert_eq!(check_pair(&older), older.position().0);
            }
            before = position;
            snapshots += 1;
        }
        snapshots
    };
    thread::scope(|scope| {
        let readers = [scope.spawn(|| read(&state)), scope.spawn(|| read(&state))];
        let mut running: Option<thread::ScopedJoinHandle<'_, CheckpointReport>> = None;
        let mut checkpoints = 0;
        for entry in &log.entries {
            state.apply(entry).unwrap();
            // A full state waits for the checkpoint that runs.
            if state.is_full()
                && let Some(before) = running.take()
            {
                before.join().unwrap();
            }
            if state.wants_checkpoint() {
                let checkpoint = state.freeze().unwrap();
                checkpoints += 1;
                running = Some(scope.spawn(move || checkpoint.run().unwrap()));
            }
        }
        if let Some(last) = running.take() {
            last.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
        assert!(checkpoints > 3, "checkpoints ran meanwhile: {checkpoints}");
    });
    assert_eq!(log.compare_state(&state, &ranges()[..1]), Ok(()));
}

#[test]
fn a_snapshot_never_changes_while_checkpoints_run() {
    // Given a state with a checkpoint, a memtable, and a snapshot of both,
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    let changes = |round: usize| -> Vec<Change> {
        (0..30)
            .map(|number| match (number + round) % 3 {
                0 => Change::Delete(1, key(number)),
                _ => Change::Put(1, key(number), 100),
            })
            .collect()
    };
    let mut held = Vec::new();
    for round in 0..20 {
        // when everything is overwritten and checkpointed again and again,
        log.append(&[changes(round)]);
        log.replay(&state);
        held.push(state.snapshot());
        if round % 2 == 0 {
            state.freeze().unwrap().run().unwrap();
        }
        drop(state.release_old_view());
    }
    // then every snapshot still shows what it showed, and the memory says who holds it.
    for snapshot in &held {
        assert_eq!(log.compare(snapshot, &ranges()), Ok(()));
    }
    assert!(state.memory().pinned_bytes > 0);
    held.clear();
    drop(state.release_old_view());
    assert_eq!(state.memory().pinned_bytes, 0);
}

#[test]
fn a_scan_that_is_under_way_is_not_disturbed() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[(0..40)
        .map(|number| Change::Put(1, key(number), 50))
        .collect()]);
    log.replay(&state);
    state.freeze().unwrap().run().unwrap();
    let at = log.position;
    let everything = range(1, b"", None);
    let mut scan = state.snapshot().scan(&everything, false).unwrap();
    let mut found = vec![scan.next().unwrap().unwrap()];
    for _ in 0..4 {
        log.append(&[(0..40)
            .map(|number| Change::Delete(1, key(number)))
            .collect()]);
        log.replay(&state);
        state.freeze().unwrap().run().unwrap();
        found.extend(scan.next().map(Result::unwrap));
    }
    found.extend(scan.map(Result::unwrap));
    let found: Vec<_> = found
        .into_iter()
        .map(|row| (row.key, row.version, row.value))
        .collect();
    assert_eq!(found, log.rows(&everything, at));
    assert_eq!(state.snapshot().scan(&everything, true).unwrap().count(), 0);
}
