//! Consensus by Raft: with the files beside it, the only code that knows the library.
//!
//! A single node is a cluster of one voter: it takes the same road as a cluster of many.
//!
//! **What leaves a node, and when.** A leader's messages leave at once, beside its own flush (Ongaro's
//! thesis, 10.2.1). Those of everyone else say that something is durable or voted, so they wait until
//! it is: each bundle is kept with the last entry that it rests on.

mod cluster;
mod convert;
mod diverged;
mod heard;
mod members;
mod message;
mod outside;
mod reported;
mod tail;
mod timeout;

use std::collections::VecDeque;

use ::raft::eraftpb::{Entry as RaftEntry, HardState, MessageType};
use ::raft::{Config, RawNode, ReadOnlyOption, Ready, StateRole};
use onelog_record::{Entry, Index, NodeId, Position, Term};
use slog::{Discard, Logger, o};

use crate::consensus::{Consensus, ConsensusError, Progress};
use crate::planted::{self, Bug};

pub use self::cluster::PeerProgress;
use self::convert::{from_raft, no_change, to_raft};
use self::heard::Heard;
pub use self::members::{MEMBERS_MAX, MemberChange, Members, MembersError, READ_REPLICA};
pub use self::message::{MESSAGE_BYTES_MAX, Message, MessageError, SnapshotMark};
use self::tail::Tail;
pub use self::tail::{Fetch, FetchId};
use self::timeout::ElectionTimeout;

/// After so many ticks without a leader a node may seek the leadership; after so many without a
/// majority a leader gives it up.
pub const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
/// The longest timeout that the library takes.
const LONGEST_TICKS: usize = 2 * ELECTION_TICKS - 1;
/// A node without room seeks the leadership so much later than any other one.
const FULL_TICKS: usize = 2 * ELECTION_TICKS;
/// About how many bytes of entries one message has.
const BATCH_BYTES: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 32;
/// The most bytes of committed entries that are applied in one go.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;
/// A leader proposes nothing while so much of what it proposed is not committed.
const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;
/// How many bytes of applied entries are kept for followers that are a little behind.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// What the library has for no node.
const NOBODY: u64 = 0;

/// How a node takes part in Raft.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// This node's number.
    pub node: NodeId,
    /// The members as of the state that the engine starts from. [`Consensus::change_members`] brings
    /// those of the entries that are replayed.
    pub members: Members,
    pub term: Term,
    /// The saved vote, 0 for none.
    pub vote: u64,
    /// The first entry that the log has.
    pub first: Index,
    /// From which index on each term holds: of the log's entries, and of the entry before the first
    /// one where that is known.
    pub terms: Vec<(Index, Term)>,
    /// The last entry that is known to be committed. Raft reports only what comes behind it.
    pub committed: Index,
    /// The position behind it.
    pub committed_end: Position,
    /// The log's entries behind it, not known to be committed.
    pub uncommitted: Vec<Entry>,
    /// With so many bytes of entries in memory that are not applied, a follower drops those that it has
    /// stored and knows to be committed, and reads them again from its log ([`Fetch`]).
    pub unapplied_bytes_max: usize,
    /// What election timeouts are drawn from.
    pub seed: u64,
}

/// What is to be durable before messages may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Stored(Index),
    Installed,
}

/// A ready of the library that is not durable yet.
#[derive(Debug)]
struct Unflushed {
    number: u64,
    until: Until,
    /// The messages that leave when it is.
    messages: Vec<Message>,
}

