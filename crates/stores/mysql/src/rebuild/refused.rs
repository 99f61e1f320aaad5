//! Finding the rows that a table does not take when it is made equal to its staged table.
//!
//! The rows go in pieces, each behind a savepoint: one that is refused goes again by halves, down to
//! the rows that are refused alone. These are tried again until no more pass, because a later row may
//! be what an earlier one needs, and a row that is written may no longer be in the way of one that is
//! to be deleted. Where none is left, the table is merged.

use bytes::Bytes;
use mysql_async::{Params, Row as FoundRow, Value};
use onelog_mapping::{MappingPlan, Row};
use onelog_record::Offset;
use onelog_store::{Change, LogPlace, Refusals, Refused, Remedy, StoreError, failpoint};

use super::Rebuild;
use super::merge::{DOING, KEYS_EACH, Merging, marks};
use crate::connection::REBUILD_TIMEOUT;
use crate::decode::read_cell;
use crate::error::{Fault, NO_PARENT, NO_PARENT_ADVICE};
use crate::write::{Trouble, key_of};

const PIECE: &str = "SAVEPOINT onelog_piece";
const PIECE_BACK: &str = "ROLLBACK TO SAVEPOINT onelog_piece";
/// Beyond so many refused rows of a table no more are looked for.
const REFUSED_MAX: usize = 10_000;
/// How often refused rows are tried again.
const ROUNDS_MAX: u32 = 16;

/// A row that is to be written, or deleted.
struct Piece {
    key: Value,
    /// The record of the log; where it is to be deleted, without its key.
    record: Change,
}

/// What is to be done with a row.
#[derive(Clone, Copy)]
enum Step {
    Delete,
    Write,
}

/// The rows that are refused alone, and why.
type Left = Vec<(Piece, Fault)>;

