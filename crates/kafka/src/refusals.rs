//! Refusals as Kafka's error codes. What can pass gets a code on which clients try again.

use kafka_protocol::error::ResponseError;
use onelog_record::Refusal;

/// A batch that is not in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub error: ResponseError,
    /// Which record is at fault, by its place in the batch.
    pub record: Option<usize>,
    pub message: Option<String>,
}

impl Refused {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            record: None,
            message: Some(message.into()),
        }
    }

    /// A fault of one record.
    pub fn record(record: usize, message: impl Into<String>) -> Self {
        Self {
            record: Some(record),
            ..Self::new(ResponseError::InvalidRecord, message)
        }
    }
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self {
            error,
            record: None,
            message: None,
        }
    }
}

/// What a client is answered whose transaction was refused.
pub fn refused(refusal: &Refusal) -> Refused {
    let error = match refusal {
        Refusal::NotUnique { index, .. } | Refusal::BadOperation { index, .. } => {
            return Refused::record(*index, refusal.to_string());
        }
        Refusal::UnknownTable { .. } => ResponseError::UnknownTopicOrPartition,
        // The other request under its id has the same numbers of its producer.
        Refusal::IdMismatch { .. } => ResponseError::OutOfOrderSequenceNumber,
        Refusal::IdExpired { .. } => ResponseError::UnknownProducerId,
        // Java's client sends such a batch again in halves.
        Refusal::TooLarge(_) => ResponseError::MessageTooLarge,
        Refusal::DiskFull { .. } => ResponseError::KafkaStorageError,
        Refusal::Overloaded { .. } => ResponseError::NotEnoughReplicas,
        Refusal::NoLeader => ResponseError::LeaderNotAvailable,
        Refusal::NotLeader | Refusal::Stopped(_) => ResponseError::NotLeaderOrFollower,
        Refusal::Conflict { .. }
        | Refusal::SnapshotTooOld { .. }
        | Refusal::SnapshotInFuture { .. }
        | Refusal::GuardFailed { .. }
        | Refusal::ReservedTable { .. }
        | Refusal::Malformed(_) => ResponseError::InvalidRequest,
    };
    Refused::new(error, refusal.to_string())
}
