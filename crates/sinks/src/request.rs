//! Requests to a sink's thread, and their answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{Position, Snapshot};
use onelog_mapping::Plan;
use onelog_store::{StoreError, StoreReader, VerifyError};
use serde_json::Value;

use crate::error::{SinkError, SinkFault};
use crate::lifecycle::Leave;
use crate::parking::Parked;
use crate::session_end::SessionEnd;
use crate::stored::TableIds;

/// How long a request waits for a sink that is too far behind.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sender is answered when the command has been received.
pub(crate) enum Command {
    Pause(SyncSender<()>),
    Resume(SyncSender<()>),
    /// With the tables that the sink follows from now on.
    Rebuild {
        tables: TableIds,
        may_delete: bool,
        reply: SyncSender<()>,
    },
    Request(Request),
    Leave(Leave),
}

/// Work for a moment between two batches, when the store is exactly at a position.
pub(crate) enum Request {
    Snapshots(Reply<SnapshotPair>),
    /// Writes the rows of these keys again; answers how many.
    Repair(Keys, Reply<u64>),
    Replay(Replay, Reply<Replayed>),
}

pub(crate) type Reply<T> = SyncSender<Result<T, SinkError>>;

/// Keys of the log with the numbers of their mappings.
pub(crate) type Keys = Vec<(usize, Bytes)>;

/// The store and the log at one position.
pub(crate) struct SnapshotPair {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Box<dyn StoreReader>,
    pub(crate) log: Snapshot,
    /// The keys that are parked, by mapping: their rows may be old.
    pub(crate) parked: Vec<HashSet<Bytes>>,
}

/// Which parked keys are replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Every parked key of the sink.
    All,
    /// These: table of the store, key of the log.
    Keys(Vec<(String, Bytes)>),
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Replayed {
    pub sink: String,
    /// The store has the newest images of the replayed keys at this position.
    pub position: Position,
    /// How many keys the store has taken.
    pub replayed: u64,
    /// Those that it still refuses, with the new message.
    pub remaining: Vec<Parked>,
    /// Those that were named and are not parked: table of the store, key of the log.
    pub not_parked: Vec<(String, Value)>,
}

/// A request that waits for its turn.
pub(crate) struct PendingRequest {
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
}

impl PendingRequest {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            deadline: Instant::now() + PATIENCE,
        }
    }
}

/// A request was not served; perhaps the session ends with it.
pub(crate) struct RequestError(Box<(SinkError, Option<SessionEnd>)>);

impl From<SinkError> for RequestError {
    fn from(reported: SinkError) -> Self {
        Self::new(reported, None)
    }
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        let end = match error {
            StoreError::Refused(_) => None,
            _ => Some(SessionEnd::of(&error)),
        };
        Self::new(error.into(), end)
    }
}

/// The session ends, and the reason is answered.
impl From<SessionEnd> for RequestError {
    fn from(end: SessionEnd) -> Self {
        let fault = Box::new(end.fault().clone());
        Self::new(SinkError::Failed { fault }, Some(end))
    }
}

impl RequestError {
    fn new(reported: SinkError, end: Option<SessionEnd>) -> Self {
        Self(Box::new((reported, end)))
    }

    pub(crate) const fn reported(&self) -> &SinkError {
        &self.0.0
    }

    pub(crate) fn into_parts(self) -> (SinkError, Option<SessionEnd>) {
        *self.0
    }

    /// For a session that cannot go on without what was not done.
    pub(crate) fn into_session_end(self) -> SessionEnd {
        match self.into_parts() {
            (_, Some(end)) => end,
            (SinkError::Store(error), None) => SessionEnd::of(&error),
            (given_up @ SinkError::Verify(VerifyError::Stopped), None) => {
                SessionEnd::Retry(SinkFault::new(given_up))
            }
            (reported, None) => SessionEnd::Stop(SinkFault::new(reported)),
        }
    }
}