/// Raft, as one of [`RaftOptions::members`].
pub struct Raft {
    raw: RawNode<Tail>,
    node: NodeId,
    members: Members,
    timeout: ElectionTimeout,
    heard: Heard,
    unflushed: VecDeque<Unflushed>,
    /// Messages whose time has come.
    released: Vec<Message>,
    saved_vote: (Term, u64),
    last_appended: Index,
    /// The position behind the last appended entry.
    end: Position,
    /// The position behind the last entry that was reported as committed.
    committed_end: Position,
    applied: Index,
    /// Up to here this node's log is committed, as leaders have said.
    reported_commit: u64,
    unapplied_bytes_max: usize,
    /// The term in which this node leads, as reported.
    leading: Option<Term>,
    /// Whether what is proposed could be written.
    has_room: bool,
    /// For how long this node has held back for want of room.
    held_ticks: usize,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("node", &self.node)
            .field("term", &self.term())
            .field("leads", &self.leads())
            .field("last_appended", &self.last_appended)
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// A member that has seen what `options` say.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub fn new(options: &RaftOptions) -> Result<Self, ConsensusError> {
        let config = Config {
            id: options.node.get(),
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: options.committed.get(),
            max_size_per_msg: BATCH_BYTES,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            // It would join what is in flight into one message without a bound.
            batch_append: false,
            read_only_option: match planted::is(Bug::BarrierByLease) {
                true => ReadOnlyOption::LeaseBased,
                false => ReadOnlyOption::Safe,
            },
            ..Config::default()
        };
        let hard_state = HardState {
            term: options.term.get(),
            vote: options.vote,
            commit: options.committed.get(),
            ..HardState::default()
        };
        let before = (options.committed, options.committed_end);
        let (members, terms) = (&options.members, &options.terms);
        let mut tail = Tail::new(hard_state, members, options.first, terms, before);
        let mut end = options.committed_end;
        for entry in &options.uncommitted {
            end = entry.header.end();
            tail.push(to_raft(entry)?, end);
        }
        let last_appended = Index(tail.last());
        let raw = RawNode::new(&config, tail, &Logger::root(Discard, o!()))?;
        Ok(Self {
            raw,
            node: options.node,
            members: options.members.clone(),
            timeout: ElectionTimeout::new(options.seed),
            heard: Heard::default(),
            unflushed: VecDeque::new(),
            released: Vec::new(),
            saved_vote: (options.term, options.vote),
            last_appended,
            end,
            committed_end: options.committed_end,
            applied: options.committed,
            reported_commit: options.committed.get(),
            unapplied_bytes_max: options.unapplied_bytes_max,
            leading: None,
            has_room: true,
            held_ticks: 0,
        })
    }

    /// Takes in a message of another node. The snapshot that it announces must be here already, with
    /// none being installed.
    ///
    /// # Errors
    /// Final: this node has lost what the cluster counts on.
    pub fn step(&mut self, message: Message) -> Result<(), ConsensusError> {
        let mut message = message.0;
        // One snapshot at a time; and until it is installed, the library must not look at what is
        // applied, as it does when it seeks the leadership.
        let must_wait = [MessageType::MsgSnapshot, MessageType::MsgTimeoutNow];
        let has_spilled = self.raw.store().has_spilled();
        let is_late =
            must_wait.contains(&message.msg_type) && (self.is_installing() || has_spilled);
        let may_lead = self.may_campaign() && self.has_room;
        let is_early = message.msg_type == MessageType::MsgTimeoutNow && !may_lead;
        let is_overtaken = self.is_overtaken(&message) || self.is_vote_for_no_member(&message);
        if message.to != self.node.get() || is_late || is_early || is_overtaken {
            return Ok(());
        }
        let last = Index(self.raw.raft.raft_log.last_index());
        let is_heartbeat = message.msg_type == MessageType::MsgHeartbeat;
        // The library would panic: a leader reports to a follower only what that one has confirmed.
        if is_heartbeat && message.term >= self.raw.raft.term && message.commit > last.get() {
            return Err(ConsensusError::LostTail {
                committed: Index(message.commit),
                last,
            });
        }
        self.check_one_log(&mut message)?;
        self.heard.note(NodeId(message.from));
        let reported = self.hold_back(&mut message);
        match self.raw.step(message) {
            // From a node that is no member any more.
            Err(::raft::Error::StepPeerNotFound) => {}
            other => other?,
        }
        self.note_reported(reported);
        Ok(())
    }

    /// An only voter leads at once when it seeks the leadership, so everything that it has must be
    /// durable. That can be missing where it became the only one as a follower.
    fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        !self.is_alone()
            || log.last_index() == log.persisted
            || planted::is(Bug::CampaignsUnflushed)
    }

    /// Whether this node would seek the leadership now and lets others with room do so first. It still
    /// votes: for that its leader must have been silent for longer than the shortest timeout.
    fn holds_back(&mut self) -> bool {
        let would_seek = self.raw.raft.election_elapsed + 1 >= LONGEST_TICKS;
        let is_last = self.has_room || self.leads() || self.is_alone();
        let holds = would_seek && !is_last && self.held_ticks < FULL_TICKS;
        self.held_ticks = if holds { self.held_ticks + 1 } else { 0 };
        holds
    }

    fn is_installing(&self) -> bool {
        let mut unflushed = self.unflushed.iter();
        unflushed.any(|ready| ready.until == Until::Installed)
    }

    /// The snapshot of [`Progress::install`] has replaced state and log, durably.
    pub fn installed(&mut self) {
        let place = self.unflushed.iter();
        let place = place
            .rev()
            .position(|ready| ready.until == Until::Installed);
        if let Some(from_end) = place {
            let count = self.unflushed.len() - from_end;
            self.release(count);
            self.raw.advance_apply_to(self.applied.get());
            // What came since then and brought no entries rests on nothing else: no flush would end.
            self.stored(self.applied);
        }
    }

    /// A read of the log has ended; with nothing where the log no longer has the entries.
    ///
    /// # Errors
    /// Final.
    pub fn fetched(&mut self, id: FetchId, entries: &[Entry]) -> Result<(), ConsensusError> {
        let entries = entries.iter().map(to_raft).collect::<Result<_, _>>()?;
        for context in self.raw.mut_store().fetched(id, entries) {
            self.raw.on_entries_fetched(context);
        }
        Ok(())
    }

    /// The term whose leadership has ended since the last call, also when another one has begun.
    fn lost_leadership(&mut self) -> Option<Term> {
        let leading = self.leads().then(|| self.term());
        let before = std::mem::replace(&mut self.leading, leading);
        before.filter(|_| before != leading)
    }

    /// The first `count` readies are durable.
    fn release(&mut self, count: usize) {
        let mut number = None;
        for ready in self.unflushed.drain(..count) {
            number = Some(ready.number);
            self.released.extend(ready.messages);
        }
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
        }
    }

    fn take_ready(
        &mut self,
        mut ready: Ready,
        progress: &mut Progress,
    ) -> Result<(), ConsensusError> {
        if let Some(hard_state) = ready.hs() {
            let vote = (Term(hard_state.term), hard_state.vote);
            if vote != self.saved_vote {
                self.saved_vote = vote;
                progress.vote = Some(match planted::is(Bug::VoteForgotten) {
                    true => (vote.0, NOBODY),
                    false => vote,
                });
            }
        }
        if !ready.snapshot().is_empty() {
            let mark = SnapshotMark::from_raft(ready.snapshot());
            self.install(&mark);
            progress.install = Some(mark);
        }
        let entries = ready.take_entries();
        self.append(&entries, progress)?;
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
        let messages = |list: Vec<_>| list.into_iter().map(Message);
        progress.messages.extend(messages(ready.take_messages()));
        let mut later: Vec<Message> = messages(ready.take_persisted_messages()).collect();
        if planted::is(Bug::ReportedUnflushed) {
            progress.messages.append(&mut later);
        }
        let number = ready.number();
        self.raw.advance_append_async(ready);
        let is_waiting = progress.install.is_some() || !entries.is_empty();
        if !is_waiting && self.unflushed.is_empty() {
            // The vote is flushed before any later effect, and nothing else is outstanding.
            self.raw.on_persist_ready(number);
            progress.messages.extend(later);
            return Ok(());
        }
        self.unflushed.push_back(Unflushed {
            number,
            until: match progress.install {
                Some(_) => Until::Installed,
                None => Until::Stored(self.last_appended),
            },
            messages: later,
        });
        Ok(())
    }

    fn install(&mut self, mark: &SnapshotMark) {
        self.raw.mut_store().restore(mark);
        self.members = mark.members.clone();
        self.last_appended = mark.index;
        self.end = mark.end;
        self.committed_end = mark.end;
        self.applied = mark.index;
    }

    fn append(
        &mut self,
        entries: &[RaftEntry],
        progress: &mut Progress,
    ) -> Result<(), ConsensusError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        if first.index <= self.last_appended.get() {
            progress.cut = Some(Index(first.index));
            self.cut_end(first.index);
        }
        progress.entries = from_raft(entries, &mut self.end)?;
        for (raft_entry, entry) in entries.iter().zip(&progress.entries) {
            let end = entry.header.end();
            self.raw.mut_store().push(raft_entry.clone(), end);
        }
        self.last_appended = Index(last.index);
        Ok(())
    }

    /// A later leader has other entries from `index` on.
    #[expect(
        clippy::expect_used,
        reason = "only what is not committed is replaced, and that is in memory"
    )]
    fn cut_end(&mut self, index: u64) {
        let store = self.raw.mut_store();
        self.end = store.end_of(index - 1).expect("it is in memory");
        store.cut_end(index);
        let before = Index(index - 1);
        for ready in &mut self.unflushed {
            if let Until::Stored(last) = &mut ready.until
                && *last > before
            {
                *last = before;
                // They speak of entries that are gone, to a leader of an older term.
                ready.messages.clear();
            }
        }
    }
}

