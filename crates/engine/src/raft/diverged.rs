//! What proves that two nodes no longer have one log: a voter that came back with an earlier copy of its
//! folder has forgotten what it confirmed, and a majority with it elects a leader without that.
//!
//! Raft's library trusts that this cannot be. A follower answers entries below its last committed one
//! by naming that one, unseen; the leader takes it for what the follower has of its own log, and
//! counts it for a majority.

use std::iter;

use ::raft::eraftpb::{self, MessageType};
use onelog_record::{Index, NodeId, Term};

use super::Raft;
use crate::consensus::{Consensus as _, ConsensusError};

impl Raft {
    /// Looks at a message before the library does.
    ///
    /// # Errors
    /// When it proves that the sender's log is another one.
    pub(super) fn check_one_log(
        &self,
        message: &mut eraftpb::Message,
    ) -> Result<(), ConsensusError> {
        match message.msg_type {
            MessageType::MsgAppend => self.check_committed(message, |message| {
                let entries = message.entries.iter();
                let entries = entries.map(|entry| (entry.index, entry.term));
                iter::once((message.index, message.log_term)).chain(entries)
            }),
            MessageType::MsgSnapshot => self.check_committed(message, |message| {
                let metadata = message.get_snapshot().get_metadata();
                iter::once((metadata.index, metadata.term))
            }),
            MessageType::MsgAppendResponse => self.check_confirmed(message),
            MessageType::MsgHeartbeatResponse if self.is_ahead(message.commit) => {
                // Its confirmation of a read is worth nothing. The entries that it is sent now tell it
                // so, and it stops: it is the one that still has what was lost.
                message.context.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Who leads in a term has everything that was committed before it, and appends only.
    fn check_committed<'m, E: Iterator<Item = (u64, u64)> + 'm>(
        &self,
        message: &'m eraftpb::Message,
        entries: impl FnOnce(&'m eraftpb::Message) -> E,
    ) -> Result<(), ConsensusError> {
        if message.term < self.raw.raft.term {
            return Ok(());
        }
        let committed = self.committed().get();
        for (index, term) in entries(message).take_while(|(index, _)| *index <= committed) {
            let (index, theirs) = (Index(index), Term(term));
            if let Some(own) = self.term_at(index).filter(|own| *own != theirs) {
                return Err(ConsensusError::CommitReplaced {
                    leader: NodeId(message.from),
                    index,
                    own,
                    theirs,
                });
            }
        }
        Ok(())
    }

    /// A follower confirms only what it was sent in this term, and what is committed.
    fn check_confirmed(&self, message: &eraftpb::Message) -> Result<(), ConsensusError> {
        let matched = if message.reject { 0 } else { message.index };
        let confirmed = matched.max(message.commit);
        if message.term != self.raw.raft.term || !self.is_ahead(confirmed) {
            return Ok(());
        }
        Err(ConsensusError::FollowerAhead {
            node: NodeId(message.from),
            confirmed: Index(confirmed),
            last: Index(self.raw.raft.raft_log.last_index()),
        })
    }

    fn is_ahead(&self, index: u64) -> bool {
        self.leads() && index > self.raw.raft.raft_log.last_index()
    }
}
