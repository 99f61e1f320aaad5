//! The life of a state: windows, pressure, remembered ids, dropped tables, copies, refusals.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{Disk, Fault, SimulatedDisk};
use onelog_record::{EntryKind, Index, Offset, Position, TableId};
use onelog_state::{
    ApplyError, CopyError, OpenError, STATE_FILE, SnapshotError, State, StateOptions, Written,
};
use support::crash::compare_base;
use support::{Change, Log, checkpoint, key, put, range, ranges, small};

#[test]
fn the_floor_follows_one_checkpoint_behind() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    let mut ends = vec![0];
    for round in 0..4 {
        log.append(&[put(round), put(round + 20)]);
        log.replay(&state);
        checkpoint(&state);
        // The base is at the newest checkpoint, the view before it is kept.
        assert_eq!(state.floor().0, *ends.last().unwrap());
        assert_eq!(state.checkpointed().position.0, log.position);
        ends.push(log.position);
    }
    let below = Position(ends[2]);
    let floor = Position(ends[3]);
    let refused = state.snapshot_at(below).unwrap_err();
    assert_eq!(refused, SnapshotError::TooOld { floor });
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn a_kept_view_is_released_when_nobody_uses_it() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[put(1)]);
    log.replay(&state);
    checkpoint(&state);
    let older = state.snapshot_at(Position(0)).unwrap();
    assert!(state.release_old_view().is_none());
    assert_eq!(state.floor(), Position(0), "a snapshot uses it");
    drop(older);
    assert!(state.release_old_view().is_some());
    assert_eq!(state.floor(), Position(1));
    assert_eq!(state.memory().kept_bytes, 0);
}

#[test]
fn a_full_state_says_so_and_a_checkpoint_makes_room() {
    // Given room for sixteen memtables in all,
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    let feed = |log: &mut Log, state: &State, until: &dyn Fn(&State) -> bool| {
        for number in 0..10_000 {
            if until(state) {
                return;
            }
            log.append(&[put(number)]);
            log.replay(state);
        }
        panic!("it never comes to that");
    };
    assert!(!state.wants_checkpoint() && !state.is_full());
    feed(&mut log, &state, &State::wants_checkpoint);
    assert!(!state.is_full());
    // when writes go on although a checkpoint does not end,
    let slow = state.freeze().unwrap();
    assert!(!state.wants_checkpoint() && state.freeze().is_none());
    feed(&mut log, &state, &State::is_full);
    let memory = state.memory();
    assert!(memory.held_bytes() >= small().memtable_bytes_max);
    assert!(memory.frozen_bytes > 0 && memory.active_bytes > 0);
    // then it is full until that one and the next have ended.
    slow.run().unwrap();
    assert!(state.wants_checkpoint(), "memory is short");
    checkpoint(&state);
    drop(state.release_old_view());
    assert!(!state.is_full());
    assert_eq!(state.memory().held_bytes(), 0);
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn a_kept_view_never_starves_the_writers() {
    // Given memtables that may be as large as all of them together,
    let mut log = Log::default();
    let options = StateOptions {
        memtable_bytes: 8 << 10,
        memtable_bytes_max: 8 << 10,
        ..small()
    };
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), options);
    // when they fill up again and again, then each time a checkpoint can make room.
    let mut checkpoints = 0;
    for number in 0..600 {
        if state.is_full() {
            assert!(state.wants_checkpoint());
            checkpoint(&state);
            checkpoints += 1;
        }
        log.append(&[put(number)]);
        log.replay(&state);
    }
    assert!(checkpoints > 3);
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn the_newest_ids_are_remembered_across_a_restart() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let options = StateOptions {
        ids_max: 1_500,
        ..small()
    };
    let (mut state, opened) = log.open(Arc::new(disk.clone()), options.clone());
    assert_eq!(opened.ids, []);
    for round in 0..12 {
        let transactions: Vec<_> = (0..400)
            .map(|number| vec![Change::Event(9, key(number))])
            .collect();
        log.append(&transactions);
        log.replay(&state);
        checkpoint(&state);
        if round % 3 == 2 {
            drop(state);
            let (again, opened) = log.open(Arc::new(disk.clone()), options.clone());
            state = again;
            let newest = log.ids.len().saturating_sub(options.ids_max);
            assert_eq!(opened.ids, log.ids[newest..]);
        }
    }
    drop(state);
    // What is stored is bounded too: a chunk more than the window at most.
    let options = StateOptions {
        ids_max: usize::MAX,
        ..options
    };
    let (_, opened) = State::open(Arc::new(disk), options).unwrap();
    assert!(opened.ids.len() < 1_500 + 512, "{}", opened.ids.len());
}

