//! This node among others: who leads, who takes part, and what is requested of that.
//!
//! What the engine decides shows here only when its effects are carried out: the members are those of
//! the last entry that is applied to the state, and not of one that waits behind a cut.

use std::collections::{BTreeMap, VecDeque};

use onelog_engine::{
    Consensus as _, ConsensusError, ELECTION_TICKS, EngineError, MemberChange, Members,
    MembersError, Message, PeerProgress, Raft,
};
use onelog_record::{Index, NodeId, Term};

use crate::failure::Failure;
use crate::handing_on::HandingOn;
use crate::jobs::{Answer, Job, Outbox, TransferError};
use crate::observer::Observer;
use crate::options::ReplicaOptions;
use crate::planted::{self, Bug};
use crate::replica::Replica;
use crate::space::FRAME_BYTES;

/// How often consensus hears that time has passed, where there is nobody to hear from.
const ALONE_TICK_MS: u64 = 200;
/// What is taken from a leader also where the disk is nearly full.
const SMALL_BYTES: u64 = 16 << 10;
/// About how many bytes of messages one job has.
const SEND_BYTES: usize = 4 << 20;

/// How much of what a leader has committed is applied in one turn, as a part of the memory of all
/// memtables: what comes meanwhile waits for it.
const COMMIT_PART: usize = 64;
/// The same in a turn in which at least as much was stored: that comes first, for it is answered.
const COMMIT_PART_STORING: usize = 256;
/// How many bytes of a leader's messages wait then: all that it sends without an answer.
const PARKED_BYTES_MAX: usize = 64 << 20;

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The highest term that was heard of.
    pub term: Term,
    /// Who leads in it, where that is known.
    pub leader: Option<NodeId>,
    /// Whether this node does.
    pub leads: bool,
    /// Whether requests are decided here: this node leads, and its term's first entry is applied.
    pub admits: bool,
}

/// What waits for its answer.
#[derive(Debug)]
struct Transfer<T> {
    ticket: T,
    to: NodeId,
}

/// What this node knows of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster<T> {
    pub(crate) node: NodeId,
    /// As of the last entry that is applied.
    pub(crate) members: Members,
    pub(crate) role: Role,
    /// Who is being sent a snapshot, and the last entry that it has: the log is kept from there on.
    pub(crate) sending: BTreeMap<NodeId, Index>,
    /// How far the others were when that was made known.
    peers: Vec<PeerProgress>,
    change: Option<T>,
    transfer: Option<Transfer<T>>,
    /// A leader's messages with entries that wait for those before them to be applied. It sends no
    /// others before they are answered; what is dropped would cost it a while to notice.
    parked: VecDeque<Message>,
    parked_bytes: usize,
    pub(crate) handing_on: HandingOn,
}

impl<T> Cluster<T> {
    pub(crate) fn new(options: &ReplicaOptions, members: Members) -> Self {
        Self {
            node: options.node,
            members,
            role: Role::default(),
            sending: BTreeMap::new(),
            peers: Vec::new(),
            change: None,
            transfer: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
            handing_on: HandingOn::default(),
        }
    }

    fn park(&mut self, message: Message) {
        let bytes = message.size();
        if self.parked_bytes + bytes <= PARKED_BYTES_MAX || self.parked.is_empty() {
            self.parked_bytes += bytes;
            self.parked.push_back(message);
        }
    }

    fn take_parked(&mut self) -> Option<Message> {
        let message = self.parked.pop_front()?;
        self.parked_bytes -= message.size();
        Some(message)
    }

    /// Whether there is any other node.
    pub(crate) fn has_peers(&self) -> bool {
        let is_me = |node: &NodeId| *node == self.node;
        let members = &self.members;
        let others = members.learners.iter().chain(&members.outgoing);
        !members.voters.iter().all(is_me) || others.count() > 0
    }

    /// Whether no other node's vote is needed.
    pub(crate) fn is_only_voter(&self) -> bool {
        self.members.outgoing.is_empty() && self.members.voters == [self.node].into()
    }

    /// Whether an answer will come that a stop waits for. Without a leader that of a transfer may
    /// not.
    pub(crate) const fn has_waiting(&self) -> bool {
        self.change.is_some() || self.transfer.is_some() && self.role.leads
    }

