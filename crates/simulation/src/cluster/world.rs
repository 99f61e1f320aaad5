//! All nodes, and what is on its way between them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _};

use bytes::Bytes;
use onelog_engine::{MemberChange, Members, MembersError, Message};
use onelog_log::CrashMode;
use onelog_record::{
    CommitRequest, Index, NodeId, Operation, Position, Refusal, TableId, Term, TxnId, Write,
};
use onelog_replica::{
    Answer, ArrivedSnapshot, Creation, Event, NewTable, PinnedSnapshot, ReplicaOptions,
    TransferError, creation,
};
use onelog_state::Import;

use super::invariants::Invariants;
use super::node::{Node, options};
use super::reached::Reached;
use super::rot::Rot;
use super::sinks::Sinks;

/// The table that every world has.
pub const TABLE: &str = "t";

/// A snapshot on its way, chunk by chunk.
#[derive(Debug)]
struct Transit {
    from: NodeId,
    pinned: PinnedSnapshot,
    import: Option<Import>,
}

#[derive(Debug, Default)]
pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    pub mail: Vec<Message>,
    transits: Vec<Transit>,
    /// Pairs that do not hear each other, from and to.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) invariants: Invariants,
    /// Acknowledged entries are gone from a majority, so that none of these holds.
    pub has_lost_entries: bool,
    /// The id of each request, by its ticket.
    ids: BTreeMap<u32, TxnId>,
    pub(super) acknowledged: BTreeMap<TxnId, Position>,
    pub refused: BTreeMap<u32, Refusal>,
    readable: BTreeMap<u32, Position>,
    /// The highest acknowledged position when each read was requested.
    requested: BTreeMap<u32, Position>,
    pub changed: BTreeMap<u32, Result<Members, MembersError>>,
    pub transferred: BTreeMap<u32, Result<(), TransferError>>,
    /// Every answer, until those who wait for it have taken it.
    pub heard: Vec<(NodeId, Answer<u32>)>,
    pub reached: Reached,
    /// What was true at the last look, so that each time it begins is counted.
    pub(super) was: BTreeSet<&'static str>,
    /// Who has sought the leadership of each term.
    pub(super) candidates: BTreeSet<(Term, NodeId)>,
    /// Of every message that was sent.
    pub(super) trace: DefaultHasher,
    /// Who the members are, as of the last entry that any node has applied.
    pub(super) members: (Index, Members),
    /// Those that are to be removed; they never come back under the same number.
    pub(super) leaving: BTreeSet<NodeId>,
    pub(super) rots: Vec<Rot>,
    pub(super) sinks: Sinks,
    /// The last node that was added.
    pub(super) last_id: NodeId,
    seed: u64,
}

pub const fn node(number: u64) -> NodeId {
    NodeId(number)
}

/// The node that asks for votes with this message, and the term of which.
fn candidacy(bytes: &[u8], message: &Message) -> Option<(Term, NodeId)> {
    /// As a message begins that asks for a vote, not only for a promise of one.
    const REQUEST_VOTE: u8 = 5;
    (bytes.first() == Some(&REQUEST_VOTE)).then(|| (message.term(), message.from()))
}

impl World {
    /// A node that has begun a log, leads, and has made [`TABLE`].
    pub fn of_one(seed: u64) -> Self {
        Self::of_one_with(seed, options(node(1)))
    }

    pub fn of_one_with(seed: u64, options: ReplicaOptions) -> Self {
        let mut world = Self::bare(seed, options);
        world.define(node(1), TABLE, u32::MAX);
        world.settle();
        assert!(world.is_acknowledged(u32::MAX));
        world
    }

    /// A node that has begun a log and leads.
    pub fn bare(seed: u64, options: ReplicaOptions) -> Self {
        let mut world = Self {
            seed,
            ..Self::default()
        };
        world.add(node(1), options);
        world.settle();
        world
    }

    /// So many voters, grown from one. Node 1 leads.
    pub fn of(count: u64, seed: u64) -> Self {
        Self::of_with(count, seed, options)
    }

