//! A node becomes a member by its own request.
//!
//! It sends the request to any member that it is connected to, which hands it to the leader like any
//! change of the members. Only a node of the same log is taken, under the number with which it is
//! connected (a certificate is for one number), and none whose removal has begun. Repeating it changes
//! nothing, so the node requests again until it is what it wants to be, and at each start makes sure
//! that its address is recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onelog_peers::{Lane, Reply as PeerReply, RequestError};
use onelog_record::NodeId;
use serde::{Deserialize, Serialize};

use super::change::{Change, Changed, MembersChangeError, change};
use super::forward::REQUEST_TIMEOUT;
use super::{Cluster, Join, refresh, wire};
use crate::shared::Shared;

/// The pause before another request, unless members or leader change before.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a member may take, which has [`REQUEST_TIMEOUT`] for the leader.
const ANSWER_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(2));

/// How often it is looked whether this node was removed, unless members or leader change before.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The request as it travels: JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct JoinRequest {
    /// As status shows it.
    log_id: String,
    address: String,
}

/// Why a node is not yet what it wants to be.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Refused(#[from] MembersChangeError),
    #[error("no member is connected")]
    NotConnected,
    #[error("node {node} did not answer: {source}")]
    Unanswered { node: NodeId, source: RequestError },
    #[error("node {0} answers as no version of onelog does that is known here")]
    Unreadable(NodeId),
}

impl Cluster {
    /// Whether this node was removed: it has applied that, or other nodes say it, and none that it leads
    /// or follows.
    pub(crate) fn is_removed(&self) -> bool {
        let is_member = self.views.is_member(self.node);
        if !is_member && self.addresses.is_removed(self.node, is_member) {
            return true;
        }
        if self.views.role().leader.is_some() {
            return false;
        }
        let peers = self.peers.figures().peers;
        let mut lanes = peers.iter().flat_map(|peer| &peer.lanes);
        lanes.any(|lane| lane.is_not_admitted)
    }
}

/// Makes known that this node was removed. Nobody tells it: those that are left no longer talk to it.
pub(crate) async fn notice_removal(shared: Arc<Shared>) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let mut views = cluster.views.subscribe();
    loop {
        let is_removed = cluster.is_removed();
        if views.borrow_and_update().is_removed != is_removed {
            cluster.views.change(|view| view.is_removed = is_removed);
        }
        let _ = tokio::time::timeout(LOOK_EVERY, views.changed()).await;
    }
}

/// Requests until this node is what it wants to be, or was removed.
pub(crate) async fn join(shared: Arc<Shared>, wanted: Join) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let mut views = cluster.views.subscribe();
    loop {
        views.borrow_and_update();
        let done = attempt(&shared, cluster, wanted).await;
        let error = match done {
            Ok(true) => break,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let is_final = matches!(
            error,
            Some(JoinError::Refused(MembersChangeError::Removed(_)))
        );
        say(cluster, error.as_ref());
        if is_final {
            return;
        }
        let _ = tokio::time::timeout(PAUSE, views.changed()).await;
    }
    say(cluster, None);
    tracing::info!(node = %cluster.node, ?wanted, "this node has joined the cluster");
}

/// Each reason is logged once.
fn say(cluster: &Cluster, error: Option<&JoinError>) {
    let text = error.map(ToString::to_string);
    let mut said = cluster.join_error.lock();
    if *said == text {
        return;
    }
    said.clone_from(&text);
    drop(said);
    if let Some(text) = text {
        tracing::warn!(node = %cluster.node, "this node has not joined the cluster yet: {text}");
    }
}

/// Does the next step. Whether nothing is left to do.
async fn attempt(shared: &Arc<Shared>, cluster: &Cluster, wanted: Join) -> Result<bool, JoinError> {
    let me = cluster.node;
    if cluster.is_removed() {
        return Err(MembersChangeError::Removed(me.get()).into());
    }
    refresh(shared, cluster);
    let view = cluster.views.get();
    let recorded = cluster.addresses.record(me);
    let is_recorded = recorded.is_some_and(|found| found.address == cluster.own_address);
    if !view.is_member(me) || !is_recorded {
        let add = Change::Add {
            node: me.get(),
            address: cluster.own_address.clone(),
            is_own: true,
        };
        match view.is_member(me) {
            // It knows who leads.
            true => change(Arc::clone(shared), add).await?,
            false => request(shared, cluster).await?,
        }
        return Ok(false);
    }
    if wanted == Join::Learner || view.members.is_voter(me) {
        return Ok(true);
    }
    change(Arc::clone(shared), Change::Promote { node: me.get() }).await?;
    Ok(false)
}

/// Sends the request to one member after the other.
async fn request(shared: &Shared, cluster: &Cluster) -> Result<(), JoinError> {
    let request = JoinRequest {
        log_id: log_id(shared),
        address: cluster.own_address.clone(),
    };
    let bytes = Bytes::from(serde_json::json!(request).to_string());
    let mut error = JoinError::NotConnected;
    for node in connected(cluster) {
        let sent = cluster.peers.request(
            node,
            Lane::Control,
            wire::JOIN,
            bytes.clone(),
            ANSWER_TIMEOUT,
        );
        error = match sent.await {
            Ok(answer) => match serde_json::from_slice::<Changed>(&answer) {
                Ok(Ok(())) => return Ok(()),
                // That one may not see the leader; another one may.
                Ok(Err(refused @ MembersChangeError::NoLeader)) => refused.into(),
                Ok(Err(refused)) => return Err(refused.into()),
                Err(_) => JoinError::Unreadable(node),
            },
            Err(source) => JoinError::Unanswered { node, source },
        };
    }
    Err(error)
}

fn connected(cluster: &Cluster) -> BTreeSet<NodeId> {
    let peers = cluster.peers.figures().peers;
    let connected = peers.into_iter().filter(|peer| {
        let mut lanes = peer.lanes.iter();
        lanes.all(|lane| lane.is_connected)
    });
    connected.map(|peer| peer.node).collect()
}

fn log_id(shared: &Shared) -> String {
    format!("{:032x}", shared.log_id)
}

/// Another node requests to become a member.
pub(crate) fn serve(shared: Arc<Shared>, from: NodeId, bytes: Bytes, reply: PeerReply) {
    let Ok(request) = serde_json::from_slice::<JoinRequest>(&bytes) else {
        return reply.refuse();
    };
    if request.log_id != log_id(&shared) {
        return reply.refuse();
    }
    let job_of = Arc::clone(&shared);
    if let Some(cluster) = &shared.cluster {
        cluster.spawn(async move {
            let add = Change::Add {
                node: from.get(),
                address: request.address,
                is_own: true,
            };
            let answer = change(job_of, add).await;
            reply.send(Bytes::from(serde_json::json!(answer).to_string()));
        });
    }
}
