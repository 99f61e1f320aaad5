//! A bit of the state's file changes on the disk: every read answers what was written, or fails and
//! says where and what to do.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::SimulatedDisk;
use onelog_record::{Offset, TableId};
use onelog_state::{Import, OpenError, Opened, STATE_FILE, State, StateOptions};
use support::{Change, Log, checkpoint, is_full, range};

type Rows = Vec<(TableId, Bytes, Offset, Bytes)>;

const ROUNDS: usize = 4;

/// So little that every page is read from the disk.
fn options() -> StateOptions {
    StateOptions {
        cache_bytes: 0,
        ..support::small()
    }
}

fn key(number: usize) -> Bytes {
    format!("a key that is not short, of number {number:05}").into()
}

/// Rows that share pages and rows that take several, enough for more than one level of branches.
fn log(rounds: usize) -> Log {
    let mut log = Log::default();
    for round in 0..rounds {
        for number in 0..60 {
            log.append(&[(0..10)
                .map(|at| {
                    let is_long = at == 0 && number % 8 == 0;
                    let len = if is_long { 5_000 } else { 40 };
                    Change::Put(1 + at % 2, key(number * 10 + at as usize), len)
                })
                .collect()]);
        }
        log.append(&[vec![Change::Delete(1, key(2 * round))]]);
    }
    log
}

/// The state's file with a checkpoint after each round, closed.
fn made(log: &Log, rounds: usize) -> BTreeMap<String, Vec<u8>> {
    let disk = SimulatedDisk::new(1);
    let (state, _) = State::open(Arc::new(disk.clone()), options()).unwrap();
    for round in log.entries.chunks(log.entries.len() / rounds) {
        for entry in round {
            state.apply(entry).unwrap();
        }
        checkpoint(&state);
    }
    drop(state);
    disk.files()
}

/// What every way to read says; the first failure of each.
fn read_all(state: &State, log: &Log) -> Vec<Result<Rows, String>> {
    let snapshot = state.snapshot();
    let points = expected(log).into_iter().map(|(table, key, ..)| {
        let row = snapshot.get(table, &key).map_err(|e| e.to_string())?;
        let row = row.ok_or_else(|| "a row is missing".to_owned())?;
        Ok((table, key, row.version, row.value))
    });
    let scan = |is_reverse: bool| {
        let mut rows = Rows::new();
        for table in [1, 2] {
            let scan = snapshot.scan(&range(table, b"", None), is_reverse);
            for row in scan.map_err(|e| e.to_string())? {
                let row = row.map_err(|e| e.to_string())?;
                rows.push((TableId(table), row.key, row.version, row.value));
            }
        }
        rows.sort();
        Ok(rows)
    };
    assert_eq!(state.applied(), log.applied());
    vec![rows_of(state), points.collect(), scan(false), scan(true)]
}

fn expected(log: &Log) -> Rows {
    let mut rows = Rows::new();
    for table in [1, 2] {
        for (key, version, value) in log.rows(&range(table, b"", None), log.position) {
            rows.push((TableId(table), key, version, value));
        }
    }
    rows
}

/// The state of the files, when a bit changes before it is opened, or after.
fn opened(
    files: &BTreeMap<String, Vec<u8>>,
    bit: u64,
    is_before: bool,
) -> Result<(State, Opened), OpenError> {
    let disk = SimulatedDisk::with_files(1, files.clone());
    if is_before {
        disk.flip(STATE_FILE, bit);
    }
    let opened = State::open(Arc::new(disk.clone()), options());
    if !is_before {
        disk.flip(STATE_FILE, bit);
    }
    opened
}

/// One bit in each few bytes, at changing places in them.
fn bits(file: &[u8], stride: usize) -> impl Iterator<Item = u64> {
    let stride = if is_full() { stride / 10 } else { stride };
    (0..file.len() as u64)
        .step_by(stride)
        .map(|byte| byte * 8 + byte % 8)
}

#[test]
fn what_is_read_of_a_changed_file_is_right_or_a_failure_that_says_where_and_what_to_do() {
    let log = log(ROUNDS);
    let files = made(&log, ROUNDS);
    let rows = expected(&log);
    let mut failed = 0;
    for bit in bits(&files[STATE_FILE], 1_031) {
        for is_before in [true, false] {
            // Given a file with one changed bit, when it is opened and read in every way,
            let read = match opened(&files, bit, is_before) {
                Ok((state, opened)) => {
                    assert!(opened.ids == log.ids, "bit {bit}: wrong ids");
                    read_all(&state, &log)
                }
                Err(error) => vec![Err(error.to_string())],
            };
            // then each answer is right or says what is wrong.
            for read in read {
                match read {
                    Ok(read) => assert!(read == rows, "bit {bit}: other rows than were written"),
                    Err(error) => {
                        failed += 1;
                        assert!(error.contains("the state file"), "bit {bit}: {error}");
                        assert!(error.contains("start again"), "bit {bit}: {error}");
                    }
                }
            }
        }
    }
    assert!(failed > 100, "changed bits are met: {failed}");
}