    pub fn of_with(count: u64, seed: u64, options: fn(NodeId) -> ReplicaOptions) -> Self {
        let mut world = Self::of_one_with(seed, options(node(1)));
        world.grow(count, options);
        world
    }

    /// More nodes join, and all of them vote.
    pub fn grow(&mut self, count: u64, options: fn(NodeId) -> ReplicaOptions) {
        let world = self;
        for id in (2..=count).map(NodeId) {
            world.add(id, options(id));
            world.change_and_wait(node(1), &[MemberChange::Learner(id)]);
        }
        let voters: Vec<_> = (2..=count).map(NodeId).map(MemberChange::Voter).collect();
        if !voters.is_empty() {
            world.change_and_wait(node(1), &voters);
        }
    }

    /// An empty node starts.
    pub fn add(&mut self, id: NodeId, options: ReplicaOptions) {
        self.seed += 1;
        let mut node = Node::new(id, self.seed << 8 | id.get(), options);
        node.start().expect("an empty node starts");
        self.nodes.insert(id, node);
        self.last_id = self.last_id.max(id);
    }

    /// Nodes that were removed are gone with their disks.
    pub(super) fn retire(&mut self) {
        let members = self.members.1.all();
        let gone: Vec<NodeId> = (self.leaving.iter().copied())
            .filter(|id| self.nodes.contains_key(id) && !members.contains(id))
            .collect();
        for id in gone {
            self.stop(id, CrashMode::LoseAll);
            let mut node = self.nodes.remove(&id).expect("it was there");
            node.note_reached();
            node.reached.note("a node was removed for good", 1);
            self.reached.add(&node.reached);
        }
    }

    #[track_caller]
    pub fn get(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("there is such a node")
    }

    /// Power fails on a node, and comes back.
    pub fn crash(&mut self, id: NodeId, mode: CrashMode) {
        self.stop(id, mode);
        self.get(id).may_fail = false;
        // One whose log is damaged may have to wait for another one.
        self.start(id).expect("a node starts after a crash");
        self.gather();
    }

    /// Power fails on a node. The other end of what it sends or receives hears that.
    pub fn stop(&mut self, id: NodeId, mode: CrashMode) {
        self.gather();
        self.get(id).crash(mode);
        let all = std::mem::take(&mut self.transits);
        for transit in all {
            if transit.from == id || transit.pinned.message.to() == id {
                self.end_transit(transit, false);
            } else {
                self.transits.push(transit);
            }
        }
    }

    fn end_transit(&mut self, transit: Transit, is_whole: bool) {
        let broken = usize::from(!is_whole);
        self.reached.note("a snapshot's way was broken off", broken);
        let to = transit.pinned.message.to();
        if let Some(sender) = self.nodes.get_mut(&transit.from).filter(|node| node.runs()) {
            sender.handle(Event::SnapshotSent { to, is_whole });
        }
    }

    /// The next step of a snapshot's way: it begins, or the next chunk arrives.
    pub fn carry_snapshot(&mut self, number: usize) -> bool {
        let sends = |node: &&mut Node| node.has_snapshot_to_send();
        if let Some(sender) = self.nodes.values_mut().find(sends) {
            let from = sender.id;
            let pinned = sender.begin_snapshot();
            self.transits.extend(pinned.map(|pinned| Transit {
                from,
                pinned,
                import: None,
            }));
            return true;
        }
        if self.transits.is_empty() {
            return false;
        }
        let mut transit = self.transits.swap_remove(number % self.transits.len());
        match self.carry_on(&mut transit) {
            None => self.transits.push(transit),
            Some(is_whole) => self.end_transit(transit, is_whole),
        }
        true
    }

    /// The snapshots on their way are for this node: as if it, and not another one, needed them.
    pub fn redirect_snapshots(&mut self, to: NodeId) {
        /// Where the bytes of a message name its receiver.
        const TO: std::ops::Range<usize> = 8..16;
        for transit in &mut self.transits {
            let mut bytes = transit.pinned.message.encode();
            bytes[TO].copy_from_slice(&to.get().to_le_bytes());
            transit.pinned.message = Message::decode(bytes.into()).unwrap();
        }
    }

