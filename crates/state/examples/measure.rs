//! Measures the state alone, on a real disk: loading, writing with checkpoints, point reads while
//! writing, scans, a digest of all rows, sending it to another state, reopening. Usage: `measure [KEYS] [FOLDER] [CACHE_MIB]`.
//!
//! Rates are per second of wall time and, in brackets, per second of the thread's own time on a
//! core, because more threads run than this may have cores.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use onelog_log::RealDisk;
use onelog_record::{
    BodyWriter, Entry, EntryHeader, EntryKind, Index, KeyRange, Offset, Op, TableId, Term, TxnId,
};
use onelog_state::{Checkpoint, Import, State, StateOptions};

const TABLE: TableId = TableId(1024);
const VALUE_BYTES: usize = 100;
const RECORDS_PER_ENTRY: u64 = 512;

struct Clock {
    begun: Instant,
    cpu_ns: u64,
}

/// Nanoseconds that this thread was on a core; 0 where the system does not say.
fn cpu_ns() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

impl Clock {
    fn start() -> Self {
        Self {
            begun: Instant::now(),
            cpu_ns: cpu_ns(),
        }
    }

    fn report(&self, what: &str, count: u64) {
        let wall = self.begun.elapsed().as_secs_f64();
        let cpu = (cpu_ns() - self.cpu_ns) as f64 / 1e9;
        let (by_wall, by_cpu) = (count as f64 / wall, count as f64 / cpu);
        println!("{what:44} {count:>9} in {wall:6.2} s: {by_wall:>9.0}/s ({by_cpu:>9.0}/s)");
    }
}

/// Numbers by splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn key(number: u64) -> [u8; 24] {
    let mut key = *b"key:00000000000000000000";
    for digit in 0..20 {
        key[23 - digit] = b'0' + (number / 10u64.pow(digit as u32) % 10) as u8;
    }
    key
}

/// Entries as the log would hand them over, two records to a transaction.
struct Feed {
    applied: onelog_state::Applied,
    transactions: u64,
}

impl Feed {
    fn next(&mut self, keys: impl Iterator<Item = u64>) -> Entry {
        let mut body = BodyWriter::default();
        let value = [b'v'; VALUE_BYTES];
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            self.transactions += 1;
            let mark = body.begin(TxnId(u128::from(self.transactions)), 0);
            for number in keys.by_ref().take(2) {
                body.record(Op::Put, TABLE, &key(number), Some(&value), &[]);
            }
            body.seal(mark);
        }
        let mut header =
            EntryHeader::empty(EntryKind::Transactions, self.applied.position.next_offset());
        (header.record_count, header.transaction_count) = (body.records(), body.transactions());
        let body = Bytes::from(body.finish());
        header.raw_len = body.len() as u32;
        self.applied.index = Index(self.applied.index.0 + 1);
        self.applied.position = header.end();
        Entry {
            term: Term(1),
            index: self.applied.index,
            header,
            body,
        }
    }
}

fn run(checkpoint: Checkpoint) {
    let clock = Clock::start();
    let report = checkpoint.run().unwrap();
    clock.report("  checkpoint, keys", report.keys);
}

/// Applies entries with checkpoints on a thread of their own, waiting only when memory is full.
fn write(
    state: &State,
    feed: &mut Feed,
    what: &str,
    is_done: &dyn Fn() -> bool,
    mut next: impl FnMut() -> u64,
) {
    let clock = Clock::start();
    let mut entries = 0;
    let mut waited = 0.0;
    thread::scope(|scope| {
        let mut running: Option<thread::ScopedJoinHandle<'_, ()>> = None;
        while !is_done() {
            entries += 1;
            let entry = feed.next((0..RECORDS_PER_ENTRY).map(|_| next()));
            state.apply(&entry).unwrap();
            if state.is_full()
                && let Some(before) = running.take()
            {
                let begun = Instant::now();
                before.join().unwrap();
                waited += begun.elapsed().as_secs_f64();
            }
            if state.wants_checkpoint()
                && let Some(checkpoint) = state.freeze()
            {
                running = Some(scope.spawn(|| run(checkpoint)));
            }
        }
    });
    clock.report(what, entries * RECORDS_PER_ENTRY);
    println!("  waited {waited:.2} s for memory; {:?}", state.memory());
}

/// Says "done" after so many times.
fn times(count: u64) -> impl Fn() -> bool {
    let left = Cell::new(count);
    move || {
        let before = left.get();
        left.set(before.saturating_sub(1));
        before == 0
    }
}

