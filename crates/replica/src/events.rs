//! What a driver reports to a replica.

use onelog_engine::Submission;
use onelog_log::{Dropped, FlushError, PrepareError, RetainError};
use onelog_state::{CheckpointError, CheckpointReport};

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

/// Something happened. Messages of peers will be one more kind.
#[derive(Debug)]
pub enum Event<T> {
    /// A client sent a transaction. Only while [`crate::Replica::may_take`] says so.
    Submitted(Box<Request<T>>),
    /// A client wants to read what is linearizable; answered [`crate::Answer::Readable`].
    ReadBarrier(T),
    /// The job [`crate::Job::Flush`] with this number has ended. In any order.
    Flushed {
        number: u64,
        result: Result<(), FlushError>,
    },
    /// The job [`crate::Job::Checkpoint`] has ended.
    Checkpointed(Box<Result<CheckpointReport, CheckpointError>>),
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
