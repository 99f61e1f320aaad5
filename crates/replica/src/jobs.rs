//! What a replica wants from its driver.

use onelog_log::{Flush, Prepare, Retain, SaveWatermark};
use onelog_record::{Committed, Position, Refusal};
use onelog_state::{Checkpoint, ReleasedView};

/// Work that blocks and may run on any thread, at any time, beside any other job. The driver MUST
/// run each one and report its end as an [`crate::Event`]. Messages to peers will be one more kind.
#[derive(Debug)]
pub enum Job {
    /// Write a group of entries and make it durable, in a new segment where it is the first of one.
    /// Several at once.
    Flush(Flush),
    /// Write a frozen memtable into the B-tree. One at a time.
    Checkpoint(Checkpoint),
    /// Make the next segment of the log ready. One at a time.
    Prepare(Prepare),
    /// Record that the log's start was cut and remove the files. One at a time.
    Retain(Retain),
    /// Save how far the log is durable. One at a time.
    SaveWatermark(SaveWatermark),
    /// Free memory, by dropping this. Its end is not reported.
    Release(ReleasedView),
}

/// An answer to a client, by the ticket that came with its request.
#[derive(Debug)]
pub enum Answer<T> {
    /// A transaction is committed, or refused. What it rests on is applied already.
    Decided(T, Result<Committed, Refusal>),
    /// A read at this position, which is applied, is linearizable.
    Readable(T, Position),
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
