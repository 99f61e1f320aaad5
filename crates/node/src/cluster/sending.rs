//! Messages of Raft on their way to other nodes.

use std::collections::BTreeSet;

use onelog_engine::Message;
use onelog_peers::Lane;
use onelog_record::NodeId;
use onelog_replica::DigestAt;

use super::{Cluster, wire};

/// Says to the other members which digests this node's checkpoints have. What gets lost comes again
/// with the next checkpoint.
pub(crate) fn send_digests(cluster: &Cluster, digests: &[DigestAt]) {
    let bytes = wire::digests(digests);
    for to in cluster.views.get().members.all() {
        if to != cluster.node
            && let Err(error) = cluster
                .peers
                .send(to, Lane::Control, wire::DIGESTS, bytes.clone())
        {
            tracing::debug!(%to, %error, "digests are not compared");
        }
    }
}

/// Sends messages, in order. Answers to whom one could not be sent: that node is to be reported as
/// unreachable.
pub(crate) fn send(cluster: &Cluster, messages: Vec<Message>) -> BTreeSet<NodeId> {
    let mut unreachable = BTreeSet::new();
    for message in messages {
        let to = message.to();
        // What is behind something that was dropped is of no use, and would be refused there.
        if message.has_entries() && unreachable.contains(&to) {
            continue;
        }
        let bytes = message.encode();
        let lane = match message.has_entries() || bytes.len() > Lane::Control.bytes_max() {
            true => Lane::Bulk,
            false => Lane::Control,
        };
        let sent = cluster.peers.send(to, lane, wire::RAFT, bytes.into());
        if let Err(error) = sent {
            tracing::debug!(%to, %error, "a message is dropped");
            unreachable.insert(to);
        }
    }
    unreachable
}
