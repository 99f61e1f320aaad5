//! What must hold of a cluster at every moment, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use onelog_engine::{Consensus as _, PeerProgress};
use onelog_record::{EntryKind, NodeId, Position, Transactions, TxnId, raw_body};

use super::invariants::{Broken, Invariants};
use super::node::Node;
use super::world::World;
use crate::history::Logged;

impl World {
    /// What must hold whatever happens.
    pub(super) fn check(&mut self) {
        if self.has_lost_entries {
            return;
        }
        let leading = self.nodes.values().filter(|node| node.admits()).count();
        self.note_begin("two nodes thought that they lead", leading > 1);
        let sends = self.sends_while_handing_on();
        self.note_begin("a leader that hands on was sending a snapshot", sends);
        let all = &mut self.invariants;
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.runs()) {
            if let Err(broken) = look_at(all, *id, node) {
                panic!("{broken}");
            }
        }
        for node in self.nodes.values().filter(|node| node.runs()) {
            if let Some((index, members)) = &node.replica().observer().members
                && *index > self.members.0
            {
                self.members = (*index, members.clone());
            }
        }
        // Only now is known what all have applied.
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.admits()) {
            let (raft, first) = (node.replica().raft(), node.replica().first_index());
            let held = all.holds_committed(*id, raft.term(), first, |index| raft.term_at(index));
            if let Err(broken) = held {
                panic!("{broken}");
            }
        }
    }

    /// The logs of any two are the same up to what one of them has applied; so are states at one position.
    pub fn check_equal(&mut self) {
        let rotten = self.rotten();
        let running = self.nodes.values().filter(|node| node.runs());
        let places: BTreeSet<Position> = running
            .map(|node| node.replica().applied().position)
            .collect();
        let (mut chains, mut states) = (BTreeMap::new(), BTreeMap::new());
        let can_be_read = |node: &Node| node.runs() && !node.may_fail && rotten != Some(node.id);
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| can_be_read(node)) {
            let position = node.replica().applied().position;
            for place in places.range(..=position) {
                if let Some(found) = node.life().reader.chain_at(*place).unwrap() {
                    let first = *chains.entry(*place).or_insert(found);
                    assert_eq!(found, first, "the log of node {id} differs below {place}");
                }
            }
            let rows = node.rows();
            let first = states.entry(position).or_insert_with(|| rows.clone());
            assert_eq!(*first, rows, "the state of node {id} differs at {position}");
        }
    }

    /// All transactions that are committed, in the order of the log.
    pub fn logged(&self) -> Vec<Logged> {
        let mut all = Vec::new();
        for entry in self.invariants.committed().values() {
            if entry.header.kind != EntryKind::Transactions {
                continue;
            }
            let raw = raw_body(entry).unwrap();
            for transaction in Transactions::new(raw, entry.header.base_offset) {
                let transaction = transaction.unwrap();
                all.push(Logged::read(&transaction, entry.header.timestamp_ms).unwrap());
            }
        }
        all
    }

    /// At the end: every member has everything, and whatever was acknowledged is there, once.
    pub fn check_end(&mut self) {
        let leader = self.leader().expect("one leads at the end");
        let members = self.nodes[&leader].replica().members().clone();
        let end = self.nodes[&leader].replica().applied();
        for id in members.all() {
            let replica = self.nodes[&id].replica();
            assert_eq!(replica.applied(), end, "node {id} has everything");
            assert_eq!(*replica.members(), members, "node {id} knows the members");
        }
        self.check_equal();
        let mut found: BTreeMap<TxnId, Position> = BTreeMap::new();
        let mut timestamp_ms = 0;
        let last = self
            .invariants
            .committed()
            .last_key_value()
            .map(|(index, _)| *index);
        assert_eq!(
            last,
            Some(end.index),
            "nothing is committed beyond the leader"
        );
        assert_eq!(
            self.invariants.committed().len() as u64,
            end.index.get(),
            "none is left out"
        );
        for entry in self.invariants.committed().values() {
            if entry.header.transaction_count == 0 {
                continue;
            }
            assert!(
                entry.header.timestamp_ms >= timestamp_ms,
                "time never falls"
            );
            timestamp_ms = entry.header.timestamp_ms;
            let raw = raw_body(entry).unwrap();
            for transaction in Transactions::new(raw, entry.header.base_offset) {
                let transaction = transaction.unwrap();
                let end = transaction.first_offset.get() + u64::from(transaction.record_count);
                let before = found.insert(transaction.id, Position(end));
                assert_eq!(before, None, "{} is in the log twice", transaction.id);
            }
        }
        for (id, position) in &self.acknowledged {
            assert_eq!(found.get(id), Some(position), "transaction {id} is lost");
        }
    }
}

/// What happened on a node since the last look.
fn look_at(all: &mut Invariants, id: NodeId, node: &mut Node) -> Result<(), Broken> {
    for change in node.take_log_changes() {
        all.log_changed(id, &change)?;
    }
    let applied = node.take_applied();
    let raft = node.replica().raft();
    if raft.leads() {
        all.leads(id, raft.term())?;
    }
    for PeerProgress { node, matched, .. } in raft.peers() {
        raft.next_of(node)
            .map_or(Ok(()), |next| Invariants::sends(node, next, matched))?;
    }
    let term = raft.term();
    applied
        .iter()
        .try_for_each(|entry| all.applied(id, term, entry))
}
