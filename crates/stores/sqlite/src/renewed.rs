//! Whether the tables are those that the sink has written to, in this session or before it.
//!
//! SQLite gives a table that was dropped and made anew the numbers of the old one. Therefore some rows
//! are known; where the file's schema is another one, they must still be there. See [`KnownTables`].

use std::path::Path;

use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use onelog_store::{Batch, KnownTable, KnownTables, Remedy, StoreError, WITNESSES_MAX, Witnesses};
use rusqlite::Connection;

use crate::bookkeeping::{Identity, read_known, record_known};
use crate::ddl::{existing, list, quote};
use crate::decode::read_cell;
use crate::encode::Bound;
use crate::error::classify;

/// The tables as they were when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// SQLite's number of the file's schema. `None`: this session has not looked yet.
    schema: Option<i64>,
    tables: Option<KnownTables>,
    /// Whether the file has it.
    is_recorded: bool,
}

impl Known {
    /// The tables as they have just been backfilled, in the transaction that backfilled them.
    pub(crate) fn backfilled(
        connection: &Connection,
        path: &Path,
        plan: &Plan,
    ) -> Result<Self, StoreError> {
        let failed = |error| classify("looking at the tables of", path, error);
        let schema = schema_number(connection).map_err(failed)?;
        let backfilled = |mapping| {
            Ok(KnownTable {
                definition: schema.to_string(),
                witnesses: some_rows(connection, mapping)?,
                ..KnownTable::default()
            })
        };
        let tables: rusqlite::Result<_> = plan.mappings.iter().map(backfilled).collect();
        Ok(Self {
            schema: Some(schema),
            tables: Some(KnownTables(tables.map_err(failed)?)),
            is_recorded: false,
        })
    }

    /// Fails where a table does not fit, or lacks what it had. Looking at the schema's number costs next
    /// to nothing.
    pub(crate) fn check(
        &mut self,
        connection: &Connection,
        path: &Path,
        plan: &Plan,
        identity: &Identity,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("looking at the tables of", path, error);
        let schema = schema_number(connection).map_err(failed)?;
        if self.schema == Some(schema) {
            return Ok(());
        }
        let was = match &self.tables {
            Some(tables) => tables.clone(),
            None => {
                let kept = read_known(connection, identity).map_err(failed)?;
                self.is_recorded = true;
                KnownTables::read(kept.as_deref(), plan)
            }
        };
        let mut is = was.clone();
        for (mapping, table) in plan.mappings.iter().zip(&mut is.0) {
            existing::check_shape(connection, path, mapping)?;
            existing::check_narrowed(mapping, &table.narrowed)?;
            let definition = schema.to_string();
            if table.definition != definition {
                check_witnesses(connection, path, mapping, &table.witnesses)?;
                table.definition = definition;
            }
            if table.witnesses.is_empty() {
                table.witnesses = some_rows(connection, mapping).map_err(failed)?;
            }
        }
        self.is_recorded &= was == is;
        self.tables = Some(is);
        self.schema = Some(schema);
        Ok(())
    }

    /// Keeps in the file which columns of the tables have another type, which may be put back with the
    /// values that it has left.
    pub(crate) fn note_narrowed(
        connection: &Connection,
        path: &Path,
        plan: &Plan,
        identity: &Identity,
        epoch: u64,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("recording the tables of", path, error);
        let kept = read_known(connection, identity).map_err(failed)?;
        let was = KnownTables::read(kept.as_deref(), plan);
        let mut is = was.clone();
        for (mapping, table) in plan.mappings.iter().zip(&mut is.0) {
            existing::note_narrowed(connection, mapping, &mut table.narrowed).map_err(failed)?;
        }
        match was == is {
            true => Ok(()),
            false => record_known(connection, identity, epoch, &is.to_text()).map_err(failed),
        }
    }

    /// Keeps knowing rows that a batch has not changed.
    pub(crate) fn follow(&mut self, plan: &Plan, batch: &Batch) {
        let tables = self.tables.as_ref();
        if let Some(next) = tables.and_then(|tables| tables.after(plan, batch)) {
            self.tables = Some(next);
            self.is_recorded = false;
        }
    }

    /// Keeps what is new of it in the file.
    pub(crate) fn record(
        &mut self,
        connection: &Connection,
        identity: &Identity,
        epoch: u64,
    ) -> rusqlite::Result<()> {
        if let Some(tables) = self.tables.as_ref().filter(|_| !self.is_recorded) {
            record_known(connection, identity, epoch, &tables.to_text())?;
            self.is_recorded = true;
        }
        Ok(())
    }
}

fn schema_number(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

fn check_witnesses(
    connection: &Connection,
    path: &Path,
    mapping: &MappingPlan,
    witnesses: &Witnesses,
) -> Result<(), StoreError> {
    let mut found = Vec::new();
    for key in witnesses.keys() {
        let mut cell = Cell::Null;
        if mapping.project_key(key, &mut cell).is_ok() {
            let of_key = rows(connection, mapping, Some(&cell));
            found
                .extend(of_key.map_err(|error| classify("looking at the tables of", path, error))?);
        }
    }
    let renewed = witnesses.renewed(mapping, &found);
    if renewed.is_empty() {
        return Ok(());
    }
    Err(StoreError::mismatch(
        mapping,
        renewed.join("; "),
        Remedy::Said,
    ))
}

fn some_rows(connection: &Connection, mapping: &MappingPlan) -> rusqlite::Result<Witnesses> {
    Ok(Witnesses::of(mapping, &rows(connection, mapping, None)?))
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
