//! The seam to Raft: the only file, with `tail`, that knows the library.
//!
//! A single node is a cluster of one voter: it takes the same road as a cluster of many.

use std::collections::VecDeque;

use bytes::Bytes;
use onelog_record::{Entry, EntryHeader, EntryKind, Index, PayloadError, Position, Term};
use raft::eraftpb::{Entry as RaftEntry, HardState};
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};

use crate::tail::Tail;

const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 128;
/// The most bytes of committed entries that are applied in one go.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;

/// Where consensus starts.
#[derive(Clone, Debug)]
pub struct ConsensusOptions {
    /// This node's number, from 1.
    pub node: u64,
    /// All voters, this node among them.
    pub voters: Vec<u64>,
    /// The saved term.
    pub term: Term,
    /// The saved vote, 0 for none.
    pub vote: u64,
    /// The last entry that is known to be committed; it is applied already.
    pub applied: Index,
    /// That entry's term.
    pub applied_term: Term,
    /// The log's entries behind it, not known to be committed.
    pub uncommitted: Vec<Entry>,
}

/// Raft could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The library refused a step.
    #[error("consensus refused: {0}")]
    Raft(#[from] raft::Error),
    /// An entry that Raft carried is malformed.
    #[error("entry {index} is malformed: {cause}")]
    Payload {
        /// Which entry.
        index: Index,
        /// Why.
        cause: PayloadError,
    },
}

/// What Raft wants done next, in this order.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// The term and vote to flush before anything else.
    pub(crate) vote: Option<(Term, u64)>,
    /// Entries to append.
    pub(crate) entries: Vec<Entry>,
    /// Entries that are committed now.
    pub(crate) committed: Vec<Entry>,
}

pub(crate) struct Consensus {
    raw: RawNode<Tail>,
    /// Number and last index of each ready whose entries are not durable yet.
    unflushed: VecDeque<(u64, Index)>,
    saved_vote: (Term, u64),
    last_appended: Index,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("term", &self.term())
            .field("leads", &self.leads())
            .field("last_appended", &self.last_appended)
            .finish_non_exhaustive()
    }
}

impl Consensus {
    pub(crate) fn new(options: &ConsensusOptions) -> Result<Self, ConsensusError> {
        let config = Config {
            id: options.node,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: options.applied.get(),
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
            commit: options.applied.get(),
            ..HardState::default()
        };
        let before = (options.applied.get(), options.applied_term.get());
        let mut tail = Tail::new(hard_state, options.voters.clone(), before);
        let entries: Vec<RaftEntry> = options.uncommitted.iter().map(to_raft).collect();
        tail.append(&entries);
        let last_appended = Index(tail.last());
        let raw = RawNode::new(&config, tail, &Logger::root(Discard, o!()))?;
        Ok(Self {
            raw,
            unflushed: VecDeque::new(),
            saved_vote: (options.term, options.vote),
            last_appended,
        })
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    pub(crate) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn campaign(&mut self) -> Result<(), ConsensusError> {
        Ok(self.raw.campaign()?)
    }

    pub(crate) fn tick(&mut self) {
        self.raw.tick();
    }

    /// Proposes a sealed payload. Only a leader may; nothing is ever forwarded, because a
    /// forwarded proposal would be appended without validation.
    pub(crate) fn propose(&mut self, payload: Vec<u8>) -> Result<(), ConsensusError> {
        assert!(self.leads(), "only the leader proposes");
        Ok(self.raw.propose(Vec::new(), payload)?)
    }

    /// Everything up to `index` is durable here.
    pub(crate) fn durable(&mut self, index: Index) {
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

    /// What to do next; `tail` is the position behind the last appended entry.
    pub(crate) fn ready(
        &mut self,
        tail: Position,
        applied: Position,
    ) -> Result<Option<Ready>, ConsensusError> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut raft_ready = self.raw.ready();
        let mut ready = Ready::default();
        if let Some(hard_state) = raft_ready.hs() {
            let vote = (Term(hard_state.term), hard_state.vote);
            if vote != self.saved_vote {
                self.saved_vote = vote;
                ready.vote = Some(vote);
            }
        }
        let entries = raft_ready.take_entries();
        ready.entries = from_raft(&entries, tail)?;
        ready.committed = from_raft(&raft_ready.take_committed_entries(), applied)?;
        self.raw.mut_store().append(&entries);
        if let Some(last) = entries.last() {
            self.last_appended = Index(last.index);
        }
        let number = raft_ready.number();
        self.raw.advance_append_async(raft_ready);
        if entries.is_empty() && self.unflushed.is_empty() {
            // The vote is flushed before any later effect, and nothing else is outstanding.
            self.raw.on_persist_ready(number);
        } else {
            self.unflushed.push_back((number, self.last_appended));
        }
        Ok(Some(ready))
    }

    /// The entry at `index` and all before it are applied.
    pub(crate) fn applied(&mut self, index: Index) {
        self.raw.advance_apply_to(index.get());
        self.raw.mut_store().forget(index.get());
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

/// Raft's own first entry of a term carries nothing; it is written as a no-op at the place in the
/// offsets where it stands, which is the same on every replica.
fn from_raft(entries: &[RaftEntry], from: Position) -> Result<Vec<Entry>, ConsensusError> {
    let mut at = from;
    let mut out = Vec::with_capacity(entries.len());
    for raft_entry in entries {
        let (term, index) = (Term(raft_entry.term), Index(raft_entry.index));
        let entry = if raft_entry.data.is_empty() {
            Entry {
                term,
                index,
                header: EntryHeader::empty(EntryKind::NoOp, at.next_offset()),
                body: Bytes::new(),
            }
        } else {
            Entry::from_payload(term, index, &raft_entry.data)
                .map_err(|cause| ConsensusError::Payload { index, cause })?
        };
        assert_eq!(
            entry.header.base_offset,
            at.next_offset(),
            "entries are numbered without a gap"
        );
        at = entry.header.end();
        out.push(entry);
    }
    Ok(out)
}
