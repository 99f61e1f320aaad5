//! The newest state as the validator needs it: what was last written, deletes included.

use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position, TableId};

use crate::memtable::Walk;
use crate::snapshot::search;
use crate::state::Shared;
use crate::tree::ReadError;
use crate::views::Views;

/// So many versions of a range are looked at before the newest writes are looked through instead.
const WALK_STEPS_MIN: usize = 64;
/// Looking at one version of a range costs about as much as looking at so many newest writes.
const WALK_STEP_COST: usize = 8;

/// The newest thing known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The offset of the record that wrote or deleted it.
    pub version: Offset,
    /// The value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// The newest state at one instant. Its floor, its position and its answers belong together: a
/// checkpoint that ends meanwhile does not change them. Take a new one after applying an entry.
#[derive(Clone, Debug)]
pub struct LatestView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) views: Arc<Views>,
    pub(crate) position: Position,
}

impl LatestView {
    /// Everything below it is seen, nothing else.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Every write and delete at or above it is known here.
    #[must_use]
    pub fn floor(&self) -> Position {
        self.views.floor()
    }

    /// The newest version of a key. A delete is remembered down to `floor()`; `None` means that
    /// nothing is known: the key was never there, or was deleted below it.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ReadError> {
        let found = match search(self.views.memtables(), table, key, self.position) {
            Some(found) => Some(found),
            None => self.views.current.base.get(table, key)?,
        };
        Ok(found.map(|found| Latest {
            version: found.version,
            value: found.value,
        }))
    }

    /// A key inside the range that was written or deleted at or above `since`, with the offset of
    /// that. The answer `None` is complete when `since` is at or above `floor()`.
    ///
    /// # Errors
    /// None today: everything that it needs is in memory.
    pub fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
    ) -> Result<Option<(Bytes, Offset)>, ReadError> {
        let Some(ceiling) = self.position.0.checked_sub(1).map(Offset) else {
            return Ok(None);
        };
        let recent_count = self.shared.recent.lock().count_since(since);
        let mut steps =
            recent_count.map_or(usize::MAX, |count| WALK_STEPS_MIN + count / WALK_STEP_COST);
        for memtable in self.views.memtables() {
            match memtable.walk(range, since.next_offset(), ceiling, &mut steps) {
                Walk::Found(key, version) => return Ok(Some((key, version))),
                Walk::Nothing => {}
                Walk::OutOfSteps => {
                    let recent = self.shared.recent.lock();
                    // Another thread may have applied so much meanwhile that they are forgotten.
                    if recent.count_since(since).is_some() {
                        return Ok(recent.written_between(range, since, ceiling));
                    }
                    drop(recent);
                    return Ok(self.walk_all(range, since, ceiling));
                }
            }
        }
        Ok(None)
    }

    fn walk_all(
        &self,
        range: &KeyRange,
        since: Position,
        ceiling: Offset,
    ) -> Option<(Bytes, Offset)> {
        self.views.memtables().find_map(|memtable| {
            let mut steps = usize::MAX;
            match memtable.walk(range, since.next_offset(), ceiling, &mut steps) {
                Walk::Found(key, version) => Some((key, version)),
                Walk::Nothing | Walk::OutOfSteps => None,
            }
        })
    }
}
