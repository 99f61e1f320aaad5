//! A batch: many whole transactions of the log, collapsed per key to the last image.

use bytes::Bytes;
use onelog_record::{Offset, Op, Position, Record};

use crate::plan::Plan;

/// What a sink takes over in one atomic step: everything in `[from, to)`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where the store stands.
    pub from: Position,
    /// Where it stands afterwards.
    pub to: Position,
    /// What happens to each mapping's rows, in the plan's order; by key, one change a key.
    pub changes: Vec<Vec<Change>>,
}

/// The newest image of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The record that wrote it.
    pub offset: Offset,
    /// Its value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

impl Batch {
    /// An empty batch behind `from`.
    #[must_use]
    pub fn new(plan: &Plan, from: Position) -> Self {
        Self {
            from,
            to: from,
            changes: vec![Vec::new(); plan.mappings.len()],
        }
    }

    /// Adds a record. Records come in the order of the log.
    pub fn push(&mut self, plan: &Plan, record: &Record) {
        assert!(
            record.offset.get() >= self.to.get(),
            "records come in the order of the log"
        );
        self.to = record.offset.after();
        if record.op == Op::Event {
            return;
        }
        for mapping in plan.of_table(record.table) {
            self.changes[*mapping].push(Change {
                key: record.key.clone(),
                offset: record.offset,
                value: record.value.clone(),
            });
        }
    }

    /// Ends the batch at `to` and keeps each key's last change only. Sorted by key, because trees
    /// take neighbours at a fraction of the cost.
    pub fn seal(&mut self, to: Position) {
        assert!(to >= self.to, "a batch ends behind its last record");
        self.to = to;
        for changes in &mut self.changes {
            changes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.offset.cmp(&a.offset)));
            changes.dedup_by(|later, earlier| later.key == earlier.key);
        }
    }

    /// How many rows change.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.changes.iter().map(Vec::len).sum()
    }
}
