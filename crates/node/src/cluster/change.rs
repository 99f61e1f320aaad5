//! Changes of the members, and of who leads: requested on any node, carried out by the leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onelog_engine::{MemberChange, MembersError};
use onelog_peers::{Lane, Reply as PeerReply};
use onelog_record::{CommitRequest, NodeId, Refusal};
use onelog_replica::{READ_REPLICA, TransferError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::addresses::{NodeRecord, recording};
use super::forward::{Forwarding, Leader, REQUEST_TIMEOUT};
use super::reply::Reply;
use super::view::View;
use super::{Cluster, wire};
use crate::driver::Command;
use crate::open::new_id;
use crate::shared::Shared;

/// The members are not changed, or it is not known that they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersChangeError {
    /// The node takes part in no cluster.
    #[error("this node is alone: start it with the options of a cluster")]
    Alone,
    /// No attempt has reached a leader, so nothing was done.
    #[error(
        "no leader of the cluster was found in time: nothing was changed; see which nodes run, and whether a majority of the voters is connected"
    )]
    NoLeader,
    /// A leader that took the change gave no answer.
    #[error(
        "no leader of the cluster answered in time, and the change may have been made: look at the members, then request it again where it is missing"
    )]
    Unknown,
    #[error("another change of the members is under way; try again when it has ended")]
    UnderWay,
    #[error("it would leave no voter")]
    NoVoter,
    /// Who would be left could commit nothing.
    #[error(
        "without node {node} the cluster could commit nothing: of the {voters} voters that would be left {live} are connected, and {majority} must be. Start the others first, or remove those that are lost; force the removal only when they are about to come back"
    )]
    MajorityLost {
        node: u64,
        voters: usize,
        live: usize,
        majority: usize,
    },
    #[error("there would be too many members: {0}")]
    TooMany(usize),
    #[error("node {0} is no member")]
    NoMember(u64),
    /// Only a voter can lead.
    #[error("node {0} is a learner, and only a voter can lead: promote it first")]
    NoVoterYet(u64),
    /// Numbers are not used again.
    #[error(
        "node {0} was removed, and numbers are not used again: join with an empty folder under a new number"
    )]
    Removed(u64),
    #[error("'{0}' is no address of a node: HOST:PORT is")]
    Address(String),
    #[error("a node's number is from 1 to {}", u64::MAX - 1)]
    NodeNumber,
    /// A voter that lacks much of the log could hold up every commit.
    #[error(
        "node {node} is not ready to vote: it lacks entries {from} to {to}; try again when it has caught up"
    )]
    NotCaughtUp { node: u64, from: u64, to: u64 },
    #[error("node {0} did not take over the leadership; try again when it has caught up")]
    NotTaken(u64),
    /// The address could not be recorded.
    #[error("the node could not be recorded: {0}")]
    NotRecorded(String),
    #[error("the node has stopped")]
    Stopped,
}

impl From<MembersError> for MembersChangeError {
    fn from(error: MembersError) -> Self {
        match error {
            MembersError::UnderWay => Self::UnderWay,
            MembersError::NoVoter => Self::NoVoter,
            MembersError::TooMany(count) => Self::TooMany(count),
            MembersError::NoMember(node)
            | MembersError::Twice(node)
            | MembersError::Reserved(node) => Self::NoMember(node.get()),
            MembersError::NotLeader | MembersError::NoChange => Self::NoLeader,
        }
    }
}

impl From<TransferError> for MembersChangeError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Members(error) => error.into(),
            TransferError::NotTaken(node) => Self::NotTaken(node.get()),
        }
    }
}

/// What is requested of the leader, as it travels: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Add {
        node: u64,
        address: String,
        /// Whether the node itself requests it: then one whose removal has begun is refused.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_own: bool,
    },
    Promote {
        node: u64,
    },
    Remove {
        node: u64,
        /// Whether it is removed though the rest could commit nothing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    Transfer {
        node: u64,
    },
}

