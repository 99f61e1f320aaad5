//! Walks a range of a memtable in either direction, one row per key: the newest version that a
//! reader at a position sees, deletes included.
//!
//! Rows are taken in batches: a cursor owns its memtable and cannot also hold a place in it, so
//! it searches its place once per batch. Many versions of one key are jumped over by a search.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position};

use crate::key::VersionKey;
use crate::memtable::{Memtable, range_end};

const BATCH_ROWS_FIRST: usize = 8;
const BATCH_ROWS_MAX: usize = 128;
/// After this many versions that are not wanted, searching is cheaper than stepping.
const STEPS_MAX: usize = 8;

/// A row that one source of a scan offers.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) key: Bytes,
    pub(crate) version: Offset,
    /// `None` is a delete: it hides the key in older sources.
    pub(crate) value: Option<Bytes>,
}

#[derive(Debug)]
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    /// The newest offset that is seen; `None` sees nothing.
    ceiling: Option<Offset>,
    /// Everything before it lies before the range.
    start: VersionKey,
    /// Everything at or behind it lies behind the range.
    end: Option<VersionKey>,
    reverse: bool,
    batch: VecDeque<Candidate>,
    batch_rows: usize,
    is_finished: bool,
}

impl MemtableCursor {
    pub(crate) fn new(
        memtable: Arc<Memtable>,
        range: &KeyRange,
        position: Position,
        reverse: bool,
    ) -> Self {
        Self {
            memtable,
            ceiling: position.0.checked_sub(1).map(Offset),
            start: VersionKey::before(range.table, &range.from),
            end: range_end(range),
            reverse,
            batch: VecDeque::new(),
            batch_rows: BATCH_ROWS_FIRST,
            is_finished: false,
        }
    }

    pub(crate) fn next(&mut self) -> Option<Candidate> {
        if self.batch.is_empty() && !self.is_finished {
            match self.ceiling {
                None => self.is_finished = true,
                Some(ceiling) if self.reverse => self.fill_backward(ceiling),
                Some(ceiling) => self.fill_forward(ceiling),
            }
            self.batch_rows = (self.batch_rows * 2).min(BATCH_ROWS_MAX);
        }
        self.batch.pop_front()
    }

    /// Takes the next rows in ascending order and moves `start` behind the last one.
    fn fill_forward(&mut self, ceiling: Offset) {
        let versions = &self.memtable.versions;
        let mut at = versions.lower_bound(Bound::Included(&self.start));
        let mut taken: Option<VersionKey> = None;
        let mut steps = 0;
        while let Some(entry) = at {
            let key = entry.key();
            if self.end.as_ref().is_some_and(|end| key >= end) {
                break;
            }
            let is_older = taken.as_ref().is_some_and(|taken| key.is_same_key(taken));
            if !is_older && self.batch.len() == self.batch_rows {
                self.start = key.at(Offset(u64::MAX));
                return;
            }
            if !is_older && key.offset() <= ceiling {
                self.batch.push_back(Candidate {
                    key: key.key(),
                    version: key.offset(),
                    value: entry.value().clone(),
                });
                taken = Some(key.clone());
                steps = 0;
            }
            steps += 1;
            at = if steps <= STEPS_MAX {
                entry.next()
            } else if is_older {
                // The oldest version there can be has offset 0.
                versions.lower_bound(Bound::Excluded(&key.at(Offset::ZERO)))
            } else {
                versions.lower_bound(Bound::Included(&key.at(ceiling)))
            };
        }
        self.is_finished = true;
    }

    /// Takes the next rows in descending order and moves `end` to the last one.
    fn fill_backward(&mut self, ceiling: Offset) {
        let versions = &self.memtable.versions;
        while self.batch.len() < self.batch_rows {
            let bound = match &self.end {
                Some(end) => Bound::Excluded(end),
                None => Bound::Unbounded,
            };
            // The last version before the bound is its key's oldest one.
            let oldest = versions.upper_bound(bound);
            let Some(oldest) = oldest.filter(|oldest| *oldest.key() >= self.start) else {
                self.is_finished = true;
                return;
            };
            let key = oldest.key();
            if key.offset() <= ceiling
                && let Some(newest) = self.memtable.newest(&key.at(ceiling))
            {
                self.batch.push_back(Candidate {
                    key: key.key(),
                    version: newest.version,
                    value: newest.value,
                });
            }
            self.end = Some(key.at(Offset(u64::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onelog_record::TableId;
    use proptest::prelude::*;

    use super::*;
    use crate::filter::KeyHash;

    fn range(from: u8, to: Option<u8>) -> KeyRange {
        KeyRange {
            table: TableId(5),
            from: vec![from].into(),
            to: to.map(|to| vec![to].into()),
        }
    }

    proptest! {
        #[test]
        fn a_cursor_yields_the_newest_visible_version_of_each_key(
            writes in prop::collection::vec((4u32..7, 0u8..20, any::<bool>()), 0..400),
            position in 0u64..450,
            from in 0u8..22,
            to in prop::option::of(0u8..22),
            reverse: bool,
        ) {
            let memtable = Arc::new(Memtable::new(0, Arc::default(), Arc::default()));
            let mut expected = BTreeMap::new();
            for (offset, (table, key, is_put)) in writes.iter().enumerate() {
                let offset = Offset(offset as u64);
                let key = Bytes::from(vec![*key]);
                let value = is_put.then(|| Bytes::from(offset.0.to_string()));
                let version = VersionKey::of_record(TableId(*table), &key, offset);
                memtable.insert(KeyHash::of(TableId(*table), &key), version, value.clone());
                let is_in = key[0] >= from && to.is_none_or(|to| key[0] < to);
                if *table == 5 && offset.0 < position && is_in {
                    expected.insert(key, (offset, value));
                }
            }
            let mut cursor = MemtableCursor::new(memtable, &range(from, to), Position(position), reverse);
            let mut found = Vec::new();
            while let Some(row) = cursor.next() {
                found.push((row.key, (row.version, row.value)));
            }
            let mut expected: Vec<_> = expected.into_iter().collect();
            if reverse {
                expected.reverse();
            }
            prop_assert_eq!(found, expected);
        }
    }
}
