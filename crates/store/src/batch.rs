//! A batch: many whole transactions of the log, collapsed per key to the last image.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use onelog_record::{Offset, Op, Position, Record};

use onelog_mapping::{MappingPlan, Plan, Row, RowFault};

use crate::store::{LogPlace, Refused, StoreError};

/// What a store applies in one atomic step: everything in `[from, to)`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The position of the store before it …
    pub from: Position,
    /// … and the one that it has then.
    pub to: Position,
    /// What the chain of the log says at `to`; see [`LogPlace`].
    pub chain: Option<u32>,
    /// What happens to each mapping's rows, in the plan's order; by key, one change a key.
    pub changes: Vec<Vec<Change>>,
    /// Every change in the order of the log, with its mapping's number: for stores in which one row
    /// can exclude another, so that the last images alone may not fit.
    pub in_order: Vec<(usize, Change)>,
    /// Where the transactions of the log begin whose changes these are, in their order. A store that
    /// checks a rule only at the end of a transaction can tell by them what belongs together.
    pub transactions: Vec<Offset>,
}

/// The newest image of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Bytes,
    /// The record that wrote it.
    pub offset: Offset,
    /// Its value, transformed by the mapping; `None` when it was deleted or the mapping leaves it out.
    pub value: Option<Bytes>,
}

/// A change that a mapping or a store does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    pub mapping: usize,
    pub key: Bytes,
    pub offset: Offset,
    pub what: String,
}

impl RejectedRow {
    pub fn new(mapping: usize, change: &Change, what: impl ToString) -> Self {
        Self {
            mapping,
            key: change.key.clone(),
            offset: change.offset,
            what: what.to_string(),
        }
    }
}

impl Batch {
    /// An empty batch behind `from`.
    #[must_use]
    pub fn new(plan: &Plan, from: Position) -> Self {
        Self {
            from,
            to: from,
            chain: None,
            changes: vec![Vec::new(); plan.mappings.len()],
            in_order: Vec::new(),
            transactions: Vec::new(),
        }
    }

    /// A batch that moves nothing but writes rows again, or deletes them: `changes` by mapping.
    #[must_use]
    pub fn repair(at: LogPlace, changes: Vec<Vec<Change>>) -> Self {
        let mut batch = Self {
            from: at.position,
            to: at.position,
            chain: at.chain,
            in_order: Vec::new(),
            transactions: Vec::new(),
            changes,
        };
        for (mapping, changes) in batch.changes.iter_mut().enumerate() {
            collapse(changes);
            batch
                .in_order
                .extend(changes.iter().map(|change| (mapping, change.clone())));
        }
        // What a row refers to was written before it, as a rule.
        batch.in_order.sort_by_key(|(_, change)| change.offset);
        batch
    }

    /// The mappings that get rows, by their numbers; not those of which rows are deleted alone.
    pub fn written(&self) -> impl Iterator<Item = usize> {
        let changes = self.changes.iter().enumerate();
        let written = changes.filter(|(_, all)| all.iter().any(|change| change.value.is_some()));
        written.map(|(mapping, _)| mapping)
    }

    /// Where the store is once it has the batch.
    #[must_use]
    pub const fn place(&self) -> LogPlace {
        LogPlace {
            position: self.to,
            chain: self.chain,
        }
    }

    /// Whether rows are to be written again at the position of the store, whatever it holds.
    #[must_use]
    pub fn is_repair(&self) -> bool {
        self.from == self.to
    }

    /// The records from here on are of another transaction of the log.
    pub fn begin_transaction(&mut self, first: Offset) {
        self.transactions.push(first);
    }