impl Consensus for Raft {
    fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn may_propose(&self) -> bool {
        let raft = &self.raw.raft;
        let uncommitted = self.raw.store().bytes_behind(raft.raft_log.committed);
        let has_room = uncommitted < UNCOMMITTED_BYTES_MAX;
        self.leads() && has_room && raft.lead_transferee.is_none()
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
        self.heard.tick();
        if self.is_installing() || !self.leads() && !self.may_campaign() {
            return Ok(());
        }
        let has_spilled = self.raw.store().has_spilled();
        let raft = &mut self.raw.raft;
        if has_spilled && raft.election_elapsed + 1 >= ELECTION_TICKS {
            // As the leader it would have to have in memory what it commits. It goes on to vote.
            raft.election_elapsed = ELECTION_TICKS;
            return Ok(());
        }
        // The library draws from the thread's own randomness, which no seed repeats.
        let ticks = self.timeout.ticks(raft.election_elapsed == 0);
        let ticks = if self.has_room { ticks } else { LONGEST_TICKS };
        raft.set_randomized_election_timeout(ticks);
        if self.holds_back() {
            return Ok(());
        }
        self.raw.tick();
        Ok(())
    }

    /// Nothing is ever forwarded: the library would do it on a node that does not lead.
    fn propose(&mut self, payload: Vec<u8>) -> Result<(), ConsensusError> {
        assert!(self.may_propose(), "only the leader proposes");
        Ok(self.raw.propose(Vec::new(), payload)?)
    }

