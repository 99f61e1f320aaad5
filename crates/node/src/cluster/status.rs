//! The cluster as one node sees it, for people and for dashboards.

use onelog_record::NodeId;
use serde::Serialize;

use super::Cluster;

/// A node and its cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The number of this node.
    pub node: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// The highest term that was heard of.
    pub term: u64,
    /// Who leads in it, where that is known.
    pub leader: Option<u64>,
    /// Whether this node leads, and decides requests.
    pub leads: bool,
    /// Whether this node is a member; a new one waits to be added.
    pub is_member: bool,
    /// Whether a change of the members goes on.
    pub is_changing: bool,
    /// Whether other nodes refuse this one because it was removed.
    pub is_removed: bool,
    /// Whether this node writes nothing because its disk has no room, and so falls behind, or leads where
    /// no other voter can.
    pub disk_full: bool,
    /// Why this node has not become a member, or a voter, where it requests that itself.
    pub join_error: Option<String>,
    /// Why this node does not follow the leader: its disk has no room, or it could not take in a snapshot.
    pub not_following: Option<String>,
    /// How many damaged frames of this node's log were put back from other nodes since its start.
    pub mended_frames: u64,
    pub members: Vec<MemberStatus>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    pub node: u64,
    /// Whether it votes; else it only follows.
    pub is_voter: bool,
    /// Where it is reached, as far as this node knows.
    pub address: Option<String>,
    /// Whether this node is connected to it.
    pub is_connected: bool,
    /// Why this node is not connected to it.
    pub last_error: Option<String>,
    /// Where another process says that it is this node too: this node refuses it.
    pub other_address: Option<String>,
    /// On the leader: up to which entry it has the log.
    pub matched: Option<u64>,
    /// On the leader: whether it was heard of lately.
    pub is_active: Option<bool>,
    /// On the leader: whether it is being sent a snapshot.
    pub takes_snapshot: Option<bool>,
    /// Why it does not follow the leader, as it said itself lately.
    pub not_following: Option<String>,
}

impl ClusterStatus {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let view = cluster.views.get();
        let figures = cluster.peers.figures();
        let not_following = cluster.not_following();
        let member = |node: NodeId| {
            let is_me = node == cluster.node;
            let progress = view.progress.iter().find(|peer| peer.node == node);
            let connection = figures.peers.iter().find(|peer| peer.node == node);
            let incoming = figures.incoming.iter().filter(|from| from.node == node);
            let lanes = connection.map(|peer| &peer.lanes);
            let is_connected =
                lanes.is_some_and(|lanes| lanes.iter().all(|lane| lane.is_connected));
            let error = lanes.and_then(|lanes| {
                let mut errors = lanes.iter().filter_map(|lane| lane.last_error.clone());
                errors.next()
            });
            MemberStatus {
                node: node.get(),
                is_voter: view.members.is_voter(node),
                address: match is_me {
                    true => Some(cluster.own_address.clone()),
                    false => cluster.addresses.get(node),
                },
                is_connected: is_me || is_connected,
                last_error: error.filter(|_| !is_connected),
                other_address: incoming.filter_map(|from| from.other.clone()).next(),
                matched: progress.map(|peer| peer.matched.get()),
                is_active: progress.map(|peer| peer.is_active),
                takes_snapshot: progress.map(|peer| peer.takes_snapshot),
                not_following: match is_me {
                    true => not_following.clone(),
                    false => cluster.not_following.of(node),
                },
            }
        };
        Self {
            node: cluster.node.get(),
            address: cluster.own_address.clone(),
            term: view.role.term.get(),
            leader: view.role.leader.map(NodeId::get),
            leads: view.role.admits,
            is_member: view.is_member(cluster.node),
            is_changing: view.members.is_changing(),
            is_removed: cluster.is_removed(),
            disk_full: cluster.is_full(),
            join_error: cluster.join_error.lock().clone(),
            mended_frames: cluster.mending.mended(),
            members: view.members.all().into_iter().map(member).collect(),
            not_following,
        }
    }
}