fn read(state: &State, what: &str, keys: u64, reads: u64) {
    let mut random = Random(7);
    let clock = Clock::start();
    let mut snapshot = state.snapshot();
    let mut found = 0;
    for number in 0..reads {
        if number % 1_000 == 0 {
            snapshot = state.snapshot();
        }
        let row = snapshot.get(TABLE, &key(random.below(keys))).unwrap();
        found += u64::from(row.is_some());
    }
    clock.report(what, reads);
    assert_eq!(found, reads);
}

fn scan(state: &State, reverse: bool) {
    let clock = Clock::start();
    let range = KeyRange {
        table: TABLE,
        from: Bytes::new(),
        to: None,
    };
    let rows = state.snapshot().scan(&range, reverse).unwrap();
    let count = rows.map(Result::unwrap).count() as u64;
    clock.report(
        if reverse {
            "scan downwards"
        } else {
            "scan upwards"
        },
        count,
    );
}

/// Sends the last checkpoint to an empty state.
fn send(from: &State, folder: &Path, options: &StateOptions) {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (to, _) = State::open(disk, options.clone()).unwrap();
    let clock = Clock::start();
    let export = from.export().unwrap();
    clock.report("pin a checkpoint, ids", export.head(0).ids);
    let clock = Clock::start();
    let mut import = Import::begin(&to, export.head(0)).unwrap();
    let (mut chunks, mut bytes) = (0, 0);
    while let Some(wanted) = import.wanted() {
        let chunk = export.chunk(&wanted).unwrap();
        chunks += 1;
        bytes += chunk.len();
        import.put(&chunk).unwrap();
    }
    let rows = import.taken().0;
    let imported = import.finish().unwrap();
    clock.report("send and take in, rows", rows);
    println!("  {chunks} chunks, {} MiB, {}", bytes >> 20, memory());
    let clock = Clock::start();
    to.install(imported, &mut None).unwrap();
    clock.report("install", 1);
}

fn read_whole(state: &State, keys: u64, folder: &Path, options: &StateOptions) {
    scan(state, false);
    scan(state, true);
    let clock = Clock::start();
    state.scan_digest().unwrap();
    clock.report("digest of all rows", keys);
    send(state, folder, options);
}

/// The most memory that the process had, as far as the system says.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    peak.unwrap_or("memory unknown").replace('\t', " ")
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments
        .next()
        .map_or(1_000_000, |text| text.parse().unwrap());
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let mut options = StateOptions::default();
    if let Some(text) = arguments.next() {
        options.cache_bytes = text.parse::<usize>().unwrap() << 20;
    }
    let (state, _) = State::open(disk.clone(), options.clone()).unwrap();
    let mut feed = Feed {
        applied: state.applied(),
        transactions: 0,
    };
    let mut random = Random(1);
    let mut at = 0;
    let entries = keys.div_ceil(RECORDS_PER_ENTRY);
    let in_order = || {
        at += 1;
        (at - 1) % keys
    };
    write(
        &state,
        &mut feed,
        "load in key order, records",
        &times(entries),
        in_order,
    );
    if let Some(checkpoint) = state.freeze() {
        run(checkpoint);
    }
    drop(state.release_old_view());
    read(&state, "point reads, all in the tree", keys, 1_000_000);
    let next = || random.below(keys);
    write(
        &state,
        &mut feed,
        "overwrite at random, records",
        &times(4_000),
        next,
    );
    read(&state, "point reads, behind two memtables", keys, 1_000_000);

    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            read(&state, "point reads while writing", keys, 1_000_000);
            is_done.store(true, Ordering::Release);
        });
        let until = || is_done.load(Ordering::Acquire);
        let next = || random.below(keys);
        write(
            &state,
            &mut feed,
            "overwrite while reading, records",
            &until,
            next,
        );
    });
    read_whole(&state, keys, folder.path(), &options);
    if let Some(checkpoint) = state.freeze() {
        run(checkpoint);
    }
    let applied = state.applied();
    drop(state);
    let clock = Clock::start();
    let (_, opened) = State::open(disk, options).unwrap();
    clock.report("reopen, remembered ids", opened.ids.len() as u64);
    assert_eq!(opened.applied, applied);
    assert_eq!(
        applied.position.next_offset(),
        Offset(feed.applied.position.0)
    );
}
