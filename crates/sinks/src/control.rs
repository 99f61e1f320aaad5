//! What others ask of a sink's thread between two batches, where the store stands exactly at a
//! position: snapshots of both sides, rows to be written again, parked keys to be replayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use onelog::{Position, Snapshot, SnapshotError};

use crate::error::SinkError;
use crate::open::{open_store, plan_of};
use crate::parking::ParkedKeys;
use crate::request::{Failed, Pending, Reply, Request, SnapshotPair};
use crate::runner::Runner;
use crate::session_end::SessionEnd;
use onelog_mapping::Plan;
use onelog_store::{Store, StoreError};

impl Runner {
    /// Does what was asked. A sink that is too far behind is given some time to catch up.
    pub(crate) fn serve(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), SessionEnd> {
        let mut waiting: VecDeque<Pending> = std::mem::take(&mut self.pending).into();
        while let Some(pending) = waiting.pop_front() {
            let may_wait = !self.paused && Instant::now() < pending.deadline;
            let later =
                |error: &SinkError| may_wait && matches!(error, SinkError::TooFarBehind { .. });
            let later_anew = |error: &SinkError| {
                let lost = matches!(error, SinkError::Store(error) if error.is_retryable());
                later(error) || (may_wait && lost)
            };
            let failed = match &pending.request {
                Request::Snapshots(reply) => {
                    let done = self.snapshots(plan, store, at);
                    answer(reply, done, &later_anew)
                }
                Request::Repair(keys, reply) => {
                    let done = self.repair(plan, store, at, keys);
                    answer(reply, done, &later)
                }
                Request::Replay(which, reply) => {
                    let done = self.replay(plan, store, at, which);
                    answer(reply, done, &later)
                }
            };
            match failed {
                Served::Later(None) => self.pending.push(pending),
                Served::Later(Some(end)) => {
                    self.pending.push(pending);
                    self.pending.extend(waiting);
                    return Err(end);
                }
                Served::Done => {}
                Served::Ended(end) => {
                    self.pending.extend(waiting);
                    return Err(end);
                }
            }
        }
        Ok(())
    }

    /// The log's state where the store stands.
    pub(crate) fn snapshot_at(&self, at: Option<Position>) -> Result<Snapshot, SinkError> {
        let name = &self.definition.name;
        let Some(position) = at else {
            return Err(SinkError::Unfilled { name: name.clone() });
        };
        self.node.snapshot_at(position).map_err(|error| {
            let floor = match error {
                SnapshotError::TooOld { floor } => floor,
                SnapshotError::InFuture { latest } => latest,
            };
            SinkError::TooFarBehind {
                name: name.clone(),
                position,
                floor,
            }
        })
    }

    fn snapshots(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<SnapshotPair, Failed> {
        self.open_snapshots(plan, store, at, &self.parked)
            .map_err(|error| match error {
                // The store was restarted, perhaps with older data, while nothing was written: a
                // new session begins where it stands.
                SinkError::Store(error) if error.is_retryable() => {
                    if matches!(error, StoreError::PositionMismatch { .. }) {
                        // Nobody who waits is reported what was reached before.
                        self.progress.set_position(None);
                    }
                    error.into()
                }
                error => error.into(),
            })
    }

    fn open_snapshots(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
        parked: &ParkedKeys,
    ) -> Result<SnapshotPair, SinkError> {
        let log = self.snapshot_at(at)?;
        let position = log.position();
        let reader = store.reader()?;
        if reader.position() != position {
            return Err(SinkError::Store(StoreError::PositionMismatch {
                expected: position,
                // The store may have come back with other data under an old connection.
                found: store.position().unwrap_or(None),
            }));
        }
        Ok(SnapshotPair {
            plan: Arc::clone(plan),
            store: reader,
            log,
            parked: parked.keys(),
        })
    }

    /// A sink that stands still has no store open; one is opened for a comparison alone.
    pub(crate) fn serve_detached(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.request {
                Request::Snapshots(reply) => {
                    let _ = reply.try_send(self.detached_snapshots());
                }
                Request::Repair(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
                Request::Replay(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
            }
        }
    }

    fn detached_snapshots(&self) -> Result<SnapshotPair, SinkError> {
        let plan = Arc::new(plan_of(&self.node, &self.definition)?);
        let mut store = open_store(&self.definition, &plan, &self.log_id)?;
        let found = store.position()?;
        let ours = found.filter(|found| found.log_id == self.log_id);
        let at = ours.map(|found| found.position);
        let parked = ParkedKeys::load(&self.node, &self.definition.name, &plan, at);
        let parked = parked.map_err(|_| self.not_following())?;
        self.open_snapshots(&plan, store.as_mut(), at, &parked)
    }

    fn not_following(&self) -> SinkError {
        SinkError::Stopped {
            name: self.definition.name.clone(),
            fault: Box::new(self.progress.last_error()),
        }
    }
}

enum Served {
    Done,
    /// Once more; in a new session when this one ends.
    Later(Option<SessionEnd>),
    Ended(SessionEnd),
}

fn answer<T>(
    reply: &Reply<T>,
    done: Result<T, Failed>,
    later: &dyn Fn(&SinkError) -> bool,
) -> Served {
    let (answer, end) = match done {
        Ok(done) => (Ok(done), None),
        Err(failed) if later(&failed.0.reported) => return Served::Later(failed.0.end),
        Err(failed) => (Err(failed.0.reported), failed.0.end),
    };
    // Who asked may have stopped waiting.
    let _ = reply.try_send(answer);
    end.map_or(Served::Done, Served::Ended)
}
