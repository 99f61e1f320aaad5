//! The log as its users know it: what is appended is read, by index, by position and by time; it
//! rolls, is opened again, forgets its beginning and takes back its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc;

use common::{append, entries, entry, fresh, hard_state, open, options, read_all, retain, run_all};
use onelog_log::{
    CrashMode, CutError, FlushPool, HardStateRead, Log, LogReader, OpenError, ReadError, RealDisk,
    SimulatedDisk, StageError, check,
};
use onelog_record::{Index, Position, Term};

#[test]
fn what_is_appended_is_read_back_over_many_segments() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = entries(1, 1..=100, 100);
    for group in all.chunks(9) {
        append(&mut log, group);
    }
    assert_eq!(log.last_index(), Index(100));
    assert_eq!(log.durable(), Index(100));
    assert!(disk.files().keys().filter(|n| n.ends_with(".log")).count() > 3);
    let reader = log.reader();
    assert_eq!(read_all(&log), all);
    for from in [1, 2, 37, 99, 100] {
        for to in [from, from + 1, from + 20, 200] {
            let found = reader.entries(Index(from), Index(to), usize::MAX).unwrap();
            let end = (to - 1).min(100) as usize;
            assert_eq!(found, all[from as usize - 1..end.max(from as usize - 1)]);
        }
    }
    assert_eq!(reader.entries(Index(1), Index(50), 0).unwrap(), all[..1]);
    let few = reader.entries(Index(1), Index(101), 2_000).unwrap();
    assert!(few.len() > 3 && few.len() < 20);
}

#[test]
fn the_chain_says_at_each_position_which_history_is_below_it() {
    // Given a log, one with the same entries, and one in which the entry 60 is another.
    let disks = [1, 2, 3].map(SimulatedDisk::new);
    let mut all = entries(1, 1..=100, 300);
    let mut logs = disks.each_ref().map(fresh);
    append(&mut logs[0], &all);
    append(&mut logs[1], &all[..30]);
    append(&mut logs[1], &all[30..]);
    all[59] = entry(2, 60, 300);
    let parted = all[59].header.base_offset.0;
    for entry in &mut all[60..] {
        entry.term = Term(2);
    }
    append(&mut logs[2], &all);
    let chain = |log: &Log, position| log.reader().chain_at(Position(position)).unwrap();
    // Then the chains are the same up to that entry, and nowhere behind it,
    let mut before = None;
    for position in 0..=logs[0].end().0 {
        let here = chain(&logs[0], position);
        assert!(here.is_some());
        assert_eq!(here, chain(&logs[1], position), "at {position}");
        assert_eq!(here == chain(&logs[2], position), position <= parted);
        before = before.max(here);
    }
    assert!(before.is_some());
    assert_eq!(chain(&logs[0], logs[0].end().0 + 1), None);
    // and they are after the log was opened again.
    let end = logs[0].end().0;
    let (at_60, at_end) = (chain(&logs[0], 60), chain(&logs[0], end));
    let [log, ..] = logs;
    drop(log);
    let (mut log, _) = open(&disks[0]).unwrap();
    assert_eq!((chain(&log, 60), chain(&log, end)), (at_60, at_end));
    // When the beginning is forgotten, then so is what it said.
    let first = chain(&log, end / 2);
    retain(&mut log, 30);
    let start = log.start();
    assert!(start.0 > 1 && start.0 <= end / 2);
    assert_eq!(chain(&log, start.0 - 1), None);
    assert_eq!(chain(&log, end / 2), first);
}

#[test]
fn entries_are_found_by_position_and_by_time() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = entries(1, 1..=100, 60);
    append(&mut log, &all[..50]);
    append(&mut log, &all[50..]);
    let reader = log.reader();
    for position in 0..log.end().0 {
        let found = reader
            .entries_from(Position(position), Index(101), usize::MAX)
            .unwrap();
        let first = all
            .iter()
            .position(|e| e.header.end().0 > position && e.header.record_count > 0)
            .unwrap();
        assert_eq!(found, all[first..], "position {position}");
        let one = reader
            .entries_from(Position(position), Index(101), 0)
            .unwrap();
        assert_eq!(one, all[first..=first]);
        let none = reader
            .entries_from(Position(position), all[first].index, 1 << 20)
            .unwrap();
        assert!(none.is_empty(), "the limit holds");
    }
    assert!(
        reader
            .entries_from(log.end(), Index(101), 1 << 20)
            .unwrap()
            .is_empty()
    );
    for time in 990..2_020 {
        let expected = all
            .iter()
            .find(|e| e.header.timestamp_ms >= time)
            .map_or(log.end(), |e| Position(e.header.base_offset.0));
        assert_eq!(reader.position_at_time(time).unwrap(), expected, "{time}");
    }
}

