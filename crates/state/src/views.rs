//! What readers can read from now, swapped as a whole.
//!
//! ```text
//!  floor                     base               position
//!    |      kept memtable     |  frozen | active  |
//!    kept base                base
//! ```
//! A checkpoint that ends moves `base` up; the view that it replaces is kept, so that reads a
//! little below it still work. The lock is held for the clone of a pointer, never while reading.

use std::sync::Arc;

use onelog_record::Position;

use crate::memtable::Memtable;
use crate::snapshot::Reach;
use crate::tree::Base;

#[derive(Clone, Debug)]
pub(crate) struct Views {
    /// The active memtable, the one that is being checkpointed if there is one, and the base.
    pub(crate) current: Arc<Reach>,
    /// The view before the last checkpoint: that base and the memtable that the checkpoint wrote.
    pub(crate) kept: Option<Arc<Reach>>,
}

impl Views {
    /// Every write and delete at or above it is in the memtables.
    pub(crate) fn floor(&self) -> Position {
        let oldest = self.kept.as_ref().unwrap_or(&self.current);
        oldest.base.applied.position
    }

    /// The bases can no longer be read; `next` has the rows of the current one. Those of the kept one
    /// are gone.
    pub(crate) fn end_bases(&self, next: Option<Arc<Base>>) {
        self.current.base.successor.set(next);
        if let Some(kept) = &self.kept {
            kept.base.successor.set(None);
        }
    }

    /// Every memtable, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        let kept = self.kept.iter().flat_map(|kept| &kept.memtables);
        self.current.memtables.iter().chain(kept)
    }

    pub(crate) fn active(&self) -> &Arc<Memtable> {
        &self.current.memtables[0]
    }

    pub(crate) fn frozen_bytes(&self) -> usize {
        self.current.memtables[1..].iter().map(|m| m.bytes()).sum()
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        let kept = self.kept.iter().flat_map(|kept| &kept.memtables);
        kept.map(|memtable| memtable.bytes()).sum()
    }
}
