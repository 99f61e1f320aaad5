//! Whether a store equals the log: both sides at one position, projected through the mapping,
//! compared by digests; unequal buckets are looked at again until each differing row has a name.
//!
//! Runs on the thread of the caller and one more, one for each side. Both sides are consistent
//! snapshots,
//! so neither writers nor the sink wait. Memory is bounded: rows are held as hashes,
//! `ROWS_PER_PASS` at most.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use onelog_mapping::{Cell, MappingPlan, Plan, Row, RowFault, show_key};
use onelog_record::{JsonText, Offset, Position, TableId};
use serde::Serialize;
use serde_json::Value;

use crate::digest::{BUCKETS, HashedRow, RowHasher, TableDigest, groups};
use crate::store::{Cause, StoreError, StoreReader};

/// The most differences that are listed for one table; all are counted.
pub const DIFFERENCES_MAX: usize = 100;
/// About how many rows of unequal buckets are held at once.
const ROWS_PER_PASS: u64 = 500_000;
/// How often both sides are scanned to count differences, at most.
const PASSES_MAX: usize = 16;

/// The answer: is the store equal to the log?
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Both sides were compared at this position.
    pub position: Position,
    /// Whether every table is equal.
    pub equal: bool,
    /// How long it took, repairs and their own comparison included.
    pub took_ms: u64,
    /// How many rows were written again; `None` unless a repair was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<u64>,
    pub tables: Vec<TableVerification>,
}

/// The answer for one mapping.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableVerification {
    pub table: String,
    pub into: String,
    /// How many rows the log has.
    pub rows: u64,
    /// How many rows the store has.
    pub store_rows: u64,
    /// Whether rows and full-text index are equal.
    pub equal: bool,
    /// How many rows the log has and the store no longer has, in a mapping whose rows have a time
    /// to live. They are no differences.
    #[serde(skip_serializing_if = "is_none")]
    pub expired: u64,
    pub differences_total: u64,
    /// Whether `differences_total` counts all of them: not when nearly everything differs in a
    /// very large table.
    pub counted_all: bool,
    /// The first differences, at most `DIFFERENCES_MAX`.
    pub differences: Vec<Difference>,
    /// How many keys are parked and were not compared.
    pub parked: u64,
    /// How many rows were written again; `None` unless a repair was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<u64>,
    /// How many rows of the store no key of the log makes, so that onelog cannot delete them; `None`
    /// unless a repair was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrepairable: Option<u64>,
    /// What to do about what a repair left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The full-text index, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_text: Option<IndexVerification>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The answer for a full-text index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IndexVerification {
    /// Whether the index says what the rows of the store say.
    pub equal: bool,
    /// How many entries are wrong.
    pub faults_total: u64,
    /// Descriptions of the first ones.
    pub faults: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub key: Value,
    /// What the log has: `null` when the row is extra in the store. Where both have the row, only
    /// the columns that differ.
    pub log: Option<JsonText>,
    /// What the store has: `null` when the row is missing there.
    pub store: Option<JsonText>,
}

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log's side cannot be read.
    #[error("reading the log's state: {0}")]
    Log(Cause),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log has a record that the mapping does not take; the store never had it.
    #[error("table '{table}', key {key}: {what}")]
    Unprojectable {
        table: String,
        key: Value,
        what: String,
    },
    /// The sinks are stopping.
    #[error("it was given up because the sinks are stopping")]
    Stopped,
}

/// What a scan of the log's side calls for each row: key, version, value.
pub type EachEntry<'f> = &'f mut dyn FnMut(&[u8], Offset, &[u8]) -> Result<(), VerifyError>;