#[test]
fn the_rows_of_a_dropped_table_leave_the_tree() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    let both = |number| {
        vec![
            Change::Put(1, key(number), 10),
            Change::Put(u32::MAX, key(number), 10),
        ]
    };
    log.append(&[both(1), both(2), both(3)]);
    log.replay(&state);
    checkpoint(&state);
    // When a table is dropped while some of its rows are only in the memtable,
    log.append(&[both(4), both(1)]);
    log.replay(&state);
    state.drop_table(TableId(u32::MAX), Position(log.position));
    checkpoint(&state);
    // then none of them is in the tree, and the other table is whole.
    log.versions.retain(|(table, _), _| *table == 1);
    assert_eq!(compare_base(&log, &state, Position(log.position)), Ok(()));
    assert_eq!(
        state.snapshot().get(TableId(u32::MAX), &key(2)).unwrap(),
        None
    );
    drop(state);
    let (state, _) = log.open(Arc::new(disk), small());
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn what_is_written_behind_the_drop_of_a_table_stays() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    let row = |number| vec![Change::Put(7, key(number), 10)];
    log.append(&[row(1), row(2)]);
    log.replay(&state);
    checkpoint(&state);
    // When rows are written before and behind the place of a drop,
    log.append(&[row(3), row(1)]);
    log.replay(&state);
    state.drop_table(TableId(7), Position(log.position));
    log.append(&[row(1), row(4)]);
    log.replay(&state);
    checkpoint(&state);
    // then those behind it are all that is left.
    let rows = state.snapshot().scan(&range(7, b"", None), false).unwrap();
    let rows: Vec<_> = rows
        .map(|row| row.map(|row| (row.key, row.version)).unwrap())
        .collect();
    let mut left = [(key(1), Offset(4)), (key(4), Offset(5))];
    left.sort();
    assert_eq!(rows, left);
}

#[test]
fn a_copy_is_a_state_of_its_own() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    for round in 0..5 {
        log.append(&[(0..40)
            .map(|number| Change::Put(1 + round % 2, key(number), 400))
            .collect()]);
        log.append(&[(0..9)
            .map(|number| Change::Delete(1, key(number * 3)))
            .collect()]);
    }
    log.replay(&state);
    checkpoint(&state);
    let copied = log.position;
    log.append(&[put(5)]);
    log.replay(&state);
    // When the last checkpoint is copied,
    let other = SimulatedDisk::new(2);
    let applied = state.copy_base(&other).unwrap();
    assert_eq!(applied, state.checkpointed());
    assert_eq!(applied.position.0, copied);
    assert!(matches!(state.copy_base(&other), Err(CopyError::Exists)));
    // then another state opens from there, with the ids, and follows the log.
    let (copy, opened) = State::open(Arc::new(other), small()).unwrap();
    assert_eq!(opened.applied, applied);
    assert_eq!(opened.ids.len(), log.ids.len() - 1);
    assert_eq!(compare_base(&log, &copy, applied.position), Ok(()));
    log.replay(&copy);
    assert_eq!(log.compare_state(&copy, &ranges()), Ok(()));
}

#[test]
fn a_copy_that_fails_leaves_no_state_behind() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[put(1)]);
    log.replay(&state);
    checkpoint(&state);
    let whole = SimulatedDisk::new(2);
    state.copy_base(&whole).unwrap();
    for step in 1..whole.steps() {
        let disk = SimulatedDisk::new(2);
        disk.fail_at(step, Fault::Error);
        let result = state.copy_base(&disk);
        disk.mend();
        if result.is_err() && disk.open(STATE_FILE).is_ok() {
            assert_eq!(
                step + 1,
                whole.steps(),
                "only the folder's flush comes after the name"
            );
        }
    }
}

