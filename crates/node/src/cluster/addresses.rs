//! Where the members are reached.
//!
//! A node's address comes, in this order, from the node itself, which says it when it connects; from the
//! table `onelog.nodes`, where the leader writes it when the node is added; from this node's
//! configuration. A node that was removed stays in the table: its number is not used again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_record::{CommitRequest, KeyRange, NodeId, Operation, TABLE_NODES, Write};
use onelog_state::ReadError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Cluster;
use crate::shared::Shared;

/// How often it is looked for addresses that have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many addresses are remembered that nodes say of themselves.
pub(crate) const GREETED_MAX: usize = 64;

/// How long a node that is no member any more stays connected: requests of its clients, and its own to
/// be removed, are with the others still, and are answered.
const PARTING: Duration = Duration::from_secs(1);

/// A row of `onelog.nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) address: String,
    /// Whether it was a member and is none any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
    /// Whether its removal has begun: from then on it is no member again by its own request, whatever
    /// becomes of the leader that removes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) leaving: bool,
}

/// What is known of addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: Mutex<Known>,
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    configured: BTreeMap<NodeId, String>,
    recorded: BTreeMap<NodeId, NodeRecord>,
    /// As the nodes say themselves.
    greeted: BTreeMap<NodeId, String>,
    /// Whom this node connects to.
    connected: BTreeSet<NodeId>,
    /// Whose connections end then.
    parting: BTreeMap<NodeId, Instant>,
}

impl Known {
    fn is_removed(&self, node: NodeId, is_member: bool) -> bool {
        let found = self.recorded.get(&node);
        found.is_some_and(|found| found.removed || found.leaving && !is_member)
    }

    fn address(&self, node: NodeId) -> Option<&String> {
        let recorded = self.recorded.get(&node).map(|found| &found.address);
        let greeted = self.greeted.get(&node);
        greeted.or(recorded).or(self.configured.get(&node))
    }

    /// From now on this node connects to `wanted`. Whose connections are to end now.
    fn connect_to(&mut self, wanted: BTreeSet<NodeId>, now: Instant) -> Vec<NodeId> {
        self.parting.retain(|node, _| !wanted.contains(node));
        for gone in self.connected.difference(&wanted) {
            self.parting.insert(*gone, now + PARTING);
        }
        self.connected = wanted;
        let due = self.parting.iter().filter(|(_, at)| **at <= now);
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        self.parting.retain(|_, at| *at > now);
        due
    }
}

