//! What the coordinator is asked, free of the versions of Kafka's protocol.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::Protocol;

#[derive(Clone, Debug)]
pub enum Request {
    Join(Join),
    Sync(Sync),
    Heartbeat(Heartbeat),
    Leave(Leave),
    Commit(Commit),
    DeleteGroup { group: String },
    DeleteOffsets(DeleteOffsets),
}

impl Request {
    pub fn group(&self) -> &str {
        match self {
            Self::Join(join) => &join.group,
            Self::Sync(sync) => &sync.group,
            Self::Heartbeat(heartbeat) => &heartbeat.group,
            Self::Leave(leave) => &leave.group,
            Self::Commit(commit) => &commit.group,
            Self::DeleteGroup { group } => group,
            Self::DeleteOffsets(delete) => &delete.group,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Join {
    pub group: String,
    /// Empty where the client has no id yet.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u32,
    pub rebalance_timeout_ms: u32,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    /// Whether the client knows the answer that gives it an id to join with (from version 4 on).
    pub knows_member_id_required: bool,
    /// Whether a client that comes back as leader can be asked not to assign (from version 9 on).
    pub knows_skip_assignment: bool,
    /// A number that no other request has: a part of the member's id where it needs one.
    pub unique: u128,
}

#[derive(Clone, Debug)]
pub struct Sync {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Named from version 5 on, as the protocol's name.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// By member; empty unless the leader sends it.
    pub assignments: BTreeMap<String, Bytes>,
}

#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Leave {
    pub group: String,
    pub members: Vec<LeavingMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// Empty where an instance is to leave, whichever member it is.
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Commit {
    pub group: String,
    /// Negative: of a consumer that is no member.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub offsets: Vec<PartitionOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    pub at: TopicPartition,
    pub offset: i64,
    /// The term of the record before, or -1.
    pub leader_epoch: i32,
    pub metadata: String,
}

#[derive(Clone, Debug)]
pub struct DeleteOffsets {
    pub group: String,
    pub partitions: Vec<TopicPartition>,
    /// Topics that members read, by their metadata: the caller knows its bytes, see
    /// [`Coordinator::metadata`](crate::Coordinator::metadata).
    pub subscribed: BTreeSet<String>,
}
