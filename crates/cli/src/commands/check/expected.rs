//! What the log says the state must hold, for one part of the keys at a time: memory stays bounded
//! however long the log is, at the cost of reading it once for each part.

use std::collections::HashMap;
use std::ops::ControlFlow;

use onelog_command::CommandError;
use onelog_log::Disk;
use onelog_record::{
    Entry, EntryKind, Index, Op, Record, TABLE_TABLES, TABLE_UNIQUE, TableDefinition, TableId,
    Transactions, raw_body,
};

use super::entries;

/// How many records one part is expected to have at most; keys are fewer.
const PART_RECORDS: u64 = 4_000_000;

/// A hash that distinguishes keys, or values.
pub type Hash = [u8; 16];

/// The last record of a key.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    pub offset: u64,
    /// Its table; of a unique value the table that it belongs to.
    pub table: TableId,
    /// The value; `None` when the key was deleted.
    pub value: Option<Hash>,
}

/// Which part of the keys is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub number: u64,
    pub parts: u64,
}

/// What the log says about one part of the keys.
#[derive(Debug, Default)]
pub struct Expected {
    /// The last record of each key.
    pub last: HashMap<Hash, Last>,
    /// Deleted tables and the offsets of their ends: what was written before is gone.
    dropped: HashMap<TableId, u64>,
}

impl Part {
    /// The parts into which so many records are divided.
    pub fn all(records: u64) -> impl Iterator<Item = Self> {
        let parts = records.div_ceil(PART_RECORDS).max(1);
        (0..parts).map(move |number| Self { number, parts })
    }

    /// Whether a key belongs to this part.
    pub fn has(&self, key: &Hash) -> bool {
        u64::from_le_bytes([
            key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
        ]) % self.parts
            == self.number
    }
}

/// The hash of a key in its table.
pub fn key_hash(table: TableId, key: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&table.0.to_le_bytes());
    hasher.update(key);
    short(&hasher.finalize())
}

/// The table that a row belongs to, also when it is kept as a row of `onelog.unique`.
pub fn owner(table: TableId, key: &[u8]) -> TableId {
    match key.first_chunk() {
        Some(owner) if table == TABLE_UNIQUE => TableId(u32::from_be_bytes(*owner)),
        _ => table,
    }
}

/// The hash of a value.
pub fn value_hash(value: &[u8]) -> Hash {
    short(&blake3::hash(value))
}

fn short(hash: &blake3::Hash) -> Hash {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// Visits every record up to the entry `last`, in order.
pub fn records(
    log: &dyn Disk,
    last: Index,
    mut visit: impl FnMut(&Record),
) -> Result<(), CommandError> {
    entries(log, |entry| {
        if entry.index > last {
            return Ok(ControlFlow::Break(()));
        }
        for transaction in transactions(entry)? {
            for record in transaction.map_err(failed)?.records() {
                visit(&record.map_err(failed)?);
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// The transactions of an entry.
pub fn transactions(entry: &Entry) -> Result<Transactions, CommandError> {
    let raw = match entry.header.kind {
        EntryKind::Transactions => raw_body(entry).map_err(failed)?,
        _ => bytes::Bytes::new(),
    };
    Ok(Transactions::new(raw, entry.header.base_offset))
}

pub fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

impl Expected {
    /// Reads what the log says about one part, up to the entry `last`.
    pub fn read(log: &dyn Disk, last: Index, part: Part) -> Result<Self, CommandError> {
        let mut expected = Self::default();
        records(log, last, |record| expected.add(record, part))?;
        Ok(expected)
    }

    /// Whether what was written at `offset` went with the end of its table.
    pub fn is_gone(&self, table: TableId, offset: u64) -> bool {
        self.dropped.get(&table).is_some_and(|end| offset < *end)
    }

    fn add(&mut self, record: &Record, part: Part) {
        if record.op == Op::Event {
            return;
        }
        if record.table == TABLE_TABLES
            && let Some(value) = &record.value
            && let Ok(definition) = serde_json::from_slice::<TableDefinition>(value)
            && definition.dropped
        {
            self.dropped.insert(definition.id, record.offset.get());
        }
        let hash = key_hash(record.table, &record.key);
        if part.has(&hash) {
            let last = Last {
                offset: record.offset.get(),
                table: owner(record.table, &record.key),
                value: record.value.as_deref().map(value_hash),
            };
            self.last.insert(hash, last);
        }
    }
}
