//! A later leader has other entries: the end of the log is cut, and never comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::cut::{goes_on, long_log, reader_across_a_cut};
use common::pausing::{Pause, PausingDisk};
use common::{
    LAST, append, entries, entry, fresh, hard_state, open, open_on, options, read_all, retain,
    run_all, size,
};
use onelog_log::{
    CrashMode, CutError, Fault, HardState, HardStateRead, Log, LogReader, ReadError, RealDisk,
    SimulatedDisk, check,
};
use onelog_record::{Index, Position, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// No reader waits so long for its first entries.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Places of a cut: in the first segment, at its first entry, in the middle, at the first entry of
/// a segment, and at the last entry.
fn places() -> Vec<u64> {
    let disk = SimulatedDisk::new(1);
    let (log, _) = long_log(&disk);
    let second = log.sealed_segments()[1].first_index.0;
    vec![
        1,
        2,
        second - 1,
        second,
        second + 1,
        LAST / 2,
        LAST - 1,
        LAST,
    ]
}

#[test]
fn a_cut_holds_whenever_the_power_goes() {
    for from in places() {
        let disk = SimulatedDisk::new(from);
        let (mut log, _) = long_log(&disk);
        let before = disk.steps();
        log.cut_end(Index(from)).unwrap();
        let steps = disk.steps() - before;
        for step in 0..=steps {
            for mode in CrashMode::ALL {
                let disk = SimulatedDisk::new(from * 1_000 + step);
                let (mut log, all) = long_log(&disk);
                disk.fail_at(disk.steps() + step, Fault::CrashNow);
                let cut = log.cut_end(Index(from));
                assert_eq!(cut.is_ok(), step == steps, "{step} of {steps}: {cut:?}");
                drop(log);
                disk.crash(mode);
                goes_on(&disk, &all, from);
            }
        }
    }
}

#[test]
fn the_completion_of_a_cut_may_lose_power_again() {
    for from in [1, 20, LAST] {
        let cut_short = |at: u64| {
            let disk = SimulatedDisk::new(from);
            let (mut log, all) = long_log(&disk);
            disk.fail_at(disk.steps() + at, Fault::CrashNow);
            let is_cut = log.cut_end(Index(from)).is_ok();
            drop(log);
            disk.crash(CrashMode::ALL[at as usize % 4]);
            (disk, all, is_cut)
        };
        for at in 0.. {
            let (disk, _, is_cut) = cut_short(at);
            if is_cut {
                break;
            }
            drop(open(&disk).unwrap());
            for step in 0..disk.steps() {
                let (disk, all, _) = cut_short(at);
                disk.fail_at(disk.steps() + step, Fault::CrashNow);
                if open(&disk).is_ok() {
                    break;
                }
                disk.crash(CrashMode::ALL[step as usize % 4]);
                goes_on(&disk, &all, from);
            }
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused_and_stays() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = entries(1, 1..=9, 100);
    append(&mut log, &all[..8]);
    // Given a flush that has not ended,
    let flushes = log.stage(&all[8..]).unwrap();
    let refused = log.cut_end(Index(9)).unwrap_err();
    assert!(matches!(refused, CutError::InFlight(1)), "{refused}");
    run_all(&mut log, &flushes);
    // an index that is not there,
    for from in [0, 11, u64::MAX - 1] {
        let refused = log.cut_end(Index(from)).unwrap_err();
        assert!(matches!(refused, CutError::Outside { .. }), "{refused}");
    }
    // and entries that are committed,
    let committed = HardState {
        commit: Index(5),
        ..hard_state(1)
    };
    log.save_hard_state(&committed).unwrap();
    for from in [1, 5] {
        let refused = log.cut_end(Index(from)).unwrap_err();
        assert!(matches!(refused, CutError::Committed { .. }), "{refused}");
    }
    // then nothing was cut; and where there is nothing to cut, nothing happens.
    let steps = disk.steps();
    log.cut_end(Index(10)).unwrap();
    assert_eq!(disk.steps(), steps);
    assert_eq!(read_all(&log), all);
    log.cut_end(Index(6)).unwrap();
    assert_eq!(read_all(&log), all[..5]);
}

#[test]
fn a_cut_that_failed_stops_the_log() {
    let disk = SimulatedDisk::new(1);
    let (mut log, all) = long_log(&disk);
    disk.fail_at(disk.steps() + 6, Fault::Error);
    let failed = log.cut_end(Index(20)).unwrap_err();
    assert!(matches!(failed, CutError::Io(_)), "{failed}");
    let again = log.cut_end(Index(20)).unwrap_err();
    assert!(matches!(again, CutError::Stopped), "{again}");
    assert!(log.stage(&[entry(2, 20, 10)]).is_err());
    drop(log);
    goes_on(&disk, &all, 20);
}

#[test]
fn the_watermark_comes_down_and_stays_down() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = long_log(&disk);
    // Given a saved watermark that waits to be written,
    let save = log.watermark(Index::ZERO);
    log.cut_end(Index(31)).unwrap();
    // when it is written behind the cut,
    save.run().unwrap();
    drop(log);
    disk.crash(CrashMode::LoseAll);
    // then it says what is durable now.
    let (_, recovery) = open(&disk).unwrap();
    let HardStateRead::Present(found) = recovery.hard_state else {
        panic!("there is a hard state");
    };
    assert_eq!(found.durable, Index(30));
    assert_eq!(recovery.last_index, Index(30));
}

#[test]
fn damage_before_the_cut_is_still_corruption() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = long_log(&disk);
    log.cut_end(Index(10)).unwrap();
    let name = disk.files().into_keys().next().unwrap();
    drop(log);
    disk.flip(&name, 8 * 4_200);
    let refused = open(&disk).unwrap_err();
    assert!(refused.to_string().contains("corrupt"), "{refused}");
}

#[test]
fn jobs_that_wait_while_the_end_is_cut_do_no_harm() {
    for run_retain in [true, false] {
        let disk = SimulatedDisk::new(1);
        let mut log = fresh(&disk);
        let all = entries(1, 1..=LAST, 300);
        append(&mut log, &all);
        // Given indexes to be written and segments to be dropped,
        let prepare = log.prepare().unwrap();
        let first = log.sealed_segments()[1].first_index;
        let retain = log.retain_from(first).unwrap().unwrap();
        // when the end is cut first,
        let from = first.next();
        log.cut_end(from).unwrap();
        prepare.run().unwrap();
        if run_retain {
            retain.run().unwrap();
        }
        let other = entries(2, from.0..=LAST, 100);
        append(&mut log, &other);
        log.close(&hard_state(2)).unwrap();
        drop(log);
        // then each is as if it had been alone.
        let report = check(&disk, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.faults, report.wrong_indexes), (vec![], vec![]));
        let (log, _) = open(&disk).unwrap();
        let start = log.first_index().0 as usize;
        assert_eq!(start, if run_retain { first.0 as usize } else { 1 });
        let expected = [&all[start - 1..first.0 as usize], &other[..]].concat();
        assert_eq!(read_all(&log), expected);
    }
}