    pub(crate) const fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// Takes every ticket that waits.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> {
        let transfer = self.transfer.take().map(|transfer| transfer.ticket);
        self.change.take().into_iter().chain(transfer)
    }
}

fn role_of(raft: &Raft, admits: bool) -> Role {
    Role {
        term: raft.term(),
        leader: raft.leader(),
        leads: raft.leads(),
        admits,
    }
}

impl<T, O: Observer> Replica<T, O> {
    pub(crate) fn change_members(
        &mut self,
        ticket: T,
        changes: &[MemberChange],
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        if self.cluster.change.is_some() {
            let refused = Err(MembersError::UnderWay);
            out.answers.push(Answer::Members(ticket, refused));
            return Ok(());
        }
        match self.engine.propose_members(changes, &mut self.effects)? {
            Ok(()) => self.cluster.change = Some(ticket),
            Err(error) => out.answers.push(Answer::Members(ticket, Err(error))),
        }
        self.carry_out(out)
    }

    pub(crate) fn transfer(
        &mut self,
        ticket: T,
        to: NodeId,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        if let Some(before) = self.cluster.transfer.take() {
            let error = Err(TransferError::NotTaken(before.to));
            out.answers.push(Answer::Transferred(before.ticket, error));
        }
        match self.engine.transfer(to, &mut self.effects)? {
            Ok(()) => self.cluster.transfer = Some(Transfer { ticket, to }),
            Err(error) => {
                let error = Err(TransferError::Members(error));
                out.answers.push(Answer::Transferred(ticket, error));
            }
        }
        self.carry_out(out)
    }

    /// The members as of `index` are in force: it is applied.
    pub(crate) fn members_changed(&mut self, index: Index, members: Members, out: &mut Outbox<T>) {
        self.set_members(index, members);
        // A change ends with the joint configuration that it may need.
        if !self.cluster.members.is_changing()
            && let Some(ticket) = self.cluster.change.take()
        {
            let members = self.cluster.members.clone();
            out.answers.push(Answer::Members(ticket, Ok(members)));
        }
    }

    pub(crate) fn set_members(&mut self, index: Index, members: Members) {
        if !planted::is(Bug::MembersNotKept) {
            self.state.set_members(members.encode());
        }
        self.observer.members_changed(index, &members);
        let had_peers = self.cluster.has_peers();
        self.cluster.members = members;
        if !had_peers && self.has_replayed() {
            self.offer_snapshot();
        }
    }

    /// Looks at who leads now, after everything that may change it.
    pub(crate) fn note_role(&mut self, out: &mut Outbox<T>) {
        let role = role_of(self.engine.raft(), self.engine.admits());
        let before = std::mem::replace(&mut self.cluster.role, role);
        if before.leads && (!role.leads || role.term != before.term) {
            // The engine has answered its own; what these became of is not known either.
            self.view = None;
            if let Some(ticket) = self.cluster.change.take() {
                let lost = Err(MembersError::NotLeader);
                out.answers.push(Answer::Members(ticket, lost));
            }
        }
        self.end_transfer(out);
        if role != before {
            self.observer.role_changed(role);
        }
    }

    /// Answers a transfer when it is known who leads, or that this node kept the leadership.
    fn end_transfer(&mut self, out: &mut Outbox<T>) {
        let Some(Transfer { to, .. }) = self.cluster.transfer else {
            return;
        };
        let answer = match self.cluster.role.leader {
            Some(leader) if leader == to => Ok(()),
            Some(leader) if leader != self.cluster.node => Err(TransferError::NotTaken(to)),
            Some(_) if self.engine.raft().hands_on_to().is_none() => {
                Err(TransferError::NotTaken(to))
            }
            // It goes on, or an election does.
            _ => return,
        };
        if let Some(transfer) = self.cluster.transfer.take() {
            let ticket = transfer.ticket;
            out.answers.push(Answer::Transferred(ticket, answer));
        }
    }

    /// Makes known how far the others are, where that has changed.
    pub(crate) fn note_peers(&mut self) {
        let peers = self.engine.raft().peers();
        if peers != self.cluster.peers {
            self.observer.peers_progressed(&peers);
            self.cluster.peers = peers;
        }
    }

