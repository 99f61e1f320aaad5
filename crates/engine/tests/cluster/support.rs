//! A state with nothing in it and one table: enough to decide writes that read nothing.

use onelog_commit::{Latest, Rules, TableRules, View, ViewError, Written};
use onelog_record::{KeyRange, Position, TableDefinition, TableId, TableKind, ValueKind};

pub const TABLE: TableId = TableId(1024);

/// A state with nothing in it, at the position that is applied.
pub struct Nothing(pub Position);

impl View for Nothing {
    fn newest(&self, _: TableId, _: &[u8]) -> Result<Option<Latest>, ViewError> {
        Ok(None)
    }

    fn written_since(
        &self,
        _: &KeyRange,
        _: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        Ok(Written::Nothing)
    }

    fn floor(&self) -> Position {
        Position::ZERO
    }

    fn position(&self) -> Position {
        self.0
    }
}

pub struct OneTable(TableRules);

impl Rules for OneTable {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        (table == TABLE).then_some(&self.0)
    }
}

pub fn rules() -> OneTable {
    let definition = TableDefinition {
        id: TABLE,
        name: "t".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Bytes,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    OneTable(TableRules {
        definition: definition.into(),
        schema: None,
    })
}
