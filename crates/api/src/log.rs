//! Records of the log.

use onelog_record::{Offset, Op, Position, Record, TxnId};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use utoipa::ToSchema;

use super::Bytes;
use onelog_request::{BytesOut, ValueOut};

/// One line of the log.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(examples(json!({
    "offset": 5, "position": 6, "id": "01900000-0000-7000-8000-000000000001",
    "table": "shop.orders", "op": "put", "key": "o-1", "value": {"total": 12},
    "headers": {"source": "import"}, "timestamp_ms": 1_790_000_000_000_u64
})))]
pub struct LogRecord<'r> {
    #[schema(value_type = u64)]
    pub offset: Offset,
    /// The position right behind the record's transaction.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The id by which a repeated request is recognised.
    #[schema(value_type = String)]
    pub id: TxnId,
    pub table: String,
    pub op: RecordOp,
    #[schema(value_type = Bytes)]
    pub key: BytesOut<'r>,
    /// Absent for a delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub value: Option<ValueOut<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Bytes>>)]
    pub headers: Option<Headers<'r>>,
    pub timestamp_ms: u64,
}

/// One transaction: the data of an event.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(examples(json!({
    "position": 6, "id": "01900000-0000-7000-8000-000000000001",
    "timestamp_ms": 1_790_000_000_000_u64,
    "records": [{"offset": 5, "table": "shop.orders", "op": "delete", "key": "o-1"}]
})))]
pub struct LogTransaction<'r> {
    /// The position right behind it; also the event's id.
    #[schema(value_type = u64)]
    pub position: Position,
    #[schema(value_type = String)]
    pub id: TxnId,
    pub timestamp_ms: u64,
    pub records: Vec<EventRecord<'r>>,
}

/// A record of an event.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct EventRecord<'r> {
    #[schema(value_type = u64)]
    pub offset: Offset,
    pub table: String,
    pub op: RecordOp,
    #[schema(value_type = Bytes)]
    pub key: BytesOut<'r>,
    /// Absent for a delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub value: Option<ValueOut<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Bytes>>)]
    pub headers: Option<Headers<'r>>,
}

/// What a record does.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordOp {
    Put,
    Delete,
    Event,
}

impl From<Op> for RecordOp {
    #[inline]
    fn from(op: Op) -> Self {
        match op {
            Op::Put => Self::Put,
            Op::Delete => Self::Delete,
            Op::Event => Self::Event,
        }
    }
}

/// The headers of a record by their names.
#[derive(Debug)]
pub struct Headers<'r>(&'r Record);

impl<'r> Headers<'r> {
    /// `None` when the record has none.
    #[inline]
    pub fn of(record: &'r Record) -> Option<Self> {
        (!record.headers.is_empty()).then_some(Self(record))
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.headers.len()))?;
        for header in &self.0.headers {
            let name = String::from_utf8_lossy(&header.name);
            map.serialize_entry(&*name, &BytesOut(&header.value))?;
        }
        map.end()
    }
}