    /// A peer's message came.
    pub(crate) fn message_came(
        &mut self,
        message: Message,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        // While starting nothing is known yet that an answer could rest on.
        let is_early = !self.has_replayed();
        if is_early || message.snapshot().is_some() {
            return Ok(());
        }
        let must_wait = !self.cluster.parked.is_empty() || self.is_far_behind();
        if message.has_entries() && must_wait {
            self.cluster.park(message);
            return Ok(());
        }
        self.step(message, out)
    }

    fn step(&mut self, message: Message, out: &mut Outbox<T>) -> Result<(), Failure> {
        if message.has_entries() && !self.may_append(&message) {
            return Ok(());
        }
        let stepped = self.engine.step(message, &mut self.effects);
        if let Err(EngineError::Consensus(ConsensusError::LostTail { committed, .. })) = stepped {
            self.remember_lost_tail(committed)?;
        }
        stepped?;
        self.carry_out(out)
    }

    /// Whether more should be applied before more is stored: a voter could lead only when it has
    /// applied most of what it has.
    fn is_far_behind(&self) -> bool {
        let is_voter = self.cluster.members.is_voter(self.cluster.node);
        is_voter && self.engine.raft().backlog_bytes() >= self.options.memtable_bytes_max
    }

    /// Takes what waited, as far as there is room again.
    pub(crate) fn take_parked(&mut self, out: &mut Outbox<T>) -> Result<(), Failure> {
        while !self.is_far_behind()
            && let Some(message) = self.cluster.take_parked()
        {
            self.step(message, out)?;
        }
        Ok(())
    }

    /// Applies a piece of what a leader has said to be committed, unless a checkpoint must make room
    /// first. Answers whether there is more.
    pub(crate) fn commit(&mut self, out: &mut Outbox<T>) -> Result<bool, Failure> {
        let is_full = self.state.is_full() && self.checkpoints.is_running;
        // What waits to be carried out is not applied, even though the engine says so.
        if is_full || !self.queue.is_empty() {
            return Ok(false);
        }
        let memory = self.options.memtable_bytes_max;
        let bytes = match self.turn_bytes < (memory / COMMIT_PART_STORING) as u64 {
            true => memory / COMMIT_PART,
            false => memory / COMMIT_PART_STORING,
        };
        let has_more = self.engine.commit(bytes, &mut self.effects)?;
        self.carry_out(out)?;
        Ok(has_more && self.queue.is_empty())
    }

    /// Whether entries of a leader are taken: it sends again what is dropped, a little later, and so
    /// the disk does not overflow.
    fn may_append(&self, message: &Message) -> bool {
        // A full disk is no reason not to follow a new leader, whose first entry is small.
        let bytes = message.size() as u64 + FRAME_BYTES;
        let has_room = bytes <= SMALL_BYTES && self.log.has_room(bytes);
        has_room || !self.space.is_read_only()
    }

    /// Puts messages into jobs of a bounded size.
    pub(crate) fn send(
        &mut self,
        messages: Vec<Message>,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for message in messages {
            if let Some(mark) = message.snapshot() {
                self.send_snapshot(message, mark, out)?;
                continue;
            }
            bytes += message.size();
            batch.push(message);
            if bytes >= SEND_BYTES {
                out.jobs.push(Job::Send(std::mem::take(&mut batch)));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            out.jobs.push(Job::Send(batch));
        }
        Ok(())
    }
}

impl<T, O> Replica<T, O> {
    /// The members as of the last entry that is applied.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.cluster.members
    }

    /// Who leads, as of the last event.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.cluster.role
    }

    /// What consensus knows on this node.
    #[must_use]
    pub const fn raft(&self) -> &Raft {
        self.engine.raft()
    }

    /// How far the others are, where this node leads.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerProgress> {
        self.engine.raft().peers()
    }

    /// Whether something that the cluster decided waits until jobs that run have ended.
    #[must_use]
    pub fn waits_for_jobs(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How long a driver may wait at most before it ends another turn.
    #[must_use]
    pub fn tick_interval_ms(&self) -> u64 {
        match self.cluster.has_peers() {
            true => (self.options.election_ms / ELECTION_TICKS as u64).max(1),
            false => ALONE_TICK_MS,
        }
    }
}