/// The log's state at one position.
pub trait LogSide: Sync {
    /// Gives every row of a table once.
    fn scan(&self, table: TableId, each: EachEntry<'_>) -> Result<(), VerifyError>;
}

/// Compares a store's snapshot with the log's state at the same position.
pub fn verify(
    plan: &Plan,
    log: &dyn LogSide,
    store: &mut dyn StoreReader,
) -> Result<Verification, VerifyError> {
    let task = Task {
        plan,
        log,
        parked: &[],
        stop: &AtomicBool::new(false),
        keys_max: 0,
    };
    task.run(store).map(|compared| compared.verification)
}

/// What is compared, and how.
#[allow(missing_debug_implementations)] // the log's side has none
pub struct Task<'a> {
    pub plan: &'a Plan,
    pub log: &'a dyn LogSide,
    /// Keys that are left out, by mapping.
    pub parked: &'a [HashSet<Bytes>],
    /// Gives the comparison up.
    pub stop: &'a AtomicBool,
    /// How many keys of differing rows are answered, at most.
    pub keys_max: usize,
}

#[derive(Clone, Debug)]
pub struct Compared {
    pub verification: Verification,
    /// The log's keys of rows that differ, with their mappings.
    pub keys: Vec<(usize, Bytes)>,
}

impl Task<'_> {
    pub fn run(&self, store: &mut dyn StoreReader) -> Result<Compared, VerifyError> {
        let begun = Instant::now();
        let none = HashSet::new();
        let mut keys = Vec::new();
        let mut tables = Vec::with_capacity(self.plan.mappings.len());
        for (number, mapping) in self.plan.mappings.iter().enumerate() {
            let hasher = RowHasher::default();
            let side = Side {
                number,
                mapping,
                log: self.log,
                parked: self.parked.get(number).unwrap_or(&none),
                parked_rows: HashSet::new(),
                stop: self.stop,
                hasher,
            };
            let mut comparison = Comparison {
                side: side.with_parked_rows(),
                store,
                keys_max: self.keys_max.saturating_sub(keys.len()),
            };
            let (table, differing) = comparison.run()?;
            tables.push(table);
            keys.extend(differing.into_iter().map(|key| (number, key)));
        }
        Ok(Compared {
            verification: Verification {
                position: store.position(),
                equal: tables.iter().all(|table| table.equal),
                took_ms: begun.elapsed().as_millis() as u64,
                repaired: None,
                tables,
            },
            keys,
        })
    }
}

/// What both sides of a comparison need; each has its own.
struct Side<'a> {
    number: usize,
    mapping: &'a MappingPlan,
    log: &'a dyn LogSide,
    parked: &'a HashSet<Bytes>,
    /// The hashes of their keys as the store has them.
    parked_rows: HashSet<u128>,
    stop: &'a AtomicBool,
    hasher: RowHasher,
}

struct Comparison<'a> {
    side: Side<'a>,
    store: &'a mut dyn StoreReader,
    keys_max: usize,
}

#[derive(Default)]
struct Found {
    total: u64,
    expired: u64,
    counted_all: bool,
    listed: HashSet<u128>,
    /// Rows whose keys are wanted.
    wanted: HashSet<u128>,
}

/// What was looked up for rows that differ.
#[derive(Default)]
struct Described {
    differences: Vec<Difference>,
    keys: Vec<Bytes>,
    /// Rows of the store that no key of the log makes, and the first of their keys.
    strange: u64,
    strange_key: Option<Value>,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<(TableVerification, Vec<Bytes>), VerifyError> {
        let (left, right) = self.digests()?;
        let unequal: Vec<usize> = (0..BUCKETS).filter(|n| left.0[*n] != right.0[*n]).collect();
        let mut found = Found {
            counted_all: true,
            ..Found::default()
        };
        let mut groups = groups(&unequal, &left, &right, ROWS_PER_PASS);
        if groups.len() > PASSES_MAX {
            groups.truncate(PASSES_MAX);
            found.counted_all = false;
        }
        for buckets in &groups {
            self.count(buckets, &mut found)?;
        }
        let described = self.describe(&found)?;
        let full_text = self
            .store
            .check_index(self.side.number, DIFFERENCES_MAX)?
            .map(|check| IndexVerification {
                equal: check.faults_total == 0,
                faults_total: check.faults_total,
                faults: check.faults,
            });
        let only_expired = found.expired > 0 && found.total == 0 && found.counted_all;
        let index_equal = full_text.as_ref().is_none_or(|index| index.equal);
        let table = TableVerification {
            table: self.side.mapping.table_name.clone(),
            into: self.side.mapping.into.clone(),
            rows: left.rows(),
            store_rows: right.rows(),
            equal: (unequal.is_empty() || only_expired) && index_equal,
            expired: found.expired,
            differences_total: found.total,
            counted_all: found.counted_all,
            differences: described.differences,
            parked: self.side.parked.len() as u64,
            repaired: None,
            unrepairable: (self.keys_max > 0).then_some(described.strange),
            advice: described.strange_key.map(|key| format!(
                "{} of the rows in the store have a key that no key of the log makes, for example {key}; delete them there by hand, or rebuild the sink",
                described.strange
            )),
            full_text,
        };
        Ok((table, described.keys))
    }

