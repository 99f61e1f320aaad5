//! A damaged entry is put back from a peer that has it, and only the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::damage::{Acknowledged, Place};
use common::{append, entries, entry, fresh, open, read_all};
use onelog_log::{
    Copied, Corruption, CrashMode, Fault, Log, LogReader, MendError, OpenError, SimulatedDisk,
    check,
};
use onelog_record::Index;

/// The same entries in a log of another node.
fn peer(log: &Acknowledged) -> LogReader {
    let disk = SimulatedDisk::new(9);
    let mut peer = fresh(&disk);
    append(&mut peer, &log.all);
    peer.reader()
}

fn fetch(peer: &LogReader, index: Index) -> Copied {
    peer.copied(index, index).unwrap().unwrap()
}

fn faults(disk: &SimulatedDisk) -> Vec<Corruption> {
    let report = check(disk, &mut |_| ControlFlow::Continue(())).unwrap();
    report.faults
}

/// The first entry, one in the middle of a segment, the last of a segment, the first of the next,
/// and the last of all.
fn wounds(log: &Acknowledged) -> Vec<&Place> {
    let places = &log.places;
    let second = places
        .iter()
        .position(|p| p.file != places[0].file)
        .unwrap();
    let last = places.len() - 1;
    [0, 3, second - 1, second, last - 1, last]
        .into_iter()
        .map(|place| &places[place])
        .collect()
}

fn flip(disk: &SimulatedDisk, place: &Place, byte: usize) {
    disk.flip(&place.file, ((place.at + byte) * 8) as u64);
}

#[test]
fn a_damaged_entry_is_put_back() {
    for is_closed in [true, false] {
        let log = Acknowledged::new(is_closed);
        let peer = peer(&log);
        for place in wounds(&log) {
            for byte in [0, 9, 30, 40, 66, 70, 75, 82, place.len - 9] {
                // Given damage, which is refused or, in a segment whose index vouches for it, found
                // when it is read.
                let disk = log.disk();
                flip(&disk, place, byte);
                assert_eq!(faults(&disk)[0].index, place.index);
                // When the entry comes from a peer,
                let copied = fetch(&peer, place.index);
                Log::mend(&disk, &copied).unwrap();
                disk.crash(CrashMode::LoseAll);
                // then the log is whole.
                assert_eq!(faults(&disk), []);
                let (log_again, recovery) = open(&disk).unwrap();
                assert_eq!(recovery.cut, None);
                assert_eq!(read_all(&log_again), log.all);
            }
        }
    }
}

#[test]
fn neighbours_that_are_damaged_are_put_back_one_after_the_other() {
    let log = Acknowledged::new(false);
    let peer = peer(&log);
    let places = &log.places;
    let second = places
        .iter()
        .position(|p| p.file != places[0].file)
        .unwrap();
    let disk = log.disk();
    for place in &places[second - 3..second + 2] {
        flip(&disk, place, 20);
    }
    let mut mended = 0;
    while let Err(refused) = open(&disk) {
        let OpenError::Corrupt(fault) = refused else {
            panic!("{refused}");
        };
        // Not out of order,
        let copied = fetch(&peer, fault.index.next());
        if places[fault.index.0 as usize].file == fault.file {
            let refused = Log::mend(&disk, &copied).unwrap_err();
            assert!(matches!(refused, MendError::Before(_)), "{refused}");
        }
        // but in it.
        let copied = fetch(&peer, fault.index);
        Log::mend(&disk, &copied).unwrap();
        mended += 1;
    }
    assert_eq!(mended, 5);
    assert_eq!(read_all(&open(&disk).unwrap().0), log.all);
}

#[test]
fn only_the_right_entry_is_put_back() {
    let log = Acknowledged::new(false);
    let peer = peer(&log);
    for place in wounds(&log) {
        let disk = log.disk();
        flip(&disk, place, 20);
        let files: BTreeMap<_, _> = disk.files();
        let right = fetch(&peer, place.index);
        let mut wrong = vec![Copied {
            checksum: right.checksum ^ 1,
            ..right.clone()
        }];
        // Another history: the peer's chain may even agree with itself.
        for other in [entry(2, place.index.0, 100), entry(1, place.index.0, 90)] {
            let disk = SimulatedDisk::new(2);
            let mut forked = fresh(&disk);
            append(&mut forked, &log.all[..place.index.0 as usize - 1]);
            append(&mut forked, std::slice::from_ref(&other));
            let is_other = other != right.entry;
            // Behind the last entry nothing vouches against it but the peer.
            let is_last = place.index.0 as usize == log.all.len();
            wrong.extend((is_other && !is_last).then(|| fetch(&forked.reader(), place.index)));
        }
        for copied in wrong {
            let refused = Log::mend(&disk, &copied).unwrap_err();
            assert!(matches!(refused, MendError::Other { .. }), "{refused}");
            assert_eq!(disk.files(), files, "nothing was changed");
        }
        Log::mend(&disk, &right).unwrap();
        let refused = Log::mend(&disk, &right).unwrap_err();
        assert!(matches!(refused, MendError::Whole(_)), "{refused}");
    }
}

