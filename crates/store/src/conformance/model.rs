//! The log that a store under test must equal, in memory.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use onelog_mapping::Plan;
use onelog_record::{Offset, Op, Position, Record, TableId};

use super::{LOG, ORDERS};
use crate::verify::{EachEntry, LogSide, VerifyError, verify};
use crate::{Batch, Change, LogPlace, Store, StoreError, Verification};

/// A log in memory: what the store must equal.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(super) rows: BTreeMap<(TableId, Bytes), (Offset, Bytes)>,
    records: Vec<Record>,
}

impl Model {
    /// Appends a put, or a delete where there is no value.
    pub fn write(&mut self, table: TableId, key: &[u8], value: Option<&str>) {
        let key = Bytes::copy_from_slice(key);
        let offset = Offset(self.records.len() as u64);
        let value = value.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        match &value {
            Some(value) => self
                .rows
                .insert((table, key.clone()), (offset, value.clone())),
            None => self.rows.remove(&(table, key.clone())),
        };
        self.records.push(Record {
            offset,
            op: if value.is_some() { Op::Put } else { Op::Delete },
            table,
            key,
            value,
            headers: Vec::new(),
        });
    }

    pub fn order(&mut self, key: &str, total: i64, note: &str) {
        let value = serde_json::json!({"total": total, "note": note}).to_string();
        self.write(ORDERS, key.as_bytes(), Some(&value));
    }

    /// The end of the log.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.records.len() as u64)
    }

    /// The end of the log, and what its chain says there.
    #[must_use]
    pub fn place(&self) -> LogPlace {
        let position = self.position();
        LogPlace {
            position,
            // The largest checksums are among them.
            chain: Some(u32::MAX - position.get() as u32),
        }
    }

    /// Everything from `from` on as one batch.
    #[must_use]
    pub fn batch(&self, plan: &Plan, from: Position) -> Batch {
        let mut batch = Batch::new(plan, from);
        for record in &self.records[from.get() as usize..] {
            batch.push(plan, record);
        }
        batch
            .seal(plan, self.position(), &AtomicBool::new(false))
            .expect("the model's documents fit every transform");
        batch.chain = self.place().chain;
        batch
    }

    /// Applies what the store lacks, as one batch.
    pub fn apply(&self, plan: &Plan, store: &mut dyn Store) -> Result<(), StoreError> {
        let found = store.position()?.expect("a backfilled store");
        store.apply(&self.batch(plan, found.position))
    }

    /// Backfills the store as a sink does.
    pub fn rebuild(&self, plan: &Plan, store: &mut dyn Store) -> Result<(), StoreError> {
        self.load(plan, store)?;
        store.finish_rebuild(self.place())
    }

    /// A rebuild up to the step that puts the new tables in place.
    pub fn load(&self, plan: &Plan, store: &mut dyn Store) -> Result<(), StoreError> {
        store.begin_rebuild()?;
        for (number, mapping) in plan.mappings.iter().enumerate() {
            let rows: Vec<Change> = self
                .rows
                .iter()
                .filter(|((table, _), _)| *table == mapping.table)
                .map(|((_, key), (offset, value))| Change {
                    key: key.clone(),
                    offset: *offset,
                    value: Some(value.clone()),
                })
                .map(|mut change| change.transform(mapping).map(|()| change))
                .filter(|change| !matches!(change, Ok(Change { value: None, .. })))
                .collect::<Result<_, _>>()?;
            for part in rows.chunks(3) {
                store.load(number, part)?;
            }
        }
        Ok(())
    }

    /// Compares the store with this log.
    #[must_use]
    pub fn verify(&self, plan: &Plan, store: &mut dyn Store) -> Verification {
        let mut reader = store.reader().expect("a snapshot of the store");
        verify(plan, self, reader.as_mut()).expect("a comparison")
    }

    pub(super) fn assert_equal(&self, plan: &Plan, store: &mut dyn Store) {
        let verification = self.verify(plan, store);
        assert!(verification.equal, "{verification:#?}");
        assert_eq!(verification.position, self.position());
        let found = store.position().unwrap().expect("a position");
        assert_eq!(found.log_id, LOG);
        let found = LogPlace {
            position: found.position,
            chain: found.chain,
        };
        assert_eq!(found, self.place());
    }
}

impl LogSide for Model {
    fn scan(&self, table: TableId, each: EachEntry<'_>) -> Result<(), VerifyError> {
        for ((of, key), (version, value)) in &self.rows {
            if *of == table {
                each(key, *version, value)?;
            }
        }
        Ok(())
    }
}