    /// Both sides at once, each on its thread.
    fn digests(&mut self) -> Result<(TableDigest, TableDigest), VerifyError> {
        let (side, store) = (&mut self.side, &mut *self.store);
        let mut twin = side.twin();
        std::thread::scope(|scope| {
            let log = scope.spawn(move || {
                let mut digest = TableDigest::default();
                twin.scan_log(&mut |_, _, hashed| digest.add(hashed))?;
                Ok::<_, VerifyError>(digest)
            });
            let mut right = TableDigest::default();
            let scanned = side.scan_store(store, &mut |_, hashed| right.add(hashed));
            let left = match log.join() {
                Ok(left) => left?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            scanned?;
            Ok((left, right))
        })
    }

    /// Compares the rows of some buckets one by one, as hashes.
    fn count(&mut self, buckets: &[bool], found: &mut Found) -> Result<(), VerifyError> {
        let mut rows: HashMap<u128, [u64; 4]> = HashMap::new();
        self.side.scan_log(&mut |_, _, hashed| {
            if buckets[hashed.bucket] {
                rows.insert(hashed.key, hashed.lanes);
            }
        })?;
        let keys_max = self.keys_max;
        let mut note = |key| {
            found.total += 1;
            if found.listed.len() < DIFFERENCES_MAX {
                found.listed.insert(key);
            }
            if found.wanted.len() < keys_max {
                found.wanted.insert(key);
            }
        };
        self.side.scan_store(self.store, &mut |_, hashed| {
            if buckets[hashed.bucket] && rows.remove(&hashed.key) != Some(hashed.lanes) {
                note(hashed.key);
            }
        })?;
        match self.side.mapping.expires() {
            // They have outlived their time, as they should.
            true => found.expired += rows.len() as u64,
            false => rows.into_keys().for_each(&mut note),
        }
        Ok(())
    }

    fn describe(&mut self, found: &Found) -> Result<Described, VerifyError> {
        let mut out = Described::default();
        if found.total == 0 {
            return Ok(out);
        }
        let mut rows: HashMap<u128, (Option<Row>, Option<Row>)> = HashMap::new();
        let mut in_log: HashSet<u128> = HashSet::new();
        self.side.scan_log(&mut |key, row, hashed| {
            if found.listed.contains(&hashed.key) {
                rows.entry(hashed.key).or_default().0 = Some(row.clone());
            }
            if found.wanted.contains(&hashed.key) {
                in_log.insert(hashed.key);
                out.keys.push(Bytes::copy_from_slice(key));
            }
        })?;
        let mapping = self.side.mapping;
        self.side.scan_store(self.store, &mut |row, hashed| {
            if found.listed.contains(&hashed.key) {
                rows.entry(hashed.key).or_default().1 = Some(row.clone());
            }
            if found.wanted.contains(&hashed.key) && !in_log.contains(&hashed.key) {
                match key_that_makes(mapping, row) {
                    Some(key) => out.keys.push(key),
                    None => {
                        out.strange += 1;
                        out.strange_key
                            .get_or_insert_with(|| row.cells[mapping.key].show_key());
                    }
                }
            }
        })?;
        out.differences = rows
            .into_values()
            .map(|(log, store)| self.difference(log, store))
            .collect();
        out.differences
            .sort_by_key(|difference| difference.key.to_string());
        Ok(out)
    }

    fn difference(&self, log: Option<Row>, store: Option<Row>) -> Difference {
        let key = log.as_ref().or(store.as_ref());
        let key = key.map_or(Value::Null, |row| {
            row.cells[self.side.mapping.key].show_key()
        });
        let show = |row: &Row, other: Option<&Row>| {
            let columns = self.side.mapping.columns.iter().enumerate();
            let differing = columns.filter(|(n, _)| {
                other.is_none_or(|other| !other.cells[*n].is_same(&row.cells[*n]))
            });
            JsonText::object(differing.map(|(n, column)| (&*column.name, row.cells[n].show())))
        };
        Difference {
            key,
            log: log.as_ref().map(|row| show(row, store.as_ref())),
            store: store.as_ref().map(|row| show(row, log.as_ref())),
        }
    }
}

impl<'a> Side<'a> {
    fn twin(&self) -> Self {
        Self {
            number: self.number,
            mapping: self.mapping,
            log: self.log,
            parked: self.parked,
            parked_rows: HashSet::new(),
            stop: self.stop,
            hasher: self.hasher.twin(),
        }
    }