impl Rebuild<'_> {
    /// Merges all rows, or fails with those that are refused.
    pub(super) fn merge_in_pieces(
        &mut self,
        merged: &[Merging<'_>],
        place: LogPlace,
    ) -> Result<(), StoreError> {
        let mut undeleted: Vec<Left> = merged.iter().map(|_| Vec::new()).collect();
        let mut unwritten: Vec<Left> = merged.iter().map(|_| Vec::new()).collect();
        for merging in merged.iter().rev() {
            undeleted[merging.number] = self.delete_in_pieces(merging, place)?;
        }
        for merging in merged {
            let left = self.write_in_pieces(merging)?;
            unwritten[merging.number] = self.blame_order(merging, left)?;
        }
        let count = |of: &[Left]| of.iter().map(Vec::len).sum::<usize>();
        for _ in 0..ROUNDS_MAX {
            let before = count(&undeleted) + count(&unwritten);
            if count(&undeleted) == 0 {
                break;
            }
            for merging in merged.iter().rev() {
                self.again(merging, Step::Delete, &mut undeleted[merging.number])?;
            }
            for merging in merged {
                self.again(merging, Step::Write, &mut unwritten[merging.number])?;
            }
            if count(&undeleted) + count(&unwritten) == before {
                break;
            }
        }
        let mut refusals = Refusals::default();
        for merging in merged {
            let (n, of) = (merging.number, merging.mapping);
            for (piece, _) in &mut undeleted[n] {
                piece.record.key = log_key(of, &piece.key)?;
                self.undeleted.push((n, piece.key.clone()));
            }
            for (piece, fault) in undeleted[n].drain(..).chain(unwritten[n].drain(..)) {
                let what = fault.message(self.connection.flavour());
                let error = StoreError::refused_change(of, &piece.record, what);
                refusals.note(n, &piece.record, error)?;
            }
        }
        refusals.into_result()
    }

    /// Deletes what the new rows have not; answers the rows that are refused alone.
    fn delete_in_pieces(
        &mut self,
        merging: &Merging<'_>,
        place: LogPlace,
    ) -> Result<Left, StoreError> {
        // No record of the log is about these rows; the last one of all is at least as new.
        let offset = Offset(place.position.get().saturating_sub(1));
        let (kept, key) = (self.kept[merging.number].clone(), &merging.key);
        let (mut left, mut deleted) = (Vec::new(), 0);
        let mut last: Option<Value> = None;
        while left.len() < REFUSED_MAX {
            let behind = last.as_ref().map_or("", |_| " AND t.KEY > ?");
            let behind = behind.replace("KEY", key);
            let sql = format!(
                "SELECT t.{key} FROM {}{behind} ORDER BY t.{key} LIMIT {KEYS_EACH}",
                merging.surplus
            );
            let found = self.page(&sql, kept.iter().cloned().chain(last.take()))?;
            let mut pieces = Vec::with_capacity(found.len());
            for row in &found {
                pieces.push(Piece {
                    key: row.get(0).unwrap_or(Value::NULL),
                    record: Change {
                        key: Bytes::new(),
                        offset,
                        value: None,
                    },
                });
            }
            let Some(piece) = pieces.last() else { break };
            last = Some(piece.key.clone());
            deleted += self.halves(merging, Step::Delete, pieces, &mut left)?;
        }
        self.check_deletes(merging, deleted)?;
        Ok(left)
    }

    /// Writes the staged rows; answers those that are refused alone.
    fn write_in_pieces(&mut self, merging: &Merging<'_>) -> Result<Left, StoreError> {
        let key = &merging.key;
        let mut left = Vec::new();
        let mut last: Option<Value> = None;
        while left.len() < REFUSED_MAX {
            let behind = last.as_ref().map_or("", |_| " AND n.KEY > ?");
            let behind = behind.replace("KEY", key);
            let sql = format!(
                "SELECT n.{key}, n.{}, n.{} FROM {} n WHERE {}{behind} ORDER BY n.{key} LIMIT {KEYS_EACH}",
                merging.record_key,
                merging.record_offset,
                merging.staged,
                merging.is_written(),
            );
            let found = self.page(&sql, last.take().into_iter())?;
            let piece = |row: &FoundRow| Piece {
                key: row.get(0).unwrap_or(Value::NULL),
                record: Change {
                    key: row.get::<Vec<u8>, _>(1).unwrap_or_default().into(),
                    offset: Offset(row.get(2).unwrap_or_default()),
                    value: None,
                },
            };
            let pieces: Vec<Piece> = found.iter().map(piece).collect();
            let Some(piece) = pieces.last() else { break };
            last = Some(piece.key.clone());
            self.halves(merging, Step::Write, pieces, &mut left)?;
        }
        let mut in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if left.is_empty() || in_vain == 2 {
                break;
            }
            let before = left.len();
            self.again(merging, Step::Write, &mut left)?;
            in_vain = match left.len() == before {
                true => in_vain + 1,
                false => 0,
            };
        }
        Ok(left)
    }

    fn page(
        &mut self,
        sql: &str,
        values: impl Iterator<Item = Value>,
    ) -> Result<Vec<FoundRow>, StoreError> {
        let values: Vec<Value> = values.collect();
        let values = match values.is_empty() {
            true => Params::Empty,
            false => Params::Positional(values),
        };
        let found = self.connection.fetch_within(REBUILD_TIMEOUT, sql, values);
        found.map_err(|fault| self.fault(DOING, fault))
    }

    /// Tries again what was refused, in the other direction.
    fn again(
        &mut self,
        merging: &Merging<'_>,
        step: Step,
        left: &mut Left,
    ) -> Result<(), StoreError> {
        let pieces: Vec<Piece> = left.drain(..).rev().map(|(piece, _)| piece).collect();
        for part in in_parts(pieces) {
            self.halves(merging, step, part, left)?;
        }
        Ok(())
    }

    /// Takes a step for rows, all but those that are refused alone. Answers how many were taken.
    fn halves(
        &mut self,
        merging: &Merging<'_>,
        step: Step,
        pieces: Vec<Piece>,
        left: &mut Left,
    ) -> Result<u64, StoreError> {
        let mut taken = 0;
        let mut parts = vec![pieces];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            failpoint::hit(&self.identity.sink, "merge_piece");
            self.connection.execute(DOING, PIECE)?;
            let fault = match self.take(merging, step, &part) {
                Ok(rows) => {
                    taken += rows;
                    continue;
                }
                Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => fault,
                Err(trouble) => return Err(self.unmerged(trouble)),
            };
            self.connection.execute(DOING, PIECE_BACK)?;
            let second = part.split_off(part.len() / 2);
            match part.is_empty() {
                true => left.extend(second.into_iter().next().map(|piece| (piece, fault))),
                false => parts.extend([second, part]),
            }
        }
        Ok(taken)
    }

    fn take(&mut self, merging: &Merging<'_>, step: Step, part: &[Piece]) -> Result<u64, Trouble> {
        let keys: Vec<Value> = part.iter().map(|piece| piece.key.clone()).collect();
        let (key, marks) = (&merging.key, marks(keys.len()));
        let statements = match step {
            Step::Delete => vec![format!(
                "DELETE FROM {} WHERE {key} IN ({marks})",
                merging.into
            )],
            Step::Write => merging.upsert(&format!(" AND n.{key} IN ({marks})")).into(),
        };
        let mut rows = 0;
        for sql in statements {
            rows += self.run(merging, &sql, &keys)?;
        }
        Ok(rows)
    }

    /// Where a row refers to one of a table that is backfilled later, the order of the mappings is
    /// at fault and not the row.
    fn blame_order(&mut self, merging: &Merging<'_>, left: Left) -> Result<Left, StoreError> {
        if left
            .iter()
            .all(|(_, fault)| fault.code() != Some(NO_PARENT))
        {
            return Ok(left);
        }
        let later = self.keys_to_later_tables(merging)?;
        let is_by_order = |fault: &Fault| {
            let said = fault.to_string();
            let is_named = |name: &String| said.contains(&format!("CONSTRAINT `{name}`"));
            fault.code() == Some(NO_PARENT) && later.iter().any(is_named)
        };
        match left.iter().find(|(_, fault)| is_by_order(fault)) {
            Some((_, fault)) => {
                let advice = format!(" ({NO_PARENT_ADVICE})");
                Err(self.objection(merging.number, fault, &advice, Remedy::Said))
            }
            None => Ok(left),
        }
    }

    /// The foreign keys of a table that refer to tables of later mappings.
    fn keys_to_later_tables(&mut self, merging: &Merging<'_>) -> Result<Vec<String>, StoreError> {
        let mut later = self.plan.mappings[merging.number + 1..].iter().peekable();
        if later.peek().is_none() {
            return Ok(Vec::new());
        }
        let mut values = vec![Value::from(&merging.mapping.into)];
        values.extend(later.map(|mapping| Value::from(&mapping.into)));
        let sql = format!(
            "SELECT CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
             WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ?
               AND REFERENCED_TABLE_NAME IN ({})",
            marks(values.len() - 1)
        );
        let found = self.page(&sql, values.into_iter())?;
        Ok(found.iter().filter_map(|row| row.get(0)).collect())
    }

    /// Leaves refused records of the staged tables out.
    pub(super) fn leave_out(&mut self, refused: &Refused) -> Result<(), StoreError> {
        for (n, mapping) in self.plan.mappings.iter().enumerate() {
            let merging = self.merging(n)?;
            let keys: Vec<Value> = refused
                .all()
                .filter(|refused| refused.into.as_ref() == Some(&mapping.into))
                .filter_map(|refused| key_of(mapping, &refused.key_bytes))
                .collect();
            for keys in keys.chunks(KEYS_EACH) {
                let sql = format!(
                    "UPDATE {} SET {} = NULL WHERE {} IN ({})",
                    merging.staged,
                    merging.record_offset,
                    merging.key,
                    marks(keys.len())
                );
                let done = self.run(&merging, &sql, keys);
                done.map_err(|trouble| self.unmerged(trouble))?;
            }
        }
        Ok(())
    }
}

fn in_parts(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut parts = Vec::new();
    while pieces.len() > KEYS_EACH {
        let rest = pieces.split_off(KEYS_EACH);
        parts.push(std::mem::replace(&mut pieces, rest));
    }
    parts.push(pieces);
    parts
}

/// The key of the log that a row's key was made of.
fn log_key(mapping: &MappingPlan, key: &Value) -> Result<Bytes, StoreError> {
    let mut row = Row::new(mapping.columns.len());
    let kind = mapping.columns[mapping.key].kind;
    read_cell(kind, key.clone(), &mut row.cells[mapping.key]);
    let made = mapping.key_of_row(&row);
    made.map(Bytes::from)
        .ok_or_else(|| {
            let what = format!(
                "it does not let go of the row {}, which no record of the log can have written: delete it there, then resume the sink",
                row.cells[mapping.key].show_key()
            );
            StoreError::mismatch(mapping, what, Remedy::Said)
        })
}
