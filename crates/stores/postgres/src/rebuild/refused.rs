//! Finding the rows that a table does not take when it is made equal to its staging table.
//!
//! The rows go in pieces, each behind a savepoint: one that is refused goes again by halves, down to
//! the rows that are refused alone. These are tried again until no more pass, because a later row may
//! be what an earlier one needs, and a row that is written may no longer be in the way of one that is
//! to be deleted. Where none is left, the table is merged.

use std::collections::HashMap;

use bytes::Bytes;
use onelog_mapping::{Cell, ColumnType, MappingPlan, Plan, Row};
use onelog_record::Offset;
use onelog_store::{Change, LogPlace, Refusals, failpoint};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::keep::is_written;
use super::load::refusal;
use super::merge::{AtOnce, Merging, missing, unmerged};
use crate::ddl::{quote, record_columns, table};
use crate::error::Fault;
use crate::store::Scope;

/// How many rows are tried together first.
const NEXT: &str = "FETCH FORWARD 4096 FROM onelog_rows";
/// The place of a row `t`, whose table may have partitions.
const PLACE: &str = "t.tableoid::text || t.ctid::text";
/// Beyond so many refused rows of a table no more are looked for.
const REFUSED_MAX: usize = 10_000;
/// How often refused rows are tried again.
const ROUNDS_MAX: u32 = 16;

/// A row that is to be written, of a staging table, or deleted.
struct Piece {
    /// Its place there, as the server writes it.
    place: String,
    /// The record of the log; where it is to be deleted, the last one of all.
    record: Change,
    /// Whether a record of the log can have written it.
    has_record: bool,
}

impl Piece {
    /// Its place without the number of its table.
    fn place_in_table(&self) -> &str {
        self.place.find('(').map_or("", |at| &self.place[at..])
    }
}

/// What is to be done with a row.
#[derive(Clone, Copy)]
enum Step {
    Delete,
    Write,
}

/// The rows that are refused alone, and why.
type Left = Vec<(Piece, Fault)>;

