//! All nodes, what is on its way between them, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};

use onelog_engine::{EngineError, MemberChange, Members, Message};
use onelog_record::{Entry, Index, NodeId, Position, Term, Transactions, TxnId, raw_body};

use crate::node::{Disk, Node};

#[derive(Default)]
pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    pub mail: Vec<Message>,
    /// Pairs that do not hear each other, from and to.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    leaders: BTreeMap<Term, NodeId>,
    committed: BTreeMap<Index, Entry>,
    acknowledged: BTreeMap<u32, Position>,
    readable: BTreeMap<u32, Position>,
    /// The highest acknowledged position when each read was requested.
    asked: BTreeMap<u32, Position>,
    founders: Members,
    seed: u64,
    /// What is known to stop loudly, and why it did.
    pub doomed: BTreeMap<NodeId, Option<EngineError>>,
}

pub fn node(number: u64) -> NodeId {
    NodeId(number)
}

impl World {
    pub fn of(count: u64, seed: u64) -> Self {
        let mut world = Self {
            seed,
            ..Self::default()
        };
        let members = Members::of((1..=count).map(NodeId));
        world.founders = members.clone();
        for id in 1..=count {
            let disk = Disk {
                members: members.clone(),
                ..Disk::default()
            };
            world.start(NodeId(id), disk);
        }
        world
    }

    /// An empty node, which only knows who the members were when the log began.
    pub fn start_empty(&mut self, id: NodeId) {
        let disk = Disk {
            members: self.founders.clone(),
            ..Disk::default()
        };
        self.start(id, disk);
    }

    pub fn start(&mut self, id: NodeId, disk: Disk) {
        self.seed += 1;
        let seed = self.seed.wrapping_mul(1000) + id.get();
        self.nodes.insert(id, Node::start(id, disk, seed));
    }