#[test]
fn nothing_is_put_where_the_log_had_nothing() {
    let log = Acknowledged::new(false);
    let disk = log.disk();
    let next = log.all.len() as u64 + 1;
    let more = SimulatedDisk::new(2);
    let mut longer = fresh(&more);
    append(&mut longer, &entries(1, 1..=next, 100));
    let copied = fetch(&longer.reader(), Index(next));
    let refused = Log::mend(&disk, &copied).unwrap_err();
    assert!(matches!(refused, MendError::NotThere(_)), "{refused}");
    assert_eq!(disk.files(), log.files);
    let empty = SimulatedDisk::new(1);
    let refused = Log::mend(&empty, &copied).unwrap_err();
    assert!(matches!(refused, MendError::Open(_)), "{refused}");
}

#[test]
fn mending_may_be_cut_short_and_done_again() {
    let log = Acknowledged::new(false);
    let peer = peer(&log);
    for place in wounds(&log) {
        for step in 0.. {
            let disk = SimulatedDisk::with_files(step, log.files.clone());
            flip(&disk, place, 20);
            let copied = fetch(&peer, place.index);
            disk.fail_at(disk.steps() + step, Fault::CrashNow);
            let is_mended = Log::mend(&disk, &copied).is_ok();
            disk.crash(CrashMode::ALL[step as usize % 4]);
            match Log::mend(&disk, &copied) {
                Ok(()) => assert!(!is_mended),
                Err(MendError::Whole(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert_eq!(read_all(&open(&disk).unwrap().0), log.all);
            if is_mended {
                break;
            }
        }
    }
}

#[test]
fn what_nothing_here_vouches_for_must_be_committed() {
    let log = Acknowledged::new(false);
    let peer = peer(&log);
    let last = log.places.last().unwrap();
    let disk = log.disk();
    flip(&disk, last, 20);
    // Given a copy of the last entry that may yet be replaced there,
    let before = Index(last.index.0 - 1);
    let copied = peer.copied(last.index, before).unwrap().unwrap();
    let refused = Log::mend(&disk, &copied).unwrap_err();
    assert!(matches!(refused, MendError::NotCommitted(_)), "{refused}");
    assert!(open(&disk).is_err(), "it does not start without it");
    // when it is committed, then it is put back.
    Log::mend(&disk, &fetch(&peer, last.index)).unwrap();
    assert_eq!(read_all(&open(&disk).unwrap().0), log.all);
    // An entry before others needs no more than them.
    let place = &log.places[3];
    flip(&disk, place, 20);
    let copied = peer.copied(place.index, Index::ZERO).unwrap().unwrap();
    Log::mend(&disk, &copied).unwrap();
}

#[test]
fn a_log_that_has_lost_its_end_is_not_mended() {
    let log = Acknowledged::new(false);
    let peer = peer(&log);
    let count = log.places.len();
    for lost in [1, 2] {
        // Given a log whose last frames are gone, not only damaged,
        let place = &log.places[count - lost];
        let mut files = log.files.clone();
        files.get_mut(&place.file).unwrap()[place.at..].fill(0);
        let disk = SimulatedDisk::with_files(1, files.clone());
        assert!(matches!(open(&disk), Err(OpenError::Corrupt(_))));
        // when they are to be mended, then it is said what was lost.
        let expected = (Index(place.index.0 - 1), Index(count as u64));
        for refused in [
            Log::wound(&disk, place.index),
            Log::mend(&disk, &fetch(&peer, place.index)),
        ] {
            let Err(MendError::LostTail { last, durable }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!((last, durable), expected);
        }
        assert_eq!(disk.files(), files);
    }
    // A damaged one with nothing behind it where more was durable is no better.
    let disk = log.disk();
    let place = &log.places[count - 2];
    let mut files = log.files.clone();
    let segment = files.get_mut(&place.file).unwrap();
    segment[place.at + place.len..].fill(0);
    segment[place.at + 20] ^= 1;
    drop(disk);
    let disk = SimulatedDisk::with_files(1, files);
    let refused = Log::wound(&disk, place.index).unwrap_err();
    assert!(matches!(refused, MendError::LostTail { .. }), "{refused}");
}

#[test]
fn a_log_that_is_open_is_mended_under_its_readers() {
    let log = Acknowledged::new(true);
    let peer = peer(&log);
    let disk = log.disk();
    let (mut open, _) = open(&disk).unwrap();
    let reader = open.reader();
    // Given frames that rot while the log is open, one of them in the segment that is written,
    let count = log.places.len();
    for place in [
        &log.places[3],
        &log.places[count - 2],
        &log.places[count - 1],
    ] {
        flip(&disk, place, 20);
        let index = place.index;
        let read = reader.entries(index, index.next(), 1 << 20);
        let Err(onelog_log::ReadError::Corrupt(fault)) = read else {
            panic!("{read:?}");
        };
        // when they come from a peer, then readers go on, and so does the writer.
        reader.mend(&fetch(&peer, fault.index)).unwrap();
        let read = reader.entries(index, index.next(), 1 << 20).unwrap();
        assert_eq!(read, [log.all[index.0 as usize - 1].clone()]);
        let refused = reader.mend(&fetch(&peer, index)).unwrap_err();
        assert!(matches!(refused, MendError::Whole(_)), "{refused}");
    }
    append(
        &mut open,
        &entries(1, count as u64 + 1..=count as u64 + 1, 100),
    );
    assert_eq!(read_all(&open).len(), count + 1);
}
