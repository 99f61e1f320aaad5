//! What the engine's thread has made known of the cluster, for everyone else.

use std::time::Instant;

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
    /// Since when nobody is known to lead.
    leaderless_since: Option<Instant>,
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
        Self(watch::Sender::new(View {
            leaderless_since: Some(Instant::now()),
            ..View::default()
        }))
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
        self.0.send_modify(|view| {
            change(view);
            view.leaderless_since = match view.role.leader {
                Some(_) => None,
                None => Some(view.leaderless_since.unwrap_or_else(Instant::now)),
            };
        });
    }

    /// For how long nobody has been known to lead, in milliseconds.
    pub(crate) fn leaderless_ms(&self) -> u32 {
        let since = self.0.borrow().leaderless_since;
        let ms = since.map_or(0, |since| since.elapsed().as_millis());
        u32::try_from(ms).unwrap_or(u32::MAX)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_nobody_has_led_is_counted_until_one_does() {
        let views = Views::default();
        let since = |views: &Views| views.get().leaderless_since;
        // Given a node that knows no leader, and hears other things,
        let first = since(&views);
        views.change(|view| view.is_removed = false);
        assert!(first.is_some());
        assert_eq!(since(&views), first);
        // when one leads, then nothing is counted,
        views.change(|view| view.role.leader = Some(NodeId(2)));
        assert_eq!((since(&views), views.leaderless_ms()), (None, 0));
        // and from the moment on in which none does, it is again.
        views.change(|view| view.role.leader = None);
        assert!(since(&views) > first);
    }
}
