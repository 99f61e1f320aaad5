//! Consensus by Raft: with `tail`, the only file that knows the library.
//!
//! A single node is a cluster of one voter: it takes the same road as a cluster of many.
//! Messages to peers are not carried yet: there is one voter.

use std::collections::VecDeque;

use ::raft::eraftpb::{Entry as RaftEntry, HardState};
use ::raft::{Config, RawNode, StateRole};
use bytes::Bytes;
use onelog_record::{Entry, EntryHeader, EntryKind, Index, Position, Term};
use slog::{Discard, Logger, o};

use crate::consensus::{Consensus, ConsensusError, Progress};
use crate::tail::Tail;

const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 128;
/// The most bytes of committed entries that are applied in one go.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// This node's number, from 1.
    pub node: u64,
    /// All voters, this node among them.
    pub voters: Vec<u64>,
    pub term: Term,
    /// The saved vote, 0 for none.
    pub vote: u64,
    /// The last entry that is known to be committed. Raft reports only what comes behind it.
    pub committed: Index,
    pub committed_term: Term,
    /// The position behind it.
    pub committed_end: Position,
    /// The log's entries behind it, not known to be committed.
    pub uncommitted: Vec<Entry>,
}

/// Raft, as one voter among [`RaftOptions::voters`].
pub struct Raft {
    raw: RawNode<Tail>,
    /// Number and last index of each ready whose entries are not durable yet.
    unflushed: VecDeque<(u64, Index)>,
    saved_vote: (Term, u64),
    last_appended: Index,
    /// The position behind the last appended entry.
    end: Position,
    /// The position behind the last entry that was reported as committed.
    committed_end: Position,
    /// The term in which this node leads, as reported.
    leading: Option<Term>,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("term", &self.term())
            .field("leads", &self.leads())
            .field("last_appended", &self.last_appended)
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// A voter that has seen what `options` say.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub fn new(options: &RaftOptions) -> Result<Self, ConsensusError> {
        let config = Config {
            id: options.node,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: options.committed.get(),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let hard_state = HardState {
            term: options.term.get(),
            vote: options.vote,
            commit: options.committed.get(),
            ..HardState::default()
        };
        let before = (options.committed.get(), options.committed_term.get());
        let mut tail = Tail::new(hard_state, options.voters.clone(), before);
        let entries: Vec<RaftEntry> = options.uncommitted.iter().map(to_raft).collect();
        tail.append(&entries);
        let last_appended = Index(tail.last());
        let last = options.uncommitted.last();
        let raw = RawNode::new(&config, tail, &Logger::root(Discard, o!()))?;
        Ok(Self {
            raw,
            unflushed: VecDeque::new(),
            saved_vote: (options.term, options.vote),
            last_appended,
            end: last.map_or(options.committed_end, |entry| entry.header.end()),
            committed_end: options.committed_end,
            leading: None,
        })
    }

    /// The term whose leadership has ended since the last call, also when another one has begun.
    fn lost_leadership(&mut self) -> Option<Term> {
        let leading = self.leads().then(|| self.term());
        let before = std::mem::replace(&mut self.leading, leading);
        before.filter(|_| before != leading)
    }
}

impl Consensus for Raft {
    fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    fn end(&self) -> Position {
        self.end
    }

    fn campaign(&mut self) -> Result<(), ConsensusError> {
        Ok(self.raw.campaign()?)
    }

    fn tick(&mut self) -> Result<(), ConsensusError> {
        self.raw.tick();
        Ok(())
    }

    /// Nothing is ever forwarded: the library would do it on a node that does not lead.
    fn propose(&mut self, payload: Vec<u8>) -> Result<(), ConsensusError> {
        assert!(self.leads(), "only the leader proposes");
        Ok(self.raw.propose(Vec::new(), payload)?)
    }

    fn stored(&mut self, index: Index) {
        let mut number = None;
        while let Some((ready, last)) = self.unflushed.front() {
            if *last > index {
                break;
            }
            number = Some(*ready);
            self.unflushed.pop_front();
        }
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
        }
    }

    /// By the ReadIndex of Raft, never by leases: no clock takes part.
    fn read_barrier(&mut self, token: u64) {
        assert!(self.leads(), "only the leader knows what is committed");
        self.raw.read_index(token.to_le_bytes().to_vec());
    }

    fn poll(&mut self) -> Result<Option<Progress>, ConsensusError> {
        let lost_leadership = self.lost_leadership();
        if !self.raw.has_ready() {
            return Ok(lost_leadership.map(|term| Progress {
                lost_leadership: Some(term),
                ..Progress::default()
            }));
        }
        let mut ready = self.raw.ready();
        let mut progress = Progress {
            lost_leadership,
            ..Progress::default()
        };
        if let Some(hard_state) = ready.hs() {
            let vote = (Term(hard_state.term), hard_state.vote);
            if vote != self.saved_vote {
                self.saved_vote = vote;
                progress.vote = Some(vote);
            }
        }
        let entries = ready.take_entries();
        progress.entries = from_raft(&entries, &mut self.end)?;
        progress.committed = from_raft(&ready.take_committed_entries(), &mut self.committed_end)?;
        progress.barriers = ready
            .take_read_states()
            .into_iter()
            .filter_map(|read| {
                // Matched by its token, never by its order: answers may come in any.
                let token = read.request_ctx.try_into().ok().map(u64::from_le_bytes)?;
                Some((token, Index(read.index)))
            })
            .collect();
        self.raw.mut_store().append(&entries);
        if let Some(last) = entries.last() {
            self.last_appended = Index(last.index);
        }
        let number = ready.number();
        self.raw.advance_append_async(ready);
        if entries.is_empty() && self.unflushed.is_empty() {
            // The vote is flushed before any later effect, and nothing else is outstanding.
            self.raw.on_persist_ready(number);
        } else {
            self.unflushed.push_back((number, self.last_appended));
        }
        Ok(Some(progress))
    }

    fn applied(&mut self, index: Index) {
        self.raw.advance_apply_to(index.get());
        self.raw.mut_store().forget(index.get());
    }
}