#[test]
fn a_log_is_found_again_as_it_was_left() {
    let disk = SimulatedDisk::new(1);
    let all = entries(1, 1..=80, 100);
    let mut log = fresh(&disk);
    append(&mut log, &all[..40]);
    log.save_hard_state(&hard_state(2)).unwrap();
    let later: Vec<_> = (41..=80).map(|i| entry(2, i, 100)).collect();
    append(&mut log, &later);
    log.prepare().unwrap().run().unwrap();
    log.close(&hard_state(2)).unwrap();
    assert!(matches!(
        log.stage(&entries(2, 81..=81, 1)),
        Err(StageError::Stopped)
    ));
    drop(log);

    let (log, recovery) = open(&disk).unwrap();
    let HardStateRead::Present(found) = recovery.hard_state else {
        panic!("there was a hard state");
    };
    assert!(found.clean);
    assert_eq!((found.term, found.durable), (Term(2), Index(80)));
    assert_eq!(recovery.terms, [(Index(1), Term(1)), (Index(41), Term(2))]);
    assert_eq!(
        (recovery.first_index, recovery.last_index),
        (Index(1), Index(80))
    );
    assert_eq!((recovery.start, recovery.end), (Position(0), log.end()));
    assert_eq!(recovery.cut, None);
    assert_eq!(
        recovery.scanned_segments, 1,
        "indexes vouch for the sealed ones"
    );
    assert_eq!(read_all(&log), [&all[..40], &later].concat());
    drop(log);

    // Opened, and killed: no longer clean. All indexes destroyed: rebuilt.
    for name in disk.files().keys().filter(|name| name.ends_with(".index")) {
        disk.flip(name, 777);
    }
    let (log, recovery) = open(&disk).unwrap();
    assert!(matches!(recovery.hard_state, HardStateRead::Present(s) if !s.clean));
    assert_eq!(recovery.scanned_segments, recovery.segments);
    assert_eq!(read_all(&log), [&all[..40], &later].concat());
}

#[test]
fn durable_advances_in_order_whatever_the_order_of_completions() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let mut flushes = Vec::new();
    for index in 1..=4 {
        flushes.extend(log.stage(&[entry(1, index, 10)]).unwrap());
    }
    let numbers: Vec<u64> = flushes.iter().map(|flush| flush.number).collect();
    assert!(numbers.is_sorted());
    let mut report = |place: usize| {
        flushes[place].run().unwrap();
        log.flushed(flushes[place].number)
    };
    assert_eq!(report(2), Index(0));
    assert_eq!(report(0), Index(1));
    assert_eq!(report(3), Index(1));
    assert_eq!(report(1), Index(4));
    assert_eq!(log.flushes_in_flight(), 0);
}

#[test]
fn a_reader_leaves_out_what_is_not_written_yet() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let flushes = log.stage(&entries(1, 1..=2, 10)).unwrap();
    let reader = log.reader();
    assert!(
        reader
            .entries(Index(1), Index(9), 1 << 20)
            .unwrap()
            .is_empty()
    );
    flushes[0].run().unwrap();
    let found = reader.entries(Index(1), Index(9), 1 << 20).unwrap();
    assert_eq!(found.len(), 2, "as soon as the write has ended");
}

#[test]
fn what_does_not_continue_the_log_is_refused_and_changes_nothing() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let first = [entry(1, 1, 10)];
    assert!(matches!(log.stage(&first), Err(StageError::NoHardState)));
    log.save_hard_state(&hard_state(1)).unwrap();
    // The first entry of all follows the place before it, as each other one does.
    let mut later = entry(1, 1, 10);
    later.header.base_offset.0 += 1;
    for wrong in [entry(1, 2, 10), later] {
        let refused = log.stage(&[wrong]);
        assert!(matches!(refused, Err(StageError::OutOfOrder { .. })));
    }
    append(&mut log, &first);
    let mut offset = entry(1, 2, 10);
    offset.header.base_offset.0 += 1;
    for wrong in [entry(1, 1, 10), entry(1, 3, 10), entry(0, 2, 10), offset] {
        let refused = log.stage(&[wrong]);
        assert!(matches!(refused, Err(StageError::OutOfOrder { .. })));
    }
    append(&mut log, &[entry(1, 2, 10)]);
    let other = onelog_log::HardState {
        log_id: 5,
        ..hard_state(1)
    };
    assert!(log.save_hard_state(&other).is_err(), "the id never changes");
}

