//! Backfills a store from a snapshot: when it has no position, when the log no longer reaches back
//! to it, and when a rebuild is requested.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use onelog::{KeyRange, Position, ReadError, Row, Snapshot};

use crate::error::SinkFault;
use crate::feed::Feed;
use crate::memory::Held;
use crate::open::check_target;
use crate::session_end::SessionEnd;
use onelog_mapping::Plan;
use onelog_store::{
    Change, EachEntry, Guard, LogSide, RejectedRow, Store, StoreError, VerifyError, failpoint,
    refused_records, refused_rows, rejected_rows,
};

/// How many rows are loaded in one step, at most.
const LOAD_ROWS_MAX: usize = 10_000;
/// How often the end of a backfill is tried again because rows were refused: each attempt names all
/// that it finds.
const FINISHES_MAX: usize = 8;
/// How many bytes of keys and values are loaded in one step, about.
const LOAD_BYTES_MAX: usize = 4 << 20;

/// Waits for so many bytes of the memory of all sinks. `None`: the backfill is interrupted.
pub(crate) type TakeMemory<'t> = &'t mut dyn FnMut(usize) -> Option<Held>;

impl Feed {
    /// Backfills the store; `old`: the position of the rows that it has; `may_delete`: however many
    /// rows that deletes. Returns the new position, or `None` when it was interrupted.
    pub(crate) fn backfill(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        old: Option<Position>,
        may_delete: bool,
        take: TakeMemory<'_>,
    ) -> Result<Option<Position>, SessionEnd> {
        // The log must be kept from the snapshot on; or, as long as the old rows are there, from them on.
        if old.is_none() {
            self.retention.advance(self.node.position());
        }
        let snapshot = self.node.snapshot();
        let position = snapshot.position();
        tracing::info!(sink = self.definition.name, %position, "backfilling a store from a snapshot");
        check_target(&self.definition, plan, &self.log_id, store)?;
        let foreign = store.foreign_tables()?;
        let guards = self.check_rows(&foreign, may_delete, &snapshot)?;
        if !may_delete {
            self.check_leftovers(&store.leftovers()?)?;
        }
        let mut refused = Vec::new();
        store.begin_rebuild()?;
        for number in 0..plan.mappings.len() {
            let loaded = self.load(plan, store, &snapshot, number, &mut refused, take)?;
            if !loaded {
                return Ok(None);
            }
        }
        failpoint::hit(&self.definition.name, "before_finish");
        if !store.counts_deletes() {
            self.check_deletes_again(&guards, &snapshot)?;
        }
        self.keep(store, &snapshot, &guards, &refused)?;
        self.finish(plan, store, position, &guards, &mut refused)?;
        self.retention.advance(position);
        self.parked
            .backfilled(&self.node, plan, &refused, position)?;
        self.progress.set_parked(self.parked.len());
        self.progress.set_position(Some(position));
        tracing::info!(sink = self.definition.name, %position, "a store is backfilled");
        Ok(Some(position))
    }

    /// Whether it came to the end.
    fn load(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        number: usize,
        refused: &mut Vec<RejectedRow>,
        take: TakeMemory<'_>,
    ) -> Result<bool, SessionEnd> {
        let failed = |error: ReadError| SessionEnd::Retry(SinkFault::new(error));
        let range = whole(plan.mappings[number].table);
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut held = take(LOAD_BYTES_MAX);
        if held.is_none() {
            return Ok(false);
        }
        for row in snapshot.scan(&range, false).map_err(failed)? {
            let Row {
                key,
                version,
                value,
            } = row.map_err(failed)?;
            if self.is_leaving() {
                return Ok(false);
            }
            bytes += key.len() + value.len();
            let mut change = Change {
                key,
                offset: version,
                value: Some(value),
            };
            match change.try_transform(&plan.mappings[number]) {
                Ok(()) if change.value.is_some() => rows.push(change),
                Ok(()) => {}
                Err(fault) if self.parks() => {
                    let rejected = [RejectedRow::new(number, &change, fault)];
                    self.park(plan, &rejected)?;
                    refused.extend(rejected);
                }
                Err(fault) => {
                    let of = &plan.mappings[number];
                    return Err(StoreError::refused_change(of, &change, fault).into());
                }
            }
            if rows.len() >= LOAD_ROWS_MAX || bytes >= LOAD_BYTES_MAX {
                self.load_accepted(plan, store, number, &mut rows, refused)?;
                bytes = 0;
                // Given back before it is asked for again.
                drop(held.take());
                held = take(LOAD_BYTES_MAX);
                if held.is_none() {
                    return Ok(false);
                }
            }
        }
        self.load_accepted(plan, store, number, &mut rows, refused)?;
        Ok(true)
    }

