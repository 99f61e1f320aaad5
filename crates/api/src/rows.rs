//! Pages of a table.

use onelog_record::{Offset, Position};
use serde::Serialize;
use utoipa::ToSchema;

use super::Bytes;
use onelog_request::{BytesOut, ValueOut};

/// Rows of a table in the order of their keys, a page at a time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "position": 7,
    "rows": [{"key": "o-1", "version": 5, "value": {"total": 12}}],
    "next": "o-2"
})))]
pub struct Page<'p> {
    /// All rows were read at this position.
    #[schema(value_type = u64)]
    pub position: Position,
    pub rows: Vec<Row<'p>>,
    /// The next page's `from`, or its `to` with `reverse`; null on the last page.
    #[schema(value_type = Option<Bytes>, required)]
    pub next: Option<BytesOut<'p>>,
}

/// A key with its value.
#[derive(Debug, Serialize, ToSchema)]
pub struct Row<'p> {
    #[schema(value_type = Bytes)]
    pub key: BytesOut<'p>,
    /// The offset of the record that wrote it.
    #[schema(value_type = u64)]
    pub version: Offset,
    #[schema(value_type = Value)]
    pub value: ValueOut<'p>,
}
