//! What a backfill would delete in its store, counted before anything is changed there: the guard
//! against emptying a store by accident. Backfills of every kind of store and for every reason come
//! through here.
//!
//! A row is deleted where the log has no record of its key, or the mapping leaves that record out.
//! Rows that are written over are not counted: the log has them.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog::{ReadError, Snapshot};
use onelog_mapping::{Column, ColumnType, Columns, KEY_COLUMN, MappingPlan, Row, Source};
use onelog_store::{Change, SinkDefinition, StoreError};

use crate::error::SinkFault;
use crate::feed::Feed;
use crate::open::plan_of;
use crate::session_end::SessionEnd;

/// So many rows of a table a backfill deletes without being asked to …
pub const DELETES_MAX: u64 = 100;
/// … and above that, so much of it, in percent.
pub const DELETES_PERCENT_MAX: u64 = 20;

impl Feed {
    /// Fails where a backfill from `snapshot` would delete more than the definition allows.
    pub(crate) fn check_deletions(&self, snapshot: &Snapshot) -> Result<(), SessionEnd> {
        for number in 0..self.definition.mappings.len() {
            let (rows, deleted) = self.count_deletions(snapshot, number)?;
            let is_too_much = match self.definition.max_deletes {
                Some(max) => deleted > max,
                None => {
                    let part = u128::from(rows) * u128::from(DELETES_PERCENT_MAX) / 100;
                    deleted > DELETES_MAX && u128::from(deleted) > part
                }
            };
            if is_too_much {
                let into = &self.definition.mappings[number].into;
                return Err(SessionEnd::Stop(SinkFault::new(format!(
                    "a backfill would delete {deleted} of the {rows} rows of '{into}', because the log has none of them at position {}; nothing was changed. If that is right, let it: onelog sinks rebuild {} --delete-rows (or \"max_deletes\" in the definition); if not, see which table of the log the sink follows, and what its 'where' leaves out",
                    snapshot.position(),
                    self.definition.name,
                ))));
            }
        }
        Ok(())
    }

    /// How many rows the table of a mapping has, and how many of them would be deleted.
    fn count_deletions(
        &self,
        snapshot: &Snapshot,
        number: usize,
    ) -> Result<(u64, u64), SessionEnd> {
        let definition = keys_of(&self.definition, number);
        let plan = plan_of(&self.node, &definition);
        let plan = Arc::new(plan.map_err(|error| SessionEnd::Stop(SinkFault::new(error)))?);
        let (mut rows, mut deleted) = (0, 0);
        let mut failed = None;
        let counted = definition.target.open_reader(&plan).and_then(|mut reader| {
            reader.scan(0, &mut |row| {
                rows += 1;
                match has_record(snapshot, &plan.mappings[0], row) {
                    Ok(true) => {}
                    Ok(false) => deleted += 1,
                    Err(error) => failed = Some(error),
                }
                match failed.is_some() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
        });
        if let Some(error) = failed {
            return Err(SessionEnd::Retry(SinkFault::new(error)));
        }
        match counted {
            Ok(()) => Ok((rows, deleted)),
            // There is no such table, or not with that key.
            Err(StoreError::SchemaMismatch { .. }) => Ok((0, 0)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the row of this key is there after a backfill.
fn has_record(snapshot: &Snapshot, mapping: &MappingPlan, row: &Row) -> Result<bool, ReadError> {
    let Some(key) = mapping.key_of_row(row) else {
        return Ok(false);
    };
    let Some(found) = snapshot.get(mapping.table, &key)? else {
        return Ok(false);
    };
    let mut change = Change {
        key: key.into(),
        offset: found.version,
        value: Some(found.value),
    };
    // What the mapping cannot transform is refused or parked, which is another matter.
    Ok(change.try_transform(mapping).is_err() || change.value.is_some())
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
