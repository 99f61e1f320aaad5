//! A damaged entry is put back from a peer that has it, and only the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::damage::{Acknowledged, Place};
use common::{append, entries, entry, fresh, open, read_all};
use onelog_log::{
    Corruption, CrashMode, Fault, Log, LogReader, MendError, OpenError, SimulatedDisk, check,
};
use onelog_record::{Entry, Index};

/// The same entries in a log of another node.
fn peer(log: &Acknowledged) -> LogReader {
    let disk = SimulatedDisk::new(9);
    let mut peer = fresh(&disk);
    append(&mut peer, &log.all);
    peer.reader()
}

fn fetch(peer: &LogReader, index: Index) -> (Entry, u32) {
    let entry = peer.entries(index, index.next(), 1).unwrap().remove(0);
    (entry, peer.place(index).unwrap().unwrap().checksum)
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
                let (entry, checksum) = fetch(&peer, place.index);
                Log::mend(&disk, &entry, checksum).unwrap();
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
        let (entry, checksum) = fetch(&peer, fault.index.next());
        if places[fault.index.0 as usize].file == fault.file {
            let refused = Log::mend(&disk, &entry, checksum).unwrap_err();
            assert!(matches!(refused, MendError::Before(_)), "{refused}");
        }
        // but in it.
        let (entry, checksum) = fetch(&peer, fault.index);
        Log::mend(&disk, &entry, checksum).unwrap();
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
        let (right, checksum) = fetch(&peer, place.index);
        let mut wrong = vec![(right.clone(), checksum ^ 1)];
        // Another history: the peer's chain may even agree with itself.
        for other in [entry(2, place.index.0, 100), entry(1, place.index.0, 90)] {
            let disk = SimulatedDisk::new(2);
            let mut forked = fresh(&disk);
            append(&mut forked, &log.all[..place.index.0 as usize - 1]);
            append(&mut forked, std::slice::from_ref(&other));
            let is_other = other != right;
            let there = forked.reader().place(place.index).unwrap().unwrap();
            // Behind the last entry nothing vouches against it but the peer.
            let is_last = place.index.0 as usize == log.all.len();
            wrong.extend((is_other && !is_last).then_some((other, there.checksum)));
        }
        for (entry, checksum) in wrong {
            let refused = Log::mend(&disk, &entry, checksum).unwrap_err();
            assert!(matches!(refused, MendError::Other { .. }), "{refused}");
            assert_eq!(disk.files(), files, "nothing was changed");
        }
        Log::mend(&disk, &right, checksum).unwrap();
        let refused = Log::mend(&disk, &right, checksum).unwrap_err();
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
    let (entry, checksum) = fetch(&longer.reader(), Index(next));
    let refused = Log::mend(&disk, &entry, checksum).unwrap_err();
    assert!(matches!(refused, MendError::NotThere(_)), "{refused}");
    assert_eq!(disk.files(), log.files);
    let empty = SimulatedDisk::new(1);
    let refused = Log::mend(&empty, &entry, checksum).unwrap_err();
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
            let (entry, checksum) = fetch(&peer, place.index);
            disk.fail_at(disk.steps() + step, Fault::CrashNow);
            let is_mended = Log::mend(&disk, &entry, checksum).is_ok();
            disk.crash(CrashMode::ALL[step as usize % 4]);
            match Log::mend(&disk, &entry, checksum) {
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