#[test]
fn the_bytes_in_flight_are_bounded() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let first = log.stage(&[entry(1, 1, 40 << 10)]).unwrap();
    let refused = log.stage(&[entry(1, 2, 40 << 10)]);
    assert!(matches!(refused, Err(StageError::InFlight { .. })));
    run_all(&mut log, &first);
    append(&mut log, &[entry(1, 2, 100 << 10)]);
    assert_eq!(log.in_flight_bytes(), 0);
}

#[test]
fn a_frame_larger_than_a_segment_gets_its_own() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = [entry(1, 1, 50), entry(1, 2, 100_000), entry(1, 3, 50)];
    append(&mut log, &all);
    assert_eq!(read_all(&log), all);
    // Also where an empty segment of the usual size is already there.
    log.cut_end(Index(1)).unwrap();
    let again = [entry(2, 1, 100_000), entry(2, 2, 10)];
    append(&mut log, &again);
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.cut, None);
    assert_eq!(read_all(&log), again);
}

fn two_readers(log: &Log) -> (LogReader, LogReader) {
    (log.reader(), log.reader())
}

#[test]
fn retention_drops_whole_segments_and_recycles_their_files() {
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let all = entries(1, 1..=200, 100);
    for group in all[..100].chunks(5) {
        append(&mut log, group);
    }
    let (reader, _) = two_readers(&log);
    let dropped = retain(&mut log, 90);
    assert!(dropped.len() > 2);
    assert_eq!(dropped.iter().filter(|d| d.is_recycled).count(), 2);
    let first = log.first_index();
    assert!(first <= Index(90) && first > Index(60));
    assert_eq!(dropped.last().unwrap().last_index.next(), first);
    assert_eq!(dropped.last().unwrap().end, log.start());
    for old in [Index(1), Index(first.0 - 1)] {
        let cut = reader.entries(old, Index(101), 1 << 20);
        assert!(matches!(cut, Err(ReadError::Cut { first_index, .. }) if first_index == first));
    }
    let cut = reader.entries_from(Position(0), Index(101), 1 << 20);
    assert!(matches!(cut, Err(ReadError::Cut { start, .. }) if start == log.start()));
    // The recycled files still hold their old frames when they are written again.
    for group in all[100..].chunks(5) {
        append(&mut log, group);
    }
    assert_eq!(read_all(&log), all[first.0 as usize - 1..]);
    assert!(retain(&mut log, u64::MAX).len() > 2);
    assert_eq!(log.last_index(), Index(200), "the last segment stays");
    drop(log);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.cut, None, "stale frames are no loss");
    assert_eq!(read_all(&log).last(), all.last());
}

#[test]
fn the_last_file_stays_until_the_next_one_is_there() {
    // Given a segment that is full, and the next one staged but not flushed,
    let disk = SimulatedDisk::new(1);
    let mut log = fresh(&disk);
    let (mut last, one_segment) = (0, options().segment_bytes);
    let flushes = loop {
        last += 1;
        let flushes = log.stage(&[entry(1, last, 600)]).unwrap();
        if log.disk_bytes() > one_segment {
            break flushes;
        }
        run_all(&mut log, &flushes);
    };
    // when everything durable may go,
    assert_eq!(retain(&mut log, u64::MAX), []);
    // then it is all there after a crash: where else would the log go on?
    drop((log, flushes));
    disk.crash(CrashMode::LoseAll);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(
        (recovery.first_index, recovery.last_index),
        (Index(1), Index(last - 1))
    );
    assert_eq!(read_all(&log), entries(1, 1..=last - 1, 600));
}

#[test]
fn segments_are_made_in_order_whichever_flush_comes_first() {
    for mode in CrashMode::ALL {
        // Given entries for many segments that have no files yet,
        let disk = SimulatedDisk::new(1);
        let mut log = fresh(&disk);
        let all = entries(1, 1..=40, 600);
        let flushes: Vec<_> = all
            .chunks(6)
            .flat_map(|group| log.stage(group).unwrap())
            .collect();
        assert_eq!(disk.files().len(), 1, "staging makes no file");
        // and a reader, which finds nothing of them,
        let found = log
            .reader()
            .entries(Index(1), Index(41), usize::MAX)
            .unwrap();
        assert_eq!(found, []);
        // when the last flush runs first and power fails,
        flushes.last().unwrap().run().unwrap();
        assert_eq!(log.flushed(flushes.last().unwrap().number), Index(0));
        drop(log);
        disk.crash(mode);
        // then there is a log without entries, and it goes on.
        let (mut log, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.last_index, Index(0));
        append(&mut log, &all);
        assert_eq!(read_all(&log), all);
    }
}

