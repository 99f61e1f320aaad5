//! What has to survive a restart.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Protocol, TopicPartition};

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    PutGroup {
        group: String,
        record: GroupRecord,
    },
    DeleteGroup {
        group: String,
    },
    PutMember {
        group: String,
        member: String,
        record: MemberRecord,
    },
    DeleteMember {
        group: String,
        member: String,
    },
    PutOffset {
        group: String,
        at: TopicPartition,
        record: OffsetRecord,
    },
    DeleteOffset {
        group: String,
        at: TopicPartition,
    },
}

/// A generation of a group that is stable or empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    pub generation: i32,
    pub protocol_type: Option<String>,
    /// None where the group is empty.
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// Since when the group is empty, in milliseconds since 1970.
    pub emptied_at: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u32,
    pub rebalance_timeout_ms: u32,
    /// The generation in which the member joined: that of the group, or an older one of an instance
    /// that is away.
    pub joined: i32,
    pub protocols: Vec<Protocol>,
    #[serde(with = "crate::row::in_base64")]
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetRecord {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    /// In milliseconds since 1970.
    pub committed_at: i64,
}
