//! What a replica wants from its driver.

use onelog_engine::{Fetch, FetchId, Members, MembersError, Message};
use onelog_log::{Flush, LogReader, Prepare, ReadError, Retain, SaveWatermark};
use onelog_record::{Committed, Entry, NodeId, Position, Refusal};
use onelog_state::{Checkpoint, CheckpointError, CheckpointReport, ReleasedView};

use crate::snapshots::SendSnapshot;

/// A checkpoint, and a look at what the log has at its place, which reads a file.
#[derive(Debug)]
pub struct CheckpointJob {
    pub(crate) checkpoint: Checkpoint,
    /// Where there are other nodes to compare with.
    pub(crate) log: Option<LogReader>,
}

/// A checkpoint was made.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointed {
    pub(crate) report: CheckpointReport,
    /// The checksum of the log's last frame at the checkpoint's place.
    pub(crate) chain: Option<u32>,
}

impl CheckpointJob {
    /// # Errors
    /// When the checkpoint was not made.
    pub fn run(self) -> Result<Checkpointed, CheckpointError> {
        let report = self.checkpoint.run()?;
        // A frame that cannot be read is mended where it is needed.
        let look = |log: LogReader| log.chain_at(report.position).ok().flatten();
        let chain = self.log.and_then(look);
        Ok(Checkpointed { report, chain })
    }
}

/// Work that blocks and may run on any thread, at any time, beside any other job. The driver MUST
/// run each one and report its end as an [`crate::Event`].
#[derive(Debug)]
pub enum Job {
    /// Write a group of entries and make it durable, in a new segment where it is the first of one.
    /// Several at once.
    Flush(Flush),
    /// Write a frozen memtable into the B-tree. One at a time.
    Checkpoint(CheckpointJob),
    /// Make the next segment of the log ready. One at a time.
    Prepare(Prepare),
    /// Record that the log's start was cut and remove the files. One at a time.
    Retain(Retain),
    /// Save how far the log is durable. One at a time.
    SaveWatermark(SaveWatermark),
    /// Free memory, by dropping this. Its end is not reported.
    Release(ReleasedView),
    /// Send these to the nodes that they are for, of which any may be lost: what cannot be sent is
    /// reported as [`crate::Event::Unreachable`], and nothing else is.
    Send(Vec<Message>),
    /// Read entries of the log for a follower. Several at once.
    Fetch(ReadForFollower),
    /// Send the last checkpoint to a follower. One at a time for each.
    SendSnapshot(Box<SendSnapshot>),
}

/// Entries of the log that a follower lacks.
#[derive(Debug)]
pub struct ReadForFollower {
    pub(crate) fetch: Fetch,
    pub(crate) reader: LogReader,
}

impl ReadForFollower {
    /// By what [`crate::Event::Fetched`] names it.
    #[must_use]
    pub const fn id(&self) -> FetchId {
        self.fetch.id
    }

    /// Reads them; none where the log no longer has them. Blocks.
    ///
    /// # Errors
    /// When the log is damaged or the disk fails.
    pub fn run(&self) -> Result<Vec<Entry>, ReadError> {
        let Fetch {
            indexes, bytes_max, ..
        } = &self.fetch;
        match self.reader.entries(indexes.start, indexes.end, *bytes_max) {
            Err(ReadError::Cut { .. }) => Ok(Vec::new()),
            read => read,
        }
    }
}

/// An answer to a client, by the ticket that came with its request.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// A transaction is committed, or refused. What it rests on is applied already. Also the refusal
    /// of a read barrier.
    Decided(T, Result<Committed, Refusal>),
    /// A read at this position, which is applied, is linearizable.
    Readable(T, Position),
    /// These are the members now; or the change is not possible, or not known to have been made.
    Members(T, Result<Members, MembersError>),
    /// The other voter leads; or it does not.
    Transferred(T, Result<(), TransferError>),
}

/// The leadership was not handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Members(#[from] MembersError),
    /// It did not take the leadership in time, or another one was faster.
    #[error("node {0} did not take over the leadership; try again when it has caught up")]
    NotTaken(NodeId),
}

/// What one call requests of the driver, each list in order. The driver MUST take all of it before it
/// waits for anything, and also when the call failed.
#[derive(Debug)]
pub struct Outbox<T> {
    pub jobs: Vec<Job>,
    pub answers: Vec<Answer<T>>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            answers: Vec::new(),
        }
    }
}
