//! Finding the rows that a table does not take when it is made equal to its staging table.
//!
//! The rows go in pieces, each behind a savepoint: one that is refused goes again by halves, down to
//! the rows that are refused alone. These are tried again until no more pass, because a later row may
//! be what an earlier one needs. Where none is left, the table is merged.

use onelog_mapping::Plan;
use onelog_record::Offset;
use onelog_store::{Change, Refusals, failpoint};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::keep::is_written;
use super::load::refusal;
use super::merge::{Merging, unmerged};
use crate::ddl::{quote, record_columns, table};
use crate::error::Fault;
use crate::store::Scope;

/// How many rows are tried together first.
const PIECE_ROWS: usize = 4096;
/// Beyond so many refused rows of a table no more are looked for.
const REFUSED_MAX: usize = 10_000;
/// How often refused rows are tried again.
const ROUNDS_MAX: u32 = 16;

/// A row of a staging table.
struct Staged {
    /// Its place there, as the server writes it.
    place: String,
    record: Change,
}

impl Scope<'_> {
    /// Merges all rows, or fails with those that are refused.
    pub(super) async fn merge_in_pieces(
        &self,
        merged: &[Merging<'_>],
        renews: bool,
    ) -> Result<(), Fault> {
        let deleted = self.delete_rows(merged, renews).await;
        deleted.map_err(|(mapping, fault)| unmerged(mapping, fault))?;
        let mut refusals = Refusals::default();
        for merging in merged {
            let refused = self.write_in_pieces(merging).await?;
            let refused = self.blame_order(merging, refused).await?;
            for (row, fault) in refused {
                let error = refusal(merging.mapping, &row.record, fault)?;
                refusals.note(merging.number, &row.record, error)?;
            }
        }
        Ok(refusals.into_result()?)
    }

    async fn write_in_pieces(&self, merging: &Merging<'_>) -> Result<Vec<(Staged, Fault)>, Fault> {
        let [key, offset] = record_columns(merging.mapping).map(|name| quote(&name));
        let open = format!(
            "DECLARE onelog_rows NO SCROLL CURSOR FOR SELECT ctid::text, {key}, {offset} FROM {} WHERE {}",
            self.staging(merging.mapping),
            is_written(merging.mapping)
        );
        self.client.batch_execute(&open).await?;
        let next = format!("FETCH FORWARD {PIECE_ROWS} FROM onelog_rows");
        let mut refused = Vec::new();
        while refused.len() < REFUSED_MAX {
            let rows = self.client.query_typed(&next, &[]).await?;
            if rows.is_empty() {
                break;
            }
            let rows = rows.iter().map(|row| Staged {
                place: row.get(0),
                record: Change {
                    key: row.get::<_, Vec<u8>>(1).into(),
                    offset: Offset(row.get::<_, i64>(2).cast_unsigned()),
                    value: None,
                },
            });
            self.write_halves(merging, rows.collect(), &mut refused)
                .await?;
        }
        self.client.batch_execute("CLOSE onelog_rows").await?;
        let mut in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if refused.is_empty() || in_vain == 2 {
                break;
            }
            let before = refused.len();
            let rows = refused.drain(..).rev().map(|(row, _)| row).collect();
            self.write_halves(merging, rows, &mut refused).await?;
            in_vain = match refused.len() == before {
                true => in_vain + 1,
                false => 0,
            };
        }
        Ok(refused)
    }

    /// Writes rows, all but those that are refused alone.
    async fn write_halves(
        &self,
        merging: &Merging<'_>,
        rows: Vec<Staged>,
        refused: &mut Vec<(Staged, Fault)>,
    ) -> Result<(), Fault> {
        let mut left = vec![rows];
        while let Some(mut part) = left.pop() {
            failpoint::hit(&self.identity.sink, "merge_piece");
            let error = match self.write_part(merging, &part).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            if !Fault::is_rejected_row_error(&error) {
                return Err(error.into());
            }
            self.client
                .batch_execute("ROLLBACK TO SAVEPOINT onelog_piece; RELEASE SAVEPOINT onelog_piece")
                .await?;
            let second = part.split_off(part.len() / 2);
            match part.is_empty() {
                true => refused.extend(second.into_iter().next().map(|row| (row, error.into()))),
                false => left.extend([second, part]),
            }
        }
        Ok(())
    }

    async fn write_part(
        &self,
        merging: &Merging<'_>,
        part: &[Staged],
    ) -> Result<(), tokio_postgres::Error> {
        let places: Vec<String> = part
            .iter()
            .map(|row| format!("\"{}\"", row.place))
            .collect();
        let which = format!("AND ctid = ANY('{{{}}}'::tid[])", places.join(","));
        let upsert = merging.merge.upsert(&which);
        self.client
            .batch_execute(&format!(
                "SAVEPOINT onelog_piece; {upsert}; RELEASE SAVEPOINT onelog_piece"
            ))
            .await
    }

    /// Where a row refers to one of a table that is filled later, the order of the mappings is at
    /// fault and not the row.
    async fn blame_order(
        &self,
        merging: &Merging<'_>,
        mut refused: Vec<(Staged, Fault)>,
    ) -> Result<Vec<(Staged, Fault)>, Fault> {
        let later = self.keys_to_later_tables(merging).await?;
        let is_by_order = |fault: &Fault| match fault {
            Fault::Sql(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
                let name = error.as_db_error().and_then(|error| error.constraint());
                name.is_some_and(|name| later.iter().any(|key| key == name))
            }
            _ => false,
        };
        match refused.iter().position(|(_, fault)| is_by_order(fault)) {
            Some(n) => Err(unmerged(merging.mapping, refused.swap_remove(n).1)),
            None => Ok(refused),
        }
    }

    /// The foreign keys of a table that refer to tables of later mappings.
    async fn keys_to_later_tables(&self, merging: &Merging<'_>) -> Result<Vec<String>, Fault> {
        let plan: &Plan = &self.identity.plan;
        let schema = &self.identity.schema;
        let later = plan.mappings[merging.number + 1..].iter();
        let later: Vec<String> = later.map(|mapping| table(schema, &mapping.into)).collect();
        let into = table(schema, &merging.mapping.into);
        let sql = "SELECT conname::text FROM pg_catalog.pg_constraint
            WHERE contype = 'f' AND conrelid = to_regclass($1)
              AND confrelid IN (SELECT to_regclass(name) FROM unnest($2::text[]) AS name)";
        let found = self
            .client
            .query_typed(sql, &[(&into, Type::TEXT), (&later, Type::TEXT_ARRAY)])
            .await?;
        Ok(found.iter().map(|row| row.get(0)).collect())
    }
}
