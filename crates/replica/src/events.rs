//! What a driver reports to a replica.

use onelog_engine::{FetchId, MemberChange, Message, Submission};
use onelog_log::{Dropped, FlushError, PrepareError, ReadError, RetainError};
use onelog_record::{Entry, NodeId};
use onelog_state::CheckpointError;

use crate::digests::DigestAt;
use crate::jobs::Checkpointed;
use crate::read_replica::FromSource;
use crate::snapshots::ArrivedSnapshot;

/// The time, as the driver reads it. A replica reads no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since any fixed moment. Never goes back; every interval is measured by it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970. May jump; it only stamps entries and ages them for retention.
    pub unix_ms: u64,
}

/// A transaction to be decided.
#[derive(Debug)]
pub struct Request<T> {
    pub submission: Submission<T>,
    /// When it entered the driver's queue, by [`Now::monotonic_ms`].
    pub queued_at_ms: u64,
    /// What it counts in the driver's queue.
    pub bytes: usize,
}

/// Something happened.
#[derive(Debug)]
pub enum Event<T> {
    /// A client sent a transaction. Only while [`crate::Replica::may_take`] says so.
    Submitted(Box<Request<T>>),
    /// A client wants to read what is linearizable; answered [`crate::Answer::Readable`].
    ReadBarrier(T),
    /// Other members are wanted; answered [`crate::Answer::Members`] when they are in force.
    ChangeMembers(T, Vec<MemberChange>),
    /// Another voter is to lead; answered [`crate::Answer::Transferred`] when it does.
    Transfer(T, NodeId),
    /// A peer's message came. Any of them may get lost or come again. One that announces a snapshot
    /// comes as [`Event::Snapshot`].
    Message(Box<Message>),
    /// The job [`crate::Job::Fetch`] of this number has ended.
    Fetched {
        id: FetchId,
        result: Result<Vec<Entry>, ReadError>,
    },
    /// A leader's snapshot is here, whole.
    Snapshot(Box<ArrivedSnapshot>),
    /// The server that this read replica follows has brought something.
    FromSource(Box<FromSource>),
    /// The job [`crate::Job::SendSnapshot`] for this node has ended: whether the snapshot is there.
    SnapshotSent { to: NodeId, is_whole: bool },
    /// Another node has made checkpoints with these digests.
    Digests {
        from: NodeId,
        digests: Vec<DigestAt>,
    },
    /// A message to this node could not be sent.
    Unreachable(NodeId),
    /// The job [`crate::Job::Flush`] with this number has ended. In any order.
    Flushed {
        number: u64,
        result: Result<(), FlushError>,
    },
    /// The job [`crate::Job::Checkpoint`] has ended.
    Checkpointed(Box<Result<Checkpointed, CheckpointError>>),
    /// The job [`crate::Job::Prepare`] has ended.
    Prepared(Result<(), PrepareError>),
    /// The job [`crate::Job::Retain`] has ended.
    Retained(Result<Vec<Dropped>, RetainError>),
    /// The job [`crate::Job::SaveWatermark`] has ended.
    WatermarkSaved(std::io::Result<()>),
    /// So many bytes can still be written to the disk that has less of them.
    FreeSpace(u64),
    /// Nothing else has happened for a while: time for what may wait.
    Idle,
    /// No further request will come. Those that came are still decided and answered.
    Stop,
}

impl<T> Event<T> {
    /// Whether a job on the files of log or state has ended.
    pub(crate) const fn is_job_end(&self) -> bool {
        matches!(
            self,
            Self::Flushed { .. }
                | Self::Checkpointed(_)
                | Self::Prepared(_)
                | Self::Retained(_)
                | Self::WatermarkSaved(_)
        )
    }
}