pub(super) type Changed = Result<(), MembersChangeError>;

/// How far a learner may be behind to become a voter.
const BEHIND_MAX: u64 = 1_000;
/// How long a change waits for the one before.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a removal waits for the voters that would be left to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Has the leader make a change.
pub(crate) async fn change(shared: Arc<Shared>, change: Change) -> Changed {
    let mut forwarding = Forwarding::new(&shared);
    let bytes = Bytes::from(serde_json::json!(change).to_string());
    loop {
        let answer = match forwarding.leader().await {
            Leader::Here => Some(lead(&shared, change.clone()).await),
            Leader::At(node, cluster) => {
                let within = forwarding.left();
                let sent = cluster.peers.request(
                    node,
                    Lane::Control,
                    wire::MEMBERS,
                    bytes.clone(),
                    within,
                );
                let answer = forwarding.while_leading(node, sent).await;
                let answer = forwarding.heard(answer);
                answer.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            }
            Leader::None if is_own_removal(&shared, &change) => return Ok(()),
            Leader::None => return Err(given_up(&forwarding)),
        };
        match answer {
            Some(Err(MembersChangeError::Unknown)) => forwarding.is_perhaps_done(),
            Some(Err(MembersChangeError::NoLeader)) | None => {}
            // An earlier attempt has removed it.
            Some(Err(MembersChangeError::NoMember(_)))
                if forwarding.may_be_done() && matches!(change, Change::Remove { .. }) =>
            {
                return Ok(());
            }
            Some(answer) => return answer,
        }
        forwarding.pause().await;
    }
}

/// Whether this node was to be removed, and was: the answer may have got lost with its connections.
fn is_own_removal(shared: &Shared, change: &Change) -> bool {
    let Some(cluster) = &shared.cluster else {
        return false;
    };
    let me = cluster.node.get();
    matches!(change, Change::Remove { node, .. } if *node == me) && cluster.views.get().is_removed
}

const fn given_up(forwarding: &Forwarding<'_>) -> MembersChangeError {
    match forwarding.may_be_done() {
        true => MembersChangeError::Unknown,
        false => MembersChangeError::NoLeader,
    }
}

/// Another node requests a change.
pub(crate) fn serve(shared: Arc<Shared>, bytes: Bytes, reply: PeerReply) {
    let Ok(change) = serde_json::from_slice::<Change>(&bytes) else {
        return reply.refuse();
    };
    let job_of = Arc::clone(&shared);
    if let Some(cluster) = &shared.cluster {
        cluster.spawn(async move {
            let answer = lead(&job_of, change).await;
            reply.send(Bytes::from(serde_json::json!(answer).to_string()));
        });
    }
}

/// Makes a change, where this node leads.
async fn lead(shared: &Arc<Shared>, change: Change) -> Changed {
    let Some(cluster) = &shared.cluster else {
        return Err(MembersChangeError::Alone);
    };
    // Not before everything is applied that former leaders have recorded of the nodes.
    if !cluster.views.role().admits {
        return Err(MembersChangeError::NoLeader);
    }
    let making = Making { shared, cluster };
    if let Change::Promote { node } = change {
        making.wait_until_caught_up(NodeId(node)).await?;
    }
    let turn = tokio::time::timeout(TURN_TIMEOUT, cluster.changing.lock());
    let _turn = turn.await.map_err(|_| MembersChangeError::UnderWay)?;
    match change {
        Change::Add {
            node,
            address,
            is_own,
        } => making.add(NodeId(node), address, is_own).await,
        Change::Promote { node } => making.promote(NodeId(node)).await,
        Change::Remove { node, force } => making.remove(NodeId(node), force).await,
        Change::Transfer { node } => making.transfer(NodeId(node)).await,
    }
}

struct Making<'s> {
    shared: &'s Arc<Shared>,
    cluster: &'s Cluster,
}

