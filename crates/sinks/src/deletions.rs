//! What a backfill would delete in its store, counted before anything is changed there: the guard
//! against emptying a store by accident. Backfills of every kind of store and for every reason come
//! through here.
//!
//! A row is deleted where the log has no record of its key, or the mapping leaves that record out.
//! Rows that are written over are not counted: the log has them.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog::{ReadError, Snapshot};
use onelog_mapping::{
    ADOPT, Column, ColumnType, Columns, KEY_COLUMN, MappingPlan, REPLACE, Row, Source,
};
use onelog_store::{Change, Leftover, SinkDefinition, StoreError};

use crate::error::SinkFault;
use crate::feed::Feed;
use crate::open::plan_of;
use crate::session_end::SessionEnd;

/// So many rows of a table a backfill deletes without being asked to …
pub const DELETES_MAX: u64 = 100;
/// … and above that, so much of it, in percent.
pub const DELETES_PERCENT_MAX: u64 = 20;

impl Feed {
    /// Fails where a first backfill would delete or change rows of a table that was there before
    /// onelog, unless the mapping says that they are replaced.
    pub(crate) fn check_foreign_rows(
        &self,
        foreign: &[usize],
        snapshot: &Snapshot,
    ) -> Result<(), SessionEnd> {
        for &number in foreign {
            let mapping = &self.definition.mappings[number];
            if mapping.options.choice(ADOPT) == Some(REPLACE) {
                continue;
            }
            let alone = SinkDefinition {
                mappings: vec![mapping.clone()],
                ..self.definition.clone()
            };
            let counted =
                self.count(&alone, &mut |mapping, row| compare(snapshot, mapping, row))?;
            if counted.missing > 0 || counted.different > 0 {
                return Err(SessionEnd::Stop(SinkFault::new(format!(
                    "the table '{}' was there before onelog, and of its {} rows {} are not in the log's table '{}' and {} are there with other values; nothing was changed. Write these rows to the log first, then resume the sink; or, if they are to be deleted and written over, say \"adopt\": \"replace\" in the mapping",
                    mapping.into, counted.rows, counted.missing, mapping.table, counted.different
                ))));
            }
        }
        Ok(())
    }

    /// Fails where a backfill would delete more than the definition allows of what no mapping names
    /// any more.
    pub(crate) fn check_leftovers(&self, leftovers: &[Leftover]) -> Result<(), SessionEnd> {
        for Leftover { name, rows } in leftovers {
            if self.is_too_much(*rows, *rows) {
                return Err(SessionEnd::Stop(SinkFault::new(format!(
                    "a backfill would delete the {rows} rows of '{name}', which this sink has written and no mapping of its definition names any more; nothing was changed. If that is right, let it: onelog sinks rebuild {} --delete-rows (or \"max_deletes\" in the definition); if not, put the mapping back as it was",
                    self.definition.name,
                ))));
            }
        }
        Ok(())
    }

    /// Whether `missing` of so many rows are more than are deleted without being asked.
    fn is_too_much(&self, rows: u64, missing: u64) -> bool {
        if let Some(max) = self.definition.max_deletes {
            return missing > max;
        }
        let part = u128::from(rows) * u128::from(DELETES_PERCENT_MAX) / 100;
        missing > DELETES_MAX && u128::from(missing) > part
    }

    /// Fails where a backfill from `snapshot` would delete more than the definition allows.
    pub(crate) fn check_deletions(
        &self,
        foreign: &[usize],
        snapshot: &Snapshot,
    ) -> Result<(), SessionEnd> {
        for number in (0..self.definition.mappings.len()).filter(|n| !foreign.contains(n)) {
            let definition = keys_of(&self.definition, number);
            let Counted { rows, missing, .. } = self.count(&definition, &mut |mapping, row| {
                find(snapshot, mapping, row).map(|found| match found {
                    Some(_) => Compared::Equal,
                    None => Compared::Missing,
                })
            })?;
            if self.is_too_much(rows, missing) {
                let into = &self.definition.mappings[number].into;
                return Err(SessionEnd::Stop(SinkFault::new(format!(
                    "a backfill would delete {missing} of the {rows} rows of '{into}', because the log has none of them at position {}; nothing was changed. If that is right, let it: onelog sinks rebuild {} --delete-rows (or \"max_deletes\" in the definition); if not, see which table of the log the sink follows, and what its 'where' leaves out",
                    snapshot.position(),
                    self.definition.name,
                ))));
            }
        }
        Ok(())
    }

