//! What clients did, what they saw and what they were answered, in real time.
//!
//! Every call takes a moment from one global counter when it begins and another when it ends, so
//! "ended before the other began" is a fact of the history, whatever threads ran it. A recorder
//! belongs to one client; recorders are merged when all is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use onelog_record::{CommitRequest, Committed, KeyRange, Offset, Position, Record, Refusal, TxnId};
use onelog_record::{TableId, Transaction};

/// A moment of the global counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// The global counter. A clone counts on with the same one.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// The next moment. Of two calls of which one returned before the other began, the later one
    /// gets the larger moment.
    #[must_use]
    pub fn tick(&self) -> Moment {
        Moment(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A value as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The offset of the record that wrote it.
    pub version: Offset,
    pub value: Bytes,
}

/// A key that was read, found or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointSeen {
    pub table: TableId,
    pub key: Bytes,
    pub found: Option<Found>,
}

/// A range that was read to its end, with every row of it in ascending order of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSeen {
    pub range: KeyRange,
    pub rows: Vec<(Bytes, Found)>,
}

/// Everything that was seen at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub points: Vec<PointSeen>,
    pub ranges: Vec<RangeSeen>,
}

/// Which position a reader requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    Newest,
    /// One that is at or after this.
    After(Position),
    At(Position),
}

/// How a commit ended for the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Committed(Committed),
    Refused(Refusal),
    /// No answer came, or the client did not listen.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct ReadCall {
    pub client: u32,
    /// When the call began.
    pub begin: Moment,
    /// When the answer was there.
    pub end: Moment,
    pub requested: Requested,
    /// The position of the snapshot.
    pub position: Position,
    pub seen: Seen,
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub struct CommitCall {
    pub client: u32,
    pub begin: Moment,
    /// When the answer was there; `None` when none came.
    pub end: Option<Moment>,
    pub id: TxnId,
    pub request: CommitRequest,
    /// What its declared reads had seen at its read position.
    pub seen: Seen,
    pub answer: Answer,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub reads: Vec<ReadCall>,
    pub commits: Vec<CommitCall>,
}

impl History {
    /// Adds what another recorder has.
    pub fn merge(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.commits.extend(other.commits);
    }
}

/// A transaction as it was read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub id: TxnId,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// The position right behind it.
    pub end: Position,
    /// The timestamp of its entry.
    pub timestamp_ms: u64,
    pub records: Vec<Record>,
}

impl Logged {
    /// A transaction of an entry with this timestamp.
    pub fn read(
        transaction: &Transaction,
        timestamp_ms: u64,
    ) -> Result<Self, onelog_record::BodyError> {
        Ok(Self {
            timestamp_ms,
            id: transaction.id,
            first_offset: transaction.first_offset,
            end: Position(transaction.first_offset.0 + u64::from(transaction.record_count)),
            records: transaction.records().collect::<Result<_, _>>()?,
        })
    }
}

impl From<onelog::LogTransaction> for Logged {
    fn from(transaction: onelog::LogTransaction) -> Self {
        Self {
            id: transaction.id,
            first_offset: transaction.first_offset,
            end: transaction.end,
            timestamp_ms: transaction.timestamp_ms,
            records: transaction.records,
        }
    }
}
