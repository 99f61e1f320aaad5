//! Builders and helpers that the tests share.
#![allow(dead_code)]

use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{
    Disk, Dropped, Flush, HardState, Log, LogOptions, OpenError, Recovery, SimulatedDisk,
};
use onelog_record::{
    BodyWriter, Compression, Entry, EntryHeader, EntryKind, Index, Offset, Op, Position, TableId,
    Term, TxnId,
};

pub const LOG_ID: u128 = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;

/// Small segments: two header blocks' worth of frames.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 12 << 10,
        index_every_bytes: 700,
        in_flight_bytes_max: 64 << 10,
    }
}

pub fn hard_state(term: u64) -> HardState {
    HardState {
        term: Term(term),
        vote: 1,
        commit: Index(0),
        durable: Index(0),
        clean: false,
        log_id: LOG_ID,
        node: 1,
    }
}

/// The number of records of the entry at `index`: some have none.
pub fn records_at(index: u64) -> u32 {
    if index.is_multiple_of(7) {
        0
    } else {
        1 + (index % 3) as u32
    }
}

/// The position behind the entry at `index`.
pub fn end_at(index: u64) -> Position {
    Position((1..=index).map(|i| u64::from(records_at(i))).sum())
}

/// The one entry that belongs at `index` in a log whose entries all come from here.
pub fn entry(term: u64, index: u64, value_bytes: usize) -> Entry {
    let base_offset = end_at(index - 1).get();
    let mut header = EntryHeader::empty(EntryKind::NoOp, Offset(base_offset));
    header.timestamp_ms = 1_000 + index * 10;
    let mut body = Vec::new();
    let count = records_at(index);
    if count > 0 {
        let mut writer = BodyWriter::default();
        let mark = writer.begin(TxnId(u128::from(index)), index);
        for record in 0..count {
            let value = vec![(index as u8) ^ (record as u8) ^ (term as u8); value_bytes];
            let key = format!("key-{index}-{record}");
            writer.record(Op::Put, TableId(20), key.as_bytes(), Some(&value), &[]);
        }
        writer.seal(mark);
        body = writer.finish();
        header.kind = EntryKind::Transactions;
        header.record_count = count;
        header.transaction_count = 1;
        header.compression = Compression::None;
        header.raw_len = body.len() as u32;
    }
    Entry {
        term: Term(term),
        index: Index(index),
        header,
        body: Bytes::from(body),
    }
}

pub fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, bytes)).collect()
}

pub fn open(disk: &SimulatedDisk) -> Result<(Log, Recovery), OpenError> {
    open_on(Arc::new(disk.clone()))
}

pub fn open_on(disk: Arc<dyn Disk>) -> Result<(Log, Recovery), OpenError> {
    Log::open(disk, options())
}

/// A new log with a hard state.
pub fn fresh(disk: &SimulatedDisk) -> Log {
    let (mut log, _) = open(disk).unwrap();
    log.save_hard_state(&hard_state(1)).unwrap();
    log
}

pub fn run_all(log: &mut Log, flushes: &[Flush]) {
    for flush in flushes {
        flush.run().unwrap();
        log.flushed(flush.number);
    }
}

/// Stages, writes and flushes.
pub fn append(log: &mut Log, entries: &[Entry]) {
    let flushes = log.stage(entries).unwrap();
    run_all(log, &flushes);
}

/// The last entry of a long log.
pub const LAST: u64 = 60;

/// A log of several segments, each entry durable before the next is staged, so that each frame
/// carries a watermark right below itself.
pub fn long_log(disk: &SimulatedDisk) -> (Log, Vec<Entry>) {
    let mut log = fresh(disk);
    let all = entries(1, 1..=LAST, 300);
    for one in &all {
        append(&mut log, std::slice::from_ref(one));
    }
    (log, all)
}

/// Drops what lies below `index`, and its files.
pub fn retain(log: &mut Log, index: u64) -> Vec<Dropped> {
    let retain = log.retain_from(Index(index)).unwrap();
    retain.map_or_else(Vec::new, |retain| retain.run().unwrap())
}

pub fn read_all(log: &Log) -> Vec<Entry> {
    log.reader()
        .entries(log.first_index(), log.last_index().next(), usize::MAX)
        .unwrap()
}

/// How often a long test is repeated: `quick`, or `full` when everything is to be run.
pub fn size(quick: u64, full: u64) -> u64 {
    if std::env::var("ONELOG_TEST_FULL").is_ok_and(|value| value == "1") {
        full
    } else {
        quick
    }
}

pub mod cut;
pub mod damage;
pub mod pausing;
pub mod restart;
pub mod workload;
