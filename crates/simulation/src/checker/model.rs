//! The plain model: every version of every key, straight from the log.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Op, Position, Record, TableId, TxnId};

use crate::history::{Found, Logged};

/// One version of a key; no value after a delete.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) offset: Offset,
    pub(super) value: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Model<'l> {
    pub(super) log: &'l [Logged],
    pub(super) by_id: HashMap<TxnId, &'l Logged>,
    versions: BTreeMap<(TableId, Bytes), Vec<Version>>,
}

impl<'l> Model<'l> {
    pub(super) fn new(log: &'l [Logged]) -> Self {
        let mut model = Self {
            log,
            by_id: HashMap::new(),
            versions: BTreeMap::new(),
        };
        for transaction in log {
            model.by_id.entry(transaction.id).or_insert(transaction);
            for record in &transaction.records {
                if record.op == Op::Event {
                    continue;
                }
                let key = (record.table, record.key.clone());
                model.versions.entry(key).or_default().push(Version {
                    offset: record.offset,
                    value: record.value.clone(),
                });
            }
        }
        model
    }

    pub(super) fn end(&self) -> Position {
        self.log.last().map_or(Position::ZERO, |last| last.end)
    }

    /// Why no reader can be at this position, if so.
    pub(super) fn position_fault(&self, position: Position) -> Option<String> {
        if position > self.end() {
            return Some(format!(
                "position {position} lies behind the log's end {}",
                self.end()
            ));
        }
        let next = self.log.partition_point(|t| t.end <= position);
        let split = self.log.get(next)?;
        (position > Position(split.first_offset.0)).then(|| {
            format!(
                "position {position} splits transaction {} (offsets {} to {})",
                split.id, split.first_offset, split.end
            )
        })
    }

    /// All versions of a key, oldest first.
    pub(super) fn versions(&self, table: TableId, key: &Bytes) -> &[Version] {
        self.versions
            .get(&(table, key.clone()))
            .map_or(&[], Vec::as_slice)
    }

    /// The newest version, deletes included, that a reader at `position` meets.
    pub(super) fn newest(
        &self,
        table: TableId,
        key: &Bytes,
        position: Position,
    ) -> Option<&Version> {
        newest_of(self.versions(table, key), position)
    }

    /// The value that a reader at `position` sees.
    pub(super) fn at(&self, table: TableId, key: &Bytes, position: Position) -> Option<Found> {
        found(self.newest(table, key, position)?)
    }

    /// The first write or delete of a key at or after `from` and below `to`.
    pub(super) fn written_between(
        &self,
        table: TableId,
        key: &Bytes,
        from: Position,
        to: Position,
    ) -> Option<Offset> {
        written_in(self.versions(table, key), from, to)
    }

    fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &Vec<Version>)> {
        let table = range.table;
        let to = range.to.clone();
        self.versions
            .range((table, range.from.clone())..)
            .take_while(move |((found, key), _)| {
                *found == table && to.as_ref().is_none_or(|to| key < to)
            })
            .map(|((_, key), versions)| (key, versions))
    }

    /// The rows that a reader at `position` sees in a range.
    pub(super) fn rows(&self, range: &KeyRange, position: Position) -> Vec<(Bytes, Found)> {
        self.range(range)
            .filter_map(|(key, versions)| {
                let found = found(newest_of(versions, position)?)?;
                Some((key.clone(), found))
            })
            .collect()
    }

    /// Something in a range that was written or deleted at or after `from` and below `to`.
    pub(super) fn range_written_between(
        &self,
        range: &KeyRange,
        from: Position,
        to: Position,
    ) -> Option<(Bytes, Offset)> {
        self.range(range)
            .find_map(|(key, versions)| Some((key.clone(), written_in(versions, from, to)?)))
    }

    /// The record at an offset.
    pub(super) fn record(&self, offset: Offset) -> Option<&'l Record> {
        let at = self.log.partition_point(|t| t.end <= Position(offset.0));
        self.log
            .get(at)?
            .records
            .iter()
            .find(|record| record.offset == offset)
    }
}

fn newest_of(versions: &[Version], position: Position) -> Option<&Version> {
    let count = versions.partition_point(|version| position.sees(version.offset));
    versions.get(count.checked_sub(1)?)
}

fn written_in(versions: &[Version], from: Position, to: Position) -> Option<Offset> {
    let first = versions.partition_point(|version| from.sees(version.offset));
    let offset = versions.get(first)?.offset;
    to.sees(offset).then_some(offset)
}

pub(super) fn found(version: &Version) -> Option<Found> {
    version.value.clone().map(|value| Found {
        version: version.offset,
        value,
    })
}
