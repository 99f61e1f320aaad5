//! Rows into tables: deletes, then upserts, each by a prepared statement.

use onelog_mapping::{Cell, MappingPlan};
use onelog_store::{Batch, Change, Refusals, StoreError};
use rusqlite::{CachedStatement, Transaction};

use crate::ddl::{list, quote, staging_name};
use crate::encode::Bound;
use crate::error::{classify_definition, classify_row};
use crate::store::Scope;

/// The statements of one mapping.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) upsert: String,
    pub(crate) load: String,
    pub(crate) delete: String,
}

impl Statements {
    pub(crate) fn new(mapping: &MappingPlan) -> Self {
        let insert = |table: &str| {
            let marks: Vec<String> = (1..=mapping.columns.len())
                .map(|n| format!("?{n}"))
                .collect();
            format!(
                "INSERT INTO {} ({}) VALUES ({})",
                quote(table),
                list(mapping.column_names()),
                marks.join(", ")
            )
        };
        let key = quote(&mapping.columns[mapping.key].name);
        let sets: Vec<String> = mapping
            .columns
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != mapping.key)
            .map(|(_, column)| format!("{0} = excluded.{0}", quote(&column.name)))
            .collect();
        let action = if sets.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", sets.join(", "))
        };
        Self {
            upsert: format!("{} ON CONFLICT ({key}) DO {action}", insert(&mapping.into)),
            load: insert(&staging_name(mapping)),
            delete: format!("DELETE FROM {} WHERE {key} = ?1", quote(&mapping.into)),
        }
    }
}

impl Scope<'_> {
    pub(crate) fn apply(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &Batch,
    ) -> Result<(), StoreError> {
        self.advance_position(transaction, batch.from, batch.place())?;
        // The transaction keeps the schema as it is from here on.
        self.known
            .check(transaction, self.path, self.plan, self.identity)?;
        let mut refusals = Refusals::default();
        for (mapping, changes) in batch.changes.iter().enumerate() {
            if !changes.is_empty() {
                self.delete(transaction, mapping, changes, &mut refusals)?;
                let sql = &self.statements[mapping].upsert;
                self.write(transaction, mapping, sql, changes, &mut refusals)?;
            }
        }
        refusals.into_result()?;
        self.known.follow(self.plan, batch);
        self.keep_known(transaction)
    }

    fn delete(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: usize,
        changes: &[Change],
        refusals: &mut Refusals,
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let mut statement = self.prepare(transaction, &self.statements[mapping].delete)?;
        let mut key = Cell::Null;
        for change in changes.iter().filter(|change| change.value.is_none()) {
            // A key that has no place in this table can never have had a row there.
            if plan.project_key(&change.key, &mut key).is_err() {
                continue;
            }
            let deleted = statement
                .raw_bind_parameter(1, Bound(&key))
                .and_then(|()| statement.raw_execute())
                .map_err(|error| classify_row(self.path, plan, change, error));
            if let Err(error) = deleted {
                note(refusals, transaction, mapping, change, error)?;
            }
        }
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: usize,
        sql: &str,
        changes: &[Change],
        refusals: &mut Refusals,
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let mut statement = self.prepare(transaction, sql)?;
        for change in changes {
            let Some(value) = &change.value else { continue };
            let written = plan
                .project(&change.key, change.offset, value, self.row)
                .map_err(|fault| StoreError::refused_change(plan, change, fault))
                .and_then(|()| {
                    bind_and_run(&mut statement, &self.row.cells)
                        .map_err(|error| classify_row(self.path, plan, change, error))
                });
            if let Err(error) = written {
                note(refusals, transaction, mapping, change, error)?;
            }
            if refusals.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn prepare<'t>(
        &self,
        transaction: &'t Transaction<'_>,
        sql: &str,
    ) -> Result<CachedStatement<'t>, StoreError> {
        transaction
            .prepare_cached(sql)
            .map_err(|error| classify_definition("preparing a statement for", self.path, error))
    }
}

/// A refused row changes nothing, and the others are tried as well; unless a trigger has undone the
/// whole transaction.
fn note(
    refusals: &mut Refusals,
    transaction: &Transaction<'_>,
    mapping: usize,
    change: &Change,
    error: StoreError,
) -> Result<(), StoreError> {
    match transaction.is_autocommit() {
        true => Err(error),
        false => refusals.note(mapping, change, error),
    }
}

fn bind_and_run(statement: &mut CachedStatement<'_>, cells: &[Cell]) -> rusqlite::Result<()> {
    for (n, cell) in cells.iter().enumerate() {
        statement.raw_bind_parameter(n + 1, Bound(cell))?;
    }
    statement.raw_execute().map(|_| ())
}