#[test]
fn the_chain_is_that_of_a_log_that_never_had_what_was_cut() {
    let never = SimulatedDisk::new(1);
    let mut expected = fresh(&never);
    append(&mut expected, &entries(1, 1..=29, 300));
    append(&mut expected, &entries(2, 30..=50, 70));
    let disk = SimulatedDisk::new(2);
    let (mut log, _) = long_log(&disk);
    log.cut_end(Index(30)).unwrap();
    append(&mut log, &entries(2, 30..=50, 70));
    for index in 0..=50 {
        let place = log.reader().place(Index(index)).unwrap();
        assert!(place.is_some(), "{index}");
        assert_eq!(place, expected.reader().place(Index(index)).unwrap());
    }
    assert_eq!(log.reader().place(Index(51)).unwrap(), None);
    assert_eq!(log.reader().place(Index(u64::MAX)).unwrap(), None);
}

#[test]
fn the_place_before_the_first_entry_is_known() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = long_log(&disk);
    let before: Vec<_> = (0..=LAST)
        .map(|index| log.reader().place(Index(index)).unwrap())
        .collect();
    retain(&mut log, 40);
    let first = log.first_index().0;
    assert!(first > 20);
    for index in 0..=LAST {
        let is_there = index + 1 >= first;
        let expected = before[index as usize].filter(|_| is_there);
        assert_eq!(log.reader().place(Index(index)).unwrap(), expected);
    }
    drop(log);
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.terms, [(Index(first - 1), Term(1))]);
}

