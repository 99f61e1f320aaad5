//! The rows of accepted transactions that the state does not show yet.
//!
//! Invariant: of every key that was written at or above the applied position, the newest row is
//! here. Rows leave when `applied` moves over their last write.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use onelog_record::{KeyRange, Offset, Position, TableId};

use crate::planted::{self, Bug};

/// The newest row of a key.
#[derive(Clone, Debug)]
pub struct Row {
    pub version: Offset,
    /// The position right behind that record's transaction.
    pub end: Position,
    /// The value; `None` for a delete.
    pub value: Option<Bytes>,
}

/// Rows in flight, by table and key.
#[derive(Debug, Default)]
pub struct Overlay {
    tables: HashMap<TableId, BTreeMap<Bytes, Row>, RandomState>,
    order: VecDeque<(Offset, TableId, Bytes)>,
}

impl Overlay {
    /// The newest row of a key.
    pub fn get(&self, table: TableId, key: &[u8]) -> Option<&Row> {
        if planted::is(Bug::ValidateCommittedOnly) {
            return None;
        }
        self.tables.get(&table)?.get(key)
    }

    /// A row of the range that was written at or after `since`. Takes one off `steps` for each row
    /// that was not, and finds nothing when none is left.
    pub fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        steps: &mut usize,
    ) -> Option<(&Bytes, &Row)> {
        if planted::is(Bug::ValidateCommittedOnly) {
            return None;
        }
        let to = match &range.to {
            Some(to) if *to <= range.from => return None,
            Some(to) => Bound::Excluded(&to[..]),
            None => Bound::Unbounded,
        };
        self.tables
            .get(&range.table)?
            .range::<[u8], _>((Bound::Included(&range.from[..]), to))
            .take_while(|_| {
                let is_left = *steps > 0;
                *steps = steps.saturating_sub(1);
                is_left
            })
            .find(|(_, row)| !since.sees(row.version))
    }

    /// Adds a row. Versions only grow.
    pub fn insert(&mut self, table: TableId, key: Bytes, row: Row) {
        self.order.push_back((row.version, table, key.clone()));
        self.tables.entry(table).or_default().insert(key, row);
    }

    /// Drops the rows that the state shows at `position`.
    pub fn applied(&mut self, position: Position) {
        while let Some((version, ..)) = self.order.front()
            && position.sees(*version)
        {
            let Some((version, table, key)) = self.order.pop_front() else {
                return;
            };
            let Some(rows) = self.tables.get_mut(&table) else {
                continue;
            };
            if let Entry::Occupied(row) = rows.entry(key)
                && row.get().version == version
            {
                row.remove();
            }
            if rows.is_empty() {
                self.tables.remove(&table);
            }
        }
    }

    pub fn clear(&mut self) {
        self.tables.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1024);

    fn row(version: u64) -> Row {
        Row {
            version: Offset(version),
            end: Position(version + 1),
            value: None,
        }
    }

    fn range(from: &'static [u8], to: Option<&'static [u8]>) -> KeyRange {
        KeyRange {
            table: TABLE,
            from: Bytes::from_static(from),
            to: to.map(Bytes::from_static),
        }
    }

    #[test]
    fn a_row_leaves_only_when_its_last_write_is_applied() {
        let mut overlay = Overlay::default();
        overlay.insert(TABLE, Bytes::from_static(b"a"), row(5));
        overlay.insert(TABLE, Bytes::from_static(b"a"), row(7));

        overlay.applied(Position(7));
        assert_eq!(overlay.get(TABLE, b"a").unwrap().version, Offset(7));

        overlay.applied(Position(8));
        assert!(overlay.get(TABLE, b"a").is_none());
        assert!(overlay.tables.is_empty() && overlay.order.is_empty());
    }

    #[test]
    fn a_range_ends_before_its_end_and_an_inverted_one_is_empty() {
        let mut overlay = Overlay::default();
        overlay.insert(TABLE, Bytes::from_static(b"b"), row(5));
        let hit = |from, to, since| {
            overlay
                .written_since(&range(from, to), Position(since), &mut 10)
                .is_some()
        };
        assert!(hit(b"b", Some(b"c"), 5));
        assert!(!hit(b"b", Some(b"c"), 6));
        assert!(!hit(b"a", Some(b"b"), 0));
        assert!(hit(b"", None, 0));
        assert!(!hit(b"c", Some(b"a"), 0));
        assert!(!hit(b"b", Some(b"b"), 0));
    }
}