#[test]
fn a_truncated_end_never_comes_back() {
    for at in [1, 2, 30, 61, 80] {
        for mode in CrashMode::ALL {
            let disk = SimulatedDisk::new(at);
            let mut log = fresh(&disk);
            let all = entries(1, 1..=80, 100);
            for group in all.chunks(7) {
                append(&mut log, group);
            }
            log.prepare().unwrap().run().unwrap();
            log.cut_end(Index(at)).unwrap();
            assert_eq!(
                (log.last_index(), log.durable()),
                (Index(at - 1), Index(at - 1))
            );
            let kept = &all[..at as usize - 1];
            assert_eq!(read_all(&log), kept);
            drop(log);
            disk.crash(mode);
            let (mut log, recovery) = open(&disk).unwrap();
            assert_eq!(recovery.cut, None);
            assert_eq!(read_all(&log), kept);
            let other = entries(2, at..=at + 40, 100);
            append(&mut log, &other);
            assert_eq!(read_all(&log), [kept, &other[..]].concat());
            log.cut_end(Index(at + 41)).unwrap();
            let outside = log.cut_end(Index(at + 42));
            assert!(matches!(outside, Err(CutError::Outside { .. })));
        }
    }
}

#[test]
fn a_pool_runs_flushes_and_tells_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (mut log, _) = Log::open(disk.clone(), options()).unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    let (done, ended) = mpsc::channel();
    let pool = FlushPool::start(4, move |number, result, _| {
        done.send((number, result.is_ok())).unwrap();
    })
    .unwrap();
    let all = entries(1, 1..=300, 50);
    for group in all.chunks(3) {
        while log.flushes_in_flight() >= 4 {
            let (number, is_ok) = ended.recv().unwrap();
            assert!(is_ok);
            log.flushed(number);
        }
        for flush in log.stage(group).unwrap() {
            pool.push(flush);
        }
        if let Some(job) = log.prepare() {
            job.run().unwrap();
        }
    }
    drop(pool);
    while let Ok((number, is_ok)) = ended.try_recv() {
        assert!(is_ok);
        log.flushed(number);
    }
    assert_eq!(log.durable(), Index(300));
    assert_eq!(read_all(&log), all);
    let second = RealDisk::open(folder.path()).unwrap_err();
    assert!(
        second.to_string().contains("in use by another process"),
        "{second}"
    );
    drop(log);
    drop(disk);
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (log, recovery) = Log::open(disk, options()).unwrap();
    assert_eq!(recovery.cut, None);
    assert_eq!(read_all(&log), all);
}

#[test]
fn a_lost_file_is_never_taken_for_an_empty_log() {
    let prepared = || {
        let disk = SimulatedDisk::new(1);
        let mut log = fresh(&disk);
        append(&mut log, &entries(1, 1..=100, 100));
        drop(log);
        disk
    };
    let names: Vec<String> = prepared().files().into_keys().collect();
    assert!(names.len() > 3);
    let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".log")).collect();
    for name in &names {
        let disk = prepared();
        let mut files = disk.files();
        files.remove(name);
        let disk = SimulatedDisk::with_files(1, files.clone());
        let refused = open(&disk).unwrap_err();
        let said = refused.to_string();
        match segments.iter().position(|segment| *segment == name) {
            None => assert!(matches!(refused, OpenError::HardState(_)), "{said}"),
            Some(place) => {
                assert!(matches!(refused, OpenError::Missing(_)), "{said}");
                // What is missing is named, with the files that are there beside it.
                let number = format!("the file of segment {} is missing", place + 1);
                assert!(said.contains(&number), "{said}");
                let beside = [place.checked_sub(1), Some(place + 1)];
                for there in beside.into_iter().flatten() {
                    let is_named = segments.get(there).is_none_or(|name| said.contains(*name));
                    assert!(is_named, "{said}");
                }
                let where_it_was = match place {
                    0 => "at the log's beginning",
                    _ if place + 1 == segments.len() => "at the log's end",
                    _ => "between",
                };
                assert!(said.contains(where_it_was), "{said}");
                let report = check(&disk, &mut |_| ControlFlow::Continue(())).unwrap();
                assert!(report.faults[0].to_string().contains(&number));
            }
        }
        assert_eq!(disk.files(), files, "nothing was changed");
    }
}
