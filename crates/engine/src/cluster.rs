//! What the engine of one node among several is given beside requests and completions.

use onelog_commit::{Remembered, Validator};
use onelog_record::{Entry, Index, NodeId};

use crate::consensus::Consensus as _;
use crate::engine::{Effect, Engine, EngineError};
use crate::planted::{self, Bug};
use crate::raft::{FetchId, MemberChange, MembersError, Message, Raft, SnapshotMark};

impl<T> Engine<T, Raft> {
    /// The consensus, for what it shows.
    #[must_use]
    pub const fn raft(&self) -> &Raft {
        &self.consensus
    }

    /// Goes on with another consensus, once everything up to its last committed entry is replayed. What
    /// is committed may only be known then: entries that are replayed say who the members are.
    ///
    /// # Panics
    /// When it does not begin where the replay ended, or anything was decided.
    pub fn take_part(&mut self, raft: Raft) {
        assert_eq!(
            self.applied.index,
            raft.committed(),
            "what is committed is replayed"
        );
        assert!(
            !self.has_open() && self.waiting() == 0,
            "nothing is decided during a replay"
        );
        let has_room = self.consensus.has_room();
        self.consensus = raft;
        self.consensus.set_room(has_room);
    }

    /// A message of another node has come. One that announces a snapshot only when that is here. What
    /// it says to be committed is so by [`Engine::commit`].
    pub fn step(&mut self, message: Message, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        self.consensus.step(message)?;
        self.pump(out)
    }

    /// Lets more of what a leader has said be committed, and applied once it is durable: about so many
    /// bytes. Answers whether there is more that could be applied at once.
    pub fn commit(
        &mut self,
        bytes_max: usize,
        out: &mut Vec<Effect<T>>,
    ) -> Result<bool, EngineError> {
        if self.consensus.commit(bytes_max) {
            self.pump(out)?;
        }
        Ok(self.consensus.has_more_committed())
    }

    /// [`Effect::Fetch`] is done; with no entries where the log does not have them any more.
    pub fn fetched(
        &mut self,
        id: FetchId,
        entries: &[Entry],
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        self.consensus.fetched(id, entries)?;
        self.pump(out)
    }

    /// [`Effect::Install`] is done, durably. `ids` are the ids that the snapshot remembers, in log
    /// order, and `timestamp_ms` is its highest timestamp.
    pub fn installed(
        &mut self,
        ids: impl Iterator<Item = Remembered>,
        timestamp_ms: u64,
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        let options = self.options.validator;
        let taken = match planted::is(Bug::IdsNotInstalled) {
            true => 0,
            false => usize::MAX,
        };
        let ids = ids.take(taken);
        self.earlier_steps = self.steps();
        self.validator = Validator::new(options, self.applied.position, ids);
        self.applied.timestamp_ms = timestamp_ms;
        self.last_timestamp_ms = self.last_timestamp_ms.max(timestamp_ms);
        self.consensus.installed();
        self.pump(out)
    }

    /// The log now begins at `first`.
    pub fn cut_start(&mut self, first: Index) {
        self.consensus.cut_start(first);
    }

    /// A checkpoint can be sent to followers that need what the log no longer has.
    pub fn has_snapshot(&mut self, mark: SnapshotMark) {
        self.consensus.has_snapshot(mark);
    }

    /// Whether the disk has room for what a leader proposes.
    pub const fn set_room(&mut self, has_room: bool) {
        self.consensus.set_room(has_room);
    }

    /// A message to this node could not be sent.
    pub fn unreachable(&mut self, node: NodeId) {
        self.consensus.unreachable(node);
    }

    /// A snapshot was sent to this node whole, or not.
    pub fn snapshot_sent(
        &mut self,
        node: NodeId,
        is_whole: bool,
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        self.consensus.snapshot_sent(node, is_whole);
        self.pump(out)
    }

    /// Proposes a change of the members. [`Effect::Members`] says when it is in force.
    ///
    /// The inner error is the answer: the change is not possible now, or at all.
    pub fn propose_members(
        &mut self,
        changes: &[MemberChange],
        out: &mut Vec<Effect<T>>,
    ) -> Result<Result<(), MembersError>, EngineError> {
        let answer = self.consensus.propose_members(changes);
        self.pump(out)?;
        Ok(answer)
    }

    /// Hands the leadership to another voter.
    ///
    /// The inner error is the answer: it cannot be handed there.
    pub fn transfer(
        &mut self,
        to: NodeId,
        out: &mut Vec<Effect<T>>,
    ) -> Result<Result<(), MembersError>, EngineError> {
        let answer = self.consensus.transfer(to);
        self.pump(out)?;
        Ok(answer)
    }
}
