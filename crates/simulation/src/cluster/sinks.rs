//! A sink with a model of a store. It follows the rules of the crate `onelog-sinks`, whose own runner needs
//! threads and is not what runs here: a session begins on a node that leads, takes the next epoch and reads
//! the store's position; a batch of the node's committed log is written in one step with position and
//! epoch, and refused where a later session has begun or the position is another one; where the log no
//! longer reaches back so far, the store is backfilled from the node's state. Writes travel: they
//! come late, twice, after the death of their node, and their answers get lost.
//!
//! So this shows that what nodes serve as committed makes one history across changes of the leader. It does
//! not show that the real runner keeps the rules.

use std::collections::BTreeMap;

use bytes::Bytes;
use onelog_log::ReadError;
use onelog_record::{
    Entry, EntryKind, NodeId, Offset, Op, Position, TABLE_TABLES, TableId, Transactions, raw_body,
};
use rand::Rng as _;

use super::node::Node;
use super::world::World;
use crate::history::Logged;
use crate::workloads::Random;

/// How many bytes of the log one batch has, about.
const BATCH_BYTES: usize = 4 << 10;
/// Of a hundred writes: those that come twice, and those whose answer gets lost.
const TWICE_PERCENT: u32 = 5;
const UNHEARD_PERCENT: u32 = 10;
/// How many steps a sink takes at most until it has everything.
const STEPS_TO_END_MAX: usize = 100_000;

type Row = (TableId, Bytes);

/// What is written in one step.
#[derive(Clone, Debug)]
struct Batch {
    after: Position,
    end: Position,
    /// Whether it is everything, in place of what was there.
    is_whole: bool,
    changes: Vec<(Row, Option<(Offset, Bytes)>)>,
}

#[derive(Clone, Debug)]
struct Sent {
    from: Session,
    batch: Batch,
}

/// One session of the sink, in one life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    node: NodeId,
    starts: u64,
    epoch: u64,
}

#[derive(Debug)]
struct Runner {
    session: Session,
    position: Position,
    /// Whether a write is on its way.
    waits: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Fenced,
    OtherPosition,
}

#[derive(Debug, Default)]
struct Store {
    epoch: u64,
    position: Position,
    rows: BTreeMap<Row, (Offset, Bytes)>,
}

impl Store {
    fn begin(&mut self) -> (u64, Position) {
        self.epoch += 1;
        (self.epoch, self.position)
    }