#[test]
fn a_reader_never_mixes_what_was_cut_with_what_came_after() {
    for pause in [Pause::BeforeReading, Pause::AfterReading] {
        for bytes in [10, 120, 700] {
            reader_across_a_cut(pause, bytes);
        }
    }
}

#[test]
fn a_reader_of_what_was_cut_hears_of_no_damage() {
    for at in [3, 20, 45, LAST] {
        let disk = SimulatedDisk::new(1);
        drop(long_log(&disk));
        let pausing = PausingDisk::new(disk);
        let (mut log, _) = open_on(Arc::new(pausing.clone())).unwrap();
        let position = common::end_at(at - 1);
        let reader = log.reader();
        let stopped = pausing.stop_next(Pause::BeforeReading);
        let reading =
            std::thread::spawn(move || reader.entries_from(position, Index(u64::MAX), usize::MAX));
        stopped.reached.recv().unwrap();
        log.cut_end(Index(3)).unwrap();
        append(&mut log, &entries(2, 3..=4, 900));
        stopped.go.send(()).unwrap();
        let found = reading.join().unwrap();
        let there = read_all(&log);
        match found {
            Ok(found) => assert!(there.ends_with(&found), "{at}"),
            Err(error @ ReadError::Cut { .. }) => assert!(at > 4, "{error}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
}

/// Begins to read from the last entry of a long log on, and is stopped at its file.
fn read_last_with(pause: Pause, meanwhile: impl FnOnce(&mut Log)) -> Vec<u64> {
    let disk = SimulatedDisk::new(1);
    drop(long_log(&disk));
    let pausing = PausingDisk::new(disk);
    let (mut log, _) = open_on(Arc::new(pausing.clone())).unwrap();
    let mut staged = Vec::new();
    if pause == Pause::AfterReading {
        staged = log.stage(&entries(1, LAST + 1..=LAST + 3, 10)).unwrap();
    }
    let reader = log.reader();
    let stopped = pausing.stop_next(pause);
    let reading =
        std::thread::spawn(move || reader.entries(Index(LAST), Index(u64::MAX), usize::MAX));
    stopped.reached.recv().unwrap();
    for flush in staged {
        flush.run().unwrap();
        log.flushed(flush.number);
    }
    meanwhile(&mut log);
    stopped.go.send(()).unwrap();
    let found = reading.join().unwrap().unwrap();
    found.iter().map(|entry| entry.index.0).collect()
}

#[test]
fn a_log_that_grows_while_it_is_read_gives_each_entry_once() {
    let found = read_last_with(Pause::BeforeReading, |log| {
        append(log, &entries(1, LAST + 1..=LAST + 3, 10));
    });
    assert_eq!(found, Vec::from_iter(LAST..=LAST + 3));
}

#[test]
fn what_is_flushed_while_it_is_read_is_no_damage() {
    let found = read_last_with(Pause::AfterReading, |_| {});
    assert_eq!(found[0], LAST);
}

#[test]
fn the_end_of_time_is_the_end_of_what_is_durable() {
    // Given a log with entries that are staged and not flushed, behind its durable ones,
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=3, 10));
    let durable_end = log.end();
    let staged = log.stage(&entries(1, 4..=LAST, 300)).unwrap();
    // when a time behind all of them is looked for, then it is where the durable ones end.
    let found = log.reader().position_at_time(u64::MAX).unwrap();
    assert_eq!(found, durable_end);
    run_all(&mut log, &staged);
    assert_eq!(log.reader().position_at_time(u64::MAX).unwrap(), log.end());
}

#[test]
fn the_end_of_time_in_a_log_that_began_anew_is_its_start() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=3, 10));
    let end = log.end();
    let at = log.reader().place(Index(3)).unwrap().unwrap();
    log.restart_behind(at).unwrap();
    assert_eq!(log.reader().position_at_time(u64::MAX).unwrap(), end);
}