    fn stored(&mut self, index: Index) {
        let is_stored = |ready: &&Unflushed| match ready.until {
            Until::Stored(last) => last <= index,
            Until::Installed => false,
        };
        let count = self.unflushed.iter().take_while(is_stored).count();
        self.release(count);
        self.spill();
    }

    /// By the ReadIndex of Raft, never by leases: no clock takes part.
    fn is_alone(&self) -> bool {
        self.raw.raft.prs().is_singleton()
    }

    fn read_barrier(&mut self, token: u64) {
        assert!(self.leads(), "only the leader knows what is committed");
        self.raw.read_index(token.to_le_bytes().to_vec());
    }

    fn poll(&mut self) -> Result<Option<Progress>, ConsensusError> {
        let mut progress = Progress {
            lost_leadership: self.lost_leadership(),
            messages: std::mem::take(&mut self.released),
            ..Progress::default()
        };
        let has_ready = self.raw.has_ready();
        if has_ready {
            let ready = self.raw.ready();
            self.take_ready(ready, &mut progress)?;
        }
        progress.fetches = self.raw.mut_store().take_fetches();
        // An empty ready may have changed what comes next.
        Ok((has_ready || !progress.is_empty()).then_some(progress))
    }

    fn change_members(&mut self, entry: &Entry) -> Result<Members, ConsensusError> {
        let changes = members::decode_changes(&entry.body);
        let changes = changes.map_err(|cause| no_change(entry.index, cause))?;
        let change = members::proposal(&changes);
        let state = self.raw.apply_conf_change(&change)?;
        self.members = Members::from_raft(&state);
        if self.leads() && !self.members.is_voter(self.node) {
            // The library lets it lead on, and where one voter is left, it would even answer reads
            // without asking that one, which may lead by now.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, NOBODY);
        }
        Ok(self.members.clone())
    }

    fn applied(&mut self, index: Index) {
        self.applied = index;
        self.raw.advance_apply_to(index.get());
        let is_alone = self.members == Members::alone(self.node);
        let keep = if is_alone { 0 } else { KEPT_BYTES_MAX };
        self.raw.mut_store().forget(index.get(), keep);
        self.spill();
    }
}

impl From<::raft::Error> for ConsensusError {
    fn from(error: ::raft::Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

#[cfg(test)]
mod tests;
