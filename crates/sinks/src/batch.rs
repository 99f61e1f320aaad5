//! A batch: many whole transactions of the log, collapsed per key to the last image.

use bytes::Bytes;
use onelog_record::{Offset, Op, Position, Record};

use crate::plan::{MappingPlan, Plan};
use crate::store::StoreError;

/// What a sink takes over in one atomic step: everything in `[from, to)`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where the store stands.
    pub from: Position,
    /// Where it stands afterwards.
    pub to: Position,
    /// What happens to each mapping's rows, in the plan's order; by key, one change a key.
    pub changes: Vec<Vec<Change>>,
    /// Every change in the order of the log, with its mapping's number: for stores in which a row
    /// can stand in the way of another, so that the last images alone may not fit.
    pub in_order: Vec<(usize, Change)>,
}

/// The newest image of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The record that wrote it.
    pub offset: Offset,
    /// Its value, shaped by the mapping; `None` when it was deleted or the mapping leaves it out.
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
            in_order: Vec::new(),
        }
    }

    /// A batch that moves nothing but writes rows again, or deletes them: `changes` by mapping.
    #[must_use]
    pub fn repair(at: Position, changes: Vec<Vec<Change>>) -> Self {
        let mut batch = Self {
            from: at,
            to: at,
            in_order: Vec::new(),
            changes,
        };
        for (mapping, changes) in batch.changes.iter_mut().enumerate() {
            collapse(changes);
            batch
                .in_order
                .extend(changes.iter().map(|change| (mapping, change.clone())));
        }
        batch
    }

    /// Whether rows shall be written again where the store stands, whatever it holds.
    #[must_use]
    pub fn is_repair(&self) -> bool {
        self.from == self.to
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
            let change = Change {
                key: record.key.clone(),
                offset: record.offset,
                value: record.value.clone(),
            };
            self.in_order.push((*mapping, change));
        }
    }

    /// Ends the batch at `to`, shapes every change as its mapping says, and keeps each key's last
    /// change in `changes`. Sorted by key, because trees take neighbours at a fraction of the cost.
    pub fn seal(&mut self, plan: &Plan, to: Position) -> Result<(), StoreError> {
        assert!(to >= self.to, "a batch ends behind its last record");
        self.to = to;
        for (mapping, change) in &mut self.in_order {
            let plan = &plan.mappings[*mapping];
            if plan.has_shape() {
                change.shape(plan)?;
            }
            self.changes[*mapping].push(change.clone());
        }
        self.changes.iter_mut().for_each(collapse);
        Ok(())
    }

    /// How many rows change.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.changes.iter().map(Vec::len).sum()
    }
}

fn collapse(changes: &mut Vec<Change>) {
    changes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.offset.cmp(&a.offset)));
    changes.dedup_by(|later, earlier| later.key == earlier.key);
}

impl Change {
    /// Makes of the record's value what the mapping says.
    pub fn shape(&mut self, plan: &MappingPlan) -> Result<(), StoreError> {
        let Some(value) = &self.value else {
            return Ok(());
        };
        match plan.shape(&self.key, self.offset, value) {
            Ok(shaped) => self.value = shaped,
            Err(fault) => return Err(StoreError::refused_row(&plan.table_name, self, &fault)),
        }
        Ok(())
    }
}