#[test]
fn the_end_of_a_log_on_a_real_disk_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Log::open(Arc::new(RealDisk::open(folder.path()).unwrap()), options());
    let (mut log, _) = open().unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    let all = entries(1, 1..=LAST, 300);
    append(&mut log, &all);
    log.prepare().unwrap().run().unwrap();
    log.cut_end(Index(25)).unwrap();
    let other = entries(2, 25..=40, 500);
    append(&mut log, &other);
    let expected = [&all[..24], &other[..]].concat();
    assert_eq!(read_all(&log), expected);
    drop(log);
    let (log, recovery) = open().unwrap();
    assert_eq!(recovery.cut, None);
    assert_eq!(read_all(&log), expected);
}

/// What a reader finds from the log's start on, as often as it can; each pair of neighbours by the
/// checksums of their frames. It says when it has found some.
fn read_until(
    stop: &AtomicBool,
    reader: &LogReader,
    found_some: &mpsc::Sender<()>,
) -> HashSet<(u32, u32)> {
    let mut pairs = HashSet::new();
    let mut start = Position(0);
    while !stop.load(Ordering::Acquire) {
        match reader.chained_from(start, Index(u64::MAX), usize::MAX) {
            Ok(found) => {
                let had_none = pairs.is_empty();
                pairs.extend(found.windows(2).map(|two| (two[0].chain, two[1].chain)));
                if had_none && !pairs.is_empty() {
                    found_some.send(()).unwrap();
                }
            }
            Err(ReadError::Cut { start: begins, .. }) => start = begins,
            Err(error) => panic!("{error}"),
        }
    }
    pairs
}

#[test]
fn readers_on_other_threads_never_see_two_histories_in_one() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let stop = Arc::new(AtomicBool::new(false));
    let (found_some, all_read) = mpsc::channel();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, reader) = (Arc::clone(&stop), log.reader());
            let found_some = found_some.clone();
            std::thread::spawn(move || read_until(&stop, &reader, &found_some))
        })
        .collect();
    let mut random = StdRng::seed_from_u64(5);
    let mut written = HashSet::new();
    for term in 1..size(150, 2_000) {
        let next = log.last_index().0 + 1;
        let bytes = random.random_range(10..400);
        append(&mut log, &entries(term, next..=next + 20, bytes));
        let chains: Vec<u32> = (next.saturating_sub(1).max(log.first_index().0)..=next + 20)
            .map(|index| log.reader().place(Index(index)).unwrap().unwrap().checksum)
            .collect();
        written.extend(chains.windows(2).map(|two| (two[0], two[1])));
        if term == 1 {
            let wait = |_| all_read.recv_timeout(READ_TIMEOUT).unwrap();
            readers.iter().for_each(wait);
        }
        let from = random.random_range(next.saturating_sub(15).max(log.first_index().0)..next + 15);
        if term % 9 == 0 {
            let at = log.reader().place(Index(from)).unwrap().unwrap();
            log.restart_behind(at).unwrap();
        } else {
            log.cut_end(Index(from)).unwrap();
        }
    }
    stop.store(true, Ordering::Release);
    for reader in readers {
        let read = reader.join().unwrap();
        assert!(!read.is_empty());
        assert!(read.is_subset(&written), "neighbours that never were");
    }
}
