//! Making a table that is there equal to its staging table.
//!
//! ```text
//!  deletes and upserts ─ merged
//!      │ a unique or foreign key objects               │ a row is refused
//!      ▼                                               ▼
//!  what differs is deleted, then written ─ merged ──▶ in pieces, see `refused` ─ merged, or every
//!                                                     refused row is named
//! ```
//! All of it is in the transaction that moves the position. Rules that are checked at the commit are
//! checked here, while the rows can still be found.

use onelog_mapping::{ColumnType, MappingPlan};
use onelog_store::{Guard, LogPlace, Remedy, StoreError};
use tokio_postgres::error::SqlState;

use super::keep::is_written;
use crate::ddl::existing::TargetTable;
use crate::ddl::{list, quote, staging_name, table};
use crate::error::{self, Fault};
use crate::store::Scope;
use crate::write::statements::{casts, on_conflict, other_columns};

/// A table that is made equal to its staging table.
pub(super) struct Merging<'p> {
    pub(super) number: usize,
    pub(super) mapping: &'p MappingPlan,
    pub(super) merge: Merge,
    /// Whether a row can be deleted and inserted again without loss.
    pub(super) is_renewable: bool,
    pub(super) guard: Guard,
}

/// Why all rows together were refused.
pub(super) struct AtOnce {
    pub(super) fault: Fault,
    /// Whether everything that can be checked at the end was.
    pub(super) defers: bool,
}

type Unmerged<'m> = (&'m MappingPlan, Fault);

impl Scope<'_> {
    /// `may_renew`: refused rows may be looked for with those that differ out of the way.
    pub(super) async fn merge(
        &self,
        merged: &[Merging<'_>],
        may_renew: bool,
        place: LogPlace,
    ) -> Result<(), Fault> {
        if merged.is_empty() {
            return Ok(());
        }
        for merging in merged {
            let sql = format!("ANALYZE {}", self.staging(merging.mapping));
            self.client.batch_execute(&sql).await?;
            if merging.guard == Guard::Untouched {
                self.check_untouched(merging).await?;
            }
        }
        self.client.batch_execute("SAVEPOINT merging").await?;
        let mut outcome = self.merge_at_once(merged, false).await;
        let is_renewable = merged.iter().all(|merging| merging.is_renewable);
        if is_renewable && matches!(&outcome, Err((_, fault)) if fault.is_between_rows()) {
            self.client
                .batch_execute("ROLLBACK TO SAVEPOINT merging; SET CONSTRAINTS ALL DEFERRED")
                .await?;
            outcome = self.merge_at_once(merged, true).await;
        }
        match outcome {
            Err((_, fault)) if fault.is_rejected_row() => {
                self.client
                    .batch_execute("ROLLBACK TO SAVEPOINT merging; SET CONSTRAINTS ALL IMMEDIATE")
                    .await?;
                let renews = may_renew && is_renewable && fault.is_between_rows();
                let defers = is_renewable && fault.is_between_rows();
                let at_once = AtOnce { fault, defers };
                self.merge_in_pieces(merged, renews, place, &at_once)
                    .await?;
            }
            outcome => outcome.map_err(|(_, fault)| fault)?,
        }
        for merging in merged {
            let sql = format!("DROP TABLE {}", self.staging(merging.mapping));
            self.client.batch_execute(&sql).await?;
        }
        Ok(())
    }

    pub(super) fn staging(&self, mapping: &MappingPlan) -> String {
        let name = staging_name(&self.identity.sink, mapping);
        table(&self.identity.schema, &name)
    }

    /// Fails where the merge would delete or change a row. From here on the table is locked against
    /// its other writers, not against readers.
    async fn check_untouched(&self, merging: &Merging<'_>) -> Result<(), Fault> {
        let into = table(&self.identity.schema, &merging.mapping.into);
        let sql = format!("LOCK TABLE {into} IN SHARE ROW EXCLUSIVE MODE");
        self.client.batch_execute(&sql).await?;
        let [rows, deletes, changes] = self.counts(merging).await?;
        match deletes + changes {
            0 => Ok(()),
            _ => Err(guarded(merging.mapping, rows, deletes, changes)),
        }
    }

    async fn counts(&self, merging: &Merging<'_>) -> Result<[u64; 3], Fault> {
        let counted = self.client.query_typed_one(&merging.merge.counts, &[]);
        let row = counted
            .await
            .map_err(|error| unmerged(merging.mapping, error.into()))?;
        Ok([0, 1, 2].map(|n| row.get::<_, i64>(n).cast_unsigned()))
    }

    /// Deletes come first, the last mapping's before all. `renews`: every row that differs is
    /// deleted as well, because unique columns are in the way.
    pub(super) async fn delete_rows<'m>(
        &self,
        merged: &'m [Merging<'m>],
        renews: bool,
    ) -> Result<(), Unmerged<'m>> {
        for merging in merged.iter().rev() {
            let mapping = merging.mapping;
            let deleted = self.client.execute_typed(&merging.merge.delete, &[]).await;
            let deleted = deleted.map_err(|error| (mapping, error.into()))?;
            let checked = self.check_deletes(merging, deleted).await;
            checked.map_err(|fault| (mapping, fault))?;
        }
        for merging in merged.iter().rev().filter(|_| renews) {
            let sql = &merging.merge.delete_different;
            let deleted = self.client.batch_execute(sql).await;
            deleted.map_err(|error| (merging.mapping, error.into()))?;
        }
        Ok(())
    }

    /// Fails where so many rows may not be deleted.
    pub(super) async fn check_deletes(
        &self,
        merging: &Merging<'_>,
        deleted: u64,
    ) -> Result<(), Fault> {
        if let Guard::Deletes(most) = merging.guard
            && deleted > most
        {
            let [left, ..] = self.counts(merging).await?;
            return Err(guarded(merging.mapping, left + deleted, deleted, 0));
        }
        Ok(())
    }

    async fn merge_at_once<'m>(
        &self,
        merged: &'m [Merging<'m>],
        renews: bool,
    ) -> Result<(), Unmerged<'m>> {
        self.delete_rows(merged, renews).await?;
        for merging in merged {
            let written = self.client.batch_execute(&merging.merge.upsert("")).await;
            written.map_err(|error| (merging.mapping, error.into()))?;
        }
        let checked = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE");
        let checked = checked.await;
        checked.map_err(|error| (merged[0].mapping, error.into()))
    }
}

