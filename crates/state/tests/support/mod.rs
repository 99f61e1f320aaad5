//! What the tests share: a log in memory, and a model that keeps every version for ever.

#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod crash;
pub mod members;
pub mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::Disk;
use onelog_record::{
    BodyWriter, Entry, EntryHeader, EntryKind, Index, KeyRange, Offset, Op, Position, TableId,
    Term, TxnId,
};
use onelog_state::{Applied, Opened, RememberedId, Snapshot, SnapshotError, State, StateOptions};

/// One record: table, key, and its value or a delete; or an event.
#[derive(Clone, Debug)]
pub enum Change {
    Put(u32, Bytes, usize),
    Delete(u32, Bytes),
    Event(u32, Bytes),
}

pub type Version = (Offset, Option<Bytes>);

/// The committed log, with everything that follows from it.
#[derive(Debug, Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    pub position: u64,
    pub versions: BTreeMap<(u32, Bytes), Vec<Version>>,
    pub ids: Vec<RememberedId>,
}

/// The options of small tests: memtables of a few kilobytes.
pub fn small() -> StateOptions {
    StateOptions {
        memtable_bytes: 4 << 10,
        memtable_bytes_max: 64 << 10,
        cache_bytes: 1 << 20,
        ids_max: 1_000_000,
        check_integrity: false,
    }
}

/// Whether everything shall be tested at length.
pub fn is_full() -> bool {
    std::env::var_os("ONELOG_TEST_FULL").is_some_and(|value| value == "1")
}

/// The value that the record at `offset` writes: never the same twice.
pub fn value_at(offset: u64, len: usize) -> Bytes {
    let mut value = offset.to_string().into_bytes();
    value.resize(value.len() + len, b'.');
    value.into()
}

impl Log {
    fn push(&mut self, kind: EntryKind, body: Vec<u8>, records: u32, transactions: u32) {
        let mut header = EntryHeader::empty(kind, Offset(self.position));
        header.record_count = records;
        header.transaction_count = transactions;
        header.raw_len = body.len() as u32;
        // It falls now and then, as after a jump of the clock.
        header.timestamp_ms = 1_000 + self.entries.len() as u64 * 37 % 11;
        self.entries.push(Entry {
            term: Term(1 + self.entries.len() as u64 / 10),
            index: Index(self.entries.len() as u64 + 1),
            header,
            body: body.into(),
        });
        self.position += u64::from(records);
    }

    pub fn no_op(&mut self) {
        self.push(EntryKind::NoOp, Vec::new(), 0, 0);
    }

    pub fn append(&mut self, transactions: &[Vec<Change>]) {
        let mut body = BodyWriter::default();
        for changes in transactions {
            let first_offset = self.position + u64::from(body.records());
            let id = TxnId(u128::from(self.ids.len() as u64) + 1);
            let fingerprint = first_offset.wrapping_mul(31);
            let mark = body.begin(id, fingerprint);
            for change in changes {
                let offset = self.position + u64::from(body.records());
                self.write(&mut body, change, offset);
            }
            let records = body.seal(mark);
            self.ids.push(RememberedId {
                position: Position(first_offset + u64::from(records)),
                id,
                fingerprint,
                first_offset: Offset(first_offset),
                records,
            });
        }
        let (records, transactions) = (body.records(), body.transactions());
        self.push(
            EntryKind::Transactions,
            body.finish(),
            records,
            transactions,
        );
    }

    fn write(&mut self, body: &mut BodyWriter, change: &Change, offset: u64) {
        let mut record = |op, table: u32, key: &Bytes, value: Option<Bytes>| {
            body.record(op, TableId(table), key, value.as_deref(), &[]);
            if op != Op::Event {
                let versions = self.versions.entry((table, key.clone())).or_default();
                versions.push((Offset(offset), value));
            }
        };
        match change {
            Change::Put(table, key, len) => {
                record(Op::Put, *table, key, Some(value_at(offset, *len)));
            }
            Change::Delete(table, key) => record(Op::Delete, *table, key, None),
            Change::Event(table, key) => record(Op::Event, *table, key, Some(key.clone())),
        }
    }

    pub fn applied(&self) -> Applied {
        self.entries
            .last()
            .map_or_else(Applied::default, |entry| Applied {
                position: entry.header.end(),
                index: entry.index,
                term: entry.term,
                timestamp_ms: self.timestamp_ms(),
            })
    }

    fn timestamp_ms(&self) -> u64 {
        let timestamps = self.entries.iter().map(|entry| entry.header.timestamp_ms);
        timestamps.max().unwrap_or_default()
    }

    /// The newest version of a key below a position.
    pub fn version(&self, table: u32, key: &Bytes, position: u64) -> Option<&Version> {
        let versions = self.versions.get(&(table, key.clone()))?;
        versions.iter().rfind(|(offset, _)| offset.0 < position)
    }

    /// The rows of a range as they were at a position.
    pub fn rows(&self, range: &KeyRange, position: u64) -> Vec<(Bytes, Offset, Bytes)> {
        self.versions
            .keys()
            .filter(|(table, key)| *table == range.table.0 && is_in(range, key))
            .filter_map(|(table, key)| {
                let (offset, value) = self.version(*table, key, position)?;
                Some((key.clone(), *offset, value.clone()?))
            })
            .collect()
    }

    /// Opens the state of a disk and applies whatever it does not have yet.
    pub fn open(&self, disk: Arc<dyn Disk>, options: StateOptions) -> (State, Opened) {
        let (state, opened) = State::open(disk, options).unwrap();
        self.replay(&state);
        (state, opened)
    }

