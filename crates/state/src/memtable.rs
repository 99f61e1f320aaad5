//! The newest versions, in memory: ordered, many versions per key.
//!
//! One thread inserts; any number of threads read without locks. A reader at a position looks
//! only at versions below it, and a position is published after everything below it is in, so
//! no reader sees half an entry. Nothing is ever removed: a memtable is dropped as a whole.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use onelog_record::{KeyRange, Offset};

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
    bytes: AtomicUsize,
    /// The bytes of every memtable of this state that is still in memory.
    live_bytes: Arc<AtomicUsize>,
}

impl Memtable {
    /// An empty memtable that will be frozen at about `bytes`.
    pub(crate) fn new(bytes: usize, live_bytes: Arc<AtomicUsize>) -> Self {
        Self {
            versions: SkipMap::new(),
            filter: KeyFilter::new(bytes / VERSION_OVERHEAD_BYTES),
            bytes: AtomicUsize::new(0),
            live_bytes,
        }
    }

    /// Puts a version in. `None` is a delete.
    pub(crate) fn insert(&self, hash: KeyHash, key: VersionKey, value: Option<Bytes>) {
        self.filter.add(hash);
        self.versions.insert(key, value);
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
    /// steps as there are left.
    pub(crate) fn walk(
        &self,
        range: &KeyRange,
        since: Offset,
        ceiling: Offset,
        steps: &mut usize,
    ) -> Walk {
        let start = VersionKey::before(range.table, &range.from);
        let end = range_end(range);
        let mut at = self.versions.lower_bound(Bound::Included(&start));
        while let Some(entry) = at {
            let key = entry.key();
            if end.as_ref().is_some_and(|end| key >= end) {
                break;
            }
            if key.offset() <= ceiling && key.offset() >= since {
                return Walk::Found(key.key(), key.offset());
            }
            if *steps == 0 {
                return Walk::OutOfSteps;
            }
            *steps -= 1;
            at = entry.next();
        }
        Walk::Nothing
    }
}

/// How a walk over a range ended.
#[derive(Debug)]
pub(crate) enum Walk {
    Found(Bytes, Offset),
    Nothing,
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
