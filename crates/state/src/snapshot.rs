//! The state at one position, and how a key is found in it.

use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position, TableId};

use crate::filter::KeyHash;
use crate::key::VersionKey;
use crate::memtable::{Found, Memtable};
use crate::scan::Scan;
use crate::tree::{Base, ReadError};

/// What a snapshot reads from: a checkpoint and every memtable behind it, newest first. Holding
/// it keeps all of them as they are.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) memtables: Vec<Arc<Memtable>>,
    pub(crate) base: Arc<Base>,
}

/// A value with the offset of the record that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The offset of the record that wrote it.
    pub version: Offset,
    pub value: Bytes,
}

/// Searches memtables, newest first, for the newest version of a key that a reader at `position`
/// sees.
pub(crate) fn search<'m>(
    memtables: impl Iterator<Item = &'m Arc<Memtable>>,
    table: TableId,
    key: &[u8],
    position: Position,
) -> Option<Found> {
    let ceiling = Offset(position.0.checked_sub(1)?);
    let hash = KeyHash::of(table, key);
    let mut probe = None;
    for memtable in memtables {
        if !memtable.may_contain(hash) {
            continue;
        }
        let probe = probe.get_or_insert_with(|| VersionKey::probe(table, key, ceiling));
        if let Some(found) = memtable.newest(probe) {
            return Some(found);
        }
    }
    None
}

/// The state at one position. It never changes, whatever is written or checkpointed meanwhile;
/// it pins memory and disk space, so drop it when it is not needed. Reading takes no lock of
/// onelog's own and may happen on any thread.
#[derive(Clone, Debug)]
pub struct Snapshot {
    reach: Arc<Reach>,
    position: Position,
}

impl Snapshot {
    pub(crate) fn new(reach: Arc<Reach>, position: Position) -> Self {
        assert!(
            position >= reach.base.applied.position,
            "a view is chosen so that its checkpoint lies at or below the position"
        );
        Self { reach, position }
    }

    /// The position: exactly the records below it are seen.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        let found = match search(self.reach.memtables.iter(), table, key, self.position) {
            Some(found) => Some(found),
            None => self.reach.base.get(table, key)?,
        };
        Ok(found.and_then(|found| {
            Some(Versioned {
                version: found.version,
                value: found.value?,
            })
        }))
    }

    /// Walks the keys of a range, upwards or downwards. Rows are read as they are taken.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn scan(&self, range: &KeyRange, reverse: bool) -> Result<Scan, ReadError> {
        Scan::new(&self.reach, range, self.position, reverse)
    }
}
