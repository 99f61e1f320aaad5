//! What a sink's thread needs to write to its store, whatever the state of the thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onelog::{Node, Position, Snapshot, SnapshotError};
use onelog_mapping::{Mapping, Plan};
use onelog_store::{
    Batch, LogPlace, OnRefused, RejectedRow, SinkDefinition, Store, StoreError, failpoint,
};

use crate::error::{SinkError, SinkFault};
use crate::memory::Memory;
use crate::parking::ParkedKeys;
use crate::progress::{Progress, SinkState};
use crate::request::RequestError;
use crate::retention::RetentionHold;
use crate::session_end::SessionEnd;

pub(crate) struct Feed {
    pub(crate) node: Node,
    /// Whether other nodes may run the sink as well.
    pub(crate) in_cluster: bool,
    pub(crate) memory: Memory,
    pub(crate) definition: SinkDefinition,
    pub(crate) log_id: String,
    pub(crate) progress: Arc<Progress>,
    pub(crate) retention: Arc<RetentionHold>,
    /// The thread is to end. Looked at where one step takes long; the reason is in the inbox.
    pub(crate) leaving: Arc<AtomicBool>,
    /// Mappings by which the store may have been backfilled, with other keys than the definition's.
    pub(crate) former: Vec<Mapping>,
    /// Read again from the log in each session.
    pub(crate) parked: ParkedKeys,
}

impl Feed {
    /// Applies a batch; what the store refuses is parked, where the definition says so.
    pub(crate) fn apply_accepted(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        batch: &mut Batch,
    ) -> Result<(), RequestError> {
        loop {
            if batch.rows() > 0 {
                failpoint::hit(&self.definition.name, "attempt");
            }
            let error = match store.apply(batch) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let StoreError::Refused(refused) = &error else {
                return Err(error.into());
            };
            let mut rejected = batch.refused(plan, refused);
            if rejected.is_empty() || !self.parks() {
                return Err(error.into());
            }
            // Others that cannot be written are found without a request to the store for each.
            rejected.extend(batch.rejected_rows(plan));
            self.park(plan, &rejected)?;
            batch.leave_out(&rejected);
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    pub(crate) const fn is_in_cluster(&self) -> bool {
        self.in_cluster
    }

    /// Whether a refused record is parked.
    pub(crate) fn parks(&self) -> bool {
        self.definition.on_refused == OnRefused::Park
    }

    pub(crate) fn park(&mut self, plan: &Plan, rejected: &[RejectedRow]) -> Result<(), SessionEnd> {
        if rejected.is_empty() {
            return Ok(());
        }
        self.parked.park(&self.node, plan, rejected)?;
        self.progress.set_parked(self.parked.len());
        failpoint::hit(&self.definition.name, "after_park");
        Ok(())
    }

    /// A position with what the log's chain says there.
    pub(crate) fn place(&self, position: Position) -> Result<LogPlace, SessionEnd> {
        let chain = self.node.chain_at(position);
        let chain = chain.map_err(|error| SessionEnd::Retry(SinkFault::new(error)))?;
        Ok(LogPlace { position, chain })
    }

    /// The log's state at the store's position.
    pub(crate) fn snapshot_at(&self, at: Option<Position>) -> Result<Snapshot, SinkError> {
        let name = &self.definition.name;
        let Some(position) = at else {
            return Err(SinkError::NotBackfilled { name: name.clone() });
        };
        let name = name.clone();
        self.node
            .snapshot_at(position)
            .map_err(|error| match error {
                SnapshotError::TooOld { floor } => SinkError::TooFarBehind {
                    name,
                    is_paused: self.progress.state() == SinkState::Paused,
                    position,
                    floor,
                },
                SnapshotError::InFuture { latest } => SinkError::Ahead {
                    name,
                    position,
                    latest,
                },
            })
    }
}
