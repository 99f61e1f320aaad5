//! Reading by table: what is found is what reading everything finds, and a rare table costs little.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::{append, hard_state, retain};
use onelog_log::{Chained, Disk, DiskFile, Log, LogOptions, LogReader, SimulatedDisk};
use onelog_record::{
    BodyWriter, Compression, Entry, EntryHeader, EntryKind, Index, Offset, Op, Position, TableId,
    Term, Transactions, TxnId, raw_body,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const BUSY: TableId = TableId(1024);
const RARE: TableId = TableId(1025);
const ABSENT: TableId = TableId(1026);

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 128 << 10,
        index_every_bytes: 16 << 10,
        in_flight_bytes_max: 1 << 20,
    }
}

/// An entry behind `before`, one transaction for each list of tables.
fn entry(before: Option<&Entry>, tables: &[Vec<TableId>], value_bytes: usize) -> Entry {
    let index = before.map_or(1, |entry| entry.index.0 + 1);
    let base = before.map_or(0, |entry| entry.header.end().get());
    let mut header = EntryHeader::empty(EntryKind::NoOp, Offset(base));
    let mut writer = BodyWriter::default();
    for (number, tables) in tables.iter().enumerate() {
        let mark = writer.begin(TxnId(u128::from(index * 100 + number as u64)), index);
        for table in tables {
            writer.record(Op::Put, *table, b"key", Some(&vec![7; value_bytes]), &[]);
        }
        writer.seal(mark);
    }
    if !tables.is_empty() {
        header.kind = EntryKind::Transactions;
        header.record_count = writer.records();
        header.transaction_count = tables.len() as u32;
        header.compression = Compression::None;
        header.raw_len = writer.len() as u32;
    }
    Entry {
        term: Term(1),
        index: Index(index),
        header,
        body: Bytes::from(writer.finish()),
    }
}

/// Some thousand entries; the rare table has a record in one of about `one_in`.
fn random_entries(random: &mut StdRng, count: usize, one_in: u32) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let transactions = random.random_range(0..4);
        let tables: Vec<Vec<TableId>> = (0..transactions)
            .map(|_| {
                let mut tables = vec![BUSY; random.random_range(1..4)];
                if random.random_ratio(1, one_in) {
                    tables.push(RARE);
                }
                tables
            })
            .collect();
        let next = entry(entries.last(), &tables, random.random_range(0..200));
        entries.push(next);
    }
    entries
}

/// A log with all its indexes made.
fn written(disk: Arc<dyn Disk>, entries: &[Entry]) -> Log {
    let (mut log, _) = Log::open(disk, options()).unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    for some in entries.chunks(20) {
        append(&mut log, some);
    }
    make_indexes(&log);
    log
}

fn make_indexes(log: &Log) {
    while let Some(prepare) = log.prepare() {
        prepare.run().unwrap();
    }
}

/// The offsets of the records of these tables at or behind a position.
fn offsets(entries: &[Entry], tables: &[TableId], from: Position) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in entries {
        if entry.header.kind != EntryKind::Transactions {
            continue;
        }
        for transaction in Transactions::new(raw_body(entry).unwrap(), entry.header.base_offset) {
            for record in transaction.unwrap().records() {
                let record = record.unwrap();
                if tables.contains(&record.table) && !from.sees(record.offset) {
                    found.push(record.offset.0);
                }
            }
        }
    }
    found
}

/// Reads on until the end, in pieces.
fn read_on(
    reader: &LogReader,
    tables: &[TableId],
    from: Position,
    limit: Index,
    max_bytes: usize,
) -> (Vec<Entry>, Position) {
    let (mut entries, mut next) = (Vec::new(), from);
    loop {
        let found = reader.selected(tables, next, limit, max_bytes).unwrap();
        assert!(found.next >= next, "reading only goes on");
        assert!(found.next > next || found.entries.is_empty());
        let is_end = found.next == next;
        next = found.next;
        let alone = found.entries.into_iter().map(|Chained { entry, .. }| entry);
        entries.extend(alone);
        if is_end {
            return (entries, next);
        }
    }
}

fn tables_files(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".tables"));
    names.sort();
    names
}

fn compare(log: &Log, all: &[Entry], random: &mut impl Rng) {
    let reader = log.reader();
    let end = all.last().unwrap().header.end().get();
    for _ in 0..60 {
        let from = Position(random.random_range(log.start().get()..=end));
        let limit = Index(random.random_range(log.first_index().0..=all.len() as u64 + 1));
        let max_bytes = [1, 2_000, 50_000, usize::MAX][random.random_range(0..4)];
        let tables = [vec![RARE], vec![BUSY], vec![RARE, BUSY], vec![ABSENT]];
        let tables = &tables[random.random_range(0..4)];
        let below = &all[..limit.0 as usize - 1];
        // When the reader reads on until the end,
        let (entries, next) = read_on(&reader, tables, from, limit, max_bytes);
        // then it has seen what reading everything shows, in order, once,
        let case = format!("{tables:?} from {from} below {limit}, {max_bytes} bytes");
        assert_eq!(
            offsets(&entries, tables, from),
            offsets(below, tables, from),
            "{case}"
        );
        let indexes: BTreeSet<_> = entries.iter().map(|entry| entry.index).collect();
        assert_eq!(indexes.len(), entries.len(), "{case}: an entry came twice");
        // and it knows how far it has looked.
        let last = below
            .last()
            .map_or(Position::ZERO, |entry| entry.header.end());
        assert_eq!(next, last.max(from), "{case}");
    }
}