    /// Loads rows and empties the list; what the store refuses is parked, where the definition
    /// says so.
    fn load_accepted(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        number: usize,
        rows: &mut Vec<Change>,
        refused: &mut Vec<RejectedRow>,
    ) -> Result<(), SessionEnd> {
        while !rows.is_empty() {
            failpoint::hit(&self.definition.name, "attempt");
            let Err(error) = store.load(number, rows) else {
                break;
            };
            let StoreError::Refused(refusal) = &error else {
                return Err(error.into());
            };
            let mut rejected = refused_rows(plan, number, rows, refusal);
            if rejected.is_empty() || !self.parks() {
                return Err(error.into());
            }
            rejected.extend(rejected_rows(plan, number, rows));
            self.park(plan, &rejected)?;
            let gone: HashSet<&Bytes> = rejected.iter().map(|rejected| &rejected.key).collect();
            rows.retain(|row| !gone.contains(&row.key));
            refused.extend(rejected);
        }
        rows.clear();
        Ok(())
    }

    /// Has the store leave the rows that it has of refused records as they are. Where it cannot, they
    /// are deleted with its old tables, and counted.
    fn keep(
        &self,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        guards: &[Guard],
        refused: &[RejectedRow],
    ) -> Result<(), SessionEnd> {
        for (number, guard) in guards.iter().enumerate() {
            let of_mapping = refused.iter().filter(|row| row.mapping == number);
            let keys: Vec<&[u8]> = of_mapping.map(|row| &row.key[..]).collect();
            if keys.is_empty() || store.keep(number, &keys)? {
                continue;
            }
            if let Guard::Deletes(most) = guard {
                let keys = keys.into_iter().collect();
                self.check_refused(number, &keys, *most, snapshot)?;
            }
        }
        Ok(())
    }

    /// Puts the loaded rows in place; what the tables that are there refuse only now is parked, where
    /// the definition says so.
    fn finish(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        position: Position,
        guards: &[Guard],
        refused: &mut Vec<RejectedRow>,
    ) -> Result<(), SessionEnd> {
        let place = self.place(position)?;
        for attempt in 1.. {
            failpoint::hit(&self.definition.name, "attempt");
            store.guard(guards);
            let Err(error) = store.finish_rebuild(place) else {
                break;
            };
            if let Some(end) = self.guarded(&error, guards, position) {
                return Err(end);
            }
            let StoreError::Refused(refusal) = &error else {
                return Err(error.into());
            };
            let rejected = refused_records(plan, refusal);
            if rejected.is_empty() || !self.parks() || attempt > FINISHES_MAX {
                return Err(error.into());
            }
            self.park(plan, &rejected)?;
            refused.extend(rejected);
        }
        Ok(())
    }
}

const fn whole(table: onelog::TableId) -> KeyRange {
    KeyRange {
        table,
        from: Bytes::new(),
        to: None,
    }
}

/// The log's state, as a comparison reads it.
pub(crate) struct LogSnapshot<'s>(pub(crate) &'s Snapshot);

impl LogSide for LogSnapshot<'_> {
    fn scan(&self, table: onelog::TableId, each: EachEntry<'_>) -> Result<(), VerifyError> {
        let failed = |error: ReadError| VerifyError::Log(Box::new(error));
        for row in self.0.scan(&whole(table), false).map_err(failed)? {
            let row = row.map_err(failed)?;
            each(&row.key, row.version, &row.value)?;
        }
        Ok(())
    }
}
