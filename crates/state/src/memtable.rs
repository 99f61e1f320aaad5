//! The newest versions, in memory: ordered, many versions per key.
//!
//! One thread inserts; any number of threads read values without locks. A reader at a position looks
//! only at versions below it, and a position is published after everything below it is in, so
//! no reader sees half an entry. Nothing is ever removed: a memtable is dropped as a whole.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use onelog_record::{KeyRange, Offset, TableId};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::blocks::{Blocks, RangedTables};
use crate::filter::{KeyFilter, KeyHash};
use crate::key::VersionKey;

/// What a version costs beside its key and value: the node with its key's head, its tower, its
/// share of the filter and of the allocator's rounding.
pub(crate) const VERSION_OVERHEAD_BYTES: usize = 160;

/// A version as a search found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: Offset,
    /// `None` is a delete.
    pub(crate) value: Option<Bytes>,
}

pub(crate) struct Memtable {
    pub(crate) versions: SkipMap<VersionKey, Option<Bytes>>,
    filter: KeyFilter,
    blocks: RwLock<Blocks>,
    bytes: AtomicUsize,
    /// The bytes of every memtable of this state that is still in memory.
    live_bytes: Arc<AtomicUsize>,
}

impl Memtable {
    /// An empty memtable that will be frozen at about `bytes`.
    pub(crate) fn new(
        bytes: usize,
        live_bytes: Arc<AtomicUsize>,
        ranged: Arc<RangedTables>,
    ) -> Self {
        Self {
            versions: SkipMap::new(),
            filter: KeyFilter::new(bytes / VERSION_OVERHEAD_BYTES),
            blocks: RwLock::new(Blocks::new(ranged)),
            bytes: AtomicUsize::new(0),
            live_bytes,
        }
    }

    /// Puts a version in. `None` is a delete.
    pub(crate) fn insert(&self, hash: KeyHash, key: VersionKey, value: Option<Bytes>) {
        self.filter.add(hash);
        let inserted = self.versions.insert(key, value);
        self.blocks.write().add(inserted.key(), &self.versions);
    }

    /// Counts memory that the memtable holds.
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        self.filter.may_contain(hash)
    }

    /// The newest version of the probe's key at or below the probe's offset.
    pub(crate) fn newest(&self, probe: &VersionKey) -> Option<Found> {
        let entry = self.versions.lower_bound(Bound::Included(probe))?;
        entry.key().is_same_key(probe).then(|| Found {
            version: entry.key().offset(),
            value: entry.value().clone(),
        })
    }

    /// Looks for a version in the range, at or above `since` and up to `ceiling`, for as many
    /// steps as there are left. A step is a block, or a version in a block that may have one.
    pub(crate) fn written_since(
        &self,
        range: &KeyRange,
        since: Offset,
        ceiling: Offset,
        steps: &mut usize,
    ) -> Written {
        let Some(blocks) = self.blocks_if_written(range.table, since) else {
            return Written::Nothing;
        };
        let Some(table) = blocks.table(range.table) else {
            return Written::Nothing;
        };
        let start = VersionKey::before(range.table, &range.from);
        let end = range_end(range);
        let mut of_table = table.from(&start).peekable();
        while let Some((first, block)) = of_table.next() {
            if end.as_ref().is_some_and(|end| first >= end) {
                break;
            }
            if !take_one(steps) {
                return Written::OutOfSteps;
            }
            if block.highest < since {
                continue;
            }
            let block_end = of_table.peek().map(|(next, _)| *next);
            let ends = block_end.into_iter().chain(&end).min();
            match self.walk(first.max(&start), ends, since, ceiling, steps) {
                Written::Nothing => {}
                other => return other,
            }
        }
        Written::Nothing
    }

    /// The blocks, those of the table split; `None` where it was not written since.
    fn blocks_if_written(
        &self,
        table: TableId,
        since: Offset,
    ) -> Option<RwLockReadGuard<'_, Blocks>> {
        let blocks = self.blocks.read();
        let of_table = blocks.table(table)?;
        if of_table.highest < since {
            return None;
        }
        if of_table.is_split() {
            return Some(blocks);
        }
        drop(blocks);
        self.blocks.write().split_table(table, &self.versions);
        Some(self.blocks.read())
    }

    fn walk(
        &self,
        start: &VersionKey,
        end: Option<&VersionKey>,
        since: Offset,
        ceiling: Offset,
        steps: &mut usize,
    ) -> Written {
        let table = start.table();
        let mut at = self.versions.lower_bound(Bound::Included(start));
        while let Some(entry) = at {
            let key = entry.key();
            if key.table() != table || end.is_some_and(|end| key >= end) {
                break;
            }
            if key.offset() <= ceiling && key.offset() >= since {
                return Written::At(key.key(), key.offset());
            }
            if !take_one(steps) {
                return Written::OutOfSteps;
            }
            at = entry.next();
        }
        Written::Nothing
    }
}

const fn take_one(steps: &mut usize) -> bool {
    let is_left = *steps > 0;
    *steps = steps.saturating_sub(1);
    is_left
}

/// Whether a range was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Nothing,
    /// A key that was, and the offset of that.
    At(Bytes, Offset),
    /// More steps are needed to know.
    OutOfSteps,
}

/// The place behind every version of the range; `None` is the end of everything.
pub(crate) fn range_end(range: &KeyRange) -> Option<VersionKey> {
    match &range.to {
        Some(to) => Some(VersionKey::before(range.table, to)),
        None => VersionKey::end_of(range.table),
    }
}

impl Drop for Memtable {
    fn drop(&mut self) {
        self.live_bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable")
            .field("versions", &self.versions.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
