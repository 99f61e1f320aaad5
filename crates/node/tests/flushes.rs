//! The engine's thread decides; it never waits for the disk of the log. New segments, the cut of the
//! log's start and the saved watermark are the affair of the threads beside it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use common::wait_until;
use common::watched::{Watch, WatchedDisk};
use onelog::{CommitRequest, NewTable, Node, Operation, Options, Position, TableId, Write};
use onelog_log::{HARD_STATE_FILE, SimulatedDisk};
use onelog_record::Compression;

const ENGINE: &str = "onelog-engine";
const FLUSH: &str = "sync_data";

/// A call: the thread that made it, what it did, and the file.
type Call = (String, &'static str, String);

/// Writes down each call and the thread that makes it.
#[derive(Debug, Default)]
struct Calls(Mutex<Vec<Call>>);

impl Calls {
    fn note(&self, what: &'static str, file: &str) {
        let thread = thread::current().name().unwrap_or("?").to_owned();
        let call = (thread, what, file.to_owned());
        self.0.lock().unwrap().push(call);
    }

    /// What the engine's thread did.
    fn calls_of_engine(&self) -> BTreeSet<&'static str> {
        let calls = self.0.lock().unwrap();
        let of_engine = calls.iter().filter(|(thread, ..)| thread == ENGINE);
        of_engine.map(|(_, what, _)| *what).collect()
    }

    /// How often the hard state was flushed, on whatever thread; it was made under another name.
    fn flushes_of_hard_state(&self) -> usize {
        let calls = self.0.lock().unwrap();
        let is_flush = |call: &&Call| call.1 == FLUSH && call.2.starts_with(HARD_STATE_FILE);
        calls.iter().filter(is_flush).count()
    }
}

impl Watch for Calls {
    fn before(&self, call: &'static str, file: &str) {
        if call != FLUSH {
            self.note(call, file);
        }
    }

    fn after(&self, call: &'static str, file: &str) {
        if call == FLUSH {
            self.note(call, file);
        }
    }
}

fn watched_disk() -> Arc<WatchedDisk<Calls>> {
    Arc::new(WatchedDisk {
        inner: SimulatedDisk::new(1),
        watch: Arc::default(),
    })
}

fn segments(disk: &WatchedDisk<Calls>) -> usize {
    let files = disk.inner.files();
    files.keys().filter(|name| name.ends_with(".log")).count()
}

/// Each segment has room for two of the values that are put.
fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        memtable_bytes: 64 << 10,
        memtable_bytes_max: 1 << 20,
        cache_bytes: 1 << 20,
        checkpoint_interval_ms: 1,
        compression: Compression::None,
        ..Options::new("in memory")
    }
}

fn put(table: TableId, number: usize) -> CommitRequest {
    let value = format!("\"{}\"", "x".repeat(4 << 10));
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::from(number.to_string()),
            operation: Operation::Put(Bytes::from(value)),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn open(disk: &Arc<WatchedDisk<Calls>>, options: Options) -> (Node, TableId) {
    let state = Arc::new(SimulatedDisk::new(2));
    let node = Node::open_on(Arc::<WatchedDisk<Calls>>::clone(disk), state, options).unwrap();
    let made = node.create_table_blocking(NewTable::keyed("t"));
    let table = made.unwrap().0.id;
    (node, table)
}

#[test]
fn the_engines_thread_makes_no_segment() {
    // Given a node whose segments are small,
    let disk = watched_disk();
    let (node, table) = open(&disk, options());
    // when the log rolls again and again, also when no file is ready,
    let mut number = 0;
    wait_until("many segments", || {
        let tickets: Vec<_> = (0..12)
            .map(|_| {
                number += 1;
                node.submit(put(table, number))
            })
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        segments(&disk) > 12
    });
    // then other threads have made the segments, named them and counted them.
    assert_eq!(disk.watch.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}

#[test]
fn the_engines_thread_cuts_no_files() {
    // Given a node that keeps as little of its log as it may,
    let disk = watched_disk();
    let options = Options {
        retain_bytes: Some(0),
        retain_ms: Some(1),
        ..options()
    };
    let (node, table) = open(&disk, options);
    // when the start of the log is cut,
    let mut number = 0;
    wait_until("the log is cut", || {
        number += 1;
        node.submit(put(table, number)).wait().unwrap();
        node.log_start() > Position::ZERO
    });
    wait_until("the files are gone", || {
        let first = disk.inner.files().into_keys().find(|n| n.ends_with(".log"));
        !first.unwrap().starts_with("00000000000000000000-")
    });
    // then other threads have recorded the cut and removed the files.
    assert_eq!(disk.watch.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}

#[test]
fn the_engines_thread_saves_no_watermark() {
    // Given a node that has committed something,
    let disk = watched_disk();
    let (node, table) = open(&disk, options());
    node.submit(put(table, 1)).wait().unwrap();
    // when nothing happens until the watermark is saved,
    let before = disk.watch.flushes_of_hard_state();
    wait_until("the watermark is saved", || {
        disk.watch.flushes_of_hard_state() >= before + 2
    });
    // then another thread has saved it.
    assert_eq!(disk.watch.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}