    /// Compares every row of the one mapping of a definition.
    fn count(
        &self,
        definition: &SinkDefinition,
        compare: &mut dyn FnMut(&MappingPlan, &Row) -> Result<Compared, ReadError>,
    ) -> Result<Counted, SessionEnd> {
        let plan = plan_of(&self.node, definition);
        let plan = Arc::new(plan.map_err(|error| SessionEnd::Stop(SinkFault::new(error)))?);
        let mut out = Counted::default();
        let mut failed = None;
        let scanned = definition.target.open_reader(&plan).and_then(|mut reader| {
            reader.scan(0, &mut |row| {
                out.rows += 1;
                match compare(&plan.mappings[0], row) {
                    Ok(Compared::Equal) => {}
                    Ok(Compared::Different) => out.different += 1,
                    Ok(Compared::Missing) => out.missing += 1,
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })
        });
        if let Some(error) = failed {
            return Err(SessionEnd::Retry(SinkFault::new(error)));
        }
        match scanned {
            Ok(()) => Ok(out),
            // There is no such table, or not with that key.
            Err(StoreError::SchemaMismatch { .. }) => Ok(Counted::default()),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Default)]
struct Counted {
    rows: u64,
    /// The log does not have them.
    missing: u64,
    /// The log has other values.
    different: u64,
}

enum Compared {
    Equal,
    Different,
    Missing,
}

/// What the log has of a row's key, transformed; `None` where a backfill makes no row of it.
fn find(
    snapshot: &Snapshot,
    mapping: &MappingPlan,
    row: &Row,
) -> Result<Option<Change>, ReadError> {
    let Some(key) = mapping.key_of_row(row) else {
        return Ok(None);
    };
    let Some(found) = snapshot.get(mapping.table, &key)? else {
        return Ok(None);
    };
    let mut change = Change {
        key: key.into(),
        offset: found.version,
        value: Some(found.value),
    };
    // What the mapping cannot transform is refused or parked, which is another matter.
    let left_out = change.try_transform(mapping).is_ok() && change.value.is_none();
    Ok((!left_out).then_some(change))
}

fn compare(snapshot: &Snapshot, mapping: &MappingPlan, row: &Row) -> Result<Compared, ReadError> {
    let Some(change) = find(snapshot, mapping, row)? else {
        return Ok(Compared::Missing);
    };
    let value = change.value.unwrap_or_default();
    let mut ours = Row::default();
    let projected = mapping.project(&change.key, change.offset, &value, &mut ours);
    Ok(match projected.is_ok() && ours.cells == row.cells {
        true => Compared::Equal,
        false => Compared::Different,
    })
}

/// A definition of one of the mappings, with the column of the key alone.
fn keys_of(definition: &SinkDefinition, number: usize) -> SinkDefinition {
    let mut mapping = definition.mappings[number].clone();
    mapping.full_text.clear();
    if !mapping.columns.0.is_empty() {
        let columns = std::mem::take(&mut mapping.columns.0);
        let key = columns
            .into_iter()
            .find(|(_, column)| column.from == Source::Key);
        let implied = || {
            let column = Column {
                from: Source::Key,
                kind: ColumnType::Text,
            };
            (KEY_COLUMN.to_owned(), column)
        };
        mapping.columns = Columns(vec![key.unwrap_or_else(implied)]);
    }
    SinkDefinition {
        mappings: vec![mapping],
        ..definition.clone()
    }
}
