//! After a snapshot was installed the log is emptied and begins behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::pausing::{Pause, PausingDisk};
use common::restart::{behind, goes_on, is_emptied, long_log};
use common::{LAST, append, entries, fresh, hard_state, open, open_on, options, read_all, run_all};
use onelog_log::{
    CrashMode, Fault, HardState, HardStateRead, Log, Place, ReadError, RealDisk, RestartError,
    SimulatedDisk, StageError, check,
};
use onelog_record::{Index, Position};

/// Behind the end of the log, at it, in the middle, where one of its segments begins, and before all
/// that it has.
fn places() -> Vec<Place> {
    let disk = SimulatedDisk::new(1);
    let (log, _) = long_log(&disk);
    let segment = log.sealed_segments()[1].first_index.0;
    let first = log.first_index().0;
    let indexes = [LAST + 40, LAST, LAST - 3, segment - 1, first - 1, 10, 0];
    indexes.into_iter().map(behind).collect()
}

#[test]
fn an_emptied_log_begins_behind_the_place() {
    for at in places() {
        let disk = SimulatedDisk::new(1);
        let (mut log, _) = long_log(&disk);
        log.restart_behind(at).unwrap();
        assert_eq!(
            (log.first_index(), log.last_index()),
            (at.index.next(), at.index)
        );
        assert_eq!(
            (log.start(), log.end(), log.durable()),
            (at.end, at.end, at.index)
        );
        assert_eq!(read_all(&log), []);
        let before = log.reader().entries(at.index, Index(u64::MAX), 1);
        assert!(matches!(before, Err(ReadError::Cut { .. })) || at.index == Index::ZERO);
        drop(log);
        disk.crash(CrashMode::LoseAll);
        let (mut log, recovery) = open(&disk).unwrap();
        assert!(is_emptied(&recovery, at), "{recovery:?}");
        // The next entry must be the one behind the place.
        for wrong in [at.index.0 + 2, 1] {
            if wrong != at.index.0 + 1 {
                let refused = log.stage(&entries(2, wrong..=wrong, 10)).unwrap_err();
                assert!(
                    matches!(refused, StageError::OutOfOrder { .. }),
                    "{refused}"
                );
            }
        }
        drop(log);
        goes_on(&disk, &[], at);
    }
}

#[test]
fn a_restart_leaves_the_old_log_or_the_new_one_whenever_the_power_goes() {
    for (number, at) in places().into_iter().enumerate() {
        for step in 0.. {
            let mut is_done = false;
            for mode in CrashMode::ALL {
                let disk = SimulatedDisk::new(number as u64 * 1_000 + step);
                let (mut log, old) = long_log(&disk);
                disk.fail_at(disk.steps() + step, Fault::CrashNow);
                is_done = log.restart_behind(at).is_ok();
                drop(log);
                disk.crash(mode);
                goes_on(&disk, &old, at);
            }
            if is_done {
                break;
            }
        }
    }
}

#[test]
fn the_completion_of_a_restart_may_lose_power_again() {
    let places = places();
    for at in [places[0], places[3], places[5]] {
        let cut_short = |step: u64| {
            let disk = SimulatedDisk::new(step);
            let (mut log, old) = long_log(&disk);
            disk.fail_at(disk.steps() + step, Fault::CrashNow);
            let is_done = log.restart_behind(at).is_ok();
            drop(log);
            disk.crash(CrashMode::ALL[step as usize % 4]);
            (disk, old, is_done)
        };
        for step in 0.. {
            if cut_short(step).2 {
                break;
            }
            for again in 0.. {
                let (disk, old, _) = cut_short(step);
                disk.fail_at(disk.steps() + again, Fault::CrashNow);
                if open(&disk).is_ok() {
                    break;
                }
                disk.crash(CrashMode::ALL[again as usize % 4]);
                goes_on(&disk, &old, at);
            }
        }
    }
}

#[test]
fn a_new_log_begins_behind_a_snapshot() {
    let disk = SimulatedDisk::new(1);
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.hard_state, HardStateRead::Empty);
    let at = behind(1_000);
    // The log's id comes first: frames are checked with it.
    let refused = log.restart_behind(at).unwrap_err();
    assert!(matches!(refused, RestartError::NoHardState), "{refused}");
    log.save_hard_state(&hard_state(2)).unwrap();
    log.restart_behind(at).unwrap();
    let again = behind(2_000);
    log.restart_behind(again).unwrap();
    drop(log);
    disk.crash(CrashMode::LoseAll);
    goes_on(&disk, &[], again);
}

