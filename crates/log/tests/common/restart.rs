//! Logs that begin anew behind a place, and what must be there afterwards.

use std::ops::ControlFlow;

use onelog_log::{CrashMode, HardStateRead, Log, Place, Recovery, SimulatedDisk, check};
use onelog_record::{Entry, Index, Term};

use super::{append, end_at, entries, open, read_all, retain};

/// A long log with a spare that was a segment once: its frames are stale.
pub fn long_log(disk: &SimulatedDisk) -> (Log, Vec<Entry>) {
    let (mut log, all) = super::long_log(disk);
    let dropped = retain(&mut log, 25);
    assert!(dropped.iter().any(|dropped| dropped.is_recycled));
    let first = log.first_index().0 as usize;
    (log, all[first - 1..].to_vec())
}

pub fn behind(index: u64) -> Place {
    Place {
        index: Index(index),
        term: Term(2),
        end: end_at(index),
        checksum: 0x1234_5678,
    }
}

pub fn is_emptied(recovery: &Recovery, at: Place) -> bool {
    let HardStateRead::Present(hard_state) = recovery.hard_state else {
        return false;
    };
    let begins = recovery.first_index == at.index.next()
        && recovery.last_index == at.index
        && (recovery.start, recovery.end) == (at.end, at.end)
        && recovery.terms == [(at.index, at.term)];
    begins && hard_state.durable == at.index && hard_state.commit >= at.index
}

/// What a crash left is the old log or the new one, which goes on; all of it stays.
pub fn goes_on(disk: &SimulatedDisk, old: &[Entry], at: Place) {
    let report = check(disk, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.faults, []);
    let (mut log, recovery) = open(disk).unwrap();
    assert!(!disk.files().contains_key("restart"));
    assert_eq!(recovery.cut, None);
    if !is_emptied(&recovery, at) {
        assert_eq!(read_all(&log), old);
        log.restart_behind(at).unwrap();
    }
    assert_eq!(log.reader().place(at.index).unwrap(), Some(at));
    let next = at.index.0 + 1;
    let new = entries(2, next..=next + 40, 300);
    // Few at a time, so that the log ends in each of its files once.
    for (number, part) in new.chunks(5).enumerate() {
        part.iter()
            .for_each(|one| append(&mut log, std::slice::from_ref(one)));
        let there = new.len().min(5 * (number + 1));
        assert_eq!(read_all(&log), new[..there]);
        drop(log);
        disk.crash(CrashMode::LoseAll);
        let report = check(disk, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.faults, report.wrong_indexes), (vec![], vec![]));
        let recovery;
        (log, recovery) = open(disk).unwrap();
        assert_eq!(recovery.cut, None);
        assert_eq!(recovery.terms, [(at.index, at.term)]);
        assert_eq!(read_all(&log), new[..there]);
        assert_eq!(log.reader().place(at.index).unwrap(), Some(at));
    }
}
