//! The cluster that a node is in, and changes of its members.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node and its cluster, in the node's status.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cluster {
    /// The number of this node.
    node: u64,
    /// Where other nodes reach it.
    address: String,
    term: u64,
    /// The number of the node that leads, where that is known.
    #[schema(required)]
    leader: Option<u64>,
    /// Whether this node leads, and decides transactions.
    leads: bool,
    /// Whether it is a member; a new node waits to be added.
    is_member: bool,
    /// Whether a change of the members goes on.
    is_changing: bool,
    /// Whether other nodes refuse this one because it was removed.
    is_removed: bool,
    /// Whether this node writes nothing because its disk has no room.
    disk_full: bool,
    /// Why this node has not become a member, or a voter, where it requests that itself.
    #[schema(required)]
    join_error: Option<String>,
    /// Why this node does not follow the leader: its disk has no room, or it could not take in a snapshot.
    #[schema(required)]
    not_following: Option<String>,
    /// How many damaged frames of its log this node has put back from other nodes since its start.
    mended_frames: u64,
    members: Vec<Member>,
}

/// A node of the cluster.
#[derive(Debug, Serialize, ToSchema)]
struct Member {
    node: u64,
    /// Whether it votes; else it only follows.
    is_voter: bool,
    /// Where it is reached, as far as this node knows.
    #[schema(required)]
    address: Option<String>,
    /// Whether this node is connected to it.
    is_connected: bool,
    /// Why this node is not connected to it.
    #[schema(required)]
    last_error: Option<String>,
    /// Where another process says that it is this node too, and is refused by the node that answers: one
    /// of the two has the wrong number. Left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_address: Option<String>,
    /// On the leader: up to which entry it has the log.
    #[schema(required)]
    matched: Option<u64>,
    /// On the leader: whether it was heard of lately.
    #[schema(required)]
    is_active: Option<bool>,
    /// On the leader: whether it is being sent a snapshot.
    #[schema(required)]
    takes_snapshot: Option<bool>,
    /// Why it does not follow the leader, as it said itself in the last seconds.
    #[schema(required)]
    not_following: Option<String>,
}

/// The cluster as this node sees it. A node that is alone is its only member.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(
    json!({"alone": true, "node": 1, "address": null, "term": null, "leader": 1, "leads": true,
        "is_member": true, "is_changing": false, "is_removed": false, "disk_full": false,
        "join_error": null, "not_following": null, "mended_frames": 0,
        "members": [{"node": 1, "is_voter": true, "address": null, "is_connected": true,
            "last_error": null, "matched": null, "is_active": null, "takes_snapshot": null,
            "not_following": null}]}),
    json!({"alone": false, "node": 2, "address": "127.0.0.1:7172", "term": 3, "leader": 1,
        "leads": false, "is_member": true, "is_changing": false, "is_removed": false,
        "disk_full": false, "join_error": null, "not_following": null, "mended_frames": 0,
        "members": [{"node": 1, "is_voter": true, "address": "127.0.0.1:7171",
            "is_connected": true, "last_error": null, "matched": null, "is_active": null,
            "takes_snapshot": null, "not_following": null},
            {"node": 2, "is_voter": true, "address": "127.0.0.1:7172", "is_connected": true,
            "last_error": null, "matched": null, "is_active": null, "takes_snapshot": null,
            "not_following": null}]}),
))]
pub struct ClusterView {
    /// Whether this node was started without a number: it is in no cluster.
    alone: bool,
    /// The number of this node.
    node: u64,
    /// Where other nodes reach it; `null` where it is alone.
    #[schema(required)]
    address: Option<String>,
    /// The highest term that was heard of; `null` where the node is alone.
    #[schema(required)]
    term: Option<u64>,
    /// The number of the node that leads, where that is known.
    #[schema(required)]
    leader: Option<u64>,
    /// Whether this node leads, and decides transactions.
    leads: bool,
    /// Whether it is a member; a new node waits to be added.
    is_member: bool,
    /// Whether a change of the members goes on.
    is_changing: bool,
    /// Whether other nodes refuse this one because it was removed.
    is_removed: bool,
    /// Whether this node writes nothing because its disk has no room.
    disk_full: bool,
    /// Why this node has not become a member, or a voter, where it requests that itself.
    #[schema(required)]
    join_error: Option<String>,
    /// Why this node does not follow the leader: its disk has no room, or it could not take in a snapshot.
    #[schema(required)]
    not_following: Option<String>,
    /// How many damaged frames of its log this node has put back from other nodes since its start.
    mended_frames: u64,
    members: Vec<Member>,
}

/// A node that becomes a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"node": 2, "address": "127.0.0.1:7172"})))]
pub struct NewMember {
    /// Its number, which was never used before.
    pub node: u64,
    /// Where the other nodes reach it, `HOST:PORT`.
    pub address: String,
}

/// The node that is to lead from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"node": 2})))]
pub struct NewLeader {
    /// The number of a voter.
    pub node: u64,
}

impl From<onelog::ClusterStatus> for Cluster {
    fn from(cluster: onelog::ClusterStatus) -> Self {
        Self {
            node: cluster.node,
            address: cluster.address,
            term: cluster.term,
            leader: cluster.leader,
            leads: cluster.leads,
            is_member: cluster.is_member,
            is_changing: cluster.is_changing,
            is_removed: cluster.is_removed,
            disk_full: cluster.disk_full,
            join_error: cluster.join_error,
            not_following: cluster.not_following,
            mended_frames: cluster.mended_frames,
            members: cluster.members.into_iter().map(Member::from).collect(),
        }
    }
}

impl From<onelog::MemberStatus> for Member {
    fn from(member: onelog::MemberStatus) -> Self {
        Self {
            node: member.node,
            is_voter: member.is_voter,
            address: member.address,
            is_connected: member.is_connected,
            last_error: member.last_error,
            other_address: member.other_address,
            matched: member.matched,
            is_active: member.is_active,
            takes_snapshot: member.takes_snapshot,
            not_following: member.not_following,
        }
    }
}

impl ClusterView {
    /// `cluster` is `None` where the node is alone; `leads` says whether it decides transactions.
    pub fn new(cluster: Option<onelog::ClusterStatus>, leads: bool) -> Self {
        match cluster.map(Cluster::from) {
            None => Self::alone(leads),
            Some(cluster) => Self {
                alone: false,
                node: cluster.node,
                address: Some(cluster.address),
                term: Some(cluster.term),
                leader: cluster.leader,
                leads: cluster.leads,
                is_member: cluster.is_member,
                is_changing: cluster.is_changing,
                is_removed: cluster.is_removed,
                disk_full: cluster.disk_full,
                join_error: cluster.join_error,
                not_following: cluster.not_following,
                mended_frames: cluster.mended_frames,
                members: cluster.members,
            },
        }
    }

    fn alone(leads: bool) -> Self {
        const NODE: u64 = 1;
        let member = Member {
            node: NODE,
            is_voter: true,
            address: None,
            is_connected: true,
            last_error: None,
            other_address: None,
            matched: None,
            is_active: None,
            takes_snapshot: None,
            not_following: None,
        };
        Self {
            alone: true,
            node: NODE,
            address: None,
            term: None,
            leader: leads.then_some(NODE),
            leads,
            is_member: true,
            is_changing: false,
            is_removed: false,
            disk_full: false,
            join_error: None,
            not_following: None,
            mended_frames: 0,
            members: vec![member],
        }
    }
}
