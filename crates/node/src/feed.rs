//! The log and the state for a read replica of this node: what is applied here, and nothing else.
//! Nothing is kept for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onelog_log::ReadError;
use onelog_log::stream::{self, Pulse};
use onelog_record::{Index, Position};
use onelog_state::{Export, ExportError};

use crate::Node;
use crate::applied_position::WaitError;
use crate::cluster::read_mended;
use crate::shared::Shared;

/// How often a checkpoint is pinned again whose place the log has lost meanwhile.
const PINS_TRIED: usize = 3;

/// The log cannot be sent from there on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("the source has the log {here:032x}, and {wanted:032x} is followed")]
    OtherLog { here: u128, wanted: u128 },
    #[error(
        "entry {index} has the checksum {here:#010x} at the source, and {theirs:#010x} at the read replica: the two have different histories of one log"
    )]
    OtherHistory {
        index: Index,
        here: u32,
        theirs: u32,
    },
    #[error("the source does not have entry {index} yet, its last one is {applied}")]
    Behind { index: Index, applied: Index },
    #[error(
        "the source's log no longer has what follows entry {index}, it starts at position {log_start}"
    )]
    Cut { index: Index, log_start: Position },
    #[error("the source cannot read its log: {0}")]
    Read(#[from] ReadError),
}

/// A checkpoint cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("the state cannot be read: {0}")]
    State(#[from] onelog_state::ReadError),
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    #[error("no checkpoint of which the log has the last entry was found: request it again")]
    Overtaken,
}

/// The log behind an entry, for one read replica.
#[derive(Debug)]
pub struct LogFeed {
    shared: Arc<Shared>,
    /// The last entry that was sent, and its checksum.
    behind: Index,
    checksum: u32,
}

/// A checkpoint that is kept for as long as this lives.
#[derive(Debug)]
pub struct PinnedState {
    index: Index,
    head: Bytes,
    export: Export,
}

impl PinnedState {
    #[must_use]
    pub const fn index(&self) -> Index {
        self.index
    }

    /// Its head, as it travels.
    #[must_use]
    pub fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// The piece at a cursor, as it travels. Reads files; blocks.
    pub fn chunk(&self, cursor: &[u8]) -> Result<Vec<u8>, ExportError> {
        self.export.chunk(cursor)
    }
}

impl Node {
    /// The log behind the entry at `behind`, whose frame has the checksum, for a read replica. Reads
    /// files; blocks.
    pub fn feed(&self, log_id: u128, behind: Index, checksum: u32) -> Result<LogFeed, FeedError> {
        let shared = &self.shared;
        if log_id != shared.log_id {
            return Err(FeedError::OtherLog {
                here: shared.log_id,
                wanted: log_id,
            });
        }
        let applied = shared.applied_index();
        if behind > applied {
            return Err(FeedError::Behind {
                index: behind,
                applied,
            });
        }
        let place = read_mended(shared, || shared.reader.place(behind))?;
        let Some(place) = place else {
            return Err(FeedError::Cut {
                index: behind,
                log_start: shared.log_start(),
            });
        };
        if place.checksum != checksum {
            return Err(FeedError::OtherHistory {
                index: behind,
                here: place.checksum,
                theirs: checksum,
            });
        }
        Ok(LogFeed {
            shared: Arc::clone(shared),
            behind,
            checksum,
        })
    }

    /// Keeps the last checkpoint for a read replica; `None` where there is none yet. Reads files;
    /// blocks.
    pub fn pin_state(&self) -> Result<Option<PinnedState>, PinError> {
        for _ in 0..PINS_TRIED {
            let export = self.shared.state.export()?;
            let index = export.applied().index;
            if index == Index::ZERO {
                return Ok(None);
            }
            let place = read_mended(&self.shared, || self.shared.reader.place(index))?;
            if let Some(place) = place {
                let head = export.head(place.checksum).encode().into();
                return Ok(Some(PinnedState {
                    index,
                    head,
                    export,
                }));
            }
        }
        Err(PinError::Overtaken)
    }
}

impl LogFeed {
    /// What the stream begins with.
    #[must_use]
    pub fn start(&self) -> [u8; stream::START_BYTES] {
        stream::encode_start(self.shared.log_id, self.behind)
    }

    /// A sign of life, which says how far this node is.
    #[must_use]
    pub fn pulse(&self) -> [u8; stream::PULSE_BYTES] {
        let age_ms = match (&self.shared.following, &self.shared.cluster) {
            (Some(following), _) => following.age_ms(),
            (None, Some(cluster)) => cluster.views.leaderless_ms(),
            (None, None) => 0,
        };
        stream::encode_pulse(Pulse {
            age_ms,
            applied: self.shared.applied_index(),
            position: self.shared.applied_position.position(),
        })
    }

    /// The next entries as they travel: about `max_bytes` of them, unpacked, and at least one; nothing
    /// where all that is applied was sent. Reads files; blocks.
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<u8>, FeedError> {
        let shared = &self.shared;
        let (from, to) = (self.behind.next(), shared.applied_index().next());
        if from >= to {
            return Ok(Vec::new());
        }
        let read = || shared.reader.entries(from, to, max_bytes);
        let entries = read_mended(shared, read).map_err(|error| match error {
            ReadError::Cut { start, .. } => FeedError::Cut {
                index: self.behind,
                log_start: start,
            },
            other => other.into(),
        })?;
        let mut out = Vec::new();
        for entry in entries {
            self.checksum = stream::encode_entry(&entry, self.checksum, &mut out);
            self.behind = entry.index;
        }
        Ok(out)
    }

    /// Waits until there is more to read; `TimedOut` is no error of the feed.
    pub async fn wait(&self, within: Duration) -> Result<(), WaitError> {
        let applied = &self.shared.applied_position;
        let has_more = || match self.shared.applied_index() > self.behind {
            true => Some(Ok(())),
            false => applied.is_stopped().then_some(Err(WaitError::Stopped)),
        };
        let waited = applied.until(has_more, within).await;
        waited.unwrap_or_else(|| {
            Err(WaitError::TimedOut {
                position: applied.position(),
            })
        })
    }
}
