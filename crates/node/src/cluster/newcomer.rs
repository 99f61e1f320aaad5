//! Whether a node that starts with an empty folder is a new one, or has lost its disk.
//!
//! A node that has lost its disk has lost what it voted for and what it acknowledged: a majority that
//! was one is none any more. So the leader says what it knows of the number:
//!
//! | the number, as the leader knows it after a read barrier | the node |
//! |---|---|
//! | no member | is new, and waits to be added |
//! | a learner that has acknowledged nothing to this leader | is new; or it has lost a log that decided nothing, and gets it again |
//! | a learner that has acknowledged entries | has lost its disk |
//! | a voter | has lost its disk: only a learner that has the log becomes one |
//!
//! Without an answer it does not start: it could be the voter without which nobody leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::{Lane, Reply, RequestError};
use onelog_record::NodeId;

use super::forward::{Forwarding, Leader, read_barrier};
use super::mending::answer_of;
use super::{Cluster, ClusterError, ClusterOptions, wire};
use crate::shared::Shared;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

const NEW: u8 = 1;
const WAS_HERE: u8 = 2;

/// Refuses the empty folder of a node that was here before. Blocks.
pub(super) fn check(cluster: &Cluster, options: &ClusterOptions) -> Result<(), ClusterError> {
    let began = Instant::now();
    let node = options.node;
    let within = ANSWER_TIMEOUT.min(options.start_timeout);
    loop {
        let mut tried = Vec::new();
        for (peer, _) in &options.peers {
            let body = question(node, true);
            let request = cluster
                .peers
                .request(*peer, Lane::Control, wire::NEWCOMER, body, within);
            let why = match answer_of(cluster, request) {
                Ok(answer) if answer[..] == [NEW] => return Ok(()),
                Ok(answer) if answer[..] == [WAS_HERE] => {
                    return Err(ClusterError::NodeDiskLost { node });
                }
                Ok(_) => "it knows of no leader".to_owned(),
                Err(RequestError::Refused) => "it does not answer that".to_owned(),
                Err(error) => error.to_string(),
            };
            tried.push(format!("node {peer}: {why}"));
        }
        if began.elapsed() >= options.start_timeout {
            return Err(ClusterError::NoLeader {
                node,
                seconds: options.start_timeout.as_secs(),
                tried: tried.join("; "),
            });
        }
        cluster.pause(RETRY_PAUSE);
    }
}

/// `node u64 | may_relay u8`.
fn question(node: NodeId, may_relay: bool) -> Bytes {
    wire::numbered(node.get(), &[may_relay.into()])
}

/// A node with an empty folder wants to know whether it is new.
pub(super) fn serve(shared: &Arc<Shared>, bytes: Bytes, reply: Reply) {
    let (Some(cluster), Ok((node, rest))) = (&shared.cluster, wire::split_numbered(bytes)) else {
        return reply.refuse();
    };
    let may_relay = rest.first() == Some(&1);
    let shared = Arc::clone(shared);
    cluster.spawn(async move {
        let answer = answer(&shared, NodeId(node), may_relay).await;
        reply.send(answer.unwrap_or_default());
    });
}

/// What the leader says; `None` where it is not known who leads.
async fn answer(shared: &Arc<Shared>, node: NodeId, may_relay: bool) -> Option<Bytes> {
    let forwarding = Forwarding::new(shared);
    match forwarding.leader().await {
        Leader::Here => {
            // Who the members are is known up to here, and nobody else leads.
            read_barrier(Arc::clone(shared)).await.ok()?;
            let view = shared.cluster.as_ref()?.views.get();
            let mut progress = view.progress.iter();
            let has_acknowledged = progress.any(|peer| peer.node == node && peer.matched.get() > 0);
            let was_here = view.members.is_voter(node) || has_acknowledged;
            let answer = if was_here { WAS_HERE } else { NEW };
            view.role.admits.then(|| Bytes::from(vec![answer]))
        }
        Leader::At(leader, cluster) if may_relay => {
            let body = question(node, false);
            let within = forwarding.left().min(ANSWER_TIMEOUT);
            let request =
                cluster
                    .peers
                    .request(leader, Lane::Control, wire::NEWCOMER, body, within);
            request.await.ok()
        }
        _ => None,
    }
}