/// The rows of the file that another state makes of what it takes in.
fn exported(state: &State) -> Result<Rows, String> {
    let export = state.export().map_err(|e| e.to_string())?;
    let (other, _) = State::open(Arc::new(SimulatedDisk::new(2)), options()).unwrap();
    let mut import = Import::begin(&other, export.head(0)).unwrap();
    while let Some(cursor) = import.wanted() {
        let chunk = export.chunk(&cursor).map_err(|e| e.to_string())?;
        import.put(&chunk).unwrap();
    }
    other.install(import.finish().unwrap(), &mut None).unwrap();
    rows_of(&other)
}

fn copied(state: &State) -> Result<Rows, String> {
    let disk = SimulatedDisk::new(3);
    let copied = state.copy_base(&disk).map_err(|e| e.to_string());
    assert_eq!(copied.is_ok(), disk.files().contains_key(STATE_FILE));
    copied?;
    rows_of(&State::open(Arc::new(disk), options()).unwrap().0)
}

/// The rows after a checkpoint that changes all of them.
fn changed_by(state: &State, later: &Log) -> Result<Rows, String> {
    later.replay(state);
    let checkpoint = state.freeze().unwrap();
    checkpoint.run().map_err(|e| e.to_string())?;
    rows_of(state)
}

fn rows_of(state: &State) -> Result<Rows, String> {
    let mut rows = Rows::new();
    let scanned = state.scan_base(&mut |table, key, version, value| {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        rows.push((table, key, version, value));
        ControlFlow::Continue(())
    });
    scanned.map(|_| rows).map_err(|e| e.to_string())
}

#[test]
fn a_changed_file_is_not_copied_sent_or_checkpointed_into_one_that_looks_whole() {
    let (log, later) = (log(ROUNDS), log(ROUNDS + 1));
    let files = made(&log, ROUNDS);
    let (rows, later_rows) = (expected(&log), expected(&later));
    let mut failed = 0;
    for bit in bits(&files[STATE_FILE], 9_001) {
        // Given a state of whose file a bit changes,
        let state = || opened(&files, bit, false).unwrap().0;
        // when it is copied, sent, compared or written to, the result is right or there is none.
        let digest = state().scan_digest().map_err(|e| e.to_string());
        for (way, made, expected) in [
            ("copy", copied(&state()), &rows),
            ("send", exported(&state()), &rows),
            ("write", changed_by(&state(), &later), &later_rows),
            ("digest", digest.map(|_| Rows::new()), &Rows::new()),
        ] {
            match made {
                Ok(made) => assert!(made == *expected, "bit {bit}, {way}: other rows"),
                Err(error) => {
                    failed += 1;
                    assert!(error.contains("is not as it was written"), "{way}: {error}");
                    assert!(error.contains("start again"), "{way}: {error}");
                }
            }
        }
    }
    assert!(failed > 20, "changed bits are met: {failed}");
}

#[test]
fn after_a_failed_read_each_reader_is_shown_that_failure() {
    // Given a state whose file is changed in one row,
    let log = log(1);
    let files = made(&log, 1);
    let value = support::value_at(8, 40);
    let file = &files[STATE_FILE];
    let at = (0..file.len()).find(|at| file[*at..].starts_with(&value));
    let bit = at.unwrap() as u64 * 8;
    let (state, _) = opened(&files, bit, false).unwrap();
    // when that row is read,
    let snapshot = state.snapshot();
    let read = |number| snapshot.get(TableId(1), &key(number)).map(drop);
    read(500).unwrap();
    let first = read(8).unwrap_err().to_string();
    assert_eq!(state.fault().unwrap().to_string(), first);
    // then whatever is read or written afterwards fails for that reason.
    assert_eq!(read(500).unwrap_err().to_string(), first);
    let scan = snapshot.scan(&range(1, b"", None), false);
    assert_eq!(scan.err().unwrap().to_string(), first);
    assert_eq!(state.scan_digest().unwrap_err().to_string(), first);
    assert_eq!(rows_of(&state).unwrap_err(), first);
    for failed in [copied(&state), exported(&state)] {
        assert!(failed.unwrap_err().ends_with(&first));
    }
    let failed = changed_by(&state, &self::log(2)).unwrap_err();
    assert!(failed.ends_with(&first), "{failed}");
}
