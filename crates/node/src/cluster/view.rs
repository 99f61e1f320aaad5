//! What the engine's thread has made known of the cluster, for everyone else.

use onelog_engine::{Members, PeerProgress};
use onelog_record::NodeId;
use onelog_replica::Role;
use tokio::sync::watch;

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) members: Members,
    /// How far the others are, where this node leads.
    pub(crate) progress: Vec<PeerProgress>,
    /// Whether this node was removed, as it has noticed.
    pub(crate) is_removed: bool,
}

impl View {
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.members.all().contains(&node)
    }

    /// The voter that is to lead when this node no longer does: of those that are heard the one that is
    /// furthest.
    pub(crate) fn successor(&self, of: NodeId) -> Option<NodeId> {
        let voters = self.progress.iter().filter(|peer| {
            peer.node != of && peer.is_active && self.members.voters.contains(&peer.node)
        });
        let best = voters.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.node)));
        best.map(|peer| peer.node)
    }
}

/// One writer changes it; readers look, or wait for a change.
#[derive(Debug)]
pub(crate) struct Views(watch::Sender<View>);

impl Default for Views {
    fn default() -> Self {
        Self(watch::Sender::new(View::default()))
    }
}

impl Views {
    pub(crate) fn get(&self) -> View {
        self.0.borrow().clone()
    }

    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.0.borrow().is_member(node)
    }

    pub(crate) fn role(&self) -> Role {
        self.0.borrow().role
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        self.0.send_modify(change);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.0.subscribe()
    }
}
