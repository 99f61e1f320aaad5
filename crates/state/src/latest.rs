//! The newest state as the validator needs it: what was last written, deletes included.

use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position, TableId};

use crate::memtable::Written;
use crate::snapshot::search;
use crate::tree::ReadError;
use crate::views::Views;

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

    /// Whether anything inside the range was written or deleted at or above `since`. The answer
    /// `Nothing` is complete when `since` is at or above `floor()`. Takes one off `steps` for each
    /// block of a memtable, and each version in a block that was written since.
    #[must_use]
    pub fn written_since(&self, range: &KeyRange, since: Position, steps: &mut usize) -> Written {
        let Some(ceiling) = self.position.0.checked_sub(1).map(Offset) else {
            return Written::Nothing;
        };
        let mut memtables = self
            .views
            .memtables()
            .map(|memtable| memtable.written_since(range, since.next_offset(), ceiling, steps));
        let found = memtables.find(|written| *written != Written::Nothing);
        found.unwrap_or(Written::Nothing)
    }
}
