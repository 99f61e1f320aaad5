//! Why a node does not follow, for its own status and for that of the others.
//!
//! Only the node itself knows that its disk is full or that it could not take in a snapshot. It says so
//! to every member and to the leader: when the reason changes, and again each second; an empty text
//! says that it follows. Such a message may be lost, so what was heard counts for a while only.
//!
//! Threads: any sets a reason; a task of the cluster sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::Lane;
use onelog_record::{NodeId, Position};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Cluster, wire};
use crate::shared::Shared;

/// How often a reason is sent again.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long the reason of another node counts.
const HEARD_FOR: Duration = Duration::from_secs(10);
const DISK_FULL: &str = "its disk has no room, so it writes nothing: make room there";

#[derive(Debug, Default)]
pub(super) struct NotFollowing {
    /// Whether this node writes nothing for want of room.
    is_full: AtomicBool,
    refused: Mutex<Option<Refused>>,
    others: Mutex<BTreeMap<NodeId, Heard>>,
    changed: Notify,
}

/// A snapshot was not taken in.
#[derive(Debug)]
struct Refused {
    why: String,
    /// How far this node was then: once it is further, it follows.
    at: Position,
}

#[derive(Debug)]
struct Heard {
    why: String,
    at: Instant,
}

impl NotFollowing {
    pub(super) fn refused(&self, why: &str, at: Position) {
        let why = wire::bounded_reason(why).to_owned();
        *self.refused.lock() = Some(Refused { why, at });
        self.changed.notify_one();
    }

    /// A snapshot was taken in.
    pub(super) fn taken_in(&self) {
        *self.refused.lock() = None;
        self.changed.notify_one();
    }

    fn is_at(&self, position: Position) {
        let mut refused = self.refused.lock();
        if refused
            .as_ref()
            .is_some_and(|refused| position > refused.at)
        {
            *refused = None;
        }
    }

    /// The reason of another node.
    pub(super) fn of(&self, node: NodeId) -> Option<String> {
        let others = self.others.lock();
        let heard = others.get(&node)?;
        (heard.at.elapsed() < HEARD_FOR).then(|| heard.why.clone())
    }

    fn heard(&self, from: NodeId, why: String) {
        let mut others = self.others.lock();
        others.retain(|node, heard| *node != from && heard.at.elapsed() < HEARD_FOR);
        if !why.is_empty() {
            let at = Instant::now();
            others.insert(from, Heard { why, at });
        }
    }
}

impl Cluster {
    /// Whether this node writes nothing for want of room.
    pub(crate) fn is_full(&self) -> bool {
        self.not_following.is_full.load(Ordering::Relaxed)
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        let was_full = self.not_following.is_full.swap(is_full, Ordering::Relaxed);
        if was_full != is_full {
            self.not_following.changed.notify_one();
        }
    }

    /// Why this node does not follow; `None` where it does, or leads.
    pub(crate) fn not_following(&self) -> Option<String> {
        if self.views.role().leads {
            return None;
        }
        let refused = self.not_following.refused.lock();
        let refused = refused.as_ref().map(|refused| refused.why.clone());
        refused.or_else(|| self.is_full().then(|| DISK_FULL.to_owned()))
    }
}

/// Another node says why it does not follow. Of nodes that are no members nothing is kept.
pub(super) fn heard(cluster: &Cluster, from: NodeId, bytes: &Bytes) {
    match wire::decode_reason(bytes) {
        Ok(why) if cluster.views.is_member(from) => cluster.not_following.heard(from, why),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%from, %error, "why another node does not follow is malformed");
        }
    }
}

/// Lets the other nodes know for as long as this one runs.
pub(super) async fn keep_saying(shared: Arc<Shared>) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let mut said = None;
    loop {
        let state = &cluster.not_following;
        state.is_at(shared.applied_position.position());
        let why = cluster.not_following();
        if why.is_some() || said != why {
            send(cluster, why.as_deref().unwrap_or_default());
        }
        said = why;
        let _ = tokio::time::timeout(SEND_EVERY, state.changed.notified()).await;
    }
}

fn send(cluster: &Cluster, why: &str) {
    let view = cluster.views.get();
    // A new node knows of no members before it has the state.
    let mut nodes = view.members.all();
    nodes.extend(view.role.leader);
    for to in nodes {
        let bytes = wire::reason(why);
        if to != cluster.node
            && let Err(error) = (cluster.peers).send(to, Lane::Control, wire::NOT_FOLLOWING, bytes)
        {
            tracing::debug!(%to, %error, "the other node does not hear why this one does not follow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_refused_is_the_reason_until_the_node_is_further() {
        let state = NotFollowing::default();
        let why = |state: &NotFollowing| state.refused.lock().as_ref().map(|r| r.why.clone());
        state.refused("no room", Position(7));
        state.is_at(Position(7));
        assert_eq!(why(&state).as_deref(), Some("no room"));
        state.is_at(Position(8));
        assert_eq!(why(&state), None);
        state.refused("no room", Position(8));
        state.taken_in();
        assert_eq!(why(&state), None);
    }

    #[test]
    fn the_reason_of_another_node_is_its_last_one() {
        let state = NotFollowing::default();
        for why in ["a", "b"] {
            state.heard(NodeId(2), why.to_owned());
            state.heard(NodeId(3), why.to_owned());
        }
        assert_eq!(state.of(NodeId(2)).as_deref(), Some("b"));
        state.heard(NodeId(2), String::new());
        assert_eq!(state.of(NodeId(2)), None);
        assert_eq!(state.of(NodeId(3)).as_deref(), Some("b"));
    }
}