impl Addresses {
    pub(crate) fn new(configured: &[(NodeId, String)]) -> Self {
        let known = Known {
            configured: configured.iter().cloned().collect(),
            ..Known::default()
        };
        Self {
            known: Mutex::new(known),
            changed: Notify::new(),
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<String> {
        self.known.lock().address(node).cloned()
    }

    pub(crate) fn record(&self, node: NodeId) -> Option<NodeRecord> {
        self.known.lock().recorded.get(&node).cloned()
    }

    pub(crate) fn is_removed(&self, node: NodeId, is_member: bool) -> bool {
        self.known.lock().is_removed(node, is_member)
    }

    /// A node says where it is. Whether it may connect.
    pub(crate) fn greeted(&self, node: NodeId, address: &str, is_member: bool) -> bool {
        let mut known = self.known.lock();
        if known.is_removed(node, is_member) {
            return false;
        }
        let has_room = known.greeted.len() < GREETED_MAX || known.greeted.contains_key(&node);
        let is_new = known.greeted.get(&node).is_none_or(|old| old != address);
        if has_room && is_new {
            known.greeted.insert(node, address.to_owned());
            drop(known);
            self.changed.notify_one();
        }
        true
    }

    /// Takes another number's place in no list: what the log says of the nodes.
    fn recorded(&self, rows: BTreeMap<NodeId, NodeRecord>) {
        self.known.lock().recorded = rows;
    }

    /// Connects to the members, to those that are configured, and, while this node is no member, to
    /// those that have called it; to none that was removed.
    fn connect(&self, cluster: &Cluster) {
        let view = cluster.views.get();
        let me = cluster.node;
        let mut known = self.known.lock();
        let mut wanted: BTreeSet<NodeId> = view.members.all();
        wanted.extend(known.configured.keys());
        if !wanted.contains(&me) || view.role.leader.is_none() {
            wanted.extend(known.greeted.keys());
        }
        wanted.extend(view.role.leader);
        wanted.retain(|node| *node != me && !known.is_removed(*node, view.is_member(*node)));
        for node in &wanted {
            let Some(address) = known.address(*node) else {
                continue;
            };
            if let Err(error) = cluster.peers.set(*node, address) {
                tracing::warn!(%node, address, %error, "a node cannot be connected to");
            }
        }
        let due = known.connect_to(wanted, Instant::now());
        drop(known);
        for gone in due {
            cluster.peers.remove(gone);
        }
    }

    fn look_within(&self) -> Duration {
        match self.known.lock().parting.is_empty() {
            true => LOOK_EVERY,
            false => PARTING,
        }
    }
}

/// The rows of `onelog.nodes`.
pub(crate) fn read(shared: &Shared) -> Result<BTreeMap<NodeId, NodeRecord>, ReadError> {
    let all = KeyRange {
        table: TABLE_NODES,
        from: Bytes::new(),
        to: None,
    };
    let mut found = BTreeMap::new();
    for row in shared.state.snapshot().scan(&all, false)? {
        let row = row?;
        let number = std::str::from_utf8(&row.key).ok();
        let number = number.and_then(|text| text.parse().ok());
        let record = serde_json::from_slice(&row.value);
        if let (Some(number), Ok(record)) = (number, record) {
            found.insert(NodeId(number), record);
        }
    }
    Ok(found)
}

/// The transaction that records nodes.
pub(crate) fn recording(rows: &[(NodeId, NodeRecord)]) -> CommitRequest {
    let writes = rows.iter().map(|(node, record)| Write {
        table: TABLE_NODES,
        key: Bytes::from(node.get().to_string()),
        operation: Operation::Put(serde_json::json!(record).to_string().into()),
        headers: Vec::new(),
    });
    CommitRequest {
        writes: writes.collect(),
        ..CommitRequest::default()
    }
}

/// Reads the table and connects accordingly.
pub(crate) fn refresh(shared: &Shared, cluster: &Cluster) {
    match read(shared) {
        Ok(rows) => cluster.addresses.recorded(rows),
        Err(error) => tracing::warn!(%error, "the addresses of the nodes cannot be read"),
    }
    cluster.addresses.connect(cluster);
}

/// Looks after the addresses for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    loop {
        let changed = cluster.addresses.changed.notified();
        let _ = tokio::time::timeout(cluster.addresses.look_within(), changed).await;
        refresh(&shared, cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_removal_has_begun_counts_as_removed_once_it_is_no_member() {
        let record = |removed, leaving| NodeRecord {
            address: "a:1".to_owned(),
            removed,
            leaving,
        };
        let addresses = Addresses::new(&[]);
        let rows = [
            (NodeId(1), record(false, false)),
            (NodeId(2), record(false, true)),
            (NodeId(3), record(true, false)),
        ];
        addresses.recorded(rows.into());
        let found = |is_member| {
            let all = [1, 2, 3, 4].map(NodeId);
            all.map(|node| addresses.is_removed(node, is_member))
        };
        assert_eq!(found(true), [false, false, true, false]);
        assert_eq!(found(false), [false, true, true, false]);
        assert!(!addresses.greeted(NodeId(2), "a:1", false));
    }

    #[test]
    fn a_node_that_is_no_member_any_more_stays_connected_for_a_moment() {
        let nodes = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        let mut known = Known::default();
        let now = Instant::now();
        assert!(known.connect_to(nodes(&[1, 2, 3]), now).is_empty());
        assert!(known.connect_to(nodes(&[1, 2]), now).is_empty());
        // One that is wanted again stays.
        assert!(known.connect_to(nodes(&[1]), now).is_empty());
        assert!(known.connect_to(nodes(&[1, 2]), now).is_empty());
        let then = now + PARTING;
        assert_eq!(known.connect_to(nodes(&[1, 2]), then), [NodeId(3)]);
        assert!(known.connect_to(nodes(&[1, 2]), then).is_empty());
    }

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let row: NodeRecord = serde_json::from_str(r#"{"address":"a:1"}"#).unwrap();
        assert!(!row.removed && !row.leaving);
        assert_eq!(serde_json::json!(row).to_string(), r#"{"address":"a:1"}"#);
    }
}