    /// A key that has no place in the store has no row there either.
    fn with_parked_rows(mut self) -> Self {
        let mut cell = Cell::Null;
        for key in self.parked {
            if self.mapping.project_key(key, &mut cell).is_ok() {
                self.parked_rows.insert(self.hasher.key(&cell));
            }
        }
        self
    }

    fn scan_log(
        &mut self,
        each: &mut dyn FnMut(&[u8], &Row, &HashedRow),
    ) -> Result<(), VerifyError> {
        let (mapping, parked, stop) = (self.mapping, self.parked, self.stop);
        let hasher = &mut self.hasher;
        let mut row = Row::default();
        self.log.scan(mapping.table, &mut |key, version, value| {
            if stop.load(Ordering::Relaxed) {
                return Err(VerifyError::Stopped);
            }
            if parked.contains(key) {
                return Ok(());
            }
            let failed = |fault: RowFault| VerifyError::Unprojectable {
                table: mapping.table_name.clone(),
                key: show_key(key),
                what: fault.to_string(),
            };
            let transformed;
            let mut value = value;
            if mapping.has_transform() {
                match mapping
                    .transform(key, version, &Bytes::copy_from_slice(value))
                    .map_err(failed)?
                {
                    Some(bytes) => transformed = bytes,
                    None => return Ok(()),
                }
                value = &transformed;
            }
            mapping
                .project(key, version, value, &mut row)
                .map_err(failed)?;
            let hashed = hasher.row(&row, mapping.key);
            each(key, &row, &hashed);
            Ok(())
        })
    }

    fn scan_store(
        &mut self,
        store: &mut dyn StoreReader,
        each: &mut dyn FnMut(&Row, &HashedRow),
    ) -> Result<(), VerifyError> {
        let (key, stop, parked) = (self.mapping.key, self.stop, &self.parked_rows);
        let hasher = &mut self.hasher;
        store.scan(self.number, &mut |row| {
            if stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            // A row whose key was emptied by hand belongs to no key of the log.
            debug_assert!(row.cells.len() > key || row.cells.first() == Some(&Cell::Null));
            let hashed = hasher.row(row, key);
            if !parked.contains(&hashed.key) {
                each(row, &hashed);
            }
            ControlFlow::Continue(())
        })?;
        match stop.load(Ordering::Relaxed) {
            true => Err(VerifyError::Stopped),
            false => Ok(()),
        }
    }
}

/// The key of the log whose deletion deletes this row. `None`: there is no such key.
fn key_that_makes(mapping: &MappingPlan, row: &Row) -> Option<Bytes> {
    let key = mapping.key_of_row(row)?;
    let mut cell = Cell::Null;
    mapping.project_key(&key, &mut cell).ok()?;
    (cell == row.cells[mapping.key]).then(|| Bytes::from(key))
}
