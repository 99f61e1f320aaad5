//! Filling a store from a snapshot: when it has no position, when the log no longer reaches back
//! to it, and when somebody asks for it.

use std::sync::Arc;

use bytes::Bytes;
use onelog::{KeyRange, Position, ReadError, Row, Snapshot};

use crate::batch::Change;
use crate::error::SinkFault;
use crate::failpoint;
use crate::plan::Plan;
use crate::progress::SinkState;
use crate::runner::{Halt, Runner};
use crate::store::Store;
use crate::verify::{EachEntry, LogSide, VerifyError};

/// How many rows are loaded in one step, at most.
const LOAD_ROWS_MAX: usize = 10_000;
/// How many bytes of keys and values are loaded in one step, about.
const LOAD_BYTES_MAX: usize = 4 << 20;

impl Runner {
    /// Fills the store and answers the position that it then stands at.
    pub(crate) fn fill(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<Position, Halt> {
        self.progress.set_state(if self.is_rebuilding() {
            SinkState::Rebuilding
        } else {
            SinkState::Bootstrapping
        });
        // The log must be kept from the snapshot on; or, as long as the old rows stand, from there.
        if at.is_none() {
            self.follower.advance(self.node.position());
        }
        let snapshot = self.node.snapshot();
        let position = snapshot.position();
        tracing::info!(sink = self.definition.name, %position, "filling a store from a snapshot");
        store.begin_rebuild()?;
        for number in 0..plan.mappings.len() {
            self.load(plan, store, &snapshot, number)?;
        }
        failpoint::hit(&self.definition.name, "before_finish");
        store.finish_rebuild(position)?;
        self.follower.advance(position);
        self.progress.set_position(Some(position));
        Ok(position)
    }

    fn load(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        number: usize,
    ) -> Result<(), Halt> {
        let failed = |error: ReadError| Halt::Retry(SinkFault::new(error));
        let range = whole(plan.mappings[number].table);
        let mut rows = Vec::new();
        let mut bytes = 0;
        for row in snapshot.scan(&range, false).map_err(failed)? {
            let Row {
                key,
                version,
                value,
            } = row.map_err(failed)?;
            bytes += key.len() + value.len();
            let mut change = Change {
                key,
                offset: version,
                value: Some(value),
            };
            change.shape(&plan.mappings[number])?;
            if change.value.is_some() {
                rows.push(change);
            }
            if rows.len() >= LOAD_ROWS_MAX || bytes >= LOAD_BYTES_MAX {
                store.load(number, &rows)?;
                rows.clear();
                bytes = 0;
                self.receive();
                if self.is_leaving() {
                    return Err(Halt::Exit);
                }
            }
        }
        if !rows.is_empty() {
            store.load(number, &rows)?;
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

impl LogSide for Snapshot {
    fn scan(&self, table: onelog::TableId, each: EachEntry<'_>) -> Result<(), VerifyError> {
        let failed = |error: ReadError| VerifyError::Log(Box::new(error));
        for row in Snapshot::scan(self, &whole(table), false).map_err(failed)? {
            let row = row.map_err(failed)?;
            each(&row.key, row.version, &row.value)?;
        }
        Ok(())
    }
}
