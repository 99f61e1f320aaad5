//! The fixed tables of a world, and the state through the validator's eyes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Latest, Rules, TableRules, View, ViewError};
use onelog_record::{KeyRange, Offset, Position, TableDefinition, TableId};
use onelog_state::State;

#[derive(Debug)]
pub(super) struct FixedRules(HashMap<TableId, TableRules>);

impl FixedRules {
    pub(super) fn new(tables: &[TableDefinition]) -> Self {
        let rules = |table: &TableDefinition| TableRules {
            definition: Arc::new(table.clone()),
            schema: None,
        };
        Self(tables.iter().map(|t| (t.id, rules(t))).collect())
    }
}

impl Rules for FixedRules {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.0.get(&table)
    }
}

#[derive(Debug)]
pub(super) struct StateView<'s>(pub(super) &'s State);

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