    /// Applies the entries behind the state's last one.
    pub fn replay(&self, state: &State) {
        for entry in &self.entries[state.applied().index.0 as usize..] {
            state.apply(entry).unwrap();
        }
        assert_eq!(state.applied(), self.applied());
        assert_eq!(state.position(), self.applied().position);
    }

    /// Checks everything that can be read of a snapshot; says what is wrong.
    pub fn compare(&self, snapshot: &Snapshot, ranges: &[KeyRange]) -> Result<(), String> {
        let position = snapshot.position().0;
        for (table, key) in self.versions.keys() {
            let found = snapshot.get(TableId(*table), key).unwrap();
            let found = found.map(|row| (row.version, row.value));
            let expected = self.version(*table, key, position);
            let expected = expected.and_then(|(offset, value)| Some((*offset, value.clone()?)));
            if found != expected {
                return Err(format!(
                    "at {position} table {table} key {key:?} is {found:?}, should be {expected:?}"
                ));
            }
        }
        for range in ranges {
            for reverse in [false, true] {
                let rows = snapshot.scan(range, reverse).unwrap();
                let found: Vec<_> = rows
                    .map(|row| row.map(|row| (row.key, row.version, row.value)).unwrap())
                    .collect();
                let mut expected = self.rows(range, position);
                if reverse {
                    expected.reverse();
                }
                if found != expected {
                    return Err(format!(
                        "at {position} {range:?} reverse {reverse} is {found:?}, should be {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks the newest versions, the range check and the snapshots at every position.
    pub fn compare_state(&self, state: &State, ranges: &[KeyRange]) -> Result<(), String> {
        let floor = state.floor();
        for (table, key) in self.versions.keys() {
            let found = state.newest(TableId(*table), key).unwrap();
            let found = found.map(|latest| (latest.version, latest.value));
            let expected = self.version(*table, key, self.position).cloned();
            // A delete below the floor is forgotten.
            let expected = expected
                .filter(|(offset, value)| value.is_some() || *offset >= floor.next_offset());
            if found != expected {
                return Err(format!(
                    "newest of {key:?}: {found:?}, should be {expected:?}"
                ));
            }
        }
        for range in ranges {
            for since in [floor.0, floor.0.midpoint(self.position), self.position] {
                self.compare_written_since(state, range, since)?;
            }
        }
        for at in 0..=self.position + 1 {
            match state.snapshot_at(Position(at)) {
                Ok(snapshot) if at >= floor.0 && at <= self.position => {
                    if at % 7 == 0 {
                        self.compare(&snapshot, ranges)?;
                    }
                }
                Err(SnapshotError::TooOld { floor: said }) if at < floor.0 && said == floor => {}
                Err(SnapshotError::InFuture { latest }) if at > self.position => {
                    assert_eq!(latest.0, self.position);
                }
                other => return Err(format!("snapshot at {at} with floor {floor}: {other:?}")),
            }
        }
        self.compare(&state.snapshot(), ranges)
    }

    /// Checks one answer of the range check.
    pub fn compare_written_since(
        &self,
        state: &State,
        range: &KeyRange,
        since: u64,
    ) -> Result<(), String> {
        let written = self.versions.iter().any(|((table, key), versions)| {
            *table == range.table.0
                && is_in(range, key)
                && versions.iter().any(|(offset, _)| offset.0 >= since)
        });
        let found = state.written_since(range, Position(since));
        if found.is_some() != written {
            return Err(format!(
                "written since {since} in {range:?}: {found:?}, {written}"
            ));
        }
        if let Some((key, offset)) = found {
            let versions = &self.versions[&(range.table.0, key.clone())];
            assert!(is_in(range, &key) && offset.0 >= since);
            assert!(versions.iter().any(|(version, _)| *version == offset));
        }
        Ok(())
    }
}

fn is_in(range: &KeyRange, key: &Bytes) -> bool {
    *key >= range.from && range.to.as_ref().is_none_or(|to| key < to)
}

pub fn range(table: u32, from: &[u8], to: Option<&[u8]>) -> KeyRange {
    KeyRange {
        table: TableId(table),
        from: Bytes::copy_from_slice(from),
        to: to.map(Bytes::copy_from_slice),
    }
}

/// A put of one of these keys in the first table.
pub fn put(number: usize) -> Vec<Change> {
    vec![Change::Put(1, key(number), 100)]
}

pub fn checkpoint(state: &State) {
    state.freeze().unwrap().run().unwrap();
}

/// A small set of keys that sort in every awkward way: zero bytes, prefixes of each other, long
/// ones that differ only at the end.
pub fn key(number: usize) -> Bytes {
    let number = number % KEYS;
    match number {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0]),
        2 => Bytes::from_static(&[0, 0]),
        3 => Bytes::from_static(&[0xff]),
        4..=9 => vec![b'x'; 29 + number - 4].into(),
        10..=15 => [vec![b'y'; 60], vec![number as u8]].concat().into(),
        _ => format!("k{number:03}").into(),
    }
}

/// How many keys there are.
pub const KEYS: usize = 40;

/// Every kind of bound.
pub fn ranges() -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    for table in [1, 2, u32::MAX] {
        ranges.push(range(table, b"", None));
        ranges.push(range(table, b"k02", Some(b"k030")));
        ranges.push(range(table, b"x", Some(b"y")));
        ranges.push(range(table, &[0], Some(&[0, 0])));
        ranges.push(range(table, &key(6), Some(&key(12))));
        ranges.push(range(table, b"k03", None));
        ranges.push(range(table, b"z", Some(b"a")));
        ranges.push(range(table, b"k", Some(b"k")));
    }
    ranges
}
