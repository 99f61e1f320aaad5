//! What leaders have said to be committed, and when the library hears of it.
//!
//! The library applies at once what it knows to be committed. A node that is behind stores what it
//! lacks at the pace of its disk and applies it at its own, so the library hears piece by piece
//! ([`Raft::commit`]). What waits is in memory, or in the log alone where that is too much: see
//! [`super::tail`]. To know less of what is committed than others is nothing new to Raft.

use ::raft::StateRole;
use ::raft::eraftpb::{self, MessageType};
use onelog_record::Index;

use super::{NOBODY, Raft};
use crate::consensus::Consensus as _;

/// What a message of a leader says of this node's log, where that has the entry `last`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    term: u64,
    commit: u64,
    /// Index and term; `None` where this node has confirmed to that leader that it has it.
    last: Option<(u64, u64)>,
}

impl Reported {
    fn of(message: &eraftpb::Message) -> Option<Self> {
        let (commit, last) = match message.msg_type {
            MessageType::MsgHeartbeat => (message.commit, None),
            MessageType::MsgAppend => {
                let before = (message.index, message.log_term);
                let last = message.entries.last().map(|last| (last.index, last.term));
                let last = last.unwrap_or(before);
                (message.commit.min(last.0), Some(last))
            }
            _ => return None,
        };
        let term = message.term;
        Some(Self { term, commit, last })
    }
}

impl Raft {
    /// Takes out of a message what it says to be committed. [`Self::note_reported`] takes it in once
    /// the library has had the message.
    pub(super) fn hold_back(&self, message: &mut eraftpb::Message) -> Option<Reported> {
        let reported = Reported::of(message);
        let is_vote = [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote];
        if reported.is_some() {
            message.commit = message.commit.min(self.raw.raft.raft_log.committed);
        } else if self.raw.store().has_spilled() && is_vote.contains(&message.msg_type) {
            // The library would commit what it says, and that may not be in memory.
            message.commit = 0;
        }
        reported
    }

    pub(super) fn note_reported(&mut self, reported: Option<Reported>) {
        let Some(Reported { term, commit, last }) = reported else {
            return;
        };
        let raft = &self.raw.raft;
        let has = |(index, term)| raft.raft_log.match_term(index, term);
        if term == raft.term && last.is_none_or(has) {
            self.reported_commit = self.reported_commit.max(commit);
        }
    }

    /// Lets the next entries be committed that leaders have said to be: of about so many bytes, counted
    /// from what is applied. Answers whether any are.
    pub fn commit(&mut self, bytes_max: usize) -> bool {
        if self.leads() || self.is_installing() {
            return false;
        }
        let next = self
            .raw
            .store()
            .next_to_apply(bytes_max)
            .min(self.reported_commit);
        let log = &mut self.raw.raft.raft_log;
        let is_more = next > log.committed;
        if is_more {
            log.commit_to(next);
        }
        is_more
    }

    /// Whether [`Self::commit`] would let more be applied at once.
    #[must_use]
    pub fn has_more_committed(&self) -> bool {
        let committed = self.raw.raft.raft_log.committed;
        let is_behind = self.raw.store().next_to_apply(0).min(self.reported_commit) > committed;
        is_behind && committed == self.applied.get() && !self.leads() && !self.is_installing()
    }

    /// The last entry of those that are known to be committed. It may be one that is not durable, or
    /// not here.
    #[must_use]
    pub fn known_committed(&self) -> Index {
        self.committed().max(Index(self.reported_commit))
    }

    /// The bytes of the entries that are not applied, where some of them could be.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        match self.reported_commit > self.applied.get() {
            true => self.raw.store().unapplied_bytes(),
            // Before more of them is here, none may be committed.
            false => 0,
        }
    }

    /// What is stored and will be applied much later does not stay in memory. Not what the library has
    /// heard to be committed, which it wants at once; and not while this node leads or seeks the
    /// leadership, when it finds that by itself.
    pub(super) fn spill(&mut self) {
        let raft = &self.raw.raft;
        let follows = raft.state == StateRole::Follower && raft.leader_id != NOBODY;
        if follows && raft.raft_log.committed == self.applied.get() && !self.is_installing() {
            let until = raft.raft_log.persisted.min(self.reported_commit);
            let max = self.unapplied_bytes_max;
            self.raw.mut_store().spill(until, max);
        }
    }
}