#[test]
fn a_restart_that_would_lose_something_is_refused() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = entries(1, 1..=9, 100);
    append(&mut log, &all[..8]);
    let flushes = log.stage(&all[8..]).unwrap();
    let refused = log.restart_behind(behind(20)).unwrap_err();
    assert!(matches!(refused, RestartError::InFlight(1)), "{refused}");
    run_all(&mut log, &flushes);
    let committed = HardState {
        commit: Index(9),
        ..hard_state(1)
    };
    log.save_hard_state(&committed).unwrap();
    let refused = log.restart_behind(behind(8)).unwrap_err();
    assert!(
        matches!(refused, RestartError::Committed { .. }),
        "{refused}"
    );
    let last = Place {
        index: Index(u64::MAX),
        ..behind(0)
    };
    let refused = log.restart_behind(last).unwrap_err();
    assert!(matches!(refused, RestartError::LastIndex), "{refused}");
    assert_eq!(read_all(&log), all);
}

#[test]
fn a_restart_that_failed_stops_the_log() {
    let at = behind(LAST + 5);
    for step in 0.. {
        let disk = SimulatedDisk::new(1);
        let (mut log, old) = long_log(&disk);
        disk.fail_at(disk.steps() + step, Fault::Error);
        let Err(failed) = log.restart_behind(at) else {
            break;
        };
        assert!(matches!(failed, RestartError::Io(_)), "{failed}");
        let again = log.restart_behind(at).unwrap_err();
        assert!(matches!(again, RestartError::Stopped), "{again}");
        drop(log);
        goes_on(&disk, &old, at);
    }
}

#[test]
fn jobs_that_wait_while_the_log_begins_anew_do_no_harm() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=LAST, 300));
    // Given indexes to be written, segments to be dropped and a watermark to be saved,
    let prepare = log.prepare().unwrap();
    let second = log.sealed_segments()[1].first_index;
    let retain = log.retain_from(second).unwrap().unwrap();
    let save = log.watermark(Index(40));
    // when the log begins anew first, with a segment of the name of one that was dropped,
    let at = behind(0);
    log.restart_behind(at).unwrap();
    let new = entries(2, 1..=LAST, 300);
    append(&mut log, &new);
    prepare.run().unwrap();
    assert_eq!(retain.run().unwrap(), []);
    save.run().unwrap();
    // then it has what it has.
    assert_eq!(read_all(&log), new);
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let report = check(&disk, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.faults, report.wrong_indexes), (vec![], vec![]));
    let (log, _) = open(&disk).unwrap();
    assert_eq!(read_all(&log), new);
}

#[test]
fn a_lost_file_of_an_emptied_log_is_noticed() {
    let at = behind(LAST);
    for step in 0.. {
        let disk = SimulatedDisk::new(1);
        let (mut log, _) = long_log(&disk);
        disk.fail_at(disk.steps() + step, Fault::CrashNow);
        let is_done = log.restart_behind(at).is_ok();
        drop(log);
        disk.crash(CrashMode::LoseAll);
        let mut files = disk.files();
        let first = format!("{:020}-{:020}.log", at.end.0, LAST + 1);
        let is_new = open(&SimulatedDisk::with_files(1, files.clone()))
            .is_ok_and(|(_, recovery)| is_emptied(&recovery, at));
        files.remove("restart");
        files.remove(&first);
        let disk = SimulatedDisk::with_files(1, files);
        assert_eq!(open(&disk).is_err(), is_new, "at {step}");
        if is_done {
            break;
        }
    }
}

#[test]
fn a_reader_never_mixes_the_old_log_with_the_new_one() {
    for pause in [Pause::BeforeReading, Pause::AfterReading] {
        let disk = SimulatedDisk::new(1);
        let (log, _) = long_log(&disk);
        drop(log);
        let pausing = PausingDisk::new(disk);
        let (mut log, _) = open_on(Arc::new(pausing.clone())).unwrap();
        let (reader, first) = (log.reader(), log.first_index());
        let stopped = pausing.stop_next(pause);
        let reading =
            std::thread::spawn(move || reader.entries(first, Index(u64::MAX), usize::MAX));
        stopped.reached.recv().unwrap();
        // The new log begins in the middle of the old one.
        let at = behind(first.0 + 4);
        log.restart_behind(at).unwrap();
        append(&mut log, &entries(2, at.index.0 + 1..=LAST, 300));
        stopped.go.send(()).unwrap();
        let cut = reading.join().unwrap().unwrap_err();
        let ReadError::Cut { first_index, start } = cut else {
            panic!("{cut}");
        };
        assert_eq!((first_index, start), (at.index.next(), at.end));
    }
}

#[test]
fn a_log_on_a_real_disk_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Log::open(Arc::new(RealDisk::open(folder.path()).unwrap()), options());
    let (mut log, _) = open().unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    append(&mut log, &entries(1, 1..=LAST, 300));
    let at = behind(LAST + 7);
    log.restart_behind(at).unwrap();
    drop(log);
    let (mut log, recovery) = open().unwrap();
    assert!(is_emptied(&recovery, at));
    let new = entries(2, LAST + 8..=LAST + 50, 300);
    append(&mut log, &new);
    drop(log);
    let (log, _) = open().unwrap();
    assert_eq!(read_all(&log), new);
    assert_eq!(log.start(), Position(at.end.0));
}
