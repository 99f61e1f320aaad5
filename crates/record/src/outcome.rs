//! What a client is answered.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{JsonText, Offset, Position, Quoted, TableId, TooLarge, TxnId, code};

/// The transaction is in the log: durable, ordered, and what every follower will see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub id: TxnId,
    /// The position right behind it. A reader at or after it sees the transaction.
    pub position: Position,
    /// The offset of its first record. Its writes have consecutive offsets in their order.
    pub first_offset: Offset,
    /// How many records it has, those of unique fields included.
    pub records: u32,
    /// Whether this is the answer to an earlier request under the same id.
    pub repeated: bool,
}

/// What a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `reads[n]`, a point read.
    PointRead(usize),
    /// `range_reads[n]`, a range read.
    RangeRead(usize),
    Guard(usize),
    Write(usize),
}

/// Why an operation could not be carried out on the value that it met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationFault {
    /// The value is not JSON.
    #[error("the value is not a JSON document")]
    NotJson,
    /// The field holds something else than a number.
    #[error("the field holds {0}, not a number")]
    NotANumber(Cow<'static, str>),
    /// The field holds something else than an array.
    #[error("the field holds {0}, not an array")]
    NotAnArray(Cow<'static, str>),
    /// Something on the way to the field is neither an object nor an array that reaches so far.
    #[error(
        "there is no place for the field: something on its path is neither an object nor an array that reaches so far"
    )]
    NoPlace,
    /// One of two whole numbers, or their sum, does not fit 64 bits signed.
    #[error("the sum does not fit a whole number of 64 bits")]
    Overflow,
    /// The sum is not finite.
    #[error("the sum is not a finite number")]
    NotFinite,
    #[error(
        "the calculation would need more than {max} digits, or the exponent of a number has too many",
        max = onelog_decimal::SUM_DIGITS_MAX
    )]
    TooManyDigits,
    /// The operation does not fit the kind of table.
    #[error("{0}")]
    WrongTable(Cow<'static, str>),
    /// The value breaks the table's JSON Schema.
    #[error("the value breaks the table's schema: {0}")]
    Schema(String),
}

/// The transaction is not in the log and never will be because of this request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Something that the client read was written since. Read again at `retry_at` and retry.
    #[error(
        "conflict: key {} of table {table} was written at offset {version}, at or after the read position",
        Quoted(&format!("{key:?}"))
    )]
    Conflict {
        subject: Subject,
        table: TableId,
        key: Bytes,
        version: Offset,
        /// The position to read at for the next try.
        retry_at: Position,
    },
    /// The read position lies below what can still be decided. Read again and retry.
    #[error(
        "the read position {read_position} is too old to be checked; the oldest that can be is {floor}"
    )]
    SnapshotTooOld {
        read_position: Position,
        /// The oldest position that can be decided for every key.
        floor: Position,
    },
    /// The read position lies behind the end of the log.
    #[error("the read position {read_position} lies in the future; the log ends at {latest}")]
    SnapshotInFuture {
        read_position: Position,
        latest: Position,
    },
    /// A guard does not hold.
    #[error("guard {index} does not hold")]
    GuardFailed {
        index: usize,
        /// The value that it met; `None` when the key is not there.
        met: Option<Bytes>,
        version: Option<Offset>,
        /// From this position on the guard's key reads as it was met.
        retry_at: Position,
    },
    /// Another key of the table has the same value in a unique field.
    #[error(
        "field '{field}' must be unique: {} belongs to key {}",
        Quoted(value.as_str()),
        Quoted(&format!("{owner:?}"))
    )]
    NotUnique {
        index: usize,
        field: String,
        value: JsonText,
        owner: Bytes,
    },
    /// A write cannot be carried out on the value that it met.
    #[error("write {index} cannot be carried out: {fault}")]
    BadOperation { index: usize, fault: OperationFault },
    /// The id belongs to another request.
    #[error("the id {id} was used by another request, committed right before position {position}")]
    IdMismatch {
        id: TxnId,
        /// Behind the transaction that has the id.
        position: Position,
    },
    /// The id may have been used so long ago that it is forgotten; running it again could run it twice.
    #[error(
        "the id {id} is older than the window of remembered ids, which begins at {floor}; whether it was committed must be looked up in the log"
    )]
    IdExpired {
        id: TxnId,
        /// Since when ids are remembered.
        floor: Position,
    },
    /// A table that is not there, or no longer.
    #[error("{subject:?} names table {table}, which does not exist")]
    UnknownTable { subject: Subject, table: TableId },
    /// A write to a table of onelog itself.
    #[error(
        "write {index} is for table '{table}', which belongs to onelog itself; it can be read but not written"
    )]
    ReservedTable {
        index: usize,
        table: Cow<'static, str>,
    },
    /// The request is malformed in a way that types do not exclude.
    #[error("{0}")]
    Malformed(String),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The disk is nearly full, so nothing is written until there is room. Nothing was done; reads go
    /// on.
    #[error(
        "the disk is nearly full: {free_bytes} bytes are free, and with less than {needed_bytes} nothing is written; make room, and writes are taken again; reads go on"
    )]
    DiskFull {
        free_bytes: u64,
        /// From how many free bytes on writes are taken.
        needed_bytes: u64,
    },
    /// Too much is waiting. Nothing was done; try again after the delay.
    #[error("overloaded: {reason}; retry in {retry_after_ms} ms")]
    Overloaded {
        reason: Cow<'static, str>,
        retry_after_ms: u64,
    },
    /// No leader of the cluster was found in time. Nothing was done; try again later.
    #[error(
        "the cluster has no leader that this node can reach, so nothing was done; it takes writes again once a majority of its voters is connected, and none once it is removed (onelog cluster shows the members)"
    )]
    NoLeader,
    /// This node does not lead (any more). Whether the transaction took place is not known: repeat
    /// the request under the same id.
    #[error("this node does not lead the cluster now; repeat the request under the same id")]
    NotLeader,
    /// The node is stopping or has failed. Whether the transaction took place is not known: repeat
    /// the request under the same id.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

