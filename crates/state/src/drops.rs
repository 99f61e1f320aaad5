//! Tables that were dropped since the last checkpoint, each with the position of its drop: what was
//! written below it is gone at the next checkpoint, in the table and in the rows of its unique values.

use std::collections::BTreeMap;

use onelog_record::{Position, TABLE_UNIQUE, TableId, unique_rows_of};
use redb::Table;

use crate::digest::Running;
use crate::key::{VersionKey, base_key};

#[derive(Debug, Default)]
pub(crate) struct Drops(BTreeMap<TableId, Position>);

impl Drops {
    pub(crate) fn add(&mut self, table: TableId, position: Position) {
        let known = self.0.entry(table).or_default();
        *known = position.max(*known);
    }

    /// Whether a version was written to a table before that was dropped.
    pub(crate) fn hides(&self, key: &VersionKey) -> bool {
        let is_gone = |table: TableId| {
            let dropped = self.0.get(&table);
            dropped.is_some_and(|position| position.sees(key.offset()))
        };
        !self.0.is_empty()
            && (is_gone(key.table())
                || key.table() == TABLE_UNIQUE
                    && key
                        .leading_u32()
                        .is_some_and(|owner| is_gone(TableId(owner))))
    }

    /// Removes from the B-tree what the drops hide: all of it was written before the last checkpoint,
    /// and so before the drops.
    pub(crate) fn remove_from(
        &self,
        rows: &mut Table<'_, &[u8], &[u8]>,
        digest: &mut Running,
    ) -> Result<(), redb::Error> {
        for table in self.0.keys() {
            let next = table.0.checked_add(1).map(TableId);
            let to = next.map(|next| base_key(next, b""));
            remove(rows, &base_key(*table, b""), to.as_deref(), digest)?;
            let owned = |table: TableId| base_key(TABLE_UNIQUE, &unique_rows_of(table));
            let to = next.map_or_else(|| base_key(TableId(TABLE_UNIQUE.0 + 1), b""), owned);
            remove(rows, &owned(*table), Some(&to), digest)?;
        }
        Ok(())
    }
}

fn remove(
    rows: &mut Table<'_, &[u8], &[u8]>,
    from: &[u8],
    to: Option<&[u8]>,
    digest: &mut Running,
) -> Result<(), redb::Error> {
    let mut is_kept = |key: &[u8], value: &[u8]| {
        digest.take_away(key, value);
        false
    };
    match to {
        Some(to) => rows.retain_in(from..to, &mut is_kept)?,
        None => rows.retain_in(from.., &mut is_kept)?,
    }
    Ok(())
}