pub(super) fn guarded(mapping: &MappingPlan, rows: u64, deletes: u64, changes: u64) -> Fault {
    Fault::Store(StoreError::Guarded {
        into: mapping.into.clone(),
        rows,
        deletes,
        changes,
    })
}

const NO_PARENT: &str = "; tables are backfilled in the order of the mappings: where the table that the foreign key refers to is one of them, put its mapping first";

const REALLY_MISSING: &str = "; this key is checked when all rows are there, so the order of the mappings is not the cause: the row that is referred to is neither in its table nor made of a record of the log. Write its record, or correct the one that refers to it, then resume the sink";

/// A row that no order of the mappings puts where it is referred to.
pub(super) fn missing(mapping: &MappingPlan, error: &tokio_postgres::Error) -> Fault {
    let what = format!(
        "it does not take the rows of the log; PostgreSQL says: {}{REALLY_MISSING}",
        error::message(error)
    );
    StoreError::mismatch(mapping, what, Remedy::Said).into()
}

/// An objection for which no record of the log can be named: the server's message has to do.
pub(super) fn unmerged(mapping: &MappingPlan, fault: Fault) -> Fault {
    match fault {
        Fault::Sql(error) if Fault::is_rejected_row_error(&error) => {
            let (advice, remedy) = match error.code() {
                Some(&SqlState::FOREIGN_KEY_VIOLATION) => (NO_PARENT, Remedy::Said),
                _ => ("", Remedy::Change),
            };
            let what = format!(
                "it does not take the rows of the log; PostgreSQL says: {}{advice}",
                error::message(&error)
            );
            StoreError::mismatch(mapping, what, remedy).into()
        }
        other => other,
    }
}

/// The statements that make a table equal to its staging table, row by row that differs.
pub(super) struct Merge {
    /// Rows `t` whose key the staging table has not, behind `FROM`.
    pub(super) surplus: String,
    delete: String,
    /// Rows that differ or whose key it has not, but for those that are kept: for when unique columns
    /// conflict.
    delete_different: String,
    upsert: [String; 2],
    /// How many rows there are, how many of them `delete` takes, and how many the upsert changes.
    counts: String,
}

impl Merge {
    pub(super) fn new(
        schema: &str,
        sink: &str,
        mapping: &MappingPlan,
        target: &TargetTable,
    ) -> Self {
        let into = table(schema, &mapping.into);
        let staging = table(schema, &staging_name(sink, mapping));
        let key = &mapping.columns[mapping.key];
        let key_name = quote(&key.name);
        let collate = match key.kind {
            ColumnType::Text => " COLLATE \"C\"",
            _ => "",
        };
        let same_key = format!("s.{key_name}{collate} = t.{key_name}");
        let comparable = |prefix: &str, n: usize| {
            let name = format!("{prefix}{}", quote(&mapping.columns[n].name));
            match mapping.columns[n].kind {
                // A json column has no equality; bytes decide for texts whatever their collation.
                ColumnType::Json => format!("{name}::jsonb"),
                ColumnType::Text => format!("{name}::text COLLATE \"C\""),
                _ => name,
            }
        };
        let row = |prefix: &str| {
            let parts: Vec<String> = (0..mapping.columns.len())
                .map(|n| comparable(prefix, n))
                .collect();
            format!("ROW({})", parts.join(", "))
        };
        let conflict = on_conflict(mapping);
        let unchanged = if other_columns(mapping).next().is_none() {
            String::new()
        } else {
            format!(" WHERE {} IS DISTINCT FROM {}", row("t."), row("excluded."))
        };
        let (new, old) = (row("s."), row("t."));
        let is_written = is_written(mapping);
        let surplus =
            format!("{into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key})");
        Self {
            counts: format!(
                "SELECT count(*), count(*) FILTER (WHERE s.{key_name} IS NULL),
                   count(*) FILTER (WHERE s.{is_written} AND {new} IS DISTINCT FROM {old})
                 FROM {into} t LEFT JOIN {staging} s ON {same_key}"
            ),
            delete: format!("DELETE FROM {surplus}"),
            surplus,
            delete_different: format!(
                "DELETE FROM {into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key}
                   AND (NOT s.{is_written} OR {new} IS NOT DISTINCT FROM {old}))"
            ),
            upsert: [
                format!(
                    "INSERT INTO {into} AS t ({}) SELECT {} FROM {staging} WHERE {is_written}",
                    list(mapping.column_names()),
                    casts(mapping, target, |n| quote(&mapping.columns[n].name)),
                ),
                format!("{conflict}{unchanged}"),
            ],
        }
    }

    /// Writes the rows of the staging table, of them those that `which` is about.
    pub(super) fn upsert(&self, which: &str) -> String {
        let [head, tail] = &self.upsert;
        format!("{head} {which} {tail}")
    }
}