    /// Answers whether the snapshot is there, once its way has ended.
    fn carry_on(&mut self, transit: &mut Transit) -> Option<bool> {
        let (from, to) = (transit.from, transit.pinned.message.to());
        let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let Some(sender) = self.nodes.get(&from).filter(|node| node.runs()) else {
            return Some(false);
        };
        let sender_may_fail = sender.may_fail;
        let receiver = self.nodes.get_mut(&to).filter(|node| node.runs());
        let Some(receiver) = receiver.filter(|_| !is_cut) else {
            return Some(false);
        };
        let Some(import) = &mut transit.import else {
            let state = receiver.replica().state();
            // There may be another one under way.
            transit.import = Import::begin(&state, transit.pinned.head.clone()).ok();
            return transit.import.is_none().then_some(false);
        };
        if let Some(cursor) = import.wanted() {
            let chunk = match transit.pinned.export.chunk(&cursor) {
                Err(_) if sender_may_fail => return Some(false),
                chunk => chunk.expect("the checkpoint is pinned"),
            };
            return match import.put(&chunk) {
                Err(_) if receiver.may_fail => Some(false),
                put => {
                    put.expect("it is as it was sent");
                    None
                }
            };
        }
        let imported = match transit.import.take()?.finish() {
            Err(_) if receiver.may_fail => return Some(false),
            finished => finished.expect("it is as it was sent"),
        };
        let arrived = ArrivedSnapshot {
            message: transit.pinned.message.clone(),
            head: transit.pinned.head.clone(),
            imported,
        };
        receiver.handle(Event::Snapshot(Box::new(arrived)));
        let waits = receiver.runs() && receiver.replica().waits_for_jobs();
        let waits = usize::from(waits);
        receiver
            .reached
            .note("an installation waited for jobs", waits);
        Some(true)
    }

    pub fn isolate(&mut self, id: NodeId) {
        for other in self.nodes.keys().copied().filter(|other| *other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Takes what the nodes have sent and answered, and looks at them.
    pub fn gather(&mut self) {
        let mut answers = Vec::new();
        for (id, node) in &mut self.nodes {
            for message in node.sent.drain(..) {
                if !self.cut.contains(&(*id, message.to())) {
                    // As it travels.
                    let bytes = message.encode();
                    bytes.hash(&mut self.trace);
                    self.candidates.extend(candidacy(&bytes, &message));
                    self.mail.push(Message::decode(bytes.into()).unwrap());
                }
            }
            answers.extend(node.answers.drain(..).map(|answer| (*id, answer)));
        }
        for (id, answer) in answers {
            self.hear(id, answer);
        }
        self.check();
    }

    fn hear(&mut self, id: NodeId, answer: Answer<u32>) {
        self.heard.push((id, answer.clone()));
        match answer {
            Answer::Decided(ticket, Ok(committed)) => {
                let Some(&txn) = self.ids.get(&ticket) else {
                    return;
                };
                let known = self.acknowledged.entry(txn).or_insert(committed.position);
                assert_eq!(*known, committed.position, "{txn} has one place");
            }
            Answer::Decided(ticket, Err(refusal)) => {
                if refusal == Refusal::NotLeader {
                    self.get(id)
                        .reached
                        .note("a request met a node that does not lead", 1);
                }
                self.refused.insert(ticket, refusal);
            }
            Answer::Readable(ticket, position) => {
                let Some(&requested) = self.requested.get(&ticket) else {
                    return;
                };
                assert!(
                    position >= requested,
                    "read {ticket} at {position} misses what was acknowledged at {requested}"
                );
                self.readable.insert(ticket, position);
            }
            Answer::Members(ticket, answer) => {
                let is_split = answer.is_ok() && !self.cut.is_empty();
                let what = "the members changed under a partition";
                self.reached.note(what, usize::from(is_split));
                self.changed.insert(ticket, answer);
            }
            Answer::Transferred(ticket, answer) => {
                let is_done = usize::from(answer.is_ok());
                self.reached.note("a leadership was handed on", is_done);
                self.transferred.insert(ticket, answer);
            }
        }
    }

    /// Gives a message to its receiver, if that runs and hears the sender.
    pub fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from(), message.to());
        let is_cut = self.cut.contains(&(from, to));
        let receiver = self.nodes.get_mut(&to).filter(|node| node.runs());
        match receiver.filter(|_| !is_cut) {
            Some(receiver) => receiver.handle(Event::Message(Box::new(message))),
            None => self.lose(&message),
        }
    }

