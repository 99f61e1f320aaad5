//! Whether the tables are those that this session has written to.
//!
//! SQLite gives a table that was dropped and made anew the numbers of the old one. Therefore some rows
//! are known; where the file's schema is another one, they must still be there. See [`Witnesses`].

use std::path::Path;

use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use onelog_store::{Batch, StoreError, WITNESSES_MAX, Witnesses};
use rusqlite::Connection;

use crate::ddl::{existing, list, quote};
use crate::decode::read_cell;
use crate::encode::Bound;
use crate::error::classify;

/// The tables as they were when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// SQLite's number of the file's schema.
    schema: Option<i64>,
    /// Some rows of each mapping's table.
    witnesses: Vec<Witnesses>,
}

impl Known {
    /// Fails where a table does not fit, or lacks what it had. Looking at the schema's number costs next
    /// to nothing.
    pub(crate) fn check(
        &mut self,
        connection: &Connection,
        path: &Path,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("looking at the tables of", path, error);
        let schema: i64 = connection
            .pragma_query_value(None, "schema_version", |row| row.get(0))
            .map_err(failed)?;
        if self.schema == Some(schema) {
            return Ok(());
        }
        for (n, mapping) in plan.mappings.iter().enumerate() {
            existing::check_shape(connection, path, mapping)?;
            let Some(witnesses) = self.witnesses.get(n) else {
                let found = rows(connection, mapping, None).map_err(failed)?;
                self.witnesses.push(Witnesses::of(mapping, &found));
                continue;
            };
            let mut found = Vec::new();
            for key in witnesses.keys() {
                let mut cell = Cell::Null;
                if mapping.project_key(key, &mut cell).is_ok() {
                    found.extend(rows(connection, mapping, Some(&cell)).map_err(failed)?);
                }
            }
            let renewed = witnesses.renewed(mapping, &found);
            if !renewed.is_empty() {
                return Err(StoreError::SchemaMismatch {
                    into: mapping.into.clone(),
                    what: renewed.join("; "),
                });
            }
        }
        self.schema = Some(schema);
        Ok(())
    }

    /// Keeps knowing rows that a batch has not changed.
    pub(crate) fn follow(&mut self, connection: &Connection, plan: &Plan, batch: &Batch) {
        let mappings = plan.mappings.iter().zip(&batch.changes);
        for ((mapping, changes), witnesses) in mappings.zip(&mut self.witnesses) {
            witnesses.forget(changes);
            if !witnesses.is_empty() || changes.iter().all(|change| change.value.is_none()) {
                continue;
            }
            // The batch is committed: where this fails, what comes next fails as well.
            if let Ok(found) = rows(connection, mapping, None) {
                *witnesses = Witnesses::of(mapping, &found);
            }
        }
    }
}

/// The row of a key, or some.
fn rows(
    connection: &Connection,
    mapping: &MappingPlan,
    key: Option<&Cell>,
) -> rusqlite::Result<Vec<Row>> {
    let name = quote(&mapping.columns[mapping.key].name);
    let which = key.map_or_else(String::new, |_| format!("WHERE {name} = ?1"));
    let mut statement = connection.prepare(&format!(
        "SELECT {} FROM {} {which} LIMIT {WITNESSES_MAX}",
        list(mapping.column_names()),
        quote(&mapping.into)
    ))?;
    if let Some(key) = key {
        statement.raw_bind_parameter(1, Bound(key))?;
    }
    let mut found = statement.raw_query();
    let mut out = Vec::new();
    while let Some(found) = found.next()? {
        let mut row = Row::new(mapping.columns.len());
        for (n, column) in mapping.columns.iter().enumerate() {
            read_cell(column.kind, found.get_ref(n)?, &mut row.cells[n]);
        }
        out.push(row);
    }
    Ok(out)
}