#[test]
fn an_entry_that_is_not_the_next_is_refused() {
    let mut log = Log::default();
    for number in 0..3 {
        log.append(&[put(number)]);
    }
    let (state, _) = State::open(Arc::new(SimulatedDisk::new(1)), small()).unwrap();
    let skipped = state.apply(&log.entries[1]).unwrap_err();
    assert!(matches!(
        skipped,
        ApplyError::NotNext {
            index: Index(2),
            expected_index: Index(1),
            ..
        }
    ));
    state.apply(&log.entries[0]).unwrap();
    assert!(state.apply(&log.entries[0]).is_err(), "twice");
    let mut elsewhere = log.entries[1].clone();
    elsewhere.header.base_offset = Offset(9);
    assert!(state.apply(&elsewhere).is_err(), "a gap between offsets");
    // A refusal changes nothing.
    log.replay(&state);
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}

#[test]
fn a_malformed_entry_is_never_seen_and_stops_the_state() {
    let mut log = Log::default();
    log.append(&[put(1)]);
    log.append(&[put(2), put(3)]);
    let spoil: [fn(&mut onelog_record::Entry); 3] = [
        |entry| entry.body = entry.body.slice(..entry.body.len() - 1),
        |entry| entry.header.record_count += 1,
        |entry| entry.header.transaction_count -= 1,
    ];
    for spoil in spoil {
        let (state, _) = State::open(Arc::new(SimulatedDisk::new(1)), small()).unwrap();
        state.apply(&log.entries[0]).unwrap();
        let mut spoiled = log.entries[1].clone();
        spoil(&mut spoiled);
        spoiled.header.raw_len = spoiled.body.len() as u32;
        assert!(state.apply(&spoiled).is_err());
        assert_eq!(state.position(), Position(1));
        assert_eq!(state.newest(TableId(1), &key(2)).unwrap(), None);
        assert!(matches!(
            state.apply(&log.entries[1]),
            Err(ApplyError::Broken { .. })
        ));
        assert!(
            state.freeze().is_none(),
            "half an entry is never checkpointed"
        );
    }
}

#[test]
fn entries_without_transactions_only_advance() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    assert!(state.freeze().is_none(), "nothing was applied");
    log.no_op();
    log.replay(&state);
    assert_eq!(log.entries[0].header.kind, EntryKind::NoOp);
    checkpoint(&state);
    assert!(state.freeze().is_none());
    drop(state);
    let (_, opened) = log.open(Arc::new(disk), small());
    assert_eq!(opened.applied, log.applied());
}

#[test]
fn a_state_file_that_cannot_be_read_is_an_error_and_not_an_empty_state() {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    log.append(&[put(1)]);
    log.replay(&state);
    checkpoint(&state);
    drop(state);
    let whole = disk.files()[STATE_FILE].clone();
    let with = |bytes: Vec<u8>| {
        let files = BTreeMap::from([(STATE_FILE.to_owned(), bytes)]);
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::with_files(1, files));
        State::open(disk, small()).map(|(_, opened)| opened.applied)
    };
    assert_eq!(with(whole.clone()).unwrap(), log.applied());
    assert!(matches!(with(Vec::new()), Err(OpenError::Damaged(_))));
    assert!(with(vec![0; whole.len()]).is_err());
    assert!(with(b"not a tree".repeat(1_000)).is_err());
    assert!(with(whole[..8192].to_vec()).is_err());
    let mut headless = whole;
    headless[..512].fill(0xff);
    let error = with(headless).unwrap_err();
    assert!(
        error.to_string().contains("the log rebuilds it")
            || error.to_string().contains("The log rebuilds it")
    );
}

#[test]
fn a_key_that_is_too_long_to_be_stored_is_just_not_there() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[put(1)]);
    log.replay(&state);
    let long = vec![b'k'; 100_000];
    assert_eq!(state.snapshot().get(TableId(1), &long).unwrap(), None);
    let from_it = range(1, &long, None);
    assert_eq!(state.snapshot().scan(&from_it, true).unwrap().count(), 0);
    assert_eq!(state.written_since(&from_it, Position(0)), None);
}