    /// The number of the transaction that a record belongs to.
    #[must_use]
    pub fn transaction_of(&self, offset: Offset) -> usize {
        self.transactions.partition_point(|first| *first <= offset)
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

    /// Ends the batch at `to`, transforms every change as its mapping says, and keeps each key's last
    /// change in `changes`. Sorted by key, because trees take neighbours at a fraction of the cost.
    /// Whether it came to the end: transforms take their time, and between two of them `stop` is looked
    /// at.
    pub fn seal(
        &mut self,
        plan: &Plan,
        to: Position,
        stop: &AtomicBool,
    ) -> Result<bool, StoreError> {
        self.end_at(to);
        for (mapping, change) in &mut self.in_order {
            if stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            let plan = &plan.mappings[*mapping];
            change.transform(plan)?;
        }
        self.collapse_all();
        Ok(true)
    }

    /// As [`Batch::seal`], but a change that its mapping cannot transform is left out, with every
    /// later one of its key, and returned. `None`: it did not come to the end.
    pub fn seal_accepted(
        &mut self,
        plan: &Plan,
        to: Position,
        stop: &AtomicBool,
    ) -> Option<Vec<RejectedRow>> {
        self.end_at(to);
        let mut rejected = Vec::new();
        for (mapping, change) in &mut self.in_order {
            if stop.load(Ordering::Acquire) {
                return None;
            }
            if let Err(fault) = change.try_transform(&plan.mappings[*mapping]) {
                rejected.push(RejectedRow::new(*mapping, change, fault));
            }
        }
        match rejected.is_empty() {
            true => self.collapse_all(),
            false => self.leave_out(&rejected),
        }
        Some(rejected)
    }

    fn end_at(&mut self, to: Position) {
        assert!(to >= self.to, "a batch ends behind its last record");
        self.to = to;
    }

    fn collapse_all(&mut self) {
        self.changes.iter_mut().for_each(Vec::clear);
        for (mapping, change) in &self.in_order {
            self.changes[*mapping].push(change.clone());
        }
        self.changes.iter_mut().for_each(collapse);
    }

    /// Takes changes out, and every later one of their keys; an earlier one in this batch becomes
    /// the key's last.
    pub fn leave_out(&mut self, rejected: &[RejectedRow]) {
        let mut first: HashMap<(usize, &[u8]), Offset> = HashMap::with_capacity(rejected.len());
        for row in rejected {
            let offset = first.entry((row.mapping, &row.key)).or_insert(row.offset);
            *offset = row.offset.min(*offset);
        }
        self.in_order.retain(|(mapping, change)| {
            first
                .get(&(*mapping, change.key.as_ref()))
                .is_none_or(|offset| change.offset < *offset)
        });
        self.collapse_all();
    }

    /// Every last image that does not fit its mapping's columns.
    pub fn rejected_rows(&self, plan: &Plan) -> Vec<RejectedRow> {
        let changes = self.changes.iter().enumerate();
        changes
            .flat_map(|(mapping, changes)| rejected_rows(plan, mapping, changes))
            .collect()
    }

    /// The changes that a store's refusal is about: one where the store says which of its tables
    /// refused, otherwise one for each mapping that the record goes through.
    pub fn refused(&self, plan: &Plan, refused: &Refused) -> Vec<RejectedRow> {
        let by_offset = by_offset(refused);
        let all = self.in_order.iter();
        all.filter_map(|(mapping, change)| {
            let refused = by_offset.get(&change.offset)?;
            refusal_of(*mapping, &plan.mappings[*mapping], change, refused)
        })
        .collect()
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.changes.iter().map(Vec::len).sum()
    }
}

fn by_offset(refused: &Refused) -> HashMap<Offset, Vec<&Refused>> {
    let mut by_offset: HashMap<Offset, Vec<&Refused>> = HashMap::new();
    for refused in refused.all() {
        by_offset.entry(refused.offset).or_default().push(refused);
    }
    by_offset
}

fn refusal_of(
    mapping: usize,
    plan: &MappingPlan,
    change: &Change,
    refused: &[&Refused],
) -> Option<RejectedRow> {
    let is_it = |refused: &&&Refused| {
        plan.table_name == refused.table
            && refused.into.as_ref().is_none_or(|into| *into == plan.into)
            && change.key == refused.key_bytes
    };
    let found = refused.iter().find(is_it)?;
    Some(RejectedRow::new(mapping, change, &found.what))
}

/// The rows of a load that a store's refusal is about.
pub fn refused_rows(
    plan: &Plan,
    mapping: usize,
    rows: &[Change],
    refused: &Refused,
) -> Vec<RejectedRow> {
    let by_offset = by_offset(refused);
    let of = &plan.mappings[mapping];
    rows.iter()
        .filter_map(|row| refusal_of(mapping, of, row, by_offset.get(&row.offset)?))
        .collect()
}

/// What a store's refusal names, without the rows that it is about.
pub fn refused_records(plan: &Plan, refused: &Refused) -> Vec<RejectedRow> {
    let mut out = Vec::new();
    for refused in refused.all() {
        let is_of = |mapping: &MappingPlan| {
            mapping.table_name == refused.table
                && refused
                    .into
                    .as_ref()
                    .is_none_or(|into| *into == mapping.into)
        };
        let of = plan.mappings.iter().enumerate();
        for (mapping, _) in of.filter(|(_, mapping)| is_of(mapping)) {
            out.push(RejectedRow {
                mapping,
                key: refused.key_bytes.clone(),
                offset: refused.offset,
                what: refused.what.clone(),
            });
        }
    }
    out
}

/// The rows of one mapping that do not fit its columns.
pub fn rejected_rows(plan: &Plan, mapping: usize, changes: &[Change]) -> Vec<RejectedRow> {
    let plan = &plan.mappings[mapping];
    let mut row = Row::default();
    let mut out = Vec::new();
    for change in changes {
        let Some(value) = &change.value else { continue };
        if let Err(fault) = plan.project(&change.key, change.offset, value, &mut row) {
            out.push(RejectedRow::new(mapping, change, fault));
        }
    }
    out
}

fn collapse(changes: &mut Vec<Change>) {
    changes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.offset.cmp(&a.offset)));
    changes.dedup_by(|later, earlier| later.key == earlier.key);
}

impl Change {
    /// Makes of the record's value what the mapping says.
    pub fn transform(&mut self, plan: &MappingPlan) -> Result<(), StoreError> {
        self.try_transform(plan)
            .map_err(|fault| StoreError::refused_change(plan, self, fault))
    }