    pub fn get(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&NodeId(number)).unwrap()
    }

    /// The node stops without a warning and starts again with what was durable.
    pub fn crash(&mut self, id: NodeId) {
        let before = self.nodes.remove(&id).unwrap();
        self.start(id, before.disk);
        self.get(id.get()).reached = before.reached;
    }

    /// The node is off; this is what its disk has.
    pub fn take_off(&mut self, id: NodeId) -> Disk {
        self.nodes.remove(&id).unwrap().disk
    }

    /// The node starts with `disk`, whatever it had before. What only others had is no longer counted
    /// on.
    pub fn put_back(&mut self, id: NodeId, disk: Disk) {
        let known = self.nodes.values().map(|node| node.applied.len()).max();
        let known = Index(known.unwrap_or_default() as u64);
        self.committed.retain(|index, _| *index <= known);
        self.acknowledged.clear();
        self.start(id, disk);
    }

    pub fn isolate(&mut self, id: NodeId) {
        for other in self.nodes.keys().copied().filter(|other| *other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Takes what the nodes have sent and answered, and looks at them.
    pub fn gather(&mut self) {
        for (id, node) in &mut self.nodes {
            for message in node.sent.drain(..) {
                if !self.cut.contains(&(*id, message.to())) {
                    // As it travels.
                    self.mail
                        .push(Message::decode(message.encode().into()).unwrap());
                }
            }
            for (ticket, answer) in node.answers.drain(..) {
                if let Ok(committed) = answer {
                    self.acknowledged.insert(ticket, committed.position);
                }
            }
            for (ticket, position) in node.readable.drain(..) {
                self.readable.insert(ticket, position);
            }
        }
        self.check();
    }

    /// Gives a message to its receiver, with the snapshot that it announces.
    pub fn deliver(&mut self, message: Message) {
        if self.cut.contains(&(message.from(), message.to())) {
            self.lose(&message);
            return;
        }
        if let Some(mark) = message.snapshot() {
            let sender = self.nodes.get(&message.from());
            let found = sender.and_then(|node| node.snapshot.clone());
            let is_whole = found.as_ref().is_some_and(|(of, _)| *of == mark);
            self.snapshot_sent(&message, is_whole);
            let Some(receiver) = self.nodes.get_mut(&message.to()) else {
                return;
            };
            if !is_whole || receiver.arrived.is_some() {
                return;
            }
            receiver.arrived = found;
            receiver.hears(message).unwrap();
            // It may have been of no use.
            if !receiver.is_installing() {
                receiver.arrived = None;
            }
            return;
        }
        let Some(receiver) = self.nodes.get_mut(&message.to()) else {
            return;
        };
        let (id, result) = (receiver.id, receiver.hears(message));
        if let Some(why) = self.doomed.get_mut(&id) {
            *why = result.err();
            if why.is_some() {
                self.nodes.remove(&id);
            }
        } else {
            result.unwrap();
        }
    }

    /// A message does not arrive. Of a snapshot its sender hears, as the connection breaks.
    pub fn lose(&mut self, message: &Message) {
        if message.snapshot().is_some() {
            self.snapshot_sent(message, false);
        }
    }

    fn snapshot_sent(&mut self, message: &Message, is_whole: bool) {
        if let Some(sender) = self.nodes.get_mut(&message.from()) {
            let to = message.to();
            sender.does(|engine, out| engine.snapshot_sent(to, is_whole, out).unwrap());
        }
    }

    /// Everything that is under way happens, until nothing is.
    pub fn settle(&mut self) {
        loop {
            for node in self.nodes.values_mut() {
                node.fetch();
                node.flush(usize::MAX);
            }
            self.gather();
            if self.mail.is_empty() {
                let is_busy = |node: &Node| !node.fetches.is_empty() || !node.staged.is_empty();
                if !self.nodes.values().any(is_busy) {
                    return;
                }
            }
            for message in std::mem::take(&mut self.mail) {
                self.deliver(message);
            }
        }
    }

    /// Time passes for all, with everything happening at once.
    pub fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for node in self.nodes.values_mut() {
                node.tick();
            }
            self.settle();
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = self.nodes.values().filter(|node| node.leads());
        leads
            .max_by_key(|node| node.engine.applied().term)
            .map(|node| node.id)
    }

    /// Waits until a node leads.
    pub fn elect(&mut self) -> NodeId {
        for _ in 0..300 {
            self.run(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody leads after 300 ticks");
    }

    pub fn put(&mut self, number: NodeId, ticket: u32) {
        let node = self.nodes.get_mut(&number).unwrap();
        node.submit(ticket);
        node.seal();
    }

    pub fn read(&mut self, number: NodeId, ticket: u32) {
        let newest = self.acknowledged.values().copied().max();
        self.asked.insert(ticket, newest.unwrap_or_default());
        let node = self.nodes.get_mut(&number).unwrap();
        node.does(|engine, out| engine.read_barrier(ticket, out).unwrap());
    }

    pub fn change(&mut self, leader: NodeId, changes: &[MemberChange]) {
        let node = self.nodes.get_mut(&leader).unwrap();
        node.does(|engine, out| engine.propose_members(changes, out).unwrap().unwrap());
    }

    pub fn is_acknowledged(&self, ticket: u32) -> bool {
        self.acknowledged.contains_key(&ticket)
    }

    pub fn is_readable(&self, ticket: u32) -> bool {
        self.readable.contains_key(&ticket)
    }

    /// What must hold whatever happens.
    fn check(&mut self) {
        for (id, node) in &self.nodes {
            if node.leads() {
                let term = node.engine.applied().term;
                let leader = self.leaders.entry(term).or_insert(*id);
                assert_eq!(leader, id, "term {term} has one leader");
            }
            if self.doomed.contains_key(id) {
                continue;
            }
            for (place, entry) in node.applied.iter().enumerate() {
                assert_eq!(entry.index, Index(place as u64 + 1), "nothing is left out");
                let known = self
                    .committed
                    .entry(entry.index)
                    .or_insert_with(|| entry.clone());
                assert_eq!(
                    known, entry,
                    "node {id} applied another entry {}",
                    entry.index
                );
            }
        }
        for (ticket, position) in &self.readable {
            let asked = self.asked.get(ticket).copied().unwrap_or_default();
            assert!(
                *position >= asked,
                "read {ticket} at {position} misses what was acknowledged at {asked}"
            );
        }
    }

    /// At the end: every node has everything, and whatever was acknowledged is there, once.
    pub fn check_end(&self) {
        let members = &self.nodes[&self.leader().unwrap()].members;
        let longest = self.committed.len();
        for id in members.all() {
            assert_eq!(
                self.nodes[&id].applied.len(),
                longest,
                "node {id} has everything"
            );
        }
        let mut found: BTreeMap<TxnId, Position> = BTreeMap::new();
        for entry in self.committed.values() {
            let raw = raw_body(entry).unwrap();
            if entry.header.transaction_count == 0 {
                continue;
            }
            for transaction in Transactions::new(raw, entry.header.base_offset) {
                let transaction = transaction.unwrap();
                let end = transaction.first_offset.get() + u64::from(transaction.record_count);
                let before = found.insert(transaction.id, Position(end));
                assert_eq!(before, None, "{} is in the log twice", transaction.id);
            }
        }
        for (ticket, position) in &self.acknowledged {
            let id = TxnId(u128::from(*ticket));
            assert_eq!(
                found.get(&id),
                Some(position),
                "transaction {ticket} is lost"
            );
        }
    }
}
