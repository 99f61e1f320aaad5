//! The state as the validator looks at it.

use bytes::Bytes;
use onelog_commit::{Latest, View, ViewError};
use onelog_record::{KeyRange, Offset, Position, TableId};
use onelog_state::State;

/// A [`State`] through the validator's eyes.
#[derive(Debug)]
pub(crate) struct StateView<'s>(pub(crate) &'s State);

fn failed(cause: onelog_state::ReadError) -> ViewError {
    ViewError(Box::new(cause))
}

impl View for StateView<'_> {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        let latest = self.0.newest(table, key).map_err(failed)?;
        Ok(latest.map(|latest| Latest {
            version: latest.version,
            value: latest.value,
        }))
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
    ) -> Result<Option<(Bytes, Offset)>, ViewError> {
        self.0.written_since(range, since).map_err(failed)
    }

    fn floor(&self) -> Position {
        self.0.floor()
    }

    fn position(&self) -> Position {
        self.0.position()
    }
}