impl From<::raft::Error> for ConsensusError {
    fn from(error: ::raft::Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

fn to_raft(entry: &Entry) -> RaftEntry {
    let mut raft_entry = RaftEntry {
        term: entry.term.get(),
        index: entry.index.get(),
        ..RaftEntry::default()
    };
    if entry.header.kind == EntryKind::Transactions {
        raft_entry.data = Bytes::from(entry.payload());
    }
    raft_entry
}

/// Raft's own first entry of a term carries nothing; it is written as a no-op at its place in the
/// offsets, which is the same on every replica. Moves `end` behind the last entry.
fn from_raft(entries: &[RaftEntry], end: &mut Position) -> Result<Vec<Entry>, ConsensusError> {
    let mut out = Vec::with_capacity(entries.len());
    for raft_entry in entries {
        let (term, index) = (Term(raft_entry.term), Index(raft_entry.index));
        let entry = if raft_entry.data.is_empty() {
            Entry {
                term,
                index,
                header: EntryHeader::empty(EntryKind::NoOp, end.next_offset()),
                body: Bytes::new(),
            }
        } else {
            Entry::from_payload(term, index, &raft_entry.data)
                .map_err(|cause| ConsensusError::Payload { index, cause })?
        };
        assert_eq!(
            entry.header.base_offset,
            end.next_offset(),
            "entries are numbered without a gap"
        );
        *end = entry.header.end();
        out.push(entry);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use ::raft::eraftpb::{Message, MessageType};

    use super::*;

    fn voter() -> Raft {
        Raft::new(&RaftOptions {
            node: 1,
            voters: vec![1],
            term: Term(0),
            vote: 0,
            committed: Index(0),
            committed_term: Term(0),
            committed_end: Position(0),
            uncommitted: Vec::new(),
        })
        .unwrap()
    }

    fn all(raft: &mut Raft) -> Progress {
        let mut all = Progress::default();
        while let Some(next) = raft.poll().unwrap() {
            all.lost_leadership = all.lost_leadership.or(next.lost_leadership);
            all.vote = all.vote.or(next.vote);
            all.entries.extend(next.entries);
            all.committed.extend(next.committed);
            all.barriers.extend(next.barriers);
        }
        if let Some(last) = all.committed.last() {
            raft.applied(last.index);
        }
        all
    }

    fn leader() -> Raft {
        let mut raft = voter();
        raft.campaign().unwrap();
        let started = all(&mut raft);
        assert_eq!(started.vote, Some((Term(1), 1)));
        assert_eq!(started.entries.len(), 1, "its own first entry");
        raft.stored(Index(1));
        assert_eq!(all(&mut raft).committed.len(), 1);
        raft
    }

    #[test]
    fn one_voter_keeps_its_leadership_however_much_time_passes() {
        let mut raft = leader();
        for _ in 0..10 * ELECTION_TICKS {
            raft.tick().unwrap();
            let progress = all(&mut raft);
            assert_eq!(progress.lost_leadership, None);
            assert_eq!(progress.vote, None, "no further election");
        }
        assert!(raft.leads());
        assert_eq!(raft.term(), Term(1));
    }

    #[test]
    fn one_voter_that_never_campaigned_does_so_when_its_time_is_over() {
        let mut raft = voter();
        for _ in 0..=2 * ELECTION_TICKS {
            raft.tick().unwrap();
        }
        assert_eq!(all(&mut raft).vote, Some((Term(1), 1)));
        assert!(raft.leads());
    }

    #[test]
    fn a_barrier_of_one_voter_is_what_is_committed_not_what_is_appended() {
        let mut raft = leader();
        let entry = Entry {
            term: Term(1),
            index: Index(2),
            header: EntryHeader::empty(EntryKind::Transactions, onelog_record::Offset(0)),
            body: Bytes::new(),
        };
        raft.propose(entry.payload()).unwrap();
        assert_eq!(all(&mut raft).entries.len(), 1);
        raft.read_barrier(7);
        assert_eq!(all(&mut raft).barriers, [(7, Index(1))]);
        raft.stored(Index(2));
        all(&mut raft);
        raft.read_barrier(8);
        assert_eq!(all(&mut raft).barriers, [(8, Index(2))]);
    }

    #[test]
    fn a_leader_of_a_later_term_ends_the_leadership_and_it_is_said_once() {
        let mut raft = leader();
        let heartbeat = Message {
            msg_type: MessageType::MsgHeartbeat,
            from: 2,
            to: 1,
            term: 5,
            ..Message::default()
        };
        raft.raw.step(heartbeat).unwrap();
        let progress = all(&mut raft);
        assert_eq!(progress.lost_leadership, Some(Term(1)));
        assert!(!raft.leads());
        assert_eq!(raft.term(), Term(5));
        assert_eq!(all(&mut raft).lost_leadership, None);
    }
}
