//! The messages by which a node that is no member takes in what is committed elsewhere. It makes them
//! itself: what brings it the entries is no connection of a member.

use ::raft::eraftpb::{self, MessageType};
use onelog_record::{Entry, NodeId};

use super::Raft;
use super::convert::to_raft;
use super::message::{Message, SnapshotMark};
use crate::consensus::{Consensus as _, ConsensusError};

impl Raft {
    /// A message that brings committed entries, as if of `from`; `None` unless they go on where this
    /// node's log ends, and so replace nothing.
    ///
    /// # Errors
    /// When an entry is none that a log can have.
    pub fn message_of_committed(
        &self,
        from: NodeId,
        entries: &[Entry],
    ) -> Result<Option<Message>, ConsensusError> {
        let before = self.raw.raft.raft_log.last_index();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(None);
        };
        if first.index.get() != before + 1 {
            return Ok(None);
        }
        let list: Vec<_> = entries.iter().map(to_raft).collect::<Result<_, _>>()?;
        Ok(Some(Message(eraftpb::Message {
            msg_type: MessageType::MsgAppend,
            from: from.get(),
            to: self.node.get(),
            // A term may have been saved whose entries were not.
            term: self.term().max(last.term).get(),
            index: before,
            log_term: self.raw.raft.raft_log.term(before)?,
            commit: last.index.get(),
            entries: list.into(),
            ..eraftpb::Message::default()
        })))
    }

    /// The message that announces a state, as if of `from`.
    #[must_use]
    pub fn message_of_state(&self, from: NodeId, mark: &SnapshotMark) -> Message {
        let mut message = eraftpb::Message {
            msg_type: MessageType::MsgSnapshot,
            from: from.get(),
            to: self.node.get(),
            term: self.term().max(mark.term).get(),
            ..eraftpb::Message::default()
        };
        message.set_snapshot(mark.to_raft());
        Message(message)
    }
}
