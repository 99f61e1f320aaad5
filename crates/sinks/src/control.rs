//! Serves requests between two batches, where the store is exactly at a position, and for a sink
//! that has no store open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use onelog::Position;
use onelog_mapping::Plan;
use onelog_store::{Store, StoreError};

use crate::error::SinkError;
use crate::feed::Feed;
use crate::open::{open_store, plan_of};
use crate::parking::ParkedKeys;
use crate::progress::SinkState;
use crate::request::{PendingRequest, Reply, Request, RequestError, SnapshotPair};
use crate::session_end::SessionEnd;

impl Feed {
    /// Serves requests. While the sink follows the log, one for which it is too far behind is
    /// given some time.
    pub(crate) fn serve(
        &mut self,
        requests: &mut Vec<PendingRequest>,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
        is_paused: bool,
    ) -> Result<(), SessionEnd> {
        let mut waiting: VecDeque<PendingRequest> = std::mem::take(requests).into();
        while let Some(pending) = waiting.pop_front() {
            let may_wait = !is_paused && Instant::now() < pending.deadline;
            let later =
                |error: &SinkError| may_wait && matches!(error, SinkError::TooFarBehind { .. });
            let later_anew = |error: &SinkError| {
                let lost = matches!(error, SinkError::Store(error) if error.is_retryable());
                later(error) || (may_wait && lost)
            };
            let served = match &pending.request {
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
            let end = match served {
                Served::Done(end) => end,
                Served::Later(end) => {
                    requests.push(pending);
                    end
                }
            };
            if let Some(end) = end {
                requests.extend(waiting);
                return Err(end);
            }
        }
        Ok(())
    }

    fn snapshots(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<SnapshotPair, RequestError> {
        self.open_snapshots(plan, store, at, &self.parked)
            .map_err(|error| match error {
                // The store was restarted, perhaps with older data, while nothing was written: a
                // new session begins at its position.
                SinkError::Store(error) if error.is_retryable() => {
                    if matches!(error, StoreError::PositionMismatch { .. }) {
                        // Waiters must not see what was reached before.
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
                expected: Some(position),
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

    /// Without an open store only a comparison can be served: one is opened for it alone.
    pub(crate) fn serve_detached(&self, requests: &mut Vec<PendingRequest>) {
        for pending in requests.drain(..) {
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
        let followed = store.followed()?.map(|found| found.log_id);
        if let Some(found) = followed.filter(|found| *found != self.log_id) {
            let ours = self.log_id.clone();
            return Err(StoreError::OtherLog { ours, found }.into());
        }
        let at = store.position()?.map(|found| found.position);
        if at.is_none() && self.progress.has_failed() {
            return Err(SinkError::NothingThere {
                name: self.definition.name.clone(),
                fault: Box::new(self.progress.last_error()),
            });
        }
        let parked = ParkedKeys::load(&self.node, &self.definition.name, &plan, at);
        let parked = parked.map_err(|_| self.not_following())?;
        self.open_snapshots(&plan, store.as_mut(), at, &parked)
    }

    fn not_following(&self) -> SinkError {
        let name = self.definition.name.clone();
        let fault = Box::new(self.progress.last_error());
        match self.progress.state() {
            SinkState::Stopped => SinkError::Stopped { name, fault },
            _ => SinkError::Waiting { name, fault },
        }
    }
}

/// With the reason to end the session, if there is one.
enum Served {
    Done(Option<SessionEnd>),
    /// Once more; in a new session when this one ends.
    Later(Option<SessionEnd>),
}

fn answer<T>(
    reply: &Reply<T>,
    done: Result<T, RequestError>,
    later: &dyn Fn(&SinkError) -> bool,
) -> Served {
    let (answer, end) = match done {
        Ok(done) => (Ok(done), None),
        Err(error) if later(error.reported()) => return Served::Later(error.into_parts().1),
        Err(error) => {
            let (reported, end) = error.into_parts();
            (Err(reported), end)
        }
    };
    // The caller may have stopped waiting.
    let _ = reply.try_send(answer);
    Served::Done(end)
}
