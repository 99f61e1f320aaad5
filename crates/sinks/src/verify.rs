//! Whether a store equals the log: both sides at one position, projected through the mapping,
//! compared by digests; unequal buckets are looked at again until each differing row has a name.
//!
//! Runs on the thread that asks. Both sides are consistent pictures, so neither writers nor the
//! sink wait. Memory is bounded: rows are held as hashes, `ROWS_PER_PASS` at most.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use onelog_record::{Offset, Position, TableId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cell::{Cell, Row};
use crate::digest::{BUCKETS, HashedRow, RowHasher, TableDigest, groups};
use crate::plan::{MappingPlan, Plan, RowFault};
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
    /// One entry per mapping.
    pub tables: Vec<TableVerification>,
}

/// The answer for one mapping.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableVerification {
    /// The table of the log.
    pub table: String,
    /// The table of the store.
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
    /// How many rows differ.
    pub differences_total: u64,
    /// Whether `differences_total` counts all of them: not when nearly everything differs in a
    /// very large table.
    pub counted_all: bool,
    /// The first differences, at most `DIFFERENCES_MAX`.
    pub differences: Vec<Difference>,
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
    /// The first ones, in words.
    pub faults: Vec<String>,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The row's key.
    pub key: Value,
    /// What the log has: `null` when the row is extra in the store. Where both have the row, only
    /// the columns that differ.
    pub log: Option<Value>,
    /// What the store has: `null` when the row is missing there.
    pub store: Option<Value>,
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
        /// The table of the log.
        table: String,
        /// The key.
        key: Value,
        /// Why.
        what: String,
    },
}

/// What a scan of the log's side calls for each row: key, version, value.
pub type EachEntry<'f> = &'f mut dyn FnMut(&[u8], Offset, &[u8]) -> Result<(), VerifyError>;

/// The log's state at one position.
pub trait LogSide {
    /// Gives every row of a table once.
    fn scan(&self, table: TableId, each: EachEntry<'_>) -> Result<(), VerifyError>;
}

/// Compares a store's picture with the log's state at the same position.
pub fn verify(
    plan: &Plan,
    log: &dyn LogSide,
    store: &mut dyn StoreReader,
) -> Result<Verification, VerifyError> {
    let mut tables = Vec::with_capacity(plan.mappings.len());
    for number in 0..plan.mappings.len() {
        let mut comparison = Comparison {
            number,
            mapping: &plan.mappings[number],
            log,
            store,
            hasher: RowHasher::new(),
        };
        tables.push(comparison.run()?);
    }
    Ok(Verification {
        position: store.position(),
        equal: tables.iter().all(|table| table.equal),
        tables,
    })
}

struct Comparison<'a> {
    number: usize,
    mapping: &'a MappingPlan,
    log: &'a dyn LogSide,
    store: &'a mut dyn StoreReader,
    hasher: RowHasher,
}

/// How a row differs.
#[derive(Default)]
struct Found {
    total: u64,
    expired: u64,
    counted_all: bool,
    listed: HashSet<u128>,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<TableVerification, VerifyError> {
        let (mut left, mut right) = (TableDigest::new(), TableDigest::new());
        self.scan_log(&mut |_, hashed| left.add(hashed))?;
        self.scan_store(&mut |_, hashed| right.add(hashed))?;
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
        let differences = self.describe(&found.listed)?;
        let full_text = self
            .store
            .check_index(self.number, DIFFERENCES_MAX)?
            .map(|check| IndexVerification {
                equal: check.faults_total == 0,
                faults_total: check.faults_total,
                faults: check.faults,
            });
        let only_expired = found.expired > 0 && found.total == 0 && found.counted_all;
        let index_equal = full_text.as_ref().is_none_or(|index| index.equal);
        Ok(TableVerification {
            table: self.mapping.table_name.clone(),
            into: self.mapping.into.clone(),
            rows: left.rows(),
            store_rows: right.rows(),
            equal: (unequal.is_empty() || only_expired) && index_equal,
            expired: found.expired,
            differences_total: found.total,
            counted_all: found.counted_all,
            differences,
            full_text,
        })
    }