    /// As [`Change::transform`].
    pub fn try_transform(&mut self, plan: &MappingPlan) -> Result<(), RowFault> {
        if plan.has_transform()
            && let Some(value) = &self.value
        {
            self.value = plan.transform(&self.key, self.offset, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::{TableDefinition, TableId, TableKind, ValueKind};

    use super::*;
    use onelog_mapping::{KeyForm, Mapping, MappingRules, RowForm, no_further_check, show_key};

    const TABLE: TableId = TableId(1024);

    static RULES: MappingRules = MappingRules {
        kind: "test",
        has_type: |_| true,
        full_text: false,
        folds_names: true,
        options: &[],
        keys: KeyForm::Column,
        rows: RowForm::Columns,
        columns_by: None,
        check: no_further_check,
    };

    static GOES_ON: AtomicBool = AtomicBool::new(false);

    /// One table that goes into two: `lax` takes everything, `strict` wants a number.
    fn plan() -> Plan {
        let table = TableDefinition {
            id: TABLE,
            name: "t".into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        };
        let mappings = [
            serde_json::json!({"table": "t", "into": "lax"}),
            serde_json::json!({"table": "t", "into": "strict", "where": ".n >= 0",
                "columns": {"n": {"from": "/n", "type": "integer"}}}),
        ];
        let mappings =
            mappings.map(|mapping| Mapping::from_json("", &mapping, &RULES, &[&RULES]).unwrap());
        Plan::new(&RULES, &mappings, [table].as_slice()).unwrap()
    }

    fn batch(plan: &Plan, records: &[(&'static str, &'static str)]) -> Batch {
        let mut batch = Batch::new(plan, Position(0));
        for (n, (key, value)) in records.iter().enumerate() {
            let record = Record {
                offset: Offset(n as u64),
                op: Op::Put,
                table: TABLE,
                key: Bytes::from_static(key.as_bytes()),
                value: Some(Bytes::from_static(value.as_bytes())),
                headers: Vec::new(),
            };
            batch.push(plan, &record);
        }
        batch
    }

    fn offsets(batch: &Batch, mapping: usize) -> Vec<(String, u64)> {
        let changes = batch.changes[mapping].iter();
        changes
            .map(|c| (String::from_utf8_lossy(&c.key).into_owned(), c.offset.get()))
            .collect()
    }

    #[test]
    fn a_change_without_a_transform_is_left_out_with_all_behind_it_and_an_earlier_one_is_the_last()
    {
        let plan = plan();
        let records = [
            ("a", r#"{"n":1}"#),
            ("b", r#"{"n":2}"#),
            ("a", "{"),
            ("a", r#"{"n":3}"#),
        ];
        let mut batch = batch(&plan, &records);
        let rejected = batch.seal_accepted(&plan, Position(9), &GOES_ON).unwrap();
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].mapping, rejected[0].offset), (1, Offset(2)));
        assert_eq!(batch.to, Position(9));
        let all = [("a".to_owned(), 3), ("b".to_owned(), 1)];
        assert_eq!(offsets(&batch, 0), all);
        assert_eq!(
            offsets(&batch, 1),
            [("a".to_owned(), 0), ("b".to_owned(), 1)]
        );
    }

    #[test]
    fn a_batch_is_given_up_between_two_transforms() {
        let plan = plan();
        let stop = AtomicBool::new(true);
        let records = [("a", r#"{"n":1}"#), ("b", r#"{"n":-1}"#)];
        let mut batch = batch(&plan, &records);
        assert!(!batch.seal(&plan, Position(2), &stop).unwrap());
        assert_eq!(batch.seal_accepted(&plan, Position(2), &stop), None);
        assert_eq!(batch.rows(), 0);
        assert!(
            batch
                .in_order
                .iter()
                .all(|(_, change)| change.value.is_some())
        );
    }

    #[test]
    fn a_refusal_is_found_in_the_table_that_refused_or_in_every_one_that_the_record_goes_to() {
        let plan = plan();
        let mut batch = batch(&plan, &[("a", r#"{"n":1}"#), ("b", r#"{"n":0.5}"#)]);
        assert!(batch.seal(&plan, Position(2), &GOES_ON).unwrap());
        let rejected_rows = batch.rejected_rows(&plan);
        assert_eq!(rejected_rows.len(), 1);
        assert_eq!(
            (rejected_rows[0].mapping, rejected_rows[0].key.as_ref()),
            (1, &b"b"[..])
        );
        let refused = |into: Option<&str>| {
            let refused = Refused {
                table: "t".into(),
                key: show_key(b"a"),
                key_bytes: Bytes::from_static(b"a"),
                offset: Offset(0),
                into: into.map(str::to_owned),
                what: "no".into(),
                more: Vec::new(),
            };
            let found = batch.refused(&plan, &refused);
            found.iter().map(|row| row.mapping).collect::<Vec<_>>()
        };
        assert_eq!(refused(Some("strict")), [1]);
        assert_eq!(refused(None), [0, 1]);
        assert_eq!(refused(Some("other")), [0; 0]);
        batch.leave_out(&rejected_rows);
        assert_eq!(offsets(&batch, 1), [("a".to_owned(), 0)]);
        assert_eq!(batch.in_order.len(), 3);
    }
}