impl Making<'_> {
    /// Records where the node is, then lets it follow.
    async fn add(&self, node: NodeId, address: String, is_own: bool) -> Changed {
        if node == NodeId::ZERO || node == READ_REPLICA {
            return Err(MembersChangeError::NodeNumber);
        }
        super::refresh(self.shared, self.cluster);
        let is_member = self.cluster.views.is_member(node);
        let before = self.cluster.addresses.record(node);
        let is_leaving = before.as_ref().is_some_and(|before| before.leaving);
        if self.cluster.addresses.is_removed(node, is_member) || is_own && is_leaving {
            return Err(MembersChangeError::Removed(node.get()));
        }
        let is_recorded = before.is_some_and(|before| before.address == address);
        if is_member && is_recorded && !is_leaving {
            return Ok(());
        }
        let is_me = node == self.cluster.node;
        if !is_me && self.cluster.peers.set(node, &address).is_err() {
            return Err(MembersChangeError::Address(address));
        }
        let record = |address| NodeRecord {
            address,
            ..NodeRecord::default()
        };
        let mut rows = vec![(node, record(address))];
        // Those that were there before addresses were recorded: the founder above all.
        for member in self.cluster.views.get().members.all() {
            // A log that was restored from a backup has those of another cluster.
            let recorded = self.cluster.addresses.record(member);
            let is_recorded = recorded.is_some_and(|known| {
                let is_own = known.address == self.cluster.own_address;
                !known.removed && (member != self.cluster.node || is_own)
            });
            let address = match member == self.cluster.node {
                true => Some(self.cluster.own_address.clone()),
                false => self.cluster.addresses.get(member),
            };
            if let Some(address) = address.filter(|_| !is_recorded && member != node) {
                rows.push((member, record(address)));
            }
        }
        self.record(&rows).await?;
        if self.cluster.views.get().is_member(node) {
            return Ok(());
        }
        self.propose(MemberChange::Learner(node)).await
    }

    /// Whether the node is a learner; a voter has nothing to wait for.
    fn is_learner(&self, node: NodeId) -> Result<bool, MembersChangeError> {
        let members = self.cluster.views.get().members;
        match (
            members.voters.contains(&node),
            members.learners.contains(&node),
        ) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(MembersChangeError::NoMember(node.get())),
        }
    }

    async fn promote(&self, node: NodeId) -> Changed {
        match self.is_learner(node)? {
            true => self.propose(MemberChange::Voter(node)).await,
            false => Ok(()),
        }
    }

    async fn wait_until_caught_up(&self, node: NodeId) -> Changed {
        if !self.is_learner(node)? {
            return Ok(());
        }
        let last = self.shared.applied_index().get();
        let has_caught_up = |view: &super::View| {
            let peer = view.progress.iter().find(|peer| peer.node == node);
            peer.is_some_and(|peer| {
                peer.matched.get() > 0 && peer.matched.get() + BEHIND_MAX >= last
            })
        };
        let mut views = self.cluster.views.subscribe();
        let waited = tokio::time::timeout(REQUEST_TIMEOUT / 2, views.wait_for(has_caught_up));
        if waited.await.is_err() {
            let progress = self.cluster.views.get().progress;
            let peer = progress.iter().find(|peer| peer.node == node);
            let from = peer.map_or(1, |peer| peer.matched.get() + 1);
            return Err(MembersChangeError::NotCaughtUp {
                node: node.get(),
                from,
                to: last,
            });
        }
        Ok(())
    }

    /// Removes a node, and records that its number is used up.
    async fn remove(&self, node: NodeId, force: bool) -> Changed {
        let view = self.cluster.views.get();
        if !force {
            self.check_majority_without(node, &view).await?;
        }
        if node == self.cluster.node && view.members.voters.len() > 1 {
            // Another one removes it: a leader that is no member could not commit its own removal.
            let Some(next) = view.successor(node) else {
                return Err(MembersChangeError::NotTaken(node.get()));
            };
            self.transfer(next).await?;
            return Err(MembersChangeError::NoLeader);
        }
        let is_member = view.is_member(node);
        let recorded = self.cluster.addresses.record(node);
        let address = recorded.as_ref().map(|record| record.address.clone());
        let address = address.or_else(|| self.cluster.addresses.get(node));
        let address = address.unwrap_or_default();
        if is_member {
            let leaving = NodeRecord {
                address: address.clone(),
                removed: false,
                leaving: true,
            };
            self.record(&[(node, leaving)]).await?;
            self.propose(MemberChange::Remove(node)).await?;
        } else if recorded.as_ref().is_none_or(|record| record.removed) {
            return Err(MembersChangeError::NoMember(node.get()));
        }
        let removed = NodeRecord {
            address,
            removed: true,
            leaving: false,
        };
        self.record(&[(node, removed)]).await?;
        super::refresh(self.shared, self.cluster);
        Ok(())
    }

    /// The voters that would be left must be able to commit, and some of them may be lost already.
    async fn check_majority_without(&self, node: NodeId, view: &View) -> Changed {
        let mut left = view.members.voters.clone();
        if !left.remove(&node) || left.is_empty() {
            return Ok(());
        }
        let (voters, majority) = (left.len(), left.len() / 2 + 1);
        let look = async {
            while self.live(&left) < majority {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, look).await {
            Ok(()) => Ok(()),
            Err(_) => Err(MembersChangeError::MajorityLost {
                node: node.get(),
                voters,
                live: self.live(&left),
                majority,
            }),
        }
    }

    /// How many of the nodes are connected, or this one.
    fn live(&self, nodes: &BTreeSet<NodeId>) -> usize {
        let peers = self.cluster.peers.figures().peers;
        let is_live = |node: &&NodeId| {
            **node == self.cluster.node
                || peers.iter().any(|peer| {
                    peer.node == **node && peer.lanes.iter().all(|lane| lane.is_connected)
                })
        };
        nodes.iter().filter(is_live).count()
    }

    async fn transfer(&self, to: NodeId) -> Changed {
        if to == self.cluster.node {
            return Ok(());
        }
        if self.cluster.views.get().members.learners.contains(&to) {
            return Err(MembersChangeError::NoVoterYet(to.get()));
        }
        let (sender, receiver) = oneshot::channel();
        self.command(Command::Transfer(Reply::Transfer(sender), to))?;
        let answer = receiver.await.map_err(|_| MembersChangeError::Unknown)?;
        Ok(answer?)
    }

    async fn propose(&self, change: MemberChange) -> Changed {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::Members(sender);
        self.command(Command::ChangeMembers(reply, vec![change]))?;
        let waited = tokio::time::timeout(REQUEST_TIMEOUT, receiver).await;
        let answer = waited.map_err(|_| MembersChangeError::Unknown)?;
        match answer.map_err(|_| MembersChangeError::Unknown)? {
            Ok(_) | Err(MembersError::NoChange) => {
                self.cluster.look_at_addresses();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn command(&self, command: Command) -> Changed {
        let queued = self.shared.commands.try_send(command);
        queued.map_err(|_| MembersChangeError::Stopped)
    }

    async fn record(&self, rows: &[(NodeId, NodeRecord)]) -> Changed {
        let (sender, receiver) = oneshot::channel();
        let request: CommitRequest = recording(rows);
        let reply = Reply::Client(sender, None);
        self.shared.enqueue_as(new_id(), 0, request, reply);
        match receiver.await.unwrap_or(Err(Refusal::NotLeader)) {
            Ok(_) => Ok(()),
            Err(Refusal::NotLeader | Refusal::Stopped(_)) => Err(MembersChangeError::Unknown),
            Err(refusal) => Err(MembersChangeError::NotRecorded(refusal.to_string())),
        }
    }
}