impl Refusal {
    /// Its stable code, of [`code`].
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => code::CONFLICT,
            Self::SnapshotTooOld { .. } => code::SNAPSHOT_TOO_OLD,
            Self::SnapshotInFuture { .. } => code::POSITION_IN_FUTURE,
            Self::GuardFailed { .. } => code::GUARD_FAILED,
            Self::NotUnique { .. } => code::NOT_UNIQUE,
            Self::BadOperation {
                fault: OperationFault::Schema(_),
                ..
            } => code::SCHEMA,
            Self::BadOperation { .. } => code::BAD_OPERATION,
            Self::IdMismatch { .. } => code::ID_MISMATCH,
            Self::IdExpired { .. } => code::ID_EXPIRED,
            Self::UnknownTable { .. } => code::UNKNOWN_TABLE,
            Self::ReservedTable { .. } => code::RESERVED_TABLE,
            Self::Malformed(_) => code::MALFORMED,
            Self::TooLarge(_) => code::TOO_LARGE,
            Self::DiskFull { .. } => code::DISK_FULL,
            Self::Overloaded { .. } => code::OVERLOADED,
            Self::NoLeader => code::NO_LEADER,
            Self::NotLeader => code::NOT_LEADER,
            Self::Stopped(_) => code::STOPPED,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn one_of_each() -> Vec<Refusal> {
        let (key, version, retry_at) = (Bytes::from_static(b"k"), Offset(5), Position(9));
        let subject = Subject::Write(0);
        let (table, id) = (TableId(1), TxnId(1));
        let operation = |fault| Refusal::BadOperation { index: 0, fault };
        vec![
            Refusal::Conflict {
                subject: subject.clone(),
                table,
                key: key.clone(),
                version,
                retry_at,
            },
            Refusal::SnapshotTooOld {
                read_position: Position(1),
                floor: Position(2),
            },
            Refusal::SnapshotInFuture {
                read_position: Position(2),
                latest: Position(1),
            },
            Refusal::GuardFailed {
                index: 0,
                met: None,
                version: None,
                retry_at,
            },
            Refusal::NotUnique {
                index: 0,
                field: "/a".to_owned(),
                value: serde_json::Value::Null.into(),
                owner: key,
            },
            operation(OperationFault::Overflow),
            operation(OperationFault::Schema("too short".to_owned())),
            Refusal::IdMismatch {
                id,
                position: Position(2),
            },
            Refusal::IdExpired {
                id,
                floor: Position(2),
            },
            Refusal::UnknownTable { subject, table },
            Refusal::ReservedTable {
                index: 0,
                table: "onelog.tables".into(),
            },
            Refusal::Malformed("both".to_owned()),
            Refusal::TooLarge(TooLarge {
                what: "the value".to_owned(),
                limit: "VALUE_BYTES_MAX".into(),
                is: 2,
                max: 1,
                unit: "bytes".into(),
            }),
            Refusal::DiskFull {
                free_bytes: 1,
                needed_bytes: 2,
            },
            Refusal::Overloaded {
                reason: "full".into(),
                retry_after_ms: 1,
            },
            Refusal::NoLeader,
            Refusal::NotLeader,
            Refusal::Stopped("why".to_owned()),
        ]
    }

    #[test]
    fn every_refusal_has_a_code_that_never_changes() {
        let refusals = one_of_each();
        let codes: Vec<_> = refusals.iter().map(Refusal::code).collect();
        assert_eq!(
            codes,
            [
                "conflict",
                "snapshot_too_old",
                "position_in_future",
                "guard_failed",
                "not_unique",
                "bad_operation",
                "schema",
                "id_mismatch",
                "id_expired",
                "unknown_table",
                "reserved_table",
                "malformed",
                "too_large",
                "disk_full",
                "overloaded",
                "no_leader",
                "not_leader",
                "stopped",
            ]
        );
    }
}
