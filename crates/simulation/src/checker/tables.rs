//! Tables: which of them there are at each place is read from the definitions in the log itself.

use std::collections::HashMap;

use onelog_record::{
    Op, Position, Record, Refusal, TABLE_TABLES, TableDefinition, TableId, USER_TABLES_FROM,
};

use super::{Checker, Rule};
use crate::history::{CommitCall, Logged};

/// From where to where in the log a table is there.
#[derive(Clone, Copy, Debug)]
struct Life {
    from: Position,
    /// Where the transaction begins that drops it.
    to: Option<Position>,
}

#[derive(Debug, Default)]
pub(super) struct Tables(HashMap<TableId, Life>);

impl Tables {
    pub(super) fn new(log: &[Logged]) -> Self {
        let mut tables = Self::default();
        let mut names: HashMap<Vec<u8>, TableId> = HashMap::new();
        for logged in log {
            for record in logged.records.iter().filter(|r| r.table == TABLE_TABLES) {
                if let Some(definition) = defined(record) {
                    names.insert(record.key.to_vec(), definition.id);
                    let from = logged.end;
                    tables.0.insert(definition.id, Life { from, to: None });
                } else if record.op == Op::Delete
                    && let Some(id) = names.remove(&record.key[..])
                    && let Some(life) = tables.0.get_mut(&id)
                {
                    life.to = Some(Position(logged.first_offset.0));
                }
            }
        }
        tables
    }

    /// Whether a transaction that begins at this place may write to the table. Histories made by
    /// hand have no definitions; there every table is good.
    fn is_there(&self, table: TableId, place: Position) -> bool {
        if self.0.is_empty() || table < USER_TABLES_FROM {
            return true;
        }
        let life = self.0.get(&table);
        life.is_some_and(|life| life.from <= place && life.to.is_none_or(|to| place <= to))
    }

    /// Whether the table is there from `place` on to the end.
    fn stays(&self, table: TableId, place: Position) -> bool {
        let life = self.0.get(&table);
        life.is_some_and(|life| life.from <= place && life.to.is_none())
    }
}

fn defined(record: &Record) -> Option<TableDefinition> {
    let definition: TableDefinition = serde_json::from_slice(record.value.as_ref()?).ok()?;
    (record.op == Op::Put && !definition.dropped).then_some(definition)
}

impl Checker<'_> {
    /// Every record belongs to a table that is there at its place.
    pub(super) fn check_tables(&mut self) {
        for logged in self.model.log {
            let place = Position(logged.first_offset.0);
            for record in &logged.records {
                if !self.tables_by_log.is_there(record.table, place) {
                    let text = format!(
                        "transaction {} at offset {place} writes to table {}, which is not there then",
                        logged.id, record.table
                    );
                    self.add(Rule::NoSuchTable, text);
                }
            }
        }
    }

    /// A table that was known before the request was sent, and is never dropped, is not unknown.
    pub(super) fn check_unknown_table(
        &mut self,
        call: &CommitCall,
        refusal: &Refusal,
        table: TableId,
    ) {
        let lower = self.observed.before(call.begin);
        if self.tables_by_log.stays(table, lower) {
            let text = format!("the table was there at position {lower} and stays");
            self.wrong_refusal(call.id, &text, refusal);
        }
    }
}
