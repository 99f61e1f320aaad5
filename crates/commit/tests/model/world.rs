//! The tables of the model, and the applied state as the validator sees it.

use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Latest, Rules, Schema, SchemaFault, TableRules, View, ViewError, Written};
use onelog_record::{
    FieldPath, Json, KeyRange, Offset, Position, TABLE_UNIQUE, TableDefinition, TableId, TableKind,
    ValueKind,
};

use super::oracle::Oracle;

pub const JSON: TableId = TableId(1024);
pub const BYTES: TableId = TableId(1025);
pub const CHECKED: TableId = TableId(1026);
pub const UNIQUE: TableId = TableId(1027);
pub const STREAM: TableId = TableId(1028);
pub const DROPPED: TableId = TableId(1029);

pub const UNIQUE_FIELDS: [&str; 2] = ["u", "/v/w"];

/// In `CHECKED`, a number in field `n` must not be above 50.
#[derive(Debug)]
pub struct AtMostFifty;

impl Schema for AtMostFifty {
    fn check(&self, value: &Json<'_>, _: &mut usize) -> Result<(), SchemaFault> {
        let number = match value.get(&FieldPath::parse("n").unwrap()) {
            Some(Json::Number(number)) => number.parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(n) if n > 50.0 => Err(SchemaFault::Breaks(format!(
                "n is {n}, at most 50 is allowed"
            ))),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct Tables(Vec<TableRules>);

impl Tables {
    pub fn new() -> Self {
        let table = |id, kind, value, unique: &[&str], schema| TableRules {
            definition: Arc::new(TableDefinition {
                id,
                name: format!("model.t{id}"),
                kind,
                value,
                schema: None,
                unique: unique
                    .iter()
                    .map(|path| FieldPath::parse(path).unwrap())
                    .collect(),
                dropped: false,
            }),
            schema,
        };
        use TableKind::{Keyed, Stream};
        Self(vec![
            table(JSON, Keyed, ValueKind::Json, &[], None),
            table(BYTES, Keyed, ValueKind::Bytes, &[], None),
            table(
                CHECKED,
                Keyed,
                ValueKind::Json,
                &[],
                Some(Arc::new(AtMostFifty) as Arc<dyn Schema>),
            ),
            table(UNIQUE, Keyed, ValueKind::Json, &UNIQUE_FIELDS, None),
            table(STREAM, Stream, ValueKind::Json, &[], None),
            table(TABLE_UNIQUE, Keyed, ValueKind::Bytes, &[], None),
        ])
    }
}

impl Rules for Tables {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.0.iter().find(|rules| rules.definition.id == table)
    }
}

/// The applied part of the oracle's history.
#[derive(Debug)]
pub struct AppliedState<'a> {
    pub oracle: &'a Oracle,
    pub floor: u64,
    /// Whether deletes below the floor are still remembered, as a state may.
    pub keeps_deletes: bool,
}

impl View for AppliedState<'_> {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        let versions = self.oracle.versions(table, key);
        let last = versions.iter().rfind(|v| v.offset < self.oracle.applied);
        Ok(last
            .filter(|v| v.value.is_some() || v.offset >= self.floor || self.keeps_deletes)
            .map(|v| Latest {
                version: Offset(v.offset),
                value: v.value.clone().map(Bytes::from),
            }))
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        for key in self.oracle.keys_in(range) {
            if let Some(latest) = self.newest(range.table, &key)?
                && latest.version.0 >= since.0
            {
                return Ok(Written::At(key.into(), latest.version));
            }
        }
        Ok(Written::Nothing)
    }

    fn floor(&self) -> Position {
        Position(self.floor)
    }

    fn position(&self) -> Position {
        Position(self.oracle.applied)
    }
}
