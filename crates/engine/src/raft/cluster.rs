//! What a node knows of the others, and what is requested of it as one of several.

use ::raft::eraftpb::{self, MessageType};
use ::raft::{INVALID_INDEX, SnapshotStatus};
use onelog_record::{Index, NodeId, Term};

use super::members::{self, MemberChange, Members, MembersError};
use super::message::SnapshotMark;
use super::{NOBODY, Raft};
use crate::consensus::Consensus as _;

/// How far another node is, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    pub node: NodeId,
    /// Up to here its log is known to be the leader's.
    pub matched: Index,
    /// Whether it was heard of lately.
    pub is_active: bool,
    /// Whether it is being sent a snapshot.
    pub takes_snapshot: bool,
}

impl Raft {
    /// This node's number.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The members as of the last applied entry.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// Who leads in this term, where that is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.raw.raft.leader_id {
            NOBODY => None,
            _ if self.misses_leader() => None,
            node => Some(NodeId(node)),
        }
    }

    /// Whether the leader is silent for longer than a voter would wait. Who does not seek the leadership
    /// keeps to the former leader in the library.
    fn misses_leader(&self) -> bool {
        let raft = &self.raw.raft;
        let is_silent = !raft.promotable() && raft.pass_election_timeout();
        !self.leads() && (is_silent || self.held_ticks > 0)
    }

    /// The term of the entry at `index` in this node's log, durable or not; `None` where it has none, or
    /// has dropped it long ago.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        let term = self.raw.raft.raft_log.term(index.get()).ok()?;
        (term > 0).then_some(Term(term))
    }

    /// Whether the disk has room for what a leader proposes. Without it this node takes no leadership
    /// that is handed to it, and seeks it after the others.
    pub const fn set_room(&mut self, has_room: bool) {
        self.has_room = has_room;
    }

    #[must_use]
    pub(crate) const fn has_room(&self) -> bool {
        self.has_room
    }

    /// To whom the leadership is being handed on.
    #[must_use]
    pub fn hands_on_to(&self) -> Option<NodeId> {
        self.raw.raft.lead_transferee.map(NodeId)
    }

    /// How far the others are, in the order of their numbers. Nothing where this node does not lead.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerProgress> {
        if !self.leads() {
            return Vec::new();
        }
        let progress = self.raw.raft.prs().iter();
        let mut peers: Vec<PeerProgress> = progress
            .filter(|(node, _)| **node != self.node.get())
            .map(|(node, progress)| PeerProgress {
                node: NodeId(*node),
                matched: Index(progress.matched),
                is_active: self.heard.lately(NodeId(*node)),
                takes_snapshot: progress.state == ::raft::ProgressState::Snapshot,
            })
            .collect();
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    /// A refusal from before what the follower has confirmed since, which comes late: what was refused is
    /// confirmed, or the follower did not have so much yet. The library would send from before that
    /// again (raft-rs #557).
    pub(super) fn is_overtaken(&self, message: &eraftpb::Message) -> bool {
        let is_refusal = message.msg_type == MessageType::MsgAppendResponse && message.reject;
        let is_of_now = self.leads() && message.term == self.raw.raft.term;
        let progress = self.raw.raft.prs().get(message.from);
        let has_more = progress.is_some_and(|progress| {
            message.index.min(message.reject_hint.saturating_add(1)) <= progress.matched
        });
        is_refusal && is_of_now && has_more && message.request_snapshot == INVALID_INDEX
    }

    /// A vote that comes when this node has applied that it is no member any more. The library would have
    /// it lead, and panic.
    pub(super) fn is_vote_for_no_member(&self, message: &eraftpb::Message) -> bool {
        let votes = [
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgRequestPreVoteResponse,
        ];
        votes.contains(&message.msg_type) && self.raw.raft.prs().get(self.node.get()).is_none()
    }

    /// The entry that a follower is sent next. Nothing where this node does not lead.
    #[must_use]
    pub fn next_of(&self, node: NodeId) -> Option<Index> {
        let progress = self.raw.raft.prs().get(node.get());
        progress
            .filter(|_| self.leads())
            .map(|progress| Index(progress.next_idx))
    }

    /// The log now begins at `first`.
    pub fn cut_start(&mut self, first: Index) {
        self.raw.mut_store().cut_start(first);
    }

    /// A checkpoint can be sent to followers that need what the log no longer has.
    pub fn has_snapshot(&mut self, mark: SnapshotMark) {
        self.raw.mut_store().set_snapshot(mark);
    }

    /// A message to this node could not be sent.
    pub fn unreachable(&mut self, node: NodeId) {
        self.raw.report_unreachable(node.get());
    }

    /// A snapshot was sent whole, or not.
    pub fn snapshot_sent(&mut self, node: NodeId, is_whole: bool) {
        let status = match is_whole {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(node.get(), status);
    }

    /// Proposes a change of the members.
    ///
    /// # Errors
    /// When it is not possible now, or at all.
    pub fn propose_members(&mut self, changes: &[MemberChange]) -> Result<(), MembersError> {
        if !self.may_propose() {
            return Err(MembersError::NotLeader);
        }
        // Also until the first entry of this term is applied: an earlier change may be below it.
        if self.raw.raft.has_pending_conf() {
            return Err(MembersError::UnderWay);
        }
        self.members.after(changes)?;
        let proposed = self
            .raw
            .propose_conf_change(Vec::new(), members::proposal(changes));
        proposed.map_err(|_| MembersError::NotLeader)
    }

    /// Hands the leadership to another voter, which must catch up first. It is kept when that takes
    /// longer than an election's timeout.
    ///
    /// # Errors
    /// When this node does not lead, or the other one does not vote.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), MembersError> {
        if !self.leads() {
            return Err(MembersError::NotLeader);
        }
        if !self.members.voters.contains(&to) {
            return Err(MembersError::NoMember(to));
        }
        self.raw.transfer_leader(to.get());
        Ok(())
    }
}
