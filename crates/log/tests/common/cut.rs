//! Logs whose end is cut, and what must be there afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_log::{CrashMode, Log, SimulatedDisk, check};
use onelog_record::{Entry, Index};

use super::pausing::{Pause, PausingDisk};
use super::{LAST, append, entries, hard_state, open, open_on, read_all};

/// A long log; closed, and opened again.
pub fn long_log(disk: &SimulatedDisk) -> (Log, Vec<Entry>) {
    let (mut log, all) = super::long_log(disk);
    log.close(&hard_state(1)).unwrap();
    drop(log);
    let (log, recovery) = open(disk).unwrap();
    assert!(recovery.segments > 2, "{}", recovery.segments);
    assert_eq!(recovery.scanned_segments, 1, "the others have indexes");
    (log, all)
}

/// Opens what a crash left, and goes on with other entries behind the cut; all of it stays.
pub fn goes_on(disk: &SimulatedDisk, all: &[Entry], from: u64) {
    let (mut log, recovery) = open(disk).unwrap();
    assert_eq!(recovery.cut, None, "what was cut is no torn tail");
    let found = read_all(&log);
    let is_cut = found.len() < all.len();
    let kept = if is_cut { from as usize - 1 } else { all.len() };
    assert_eq!(found, all[..kept]);
    if !is_cut {
        log.cut_end(Index(from)).unwrap();
    }
    let kept = &all[..from as usize - 1];
    let other = entries(2, from..=from + 25, 120);
    append(&mut log, &other[..20]);
    append(&mut log, &other[20..]);
    let expected = [kept, &other[..]].concat();
    assert_eq!(read_all(&log), expected);
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let report = check(disk, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.faults, []);
    let (log, recovery) = open(disk).unwrap();
    assert_eq!(recovery.cut, None);
    assert_eq!(read_all(&log), expected);
}

/// A reader is in the middle of the first segment when the end is cut and other entries take its
/// place: it gets what is there now, or what was there before.
pub fn reader_across_a_cut(pause: Pause, bytes: usize) {
    let disk = SimulatedDisk::new(1);
    drop(long_log(&disk));
    let pausing = PausingDisk::new(disk);
    let (mut log, _) = open_on(Arc::new(pausing.clone())).unwrap();
    let old = read_all(&log);
    let reader = log.reader();
    let stopped = pausing.stop_next(pause);
    let reading = std::thread::spawn(move || reader.entries(Index(1), Index(u64::MAX), usize::MAX));
    stopped.reached.recv().unwrap();
    log.cut_end(Index(5)).unwrap();
    append(&mut log, &entries(2, 5..=LAST, bytes));
    stopped.go.send(()).unwrap();
    let found = reading.join().unwrap().unwrap();
    let new = read_all(&log);
    assert!(found == new || found == old, "{pause:?}, {bytes}");
}