    /// A message does not arrive. Its sender hears that the connection broke.
    pub fn lose(&mut self, message: &Message) {
        let (from, to) = (message.from(), message.to());
        if let Some(sender) = self.nodes.get_mut(&from).filter(|node| node.runs()) {
            sender.handle(Event::Unreachable(to));
        }
    }

    /// Everything that is under way happens, until nothing is.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut is_busy = self.happen();
            while self.carry_snapshot(0) {
                is_busy = true;
            }
            if !is_busy {
                return;
            }
        }
        panic!("it never ends");
    }

    /// Everything that is under way happens, but for snapshots.
    pub fn settle_but_snapshots(&mut self) {
        for _ in 0..10_000 {
            if !self.happen() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// One step of all, but for snapshots. Answers whether anything happened.
    fn happen(&mut self) -> bool {
        let mut is_busy = false;
        for node in self.nodes.values_mut().filter(|node| node.runs()) {
            is_busy |= node.turn();
            is_busy |= node.run_all_jobs();
        }
        self.gather();
        is_busy |= !self.mail.is_empty();
        for message in std::mem::take(&mut self.mail) {
            self.deliver(message);
        }
        is_busy
    }

    /// Time passes for all, with everything happening at once.
    pub fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for node in self.nodes.values_mut().filter(|node| node.runs()) {
                node.tick();
            }
            self.settle();
            self.compare_digests();
        }
    }

    /// Each node says to the others which digests it has.
    fn compare_digests(&mut self) {
        let running = self.nodes.values().filter(|node| node.runs());
        let all: Vec<_> = running
            .map(|node| (node.id, node.replica().observer().digests.clone()))
            .collect();
        for (from, digests) in all {
            let others = self.nodes.values_mut().filter(|node| node.id != from);
            for node in others.filter(|node| node.runs()) {
                let digests = digests.clone();
                node.handle(Event::Digests { from, digests });
            }
        }
    }

    /// Who leads in the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        let leads = self.nodes.values().filter(|node| node.admits());
        let leader = leads.max_by_key(|node| node.replica().role().term);
        leader.map(|node| node.id)
    }

    /// Waits until a node leads that most others follow.
    #[track_caller]
    pub fn elect(&mut self) -> NodeId {
        for _ in 0..300 {
            self.run(1);
            if let Some(leader) = self.leader() {
                let follows =
                    |node: &&Node| node.runs() && node.replica().role().leader == Some(leader);
                let members = self.nodes[&leader].replica().members().all();
                let all = members.iter().filter_map(|id| self.nodes.get(id));
                if all.filter(follows).count() > members.len() / 2 {
                    return leader;
                }
            }
        }
        panic!("none leads after 300 ticks");
    }

    /// Waits until one of these leads.
    pub fn elect_of(&mut self, ids: &[NodeId]) -> NodeId {
        for _ in 0..300 {
            self.run(1);
            if let Some(id) = ids.iter().find(|id| self.nodes[id].admits()) {
                return *id;
            }
        }
        panic!("none of {ids:?} leads after 300 ticks");
    }

    /// Sends a write of a key of its own under an id of its own.
    pub fn put(&mut self, to: NodeId, ticket: u32) {
        self.put_as(to, ticket, TxnId(u128::from(ticket)));
    }

    /// The same request under the same id, whatever the ticket.
    pub fn put_as(&mut self, to: NodeId, ticket: u32, id: TxnId) {
        self.put_value(to, ticket, id, 200);
    }

    pub fn put_value(&mut self, to: NodeId, ticket: u32, id: TxnId, bytes: usize) {
        let table = self.table(to, TABLE).expect("every world has it");
        let digits = id.0.to_string();
        let value = format!("\"{}{digits}\"", "0".repeat(bytes - digits.len()));
        let request = CommitRequest {
            id: Some(id),
            writes: vec![Write {
                table,
                key: Bytes::from(format!("k{}", id.0 % 50)),
                operation: Operation::Put(Bytes::from(value)),
                headers: Vec::new(),
            }],
            ..CommitRequest::default()
        };
        self.ids.insert(ticket, id);
        let node = self.get(to);
        node.submit(ticket, id, request);
        node.turn();
    }

    pub fn table(&self, of: NodeId, name: &str) -> Option<TableId> {
        let catalog = self.nodes[&of].replica().catalog();
        catalog.by_name(name).map(|table| table.id)
    }

    /// Sends the definition of a table, if it is not there yet.
    pub fn define(&mut self, to: NodeId, name: &str, ticket: u32) {
        let replica = self.get(to).replica();
        let position = replica.applied().position;
        let creation = creation(position, replica.catalog(), &NewTable::keyed(name));
        let Ok(Creation::Commit(_, request)) = creation else {
            return;
        };
        let id = TxnId(1 << 64 | u128::from(ticket));
        self.ids.insert(ticket, id);
        let node = self.get(to);
        node.submit(ticket, id, *request);
        node.turn();
    }

    pub fn read(&mut self, of: NodeId, ticket: u32) {
        let newest = self.acknowledged.values().copied().max();
        self.requested.insert(ticket, newest.unwrap_or_default());
        self.get(of).handle(Event::ReadBarrier(ticket));
    }

    pub fn change(&mut self, leader: NodeId, ticket: u32, changes: &[MemberChange]) {
        let event = Event::ChangeMembers(ticket, changes.to_vec());
        self.get(leader).handle(event);
    }

    /// Changes the members and waits until they are in force.
    #[track_caller]
    pub fn change_and_wait(&mut self, leader: NodeId, changes: &[MemberChange]) {
        self.changed.remove(&0);
        self.change(leader, 0, changes);
        for _ in 0..100 {
            self.settle();
            if let Some(answer) = self.changed.remove(&0) {
                answer.expect("the members change");
                return self.settle();
            }
            self.run(1);
        }
        panic!("{changes:?} is not in force after 100 ticks");
    }

    pub fn is_acknowledged(&self, ticket: u32) -> bool {
        let id = self.ids.get(&ticket);
        id.is_some_and(|id| self.acknowledged.contains_key(id))
    }

    pub fn is_readable(&self, ticket: u32) -> bool {
        self.readable.contains_key(&ticket)
    }

    /// Whether a leader sends a snapshot while it hands the leadership on.
    pub(super) fn sends_while_handing_on(&self) -> bool {
        let mut senders = self.transits.iter().map(|transit| transit.from);
        senders.any(|from| {
            let sender = self.nodes.get(&from).filter(|node| node.runs());
            sender.is_some_and(|node| node.replica().raft().hands_on_to().is_some())
        })
    }

    /// Counts the beginnings of what lasts.
    pub(super) fn note_begin(&mut self, what: &'static str, is_so: bool) {
        let has_begun = is_so && self.was.insert(what);
        if !is_so {
            self.was.remove(what);
        }
        self.reached.note(what, usize::from(has_begun));
    }

    pub fn reached(&mut self) -> Reached {
        let mut all = self.reached.clone();
        let terms = self.candidates.iter().map(|(term, _)| *term);
        let terms = terms.collect::<Vec<_>>();
        let doubled = terms
            .chunk_by(|a, b| a == b)
            .filter(|nodes| nodes.len() > 1);
        let what = "two nodes sought the leadership of one term";
        all.note(what, doubled.count());
        for node in self.nodes.values_mut() {
            node.note_reached();
            all.add(&node.reached);
        }
        all
    }
}
