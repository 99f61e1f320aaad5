//! A snapshot of a store that has no snapshots: Redis shows only what is there now.
//!
//! While a snapshot is open, the writer of its sink in this process first reads what it is
//! about to change and gives it to the snapshot (copy on write). The reader scans the keys while
//! batches go on; where the snapshot has an older value it counts instead. Looking there *after*
//! reading a key makes it safe: a value that was changed before it was read had been kept before
//! it was changed. `SCAN` gives every key that is there from beginning to end; what was deleted
//! meanwhile is among the kept values.
//!
//! So batches go on at nearly full speed, and memory is bounded: a snapshot that would grow beyond
//! its limits is abandoned, and its reader reports that. A writer in another process does not know
//! the snapshot; it has raised the epoch, which ends the snapshot as well.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::decode::Content;

/// The most changed rows that one snapshot keeps.
const SNAPSHOT_ROWS_MAX: usize = 1_000_000;
/// The most bytes of keys and values that one snapshot keeps.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// The gates of all sinks of this process.
static GATES: LazyLock<Mutex<HashMap<String, Weak<Gate>>>> = LazyLock::new(Mutex::default);

/// Where a sink's writer and its snapshots meet.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Held while a batch is applied, and while a snapshot is opened.
    writing: Mutex<()>,
    /// The last epoch that this process took.
    pub(crate) epoch: Mutex<Option<u64>>,
    snapshots: Mutex<Vec<Weak<Snapshot>>>,
}

impl Gate {
    /// The gate of a sink at a place.
    pub(crate) fn of(place: &str, sink: &str) -> Arc<Self> {
        let mut gates = GATES.lock();
        gates.retain(|_, gate| gate.strong_count() > 0);
        let name = format!("{place} {sink}");
        match gates.get(&name).and_then(Weak::upgrade) {
            Some(gate) => gate,
            None => {
                let gate = Arc::new(Self::default());
                gates.insert(name, Arc::downgrade(&gate));
                gate
            }
        }
    }

    /// Keeps others out while something changes.
    pub(crate) fn enter(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }

    pub(crate) fn took_over(&self, epoch: u64) {
        *self.epoch.lock() = Some(epoch);
    }

    /// The snapshots that are open.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let mut snapshots = self.snapshots.lock();
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        snapshots.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn open(&self) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot::default());
        self.snapshots.lock().push(Arc::downgrade(&snapshot));
        snapshot
    }
}

/// What changed since a snapshot was opened, as it was before.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(Mutex<Preserved>);

#[derive(Debug, Default)]
struct Preserved {
    /// By mapping and key in Redis; `None`: there was no such key.
    old: HashMap<(usize, Vec<u8>), Option<Content>>,
    bytes: usize,
    abandoned: bool,
}

impl Snapshot {
    /// Whether the snapshot still needs what this key holds.
    pub(crate) fn wants(&self, mapping: usize, name: &[u8]) -> bool {
        let kept = self.0.lock();
        !kept.abandoned && !kept.old.contains_key(&(mapping, name.to_vec()))
    }

    /// Keeps what a key held before it is changed.
    pub(crate) fn preserve(&self, mapping: usize, name: &[u8], content: Option<&Content>) {
        let mut kept = self.0.lock();
        if kept.abandoned || kept.old.contains_key(&(mapping, name.to_vec())) {
            return;
        }
        kept.bytes += name.len() + content.map_or(0, Content::bytes);
        kept.old.insert((mapping, name.to_vec()), content.cloned());
        if kept.old.len() > SNAPSHOT_ROWS_MAX || kept.bytes > SNAPSHOT_BYTES_MAX {
            *kept = Preserved {
                abandoned: true,
                ..Preserved::default()
            };
        }
    }

    /// Ends the snapshot: its reader reports that.
    pub(crate) fn abandon(&self) {
        *self.0.lock() = Preserved {
            abandoned: true,
            ..Preserved::default()
        };
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.lock().abandoned
    }

    /// What the key held, where it was changed since.
    pub(crate) fn preserved(&self, mapping: usize, name: &[u8]) -> Option<Option<Content>> {
        self.0.lock().old.get(&(mapping, name.to_vec())).cloned()
    }

    pub(crate) fn names(&self, mapping: usize) -> Vec<Vec<u8>> {
        let kept = self.0.lock();
        let of_mapping = kept
            .old
            .iter()
            .filter(|((n, _), old)| *n == mapping && old.is_some());
        of_mapping.map(|((_, name), _)| name.clone()).collect()
    }
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(bytes) => bytes.len(),
            Self::Fields(fields) => fields.iter().map(|(n, v)| n.len() + v.len()).sum(),
            Self::Foreign => 0,
        }
    }
}
