//! Readers on other threads while the log is written, rolled, prepared and cut at its beginning.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{append, entries, hard_state, options, retain};
use onelog_log::{Log, LogReader, ReadError, RealDisk};
use onelog_record::{Entry, Index};

/// Reads behind the writer until it is done; answers how many entries were read and how often the
/// beginning had been cut.
fn follow(
    reader: &LogReader,
    all: &[Entry],
    durable: &AtomicU64,
    is_done: &AtomicBool,
) -> (u64, u64) {
    let (mut read, mut cuts, mut next, mut round) = (0, 0, 1, 0u64);
    loop {
        let was_done = is_done.load(Ordering::SeqCst);
        let last = durable.load(Ordering::SeqCst);
        // Now and then far back, where retention is at work.
        round += 1;
        let from = if round.is_multiple_of(3) {
            next - next.min(150) + 1
        } else {
            next
        };
        match reader.entries(Index(from), Index(last + 1), 20_000) {
            Ok(found) => {
                let start = from as usize - 1;
                assert_eq!(found, all[start..start + found.len()]);
                assert!(!found.is_empty() || from > last, "what is durable is there");
                read += found.len() as u64;
                next = next.max(from + found.len() as u64);
            }
            Err(ReadError::Cut { first_index, .. }) => {
                cuts += 1;
                next = next.max(first_index.0);
            }
            Err(error) => panic!("{error}"),
        }
        if was_done && next > last {
            return (read, cuts);
        }
    }
}

#[test]
fn readers_see_what_was_written_or_that_it_was_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (mut log, _) = Log::open(disk, options()).unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    let all = entries(1, 1..=1_500, 50);
    let (durable, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = log.reader();
                scope.spawn(|| {
                    let reader = reader;
                    follow(&reader, &all, &durable, &is_done)
                })
            })
            .collect();
        for group in all.chunks(4) {
            append(&mut log, group);
            durable.store(log.durable().0, Ordering::SeqCst);
            if let Some(job) = log.prepare() {
                job.run().unwrap();
            }
            let below = log.durable().0.saturating_sub(100);
            retain(&mut log, below);
        }
        is_done.store(true, Ordering::SeqCst);
        for reader in readers {
            let (read, _) = reader.join().unwrap();
            assert!(read > 0);
        }
    });
    assert!(log.first_index() > Index(1_300));
}

/// What a reader unpacks must fit in its memory, however little of the disk it takes.
#[test]
fn a_piece_of_the_log_is_bounded_by_what_it_takes_unpacked() {
    const UNPACKED: u32 = 1 << 20;
    // Given small entries that hold a mebibyte each when they are unpacked,
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (mut log, _) = Log::open(disk, options()).unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    let mut all = entries(1, 1..=40, 50);
    for entry in all.iter_mut().filter(|entry| !entry.body.is_empty()) {
        entry.header.raw_len = UNPACKED;
    }
    for group in all.chunks(4) {
        append(&mut log, group);
    }
    let reader = log.reader();
    let unpacked = |found: &[Entry]| -> usize {
        let bytes = found.iter().map(|entry| entry.header.raw_len as usize);
        bytes.sum()
    };
    // then a reader gets them in pieces of what it can hold, over the ends of segments as well,
    let bound = 4 * UNPACKED as usize;
    let mut next = 1;
    while next <= 40 {
        let found = reader.entries(Index(next), Index(41), bound).unwrap();
        assert!(!found.is_empty() && unpacked(&found) <= bound);
        assert_eq!(found, all[next as usize - 1..][..found.len()]);
        next += found.len() as u64;
    }
    let from = onelog_record::Position(0);
    let found = reader.entries_from(from, Index(41), bound).unwrap();
    assert!(!found.is_empty() && unpacked(&found) <= bound);
    // and one that is larger than that alone.
    let found = reader.entries(Index(1), Index(41), 1).unwrap();
    assert_eq!(found.len(), 1);
}
