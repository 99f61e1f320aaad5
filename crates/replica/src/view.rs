//! The state as the validator looks at it.

use onelog_commit::{Latest, View, ViewError, Written};
use onelog_record::{KeyRange, Position, TableId};
use onelog_state::LatestView;

/// The state at one instant through the validator's eyes. One decision reads one view: between two
/// looks at the state itself a checkpoint may end and move the floor.
#[derive(Debug)]
pub(crate) struct StateView(pub(crate) LatestView);

fn failed(cause: onelog_state::ReadError) -> ViewError {
    ViewError(Box::new(cause))
}

impl View for StateView {
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
        steps: &mut usize,
    ) -> Result<Written, ViewError> {
        Ok(match self.0.written_since(range, since, steps) {
            onelog_state::Written::Nothing => Written::Nothing,
            onelog_state::Written::At(key, version) => Written::At(key, version),
            onelog_state::Written::OutOfSteps => Written::OutOfSteps,
        })
    }

    fn floor(&self) -> Position {
        self.0.floor()
    }

    fn position(&self) -> Position {
        self.0.position()
    }
}