    /// Compares the rows of some buckets one by one, as hashes.
    fn count(&mut self, buckets: &[bool], found: &mut Found) -> Result<(), VerifyError> {
        let mut rows: HashMap<u128, [u64; 4]> = HashMap::new();
        self.scan_log(&mut |_, hashed| {
            if buckets[hashed.bucket] {
                rows.insert(hashed.key, hashed.lanes);
            }
        })?;
        let mut note = |key| {
            found.total += 1;
            if found.listed.len() < DIFFERENCES_MAX {
                found.listed.insert(key);
            }
        };
        self.scan_store(&mut |_, hashed| {
            if buckets[hashed.bucket] && rows.remove(&hashed.key) != Some(hashed.lanes) {
                note(hashed.key);
            }
        })?;
        match self.mapping.options.ttl_seconds {
            // They have outlived their time, as they should.
            Some(_) => found.expired += rows.len() as u64,
            None => rows.into_keys().for_each(&mut note),
        }
        Ok(())
    }

    fn describe(&mut self, listed: &HashSet<u128>) -> Result<Vec<Difference>, VerifyError> {
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows: HashMap<u128, (Option<Row>, Option<Row>)> = HashMap::new();
        self.scan_log(&mut |row, hashed| {
            if listed.contains(&hashed.key) {
                rows.entry(hashed.key).or_default().0 = Some(row.clone());
            }
        })?;
        self.scan_store(&mut |row, hashed| {
            if listed.contains(&hashed.key) {
                rows.entry(hashed.key).or_default().1 = Some(row.clone());
            }
        })?;
        let mut out: Vec<Difference> = rows
            .into_values()
            .map(|(log, store)| self.difference(log, store))
            .collect();
        out.sort_by_key(|difference| difference.key.to_string());
        Ok(out)
    }

    fn difference(&self, log: Option<Row>, store: Option<Row>) -> Difference {
        let key = log.as_ref().or(store.as_ref());
        let key = key.map_or(Value::Null, |row| row.cells[self.mapping.key].show());
        let show = |row: &Row, other: Option<&Row>| {
            let mut object = Map::new();
            for (n, column) in self.mapping.columns.iter().enumerate() {
                if other.is_none_or(|other| !other.cells[n].is_same(&row.cells[n])) {
                    object.insert(column.name.clone(), row.cells[n].show());
                }
            }
            Value::Object(object)
        };
        Difference {
            key,
            log: log.as_ref().map(|row| show(row, store.as_ref())),
            store: store.as_ref().map(|row| show(row, log.as_ref())),
        }
    }

    fn scan_log(&mut self, each: &mut dyn FnMut(&Row, &HashedRow)) -> Result<(), VerifyError> {
        let mapping = self.mapping;
        let hasher = &mut self.hasher;
        let mut row = Row::default();
        self.log.scan(mapping.table, &mut |key, version, value| {
            let failed = |fault: RowFault| VerifyError::Unprojectable {
                table: mapping.table_name.clone(),
                key: crate::cell::show_key(key),
                what: fault.to_string(),
            };
            let shaped;
            let mut value = value;
            if mapping.has_shape() {
                match mapping
                    .shape(key, version, &Bytes::copy_from_slice(value))
                    .map_err(failed)?
                {
                    Some(bytes) => shaped = bytes,
                    None => return Ok(()),
                }
                value = &shaped;
            }
            mapping
                .project(key, version, value, &mut row)
                .map_err(failed)?;
            let hashed = hasher.row(&row, mapping.key);
            each(&row, &hashed);
            Ok(())
        })
    }

    fn scan_store(&mut self, each: &mut dyn FnMut(&Row, &HashedRow)) -> Result<(), VerifyError> {
        let key = self.mapping.key;
        let hasher = &mut self.hasher;
        self.store.scan(self.number, &mut |row| {
            // A row whose key somebody emptied belongs to no key of the log.
            debug_assert!(row.cells.len() > key || row.cells.first() == Some(&Cell::Null));
            let hashed = hasher.row(row, key);
            each(row, &hashed);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}
