//! The engine's thread decides; it never waits for the disk of the log. New segments, the cut of the
//! log's start and the saved watermark are the affair of the threads beside it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{CommitRequest, NewTable, Node, Operation, Options, Position, TableId, Write};
use onelog_log::{Disk, DiskFile, HARD_STATE_FILE, SimulatedDisk};
use onelog_record::Compression;

const ENGINE: &str = "onelog-engine";
/// Nothing takes as long on a node that does it at all.
const FOR_EVER: Duration = Duration::from_secs(60);

/// A call: the thread that made it, what it did, and the file.
type Call = (String, &'static str, String);

/// Writes down each call and the thread that makes it.
#[derive(Clone, Debug)]
struct WatchedDisk {
    inner: SimulatedDisk,
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    disk: WatchedDisk,
    name: String,
}

impl WatchedDisk {
    fn new() -> Self {
        Self {
            inner: SimulatedDisk::new(1),
            calls: Arc::default(),
        }
    }

    fn note(&self, what: &'static str, name: &str) {
        let thread = thread::current().name().unwrap_or("?").to_owned();
        self.calls
            .lock()
            .unwrap()
            .push((thread, what, name.to_owned()));
    }

    fn file(&self, name: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile {
            inner,
            disk: self.clone(),
            name: name.to_owned(),
        })
    }

    /// What the engine's thread did.
    fn calls_of_engine(&self) -> BTreeSet<&'static str> {
        let calls = self.calls.lock().unwrap();
        let of_engine = calls.iter().filter(|(thread, ..)| thread == ENGINE);
        of_engine.map(|(_, what, _)| *what).collect()
    }

    /// How often the hard state was flushed, on whatever thread; it was made under another name.
    fn flushes_of_hard_state(&self) -> usize {
        let calls = self.calls.lock().unwrap();
        let is_flush = |call: &&Call| call.1 == "sync_data" && call.2.starts_with(HARD_STATE_FILE);
        calls.iter().filter(is_flush).count()
    }

    fn segments(&self) -> usize {
        let files = self.inner.files();
        files.keys().filter(|name| name.ends_with(".log")).count()
    }
}

impl Disk for WatchedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.note("list", "");
        self.inner.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.note("open", name);
        Ok(self.file(name, self.inner.open(name)?))
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.note("create", name);
        Ok(self.file(name, self.inner.create(name, len)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note("rename", to);
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.note("remove", name);
        self.inner.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.note("sync_folder", "");
        self.inner.sync_folder()
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.disk.note("read_at", &self.name);
        self.inner.read_at(at, out)
    }
    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.note("write_all_at", &self.name);
        self.inner.write_all_at(at, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.disk.note("sync_data", &self.name);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.disk.note("len", &self.name);
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.note("set_len", &self.name);
        self.inner.set_len(len)
    }
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

fn open(disk: &WatchedDisk, options: Options) -> (Node, TableId) {
    let state = Arc::new(SimulatedDisk::new(2));
    let node = Node::open_on(Arc::new(disk.clone()), state, options).unwrap();
    let made = node.create_table_blocking(NewTable::keyed("t"));
    let table = made.unwrap().0.id;
    (node, table)
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < FOR_EVER, "{what}: never");
        thread::yield_now();
    }
}

#[test]
fn the_engines_thread_makes_no_segment() {
    // Given a node whose segments are small,
    let disk = WatchedDisk::new();
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
        disk.segments() > 12
    });
    // then other threads have made the segments, named them and counted them.
    assert_eq!(disk.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}

#[test]
fn the_engines_thread_cuts_no_files() {
    // Given a node that keeps as little of its log as it may,
    let disk = WatchedDisk::new();
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
    assert_eq!(disk.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}

#[test]
fn the_engines_thread_saves_no_watermark() {
    // Given a node that has committed something,
    let disk = WatchedDisk::new();
    let (node, table) = open(&disk, options());
    node.submit(put(table, 1)).wait().unwrap();
    // when nothing happens until the watermark is saved,
    let before = disk.flushes_of_hard_state();
    wait_until("the watermark is saved", || {
        disk.flushes_of_hard_state() >= before + 2
    });
    // then another thread has saved it.
    assert_eq!(disk.calls_of_engine(), BTreeSet::new());
    node.stop().unwrap();
}