#[test]
fn what_is_found_by_table_is_what_reading_everything_finds() {
    for seed in 0..common::size(6, 60) {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = SimulatedDisk::new(seed);
        let all = random_entries(&mut random, 3_000, 300);
        let log = written(Arc::new(disk.clone()), &all);
        assert!(tables_files(&disk).len() > 3);
        compare(&log, &all, &mut random);
    }
}

#[test]
fn a_missing_or_damaged_index_costs_time_and_is_made_again() {
    let mut random = StdRng::seed_from_u64(7);
    let disk = SimulatedDisk::new(7);
    let all = random_entries(&mut random, 3_000, 300);
    let log = written(Arc::new(disk.clone()), &all);
    let names = tables_files(&disk);
    let good = disk.files();
    // Given one index that is gone, and others with a changed byte each,
    disk.remove(&names[0]).unwrap();
    for name in &names[1..] {
        let file = disk.open(name).unwrap();
        let at = random.random_range(0..file.len().unwrap());
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_all_at(at, &[byte[0] ^ 0x10]).unwrap();
    }
    // when it is read, then nothing is missing,
    compare(&log, &all, &mut random);
    read_on(
        &log.reader(),
        &[RARE, BUSY, ABSENT],
        Position::ZERO,
        log.last_index().next(),
        1 << 20,
    );
    // and the damaged ones are made again, the missing one by the next start.
    make_indexes(&log);
    let mended = disk.files();
    for name in &names[1..] {
        assert!(mended[name] == good[name], "{name}");
    }
    drop(log);
    let (log, _) = Log::open(Arc::new(disk.clone()), options()).unwrap();
    make_indexes(&log);
    assert!(disk.files()[&names[0]] == good[&names[0]]);
}

#[test]
fn a_cut_at_either_end_takes_the_indexes_along() {
    let mut random = StdRng::seed_from_u64(3);
    let disk = SimulatedDisk::new(3);
    let mut all = random_entries(&mut random, 3_000, 300);
    let mut log = written(Arc::new(disk.clone()), &all);
    let before = tables_files(&disk).len();
    // Given a log that lost its beginning and its end,
    assert!(!retain(&mut log, 1_000).is_empty());
    log.cut_end(Index(2_000)).unwrap();
    let kept = tables_files(&disk).len();
    assert!(kept > 0 && kept < before);
    // when other entries follow,
    all.truncate(1_999);
    for _ in 0..800 {
        let next = entry(all.last(), &[vec![RARE, BUSY]], 150);
        append(&mut log, std::slice::from_ref(&next));
        all.push(next);
    }
    make_indexes(&log);
    // then those are found.
    compare(&log, &all, &mut random);
}

#[derive(Debug)]
struct Counting {
    disk: SimulatedDisk,
    read: Arc<AtomicU64>,
    refuses_tables: bool,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl Counting {
    fn counted(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let read = Arc::clone(&self.read);
        Arc::new(CountingFile { file, read })
    }
}

impl Disk for Counting {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(self.disk.open(name)?))
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        if self.refuses_tables && name.contains(".tables") {
            return Err(io::Error::other("a bad sector"));
        }
        Ok(self.counted(self.disk.create(name, len)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(at, out)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(at, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

#[test]
fn a_rare_table_is_read_without_reading_the_rest() {
    let read = Arc::new(AtomicU64::new(0));
    let disk = Counting {
        disk: SimulatedDisk::new(5),
        read: Arc::clone(&read),
        refuses_tables: false,
    };
    // Given a log of 5 MB in which the rare table has three records,
    let mut all: Vec<Entry> = Vec::new();
    for number in 0..5_000 {
        let tables = if number % 2_000 == 500 { RARE } else { BUSY };
        all.push(entry(all.last(), &[vec![tables]], 1_000));
    }
    let log = written(Arc::new(disk), &all);
    let cost_of = |table: TableId, found: usize| {
        let before = read.load(Ordering::Relaxed);
        let limit = log.last_index().next();
        let (entries, _) = read_on(&log.reader(), &[table], Position::ZERO, limit, 1 << 20);
        assert_eq!(offsets(&entries, &[table], Position::ZERO).len(), found);
        read.load(Ordering::Relaxed) - before
    };
    // when each table is read from the beginning,
    let (rare, busy, absent) = (cost_of(RARE, 3), cost_of(BUSY, 4_997), cost_of(ABSENT, 0));
    // then the rare one costs its blocks and the last segment, which has no index yet.
    let last_segment = options().segment_bytes;
    assert!(absent < 2 * last_segment, "{absent} bytes");
    assert!(rare < absent + 3 * (64 << 10), "{rare} bytes");
    assert!(busy > 5_000_000, "{busy} bytes");
}

#[test]
fn an_index_that_cannot_be_made_is_left_out_until_the_next_start() {
    let read = Arc::new(AtomicU64::new(0));
    let simulated = SimulatedDisk::new(8);
    let mut disk = Counting {
        disk: simulated.clone(),
        read: Arc::clone(&read),
        refuses_tables: true,
    };
    let mut random = StdRng::seed_from_u64(8);
    let all = random_entries(&mut random, 2_000, 100);
    // Given a disk that takes no index by table, when all has been made ready,
    let log = written(Arc::new(disk), &all);
    // then no segment is read for one again, and reading works.
    assert_eq!(tables_files(&simulated), [""; 0]);
    let before = read.load(Ordering::Relaxed);
    make_indexes(&log);
    assert_eq!(read.load(Ordering::Relaxed), before);
    compare(&log, &all, &mut random);
    // The next start makes them.
    drop(log);
    disk = Counting {
        disk: simulated.clone(),
        read,
        refuses_tables: false,
    };
    let (log, _) = Log::open(Arc::new(disk), options()).unwrap();
    make_indexes(&log);
    assert!(tables_files(&simulated).len() > 2);
}
