//! What comes out: answers to requests, and records to be stored.

use bytes::Bytes;

use crate::{ErrorCode, LeavingMember, Record, Token, TopicPartition};

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The one answer to a request.
    Answer { token: Token, answer: Answer },
    /// To be stored in one step, after what came before. Each is reported with
    /// [`Coordinator::stored`](crate::Coordinator::stored), in this order.
    Store(Vec<Record>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
    Heartbeat(ErrorCode),
    Leave(LeaveAnswer),
    Commit(CommitAnswer),
    DeleteGroup(ErrorCode),
    DeleteOffsets(DeleteOffsetsAnswer),
}

#[derive(Clone, Debug, PartialEq)]
pub struct JoinAnswer {
    pub error: ErrorCode,
    /// -1 where the join is refused.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    /// The leader is to go on with the assignment that there is.
    pub skip_assignment: bool,
    pub member_id: String,
    /// The leader gets all of them, others none.
    pub members: Vec<JoinedMember>,
}

impl JoinAnswer {
    pub(crate) fn error(member_id: impl Into<String>, error: ErrorCode) -> Answer {
        Answer::Join(Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    pub error: ErrorCode,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl SyncAnswer {
    pub(crate) fn error(error: ErrorCode) -> Answer {
        Answer::Sync(Self {
            error,
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeaveAnswer {
    pub error: ErrorCode,
    /// In the order of the request.
    pub members: Vec<(LeavingMember, ErrorCode)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PartitionAnswer {
    pub at: TopicPartition,
    pub error: ErrorCode,
}

/// In the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitAnswer {
    pub partitions: Vec<PartitionAnswer>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeleteOffsetsAnswer {
    pub error: ErrorCode,
    /// In the order of the request; none with an error.
    pub partitions: Vec<PartitionAnswer>,
}

impl DeleteOffsetsAnswer {
    pub(crate) fn error(error: ErrorCode) -> Answer {
        Answer::DeleteOffsets(Self {
            error,
            partitions: Vec::new(),
        })
    }
}