impl Scope<'_> {
    /// Merges all rows, or fails with those that are refused.
    pub(super) async fn merge_in_pieces(
        &self,
        merged: &[Merging<'_>],
        renews: bool,
        place: LogPlace,
        at_once: &AtOnce,
    ) -> Result<(), Fault> {
        let mut undeleted = self.delete_some_way(merged, renews, place).await?;
        let mut unwritten = Vec::with_capacity(merged.len());
        for merging in merged {
            let left = self.write_in_pieces(merging).await?;
            unwritten.push(self.blame_order(merging, left, at_once).await?);
        }
        let count = |of: &[Left]| of.iter().map(Vec::len).sum::<usize>();
        for _ in 0..ROUNDS_MAX {
            let before = count(&undeleted) + count(&unwritten);
            if count(&undeleted) == 0 {
                break;
            }
            for (n, merging) in merged.iter().enumerate().rev() {
                self.again(merging, Step::Delete, &mut undeleted[n]).await?;
            }
            for (n, merging) in merged.iter().enumerate() {
                self.again(merging, Step::Write, &mut unwritten[n]).await?;
            }
            if count(&undeleted) + count(&unwritten) == before {
                break;
            }
        }
        let mut refusals = Refusals::default();
        let left = undeleted.into_iter().zip(unwritten);
        for (merging, (undeleted, unwritten)) in merged.iter().zip(left) {
            for (piece, fault) in undeleted.into_iter().chain(unwritten) {
                if !piece.has_record {
                    return Err(unmerged(merging.mapping, fault));
                }
                let error = refusal(merging.mapping, &piece.record, fault)?;
                refusals.note(merging.number, &piece.record, error)?;
            }
        }
        Ok(refusals.into_result()?)
    }

    /// Deletes what the new rows have not; answers the rows that are refused alone.
    async fn delete_some_way(
        &self,
        merged: &[Merging<'_>],
        renews: bool,
        place: LogPlace,
    ) -> Result<Vec<Left>, Fault> {
        let mut left: Vec<Left> = merged.iter().map(|_| Vec::new()).collect();
        self.client.batch_execute("SAVEPOINT deleting").await?;
        match self.delete_rows(merged, renews).await {
            Err((_, fault)) if fault.is_rejected_row() => {
                self.client
                    .batch_execute("ROLLBACK TO SAVEPOINT deleting")
                    .await?;
            }
            done => {
                return done
                    .map(|()| left)
                    .map_err(|(of, fault)| unmerged(of, fault));
            }
        }
        for (n, merging) in merged.iter().enumerate().rev() {
            left[n] = self.delete_in_pieces(merging, place).await?;
        }
        Ok(left)
    }

    async fn delete_in_pieces(
        &self,
        merging: &Merging<'_>,
        place: LogPlace,
    ) -> Result<Left, Fault> {
        let mapping = merging.mapping;
        let key = &mapping.columns[mapping.key];
        let name = quote(&key.name);
        let bytes = match key.kind {
            ColumnType::Blob => format!("t.{name}"),
            _ => format!("convert_to(t.{name}::text, 'UTF8')"),
        };
        let open = format!(
            "DECLARE onelog_rows NO SCROLL CURSOR FOR SELECT {PLACE}, {bytes} FROM {}",
            merging.merge.surplus
        );
        // No record of the log is about these rows; the last one of all is at least as new.
        let offset = Offset(place.position.get().saturating_sub(1));
        let (mut left, mut deleted) = (Vec::new(), 0);
        self.client.batch_execute(&open).await?;
        while left.len() < REFUSED_MAX {
            let rows = self.client.query_typed(NEXT, &[]).await?;
            if rows.is_empty() {
                break;
            }
            let pieces = rows.iter().map(|row| {
                let key = log_key(mapping, row.get(1));
                Piece {
                    place: row.get(0),
                    has_record: key.is_some(),
                    record: Change {
                        key: key.unwrap_or_default(),
                        offset,
                        value: None,
                    },
                }
            });
            deleted += self
                .halves(merging, Step::Delete, pieces.collect(), &mut left)
                .await?;
        }
        self.client.batch_execute("CLOSE onelog_rows").await?;
        self.check_deletes(merging, deleted).await?;
        Ok(left)
    }

    /// Writes the staged rows; answers those that are refused alone.
    async fn write_in_pieces(&self, merging: &Merging<'_>) -> Result<Left, Fault> {
        let [key, offset] = record_columns(merging.mapping).map(|name| quote(&name));
        let open = format!(
            "DECLARE onelog_rows NO SCROLL CURSOR FOR SELECT ctid::text, {key}, {offset} FROM {} WHERE {}",
            self.staging(merging.mapping),
            is_written(merging.mapping)
        );
        self.client.batch_execute(&open).await?;
        let mut refused = Vec::new();
        while refused.len() < REFUSED_MAX {
            let rows = self.client.query_typed(NEXT, &[]).await?;
            if rows.is_empty() {
                break;
            }
            let rows = rows.iter().map(|row| Piece {
                place: row.get(0),
                has_record: true,
                record: Change {
                    key: row.get::<_, Vec<u8>>(1).into(),
                    offset: Offset(row.get::<_, i64>(2).cast_unsigned()),
                    value: None,
                },
            });
            self.halves(merging, Step::Write, rows.collect(), &mut refused)
                .await?;
        }
        self.client.batch_execute("CLOSE onelog_rows").await?;
        let mut in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if refused.is_empty() || in_vain == 2 {
                break;
            }
            let before = refused.len();
            self.again(merging, Step::Write, &mut refused).await?;
            in_vain = match refused.len() == before {
                true => in_vain + 1,
                false => 0,
            };
        }
        Ok(refused)
    }

    /// Tries again what was refused, in the other direction.
    async fn again(&self, merging: &Merging<'_>, step: Step, left: &mut Left) -> Result<(), Fault> {
        let pieces: Vec<Piece> = left.drain(..).rev().map(|(piece, _)| piece).collect();
        if !pieces.is_empty() {
            self.halves(merging, step, pieces, left).await?;
        }
        Ok(())
    }

    /// Takes a step for rows, all but those that are refused alone. Answers how many were taken.
    async fn halves(
        &self,
        merging: &Merging<'_>,
        step: Step,
        pieces: Vec<Piece>,
        refused: &mut Left,
    ) -> Result<u64, Fault> {
        let mut taken = 0;
        let mut left = vec![pieces];
        while let Some(mut part) = left.pop() {
            failpoint::hit(&self.identity.sink, "merge_piece");
            let error = match self.take(merging, step, &part).await {
                Ok(()) => {
                    taken += part.len() as u64;
                    continue;
                }
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
        Ok(taken)
    }

    async fn take(
        &self,
        merging: &Merging<'_>,
        step: Step,
        part: &[Piece],
    ) -> Result<(), tokio_postgres::Error> {
        let list = |of: fn(&Piece) -> &str| {
            let quoted = part.iter().map(|piece| format!("\"{}\"", of(piece)));
            quoted.collect::<Vec<_>>().join(",")
        };
        let taken = match step {
            Step::Write => merging.merge.upsert(&format!(
                "AND ctid = ANY('{{{}}}'::tid[])",
                list(Piece::place_in_table)
            )),
            Step::Delete => format!(
                "DELETE FROM {} AND t.ctid = ANY('{{{}}}'::tid[]) AND {PLACE} = ANY('{{{}}}'::text[])",
                merging.merge.surplus,
                list(Piece::place_in_table),
                list(|piece| &piece.place)
            ),
        };
        self.client
            .batch_execute(&format!(
                "SAVEPOINT onelog_piece; {taken}; RELEASE SAVEPOINT onelog_piece"
            ))
            .await
    }

    /// Where a row refers to one of a table that is backfilled later, the order of the mappings is at
    /// fault and not the row. A key that is checked at the end knows no order: what is missing then is
    /// what it missed with all rows there.
    async fn blame_order(
        &self,
        merging: &Merging<'_>,
        mut refused: Left,
        at_once: &AtOnce,
    ) -> Result<Left, Fault> {
        let later = self.keys_to_later_tables(merging, at_once.defers).await?;
        let is_by_order =
            |fault: &Fault| foreign_key(fault).is_some_and(|key| later.contains_key(key));
        let Some(n) = refused.iter().position(|(_, fault)| is_by_order(fault)) else {
            return Ok(refused);
        };
        let fault = refused.swap_remove(n).1;
        let key = foreign_key(&fault).filter(|key| later[*key]);
        Err(match &at_once.fault {
            Fault::Sql(error) if key.is_some() && key == foreign_key(&at_once.fault) => {
                missing(merging.mapping, error)
            }
            _ => unmerged(merging.mapping, fault),
        })
    }

    /// The foreign keys of a table that refer to tables of later mappings, and whether they are checked
    /// at the end; `defers`: all that can be are.
    async fn keys_to_later_tables(
        &self,
        merging: &Merging<'_>,
        defers: bool,
    ) -> Result<HashMap<String, bool>, Fault> {
        let plan: &Plan = &self.identity.plan;
        let schema = &self.identity.schema;
        let later = plan.mappings[merging.number + 1..].iter();
        let later: Vec<String> = later.map(|mapping| table(schema, &mapping.into)).collect();
        let into = table(schema, &merging.mapping.into);
        let sql = "SELECT conname::text, condeferrable AND (condeferred OR $3)
            FROM pg_catalog.pg_constraint
            WHERE contype = 'f' AND conrelid = to_regclass($1)
              AND confrelid IN (SELECT to_regclass(name) FROM unnest($2::text[]) AS name)";
        let found = self
            .client
            .query_typed(
                sql,
                &[
                    (&into, Type::TEXT),
                    (&later, Type::TEXT_ARRAY),
                    (&defers, Type::BOOL),
                ],
            )
            .await?;
        Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// The foreign key that a row violates.
fn foreign_key(fault: &Fault) -> Option<&str> {
    match fault {
        Fault::Sql(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            error.as_db_error()?.constraint()
        }
        _ => None,
    }
}

/// The key of the log that a row's key was made of. `None`: no record can have written the row.
fn log_key(mapping: &MappingPlan, key: Option<Vec<u8>>) -> Option<Bytes> {
    let mut row = Row::new(mapping.columns.len());
    row.cells[mapping.key] = match mapping.columns[mapping.key].kind {
        ColumnType::Blob => Cell::Blob(key?),
        _ => Cell::Text(String::from_utf8(key?).ok()?),
    };
    mapping.key_of_row(&row).map(Bytes::from)
}