    fn write(&mut self, epoch: u64, batch: &Batch) -> Result<(), Refused> {
        if epoch != self.epoch {
            return Err(Refused::Fenced);
        }
        if batch.after != self.position {
            return Err(Refused::OtherPosition);
        }
        if batch.is_whole {
            self.rows.clear();
        }
        for (row, value) in &batch.changes {
            match value {
                Some(value) => drop(self.rows.insert(row.clone(), value.clone())),
                None => drop(self.rows.remove(row)),
            }
        }
        self.position = batch.end;
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Sinks {
    store: Store,
    runners: BTreeMap<NodeId, Runner>,
    wire: Vec<Sent>,
    ran_on: Option<NodeId>,
}

fn changes_of(entries: &[Entry]) -> Vec<(Row, Option<(Offset, Bytes)>)> {
    let mut changes = Vec::new();
    let with_any = |entry: &&Entry| entry.header.kind == EntryKind::Transactions;
    for entry in entries.iter().filter(with_any) {
        let raw = raw_body(entry).unwrap();
        for transaction in Transactions::new(raw, entry.header.base_offset) {
            let timestamp_ms = entry.header.timestamp_ms;
            let logged = Logged::read(&transaction.unwrap(), timestamp_ms).unwrap();
            let kept = logged.records.into_iter().filter(|r| r.op != Op::Event);
            changes.extend(kept.map(|record| {
                let value = record.value.filter(|_| record.op == Op::Put);
                let value = value.map(|value| (record.offset, value));
                ((record.table, record.key), value)
            }));
        }
    }
    changes
}

/// Everything, as the state of a node has it.
fn whole(node: &mut Node, after: Position) -> Batch {
    let rows = node.rows().into_iter();
    Batch {
        after,
        end: node.replica().applied().position,
        is_whole: true,
        changes: rows
            .map(|(table, key, version, value)| ((table, key), Some((version, value))))
            .collect(),
    }
}

impl World {
    /// The sink of a node does what is next: a session begins or ends, or a batch is read and sent.
    pub(super) fn step_sink(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        if !node.is_awake() || node.may_fail {
            return;
        }
        let (leads, starts) = (node.admits(), node.starts);
        let sinks = &mut self.sinks;
        match sinks.runners.get(&id) {
            Some(runner) if !leads || runner.session.starts != starts => {
                sinks.runners.remove(&id);
            }
            Some(runner) if runner.waits => {}
            Some(runner) => {
                let (from, after) = (runner.session, runner.position);
                if let Some(batch) = self.read_batch(id, after) {
                    let sinks = &mut self.sinks;
                    sinks.wire.push(Sent { from, batch });
                    sinks.runners.get_mut(&id).unwrap().waits = true;
                }
            }
            None if leads => {
                let (epoch, position) = sinks.store.begin();
                let session = Session {
                    node: id,
                    starts,
                    epoch,
                };
                let runner = Runner {
                    session,
                    position,
                    waits: false,
                };
                sinks.runners.insert(id, runner);
                let before = sinks.ran_on.replace(id);
                let has_moved = before.is_some_and(|before| before != id);
                self.reached.note("a sink moved", usize::from(has_moved));
            }
            None => {}
        }
    }

    /// What is committed behind `after`, as far as this node has applied it.
    fn read_batch(&mut self, id: NodeId, after: Position) -> Option<Batch> {
        loop {
            let node = self.get(id);
            let limit = node.replica().applied().index.next();
            match node.life().reader.entries_from(after, limit, BATCH_BYTES) {
                Ok(entries) => {
                    let end = entries.last()?.header.end();
                    return (end > after).then(|| Batch {
                        after,
                        end,
                        is_whole: false,
                        changes: changes_of(&entries),
                    });
                }
                Err(ReadError::Cut { .. }) => {
                    let batch = whole(node, after);
                    // A new leader may not have applied what the store has already.
                    return (batch.end > after).then(|| {
                        self.reached.note("a sink was backfilled from the state", 1);
                        batch
                    });
                }
                Err(ReadError::Corrupt(fault)) if node.has_rot => {
                    if !self.mend(id, &fault) {
                        return None;
                    }
                }
                Err(error) => panic!("the log of node {id} cannot be read: {error}"),
            }
        }
    }

    /// One of the writes on their way arrives.
    pub(super) fn write_sink(&mut self, random: &mut Random) {
        if self.sinks.wire.is_empty() {
            return;
        }
        let place = random.random_range(0..self.sinks.wire.len());
        let sent = self.sinks.wire.swap_remove(place);
        if random.random_ratio(TWICE_PERCENT, 100) {
            self.sinks.wire.push(sent.clone());
        }
        let is_heard = !random.random_ratio(UNHEARD_PERCENT, 100);
        self.arrive(&sent, is_heard);
    }

    fn arrive(&mut self, sent: &Sent, is_heard: bool) {
        let Sent { from, batch } = sent;
        let sinks = &mut self.sinks;
        let written = sinks.store.write(from.epoch, batch);
        if written == Err(Refused::Fenced) {
            self.reached.note("a sink was fenced", 1);
        }
        let runner = sinks.runners.get_mut(&from.node);
        let Some(runner) = runner.filter(|runner| runner.session == *from) else {
            return;
        };
        if written.is_ok() && is_heard {
            (runner.position, runner.waits) = (batch.end, false);
        } else if runner.position == batch.after {
            sinks.runners.remove(&from.node);
        }
    }

    /// Nothing fails any more: the store comes to hold what the log's state is.
    pub(super) fn end_sink(&mut self, leader: NodeId) {
        let end = self.nodes[&leader].replica().applied().position;
        for _ in 0..STEPS_TO_END_MAX {
            if self.sinks.store.position == end {
                break;
            }
            self.step_sink(leader);
            for sent in std::mem::take(&mut self.sinks.wire) {
                self.arrive(&sent, true);
            }
        }
        assert_eq!(self.sinks.store.position, end, "the sink has everything");
        let node = self.get(leader);
        let expected: BTreeMap<Row, (Offset, Bytes)> = (node.rows().into_iter())
            .map(|(table, key, version, value)| ((table, key), (version, value)))
            .collect();
        let catalog = std::sync::Arc::clone(node.replica().catalog());
        // What a dropped table had, the log does not delete row by row.
        let exists = |table: TableId| {
            table == TABLE_TABLES || catalog.tables().any(|known| known.id == table)
        };
        let rows = self.sinks.store.rows.iter();
        let found: BTreeMap<Row, (Offset, Bytes)> = rows
            .filter(|((table, _), _)| exists(*table))
            .map(|(row, value)| (row.clone(), value.clone()))
            .collect();
        assert_eq!(found, expected, "the sink has the log's state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(after: u64, end: u64) -> Batch {
        Batch {
            after: Position(after),
            end: Position(end),
            is_whole: false,
            changes: Vec::new(),
        }
    }

    #[test]
    fn a_session_is_fenced_by_the_next_one() {
        let mut store = Store::default();
        let (first, _) = store.begin();
        assert_eq!(store.write(first, &batch(0, 3)), Ok(()));
        let (second, position) = store.begin();
        assert_eq!(position, Position(3));
        assert_eq!(store.write(first, &batch(3, 5)), Err(Refused::Fenced));
        assert_eq!(store.write(second, &batch(3, 5)), Ok(()));
    }

    #[test]
    fn a_batch_is_written_once() {
        let mut store = Store::default();
        let (epoch, _) = store.begin();
        assert_eq!(store.write(epoch, &batch(0, 3)), Ok(()));
        let again = store.write(epoch, &batch(0, 3));
        assert_eq!(again, Err(Refused::OtherPosition));
    }
}
