//! The newest writes in the order of the log, a bounded number of them.
//!
//! "Was anything in this range written since?" is asked at the commit point, mostly about a wide
//! range and a short while ago. Walking the range in the memtables would cost as much as the
//! range is wide; looking at the few writes since then does not.

use std::collections::VecDeque;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position};

use crate::key::VersionKey;
use crate::memtable::range_end;

/// How many writes are kept: some megabytes.
pub(crate) const RECENT_WRITES_MAX: usize = 32_768;

#[derive(Debug)]
pub(crate) struct RecentWrites {
    writes: VecDeque<VersionKey>,
    writes_max: usize,
    /// Every write at or above it is here.
    complete_from: Position,
}

impl RecentWrites {
    pub(crate) const fn new(complete_from: Position, writes_max: usize) -> Self {
        Self {
            writes: VecDeque::new(),
            writes_max,
            complete_from,
        }
    }

    /// Appends writes, in the order of their offsets.
    pub(crate) fn extend(&mut self, writes: impl Iterator<Item = VersionKey>) {
        for write in writes {
            if self.writes.len() == self.writes_max
                && let Some(forgotten) = self.writes.pop_front()
            {
                self.complete_from = forgotten.offset().after();
            }
            self.writes.push_back(write);
        }
    }

    fn place_of(&self, since: Position) -> usize {
        self.writes
            .partition_point(|write| write.offset() < since.next_offset())
    }

    /// How many writes there are at or above `since`; `None` when some of them are forgotten.
    pub(crate) fn count_since(&self, since: Position) -> Option<usize> {
        (since >= self.complete_from).then(|| self.writes.len() - self.place_of(since))
    }

    /// The last write inside the range, at or above `since` and up to `ceiling`.
    pub(crate) fn written_between(
        &self,
        range: &KeyRange,
        since: Position,
        ceiling: Offset,
    ) -> Option<(Bytes, Offset)> {
        let start = VersionKey::before(range.table, &range.from);
        let end = range_end(range);
        let is_in = |write: &VersionKey| {
            write.offset() <= ceiling
                && *write >= start
                && end.as_ref().is_none_or(|end| write < end)
        };
        let since = self.writes.range(self.place_of(since)..);
        let found = since.rev().find(|write| is_in(write));
        found.map(|write| (write.key(), write.offset()))
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::TableId;

    use super::*;

    fn range(from: &[u8], to: &[u8]) -> KeyRange {
        KeyRange {
            table: TableId(1),
            from: Bytes::copy_from_slice(from),
            to: Some(Bytes::copy_from_slice(to)),
        }
    }

    #[test]
    fn it_knows_what_it_has_forgotten() {
        let mut recent = RecentWrites::new(Position(10), 3);
        let write = |offset: u64| {
            let key = Bytes::from(vec![b'a' + offset as u8 % 26]);
            VersionKey::of_record(TableId(1), &key, Offset(offset))
        };
        assert_eq!(recent.count_since(Position(9)), None);
        assert_eq!(recent.count_since(Position(10)), Some(0));
        // Offsets between them belong to events and to other things without state.
        recent.extend([12, 14, 15].map(write).into_iter());
        assert_eq!(recent.count_since(Position(10)), Some(3));
        assert_eq!(recent.count_since(Position(13)), Some(2));
        recent.extend([18].map(write).into_iter());
        assert_eq!(recent.count_since(Position(12)), None, "12 is forgotten");
        assert_eq!(recent.count_since(Position(13)), Some(3));
        let between = |from: &[u8], to: &[u8], since, ceiling| {
            recent.written_between(&range(from, to), Position(since), Offset(ceiling))
        };
        // 14 is 'o', 15 is 'p', 18 is 's'.
        assert_eq!(
            between(b"a", b"z", 13, 20).map(|hit| hit.1),
            Some(Offset(18))
        );
        assert_eq!(
            between(b"a", b"z", 13, 17).map(|hit| hit.1),
            Some(Offset(15))
        );
        assert_eq!(
            between(b"o", b"p", 14, 20),
            Some((Bytes::from_static(b"o"), Offset(14)))
        );
        assert_eq!(between(b"o", b"p", 15, 20), None);
        assert_eq!(between(b"q", b"s", 13, 20), None);
    }
}