#[test]
fn a_view_keeps_its_floor_while_a_checkpoint_ends() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    let delete = vec![Change::Delete(1, key(20))];
    for changes in [put(20), delete, put(30), put(31)] {
        log.append(&[changes]);
        log.replay(&state);
        state.freeze().map(|checkpoint| checkpoint.run().unwrap());
    }
    // Given a view whose floor lies below the delete,
    let view = state.latest();
    log.append(&[put(32)]);
    log.replay(&state);
    let floor = view.floor();
    assert!(floor < log.applied().position);
    // when checkpoints end and old views are released,
    checkpoint(&state);
    log.append(&[put(33)]);
    log.replay(&state);
    checkpoint(&state);
    drop(state.release_old_view());
    assert!(state.floor() > floor);
    // then the view still knows everything from its floor on, and nothing behind its position.
    assert_eq!(view.floor(), floor);
    assert_eq!(view.position(), Position(4));
    let everything = range(1, b"", None);
    let hit = view.written_since(&everything, floor, &mut 100);
    assert_eq!(hit, Written::At(key(31), Offset(3)));
    assert_eq!(view.newest(TableId(1), &key(32)).unwrap(), None);
}

#[test]
fn a_wide_range_check_agrees_with_the_log_however_old_it_is() {
    let mut log = Log::default();
    let options = StateOptions {
        memtable_bytes: 64 << 20,
        memtable_bytes_max: 256 << 20,
        ..small()
    };
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), options);
    let wide = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    // Given many blocks of keys, written in a scattered order,
    let rounds: u32 = 40;
    for round in 0..rounds {
        let table = 1 + round / (rounds / 2);
        let changes = (0..1_000).map(|number| {
            let key = wide((round * 1_000 + number).wrapping_mul(2_654_435_761));
            Change::Put(table, key, 0)
        });
        log.append(&[changes.collect()]);
    }
    log.replay(&state);
    // when wide and narrow ranges are checked, then the answers are those of the log.
    let ranges = [
        range(1, b"", None),
        range(2, b"", None),
        range(1, &wide(1 << 30), Some(&wide(3 << 30))),
        range(2, &wide(1 << 30), Some(&wide((1 << 30) + (1 << 20)))),
        range(3, b"", None),
    ];
    for range in &ranges {
        for since in (0..=log.position).step_by(499) {
            let compared = log.compare_written_since(&state, range, since);
            assert_eq!(compared, Ok(()));
        }
    }
}

#[test]
fn a_range_check_sees_deletes_and_only_its_range() {
    let mut log = Log::default();
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    log.append(&[put(20), put(25)]);
    log.append(&[
        vec![Change::Delete(1, key(25))],
        vec![Change::Put(2, key(22), 1)],
    ]);
    log.replay(&state);
    let written = |from: usize, to: usize, since| {
        let range = range(1, &key(from), Some(&key(to)));
        state.written_since(&range, Position(since))
    };
    assert_eq!(written(20, 30, 2), Some((key(25), Offset(2))));
    assert_eq!(written(20, 25, 1), None, "the end is not inside");
    assert_eq!(written(20, 25, 0), Some((key(20), Offset(0))));
    assert_eq!(written(25, 26, 3), None, "at or above, not only once");
    assert_eq!(written(21, 25, 0), None, "the other table does not count");
    assert_eq!(Bytes::from_static(b"k020"), key(20));
}

#[test]
fn entries_applied_at_once_are_as_if_applied_one_after_the_other() {
    let mut log = Log::default();
    for round in 0..40 {
        let key = |number: usize| key(number % 13);
        log.append(&[
            vec![
                Change::Put(1, key(round), 10),
                Change::Put(2, key(round * 7), 0),
            ],
            vec![
                Change::Delete(1, key(round * 5)),
                Change::Event(3, key(round)),
            ],
        ]);
        log.no_op();
    }
    let with_bodies: Vec<_> = log
        .entries
        .iter()
        .map(|entry| (entry.clone(), entry.body.clone()))
        .collect();
    let (state, _) = Log::default().open(Arc::new(SimulatedDisk::new(1)), small());
    let (first, rest) = with_bodies.split_at(17);
    state.apply_all(first).unwrap();
    assert_eq!(state.position(), first.last().unwrap().0.header.end());
    state.apply_all(rest).unwrap();
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
    checkpoint(&state);
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
    assert!(matches!(
        state.apply_all(first),
        Err(ApplyError::NotNext { .. })
    ));
    log.append(&[put(3)]);
    state.apply(log.entries.last().unwrap()).unwrap();
    assert_eq!(log.compare_state(&state, &ranges()), Ok(()));
}
