//! Definitions of tables.

use onelog_record::{self as record, FieldPath, Position, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A table to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(
    json!({"name": "shop.orders"}),
    json!({"name": "shop.users", "kind": "keyed", "value": "json",
        "schema": {"type": "object", "required": ["email"]}, "unique": ["/email"]}),
    json!({"name": "shop.clicks", "kind": "stream", "value": "bytes"}),
))]
pub struct NewTable {
    /// `service.table` by convention.
    pub name: String,
    /// `keyed` unless given.
    #[serde(default)]
    pub kind: TableKind,
    /// `json` unless given.
    #[serde(default)]
    pub value: ValueKind,
    /// A JSON Schema that each value must satisfy.
    pub schema: Option<Value>,
    /// Fields whose values may occur only once in the table: JSON Pointers, or names at the top.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub unique: Vec<FieldPath>,
}

/// `keyed`: the state keeps the latest value of each key. `stream`: events only.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    #[default]
    Keyed,
    Stream,
}

/// What the values of a table are.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    #[default]
    Json,
    Bytes,
}

/// The definition of a table.
#[derive(Debug, Serialize, ToSchema)]
pub struct Table<'t> {
    /// Its number in the log.
    #[schema(value_type = u32)]
    id: record::TableId,
    name: &'t str,
    kind: TableKind,
    value: ValueKind,
    /// The JSON Schema that each value must satisfy.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'t Value>,
    /// Fields whose values may occur only once in the table.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    unique: &'t [FieldPath],
}

/// A table, and the position at which it is so.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "id": 1024, "name": "shop.orders", "kind": "keyed", "value": "json", "position": 1
})))]
pub struct TableAt<'t> {
    #[serde(flatten)]
    pub table: Table<'t>,
    #[schema(value_type = u64)]
    pub position: Position,
}

/// All tables at one position of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "position": 1,
    "tables": [{"id": 1024, "name": "shop.orders", "kind": "keyed", "value": "json"}]
})))]
pub struct Tables<'t> {
    #[schema(value_type = u64)]
    pub position: Position,
    pub tables: Vec<Table<'t>>,
}

/// A table that was deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"table": "shop.orders", "position": 9})))]
pub struct Dropped<'t> {
    pub table: &'t str,
    #[schema(value_type = u64)]
    pub position: Position,
}

impl<'t> From<&'t TableDefinition> for Table<'t> {
    fn from(definition: &'t TableDefinition) -> Self {
        let TableDefinition {
            id,
            name,
            kind,
            value,
            schema,
            unique,
            // A deleted table is in no answer.
            dropped: _,
        } = definition;
        Self {
            id: *id,
            name,
            kind: match kind {
                record::TableKind::Keyed => TableKind::Keyed,
                record::TableKind::Stream => TableKind::Stream,
            },
            value: match value {
                record::ValueKind::Json => ValueKind::Json,
                record::ValueKind::Bytes => ValueKind::Bytes,
            },
            schema: schema.as_ref(),
            unique,
        }
    }
}

impl From<NewTable> for onelog::NewTable {
    fn from(table: NewTable) -> Self {
        Self {
            name: table.name,
            kind: match table.kind {
                TableKind::Keyed => record::TableKind::Keyed,
                TableKind::Stream => record::TableKind::Stream,
            },
            value: match table.value {
                ValueKind::Json => record::ValueKind::Json,
                ValueKind::Bytes => record::ValueKind::Bytes,
            },
            schema: table.schema,
            unique: table.unique,
        }
    }
}
