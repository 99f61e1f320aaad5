//! What is asked of a sink's thread, and what it answers.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{Position, Snapshot};
use onelog_mapping::Plan;
use onelog_store::{StoreError, StoreReader};

use crate::error::{SinkError, SinkFault};
use crate::parking::Parked;
use crate::session_end::SessionEnd;

/// How long somebody who asks waits for a sink that is too far behind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a runner is reported. The sender is answered when it has been heard.
pub(crate) enum Command {
    Pause(SyncSender<()>),
    Resume(SyncSender<()>),
    Rebuild(SyncSender<()>),
    Request(Request),
    Remove,
    /// End, because another thread goes on with the sink: whoever waits for it waits on.
    Leave,
    Stop,
}

/// Both sides at one position.
pub(crate) struct SnapshotPair {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Box<dyn StoreReader>,
    pub(crate) log: Snapshot,
    /// The keys that are parked, by mapping: their rows may be old.
    pub(crate) parked: Vec<std::collections::HashSet<Bytes>>,
}

/// Keys of the log with the numbers of their mappings.
pub(crate) type Keys = Vec<(usize, Bytes)>;

/// Which parked keys are replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// All.
    All,
    /// These: table of the store, key of the log.
    Keys(Vec<(String, Bytes)>),
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Replayed {
    /// The sink.
    pub sink: String,
    /// The store has the newest images of the replayed keys at this position.
    pub position: Position,
    /// How many keys the store has taken.
    pub replayed: u64,
    /// Those that it still refuses, with its new words.
    pub remaining: Vec<Parked>,
}

/// An answer, once.
pub(crate) type Reply<T> = SyncSender<Result<T, SinkError>>;

/// Something asked.
pub(crate) enum Request {
    Snapshots(Reply<SnapshotPair>),
    /// Writes the rows of these keys again; answers how many.
    Repair(Keys, Reply<u64>),
    Replay(Replay, Reply<Replayed>),
}

/// Something asked that waits for its turn.
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
}

/// Something asked was not done; perhaps the session ends with it.
pub(crate) struct Failed(pub(crate) Box<Failure>);

pub(crate) struct Failure {
    pub(crate) reported: SinkError,
    pub(crate) end: Option<SessionEnd>,
}

impl From<SinkError> for Failed {
    fn from(reported: SinkError) -> Self {
        Self::new(reported, None)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let end = match error {
            StoreError::Refused(_) => None,
            _ => Some(SessionEnd::of(&error)),
        };
        Self::new(error.into(), end)
    }
}

/// The session ends, and whoever asked is reported why.
impl From<SessionEnd> for Failed {
    fn from(end: SessionEnd) -> Self {
        let fault = match &end {
            SessionEnd::Exit => SinkFault::new("it was reported to end"),
            SessionEnd::Retry(fault) | SessionEnd::Stop(fault) => fault.clone(),
        };
        let reported = SinkError::Failed {
            fault: Box::new(fault),
        };
        Self::new(reported, Some(end))
    }
}

impl Failed {
    fn new(reported: SinkError, end: Option<SessionEnd>) -> Self {
        Self(Box::new(Failure { reported, end }))
    }

    /// For a session that cannot go on without what was not done.
    pub(crate) fn into_session_end(self) -> SessionEnd {
        match (self.0.end, self.0.reported) {
            (Some(end), _) => end,
            (None, SinkError::Store(error)) => SessionEnd::of(&error),
            (None, reported) => SessionEnd::Stop(SinkFault::new(reported)),
        }
    }
}

impl Pending {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            deadline: Instant::now() + PATIENCE,
        }
    }
}
