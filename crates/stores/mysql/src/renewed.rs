//! Whether a table still is the one that this session has written to.
//!
//! The server numbers no tables for users without special rights, and a table that was dropped and
//! made anew can have the same definition. Therefore some of its rows are known; where the definition
//! or the time of the table's making is another one, they must still be there. See [`Witnesses`].

use mysql_async::{Params, Value};
use onelog_mapping::Row;
use onelog_store::{Batch, StoreError, WITNESSES_MAX, Witnesses};

use crate::ddl::existing::TargetTable;
use crate::decode::read_cell;
use crate::names::{list, quote};
use crate::store::MysqlStore;
use crate::write::key_of;

/// A table as it was when it was last looked at.
#[derive(Debug)]
pub(crate) struct Known {
    definition: String,
    witnesses: Witnesses,
}

impl MysqlStore {
    /// Fails where a table that was looked at before is another one now, and lacks what it had.
    pub(crate) fn check_renewed(&mut self, facts: &[TargetTable]) -> Result<(), StoreError> {
        for (n, facts) in facts.iter().enumerate() {
            let Some(known) = self.known.get(n) else {
                let known = Known {
                    definition: facts.definition.clone(),
                    witnesses: self.some_rows(n)?,
                };
                self.known.push(known);
                continue;
            };
            if known.definition == facts.definition {
                continue;
            }
            let mapping = &self.plan.mappings[n];
            let keys = known.witnesses.keys();
            let keys: Vec<Value> = keys.filter_map(|key| key_of(mapping, key)).collect();
            let found = match keys.is_empty() {
                true => Vec::new(),
                false => self.rows_of(n, keys)?,
            };
            let renewed = self.known[n]
                .witnesses
                .renewed(&self.plan.mappings[n], &found);
            if !renewed.is_empty() {
                return Err(StoreError::SchemaMismatch {
                    into: self.plan.mappings[n].into.clone(),
                    what: renewed.join("; "),
                });
            }
            self.known[n].definition.clone_from(&facts.definition);
        }
        Ok(())
    }

    /// Keeps knowing rows that a batch has not changed.
    pub(crate) fn follow_batch(&mut self, batch: &Batch) {
        for (n, changes) in batch.changes.iter().enumerate() {
            let Some(known) = self.known.get_mut(n) else {
                return;
            };
            known.witnesses.forget(changes);
            if !known.witnesses.is_empty() || changes.iter().all(|change| change.value.is_none()) {
                continue;
            }
            // The batch is committed: where this fails, what comes next fails as well.
            if let Ok(witnesses) = self.some_rows(n) {
                self.known[n].witnesses = witnesses;
            }
        }
    }

    fn some_rows(&mut self, mapping: usize) -> Result<Witnesses, StoreError> {
        let found = self.rows_of(mapping, Vec::new())?;
        Ok(Witnesses::of(&self.plan.mappings[mapping], &found))
    }

    /// The rows of these keys, or some.
    fn rows_of(&mut self, mapping: usize, keys: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let plan = &self.plan.mappings[mapping];
        let key = quote(&plan.columns[plan.key].name);
        let which = match keys.len() {
            0 => String::new(),
            count => format!("WHERE {key} IN ({})", vec!["?"; count].join(", ")),
        };
        let sql = format!(
            "SELECT {} FROM {} {which} LIMIT {WITNESSES_MAX}",
            list(plan.column_names()),
            quote(&plan.into)
        );
        let keys = match keys.is_empty() {
            true => Params::Empty,
            false => Params::Positional(keys),
        };
        let found = self
            .connection
            .rows("looking at the tables of", &sql, keys)?;
        let read = |mut found: mysql_async::Row| {
            let mut row = Row::new(plan.columns.len());
            for (n, column) in plan.columns.iter().enumerate() {
                let value = found.take::<Value, _>(n).unwrap_or(Value::NULL);
                read_cell(column.kind, value, &mut row.cells[n]);
            }
            row
        };
        Ok(found.into_iter().map(read).collect())
    }
}
