//! Transactions: the shape of a request, and the answer to a committed one.

use std::collections::BTreeMap;

use onelog_record::{Position, TxnId};
use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use super::Bytes;

/// One transaction: what was read, what must hold, what is written.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
#[schema(examples(
    json!({"writes": [
        {"op": "put", "table": "shop.orders", "key": "o-1", "value": {"total": 12, "tags": []},
            "headers": {"source": "import"}},
        {"op": "put", "table": "shop.users", "key": {"base64": "AP8="}, "value": {"email": "a@example.org"}},
        {"op": "put", "table": "shop.clicks", "key": "s-1", "value": "clicked"},
    ]}),
    json!({"id": "01900000-0000-7000-8000-000000000001", "read_position": 4,
        "reads": [{"table": "shop.orders", "key": "o-2"}, {"table": "shop.orders", "prefix": "p-"},
            {"table": "shop.orders", "from": "q", "to": "r"}],
        "guards": [{"table": "shop.orders", "key": "o-1", "exists": true},
            {"table": "shop.orders", "key": "o-2", "absent": true},
            {"table": "shop.orders", "key": "o-1", "field": "/total", "ge": 10}],
        "writes": [
            {"op": "add", "table": "shop.orders", "key": "o-1", "field": "/total", "by": 1},
            {"op": "append", "table": "shop.orders", "key": "o-1", "field": "/tags", "value": ["paid"]},
        ],
        "wait_for": ["search"], "wait_timeout_ms": 10_000}),
    json!({"writes": [
        {"op": "max", "table": "shop.orders", "key": "best", "by": 3.5},
        {"op": "min", "table": "shop.orders", "key": "worst", "by": -1},
        {"op": "delete", "table": "shop.orders", "key": "o-2"},
    ]}),
))]
pub struct Transaction {
    /// 32 hexadecimal digits, with or without the hyphens of a UUID. A retry must carry the same one.
    id: Option<String>,
    /// The position that all reads were made at; needed with `reads`.
    read_position: Option<u64>,
    /// What was read: if any of it was written since, the answer is a conflict.
    #[schema(nullable = false)]
    reads: Option<Vec<Read>>,
    /// Conditions at the commit point.
    #[schema(nullable = false)]
    guards: Option<Vec<Guard>>,
    /// The writes, in order.
    #[schema(nullable = false)]
    writes: Option<Vec<Write>>,
    /// Sinks whose stores shall show the transaction before the answer comes.
    #[schema(nullable = false)]
    wait_for: Option<Vec<String>>,
    /// How long to wait for them: 5000 unless given, at most 60000.
    #[schema(nullable = false)]
    wait_timeout_ms: Option<u64>,
}

/// One key (`key`), the keys that start with `prefix`, or those from `from` up to but without `to`.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct Read {
    table: String,
    #[schema(nullable = false)]
    key: Option<Bytes>,
    #[schema(nullable = false)]
    prefix: Option<Bytes>,
    #[schema(nullable = false)]
    from: Option<Bytes>,
    #[schema(nullable = false)]
    to: Option<Bytes>,
}

/// Exactly one of `exists`, `absent`, `version`, or `field` with one comparison.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct Guard {
    table: String,
    key: Bytes,
    /// true: the key is there.
    #[schema(nullable = false)]
    exists: Option<bool>,
    /// true: the key is not there.
    #[schema(nullable = false)]
    absent: Option<bool>,
    /// The offset of the record that last wrote the key.
    #[schema(nullable = false)]
    version: Option<u64>,
    /// A JSON Pointer, or the name of a field at the top.
    #[schema(nullable = false)]
    field: Option<String>,
    eq: Option<Value>,
    ne: Option<Value>,
    lt: Option<Value>,
    le: Option<Value>,
    gt: Option<Value>,
    ge: Option<Value>,
}

/// What a write does to the key's value.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
#[schema(rename_all = "snake_case")]
pub enum Op {
    Put,
    Delete,
    Add,
    Min,
    Max,
    Append,
}

/// One write. `put` and `append` take `value`; `add`, `min` and `max` take `by`.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct Write {
    op: Op,
    table: String,
    key: Bytes,
    /// Any JSON in a table of JSON, kept byte for byte; a string or `{"base64": "..."}` in a table of bytes.
    value: Option<Value>,
    /// The field that `add`, `min`, `max` and `append` change; the whole value unless given.
    #[schema(nullable = false)]
    field: Option<String>,
    /// Whole numbers beyond 64 bits signed have no sum; else a number of any length.
    #[schema(schema_with = number)]
    by: Option<serde_json::Number>,
    /// Names and values for the readers of the log.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, Bytes>>,
}

/// The transaction is in the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(
    json!({"id": "01900000-0000-7000-8000-000000000001", "position": 7, "offsets": [5, 6]}),
    json!({"id": "01900000-0000-7000-8000-000000000001", "position": 7, "offsets": [5, 6],
        "repeated": true, "waited": {"search": {"reached": true, "position": 7}}}),
))]
pub struct Committed {
    #[schema(value_type = String)]
    pub id: TxnId,
    /// The position right behind it: a read at or after it sees the transaction.
    #[schema(value_type = u64)]
    pub position: Position,
    #[schema(value_type = Vec<u64>)]
    pub offsets: Offsets,
    /// true: an earlier request under the same id did it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub repeated: bool,
    /// With `wait_for`: how far each sink got.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub waited: BTreeMap<String, Waited>,
}

/// The offsets of the writes, in their order.
#[derive(Debug)]
pub struct Offsets {
    pub first: u64,
    pub count: u64,
}

impl Serialize for Offsets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(usize::try_from(self.count).ok())?;
        for offset in self.first..self.first + self.count {
            seq.serialize_element(&offset)?;
        }
        seq.end()
    }
}

/// How far a sink got while the request waited for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Waited {
    /// Whether its store shows everything below the position.
    reached: bool,
    #[schema(value_type = Option<u64>, required)]
    position: Option<Position>,
    /// Why it did not get there.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How many keys are parked: their rows are old even where the position is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<u64>,
}

impl From<onelog_sinks::Waited> for Waited {
    fn from(waited: onelog_sinks::Waited) -> Self {
        let onelog_sinks::Waited {
            reached,
            position,
            reason,
            parked,
        } = waited;
        Self {
            reached,
            position,
            reason,
            parked,
        }
    }
}

/// A number without a format: clients that read `double` there would round it.
fn number() -> utoipa::openapi::schema::Object {
    utoipa::openapi::schema::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::Number)
        .description(Some("A number of any length, kept as it is written"))
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::fields_of;
    use onelog_request::{KnownTable, ParseError, Tables, parse_request};

    struct NoTables;

    impl Tables for NoTables {
        fn table(&self, _: &str) -> Option<KnownTable> {
            None
        }

        fn nearest(&self, _: &str) -> Option<String> {
            None
        }
    }

    /// The fields that the parser lists for a body with an unknown one.
    fn known(body: &Value) -> BTreeSet<String> {
        match parse_request(body.to_string().as_bytes(), &NoTables) {
            Err(ParseError::Malformed { message, .. }) => {
                let (_, list) = message.split_once("known are: ").unwrap();
                list.split(", ").map(str::to_owned).collect()
            }
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn the_shape_has_the_fields_that_the_parser_reads() {
        let unknown = json!({"zzzzzzzzzzzzzzzz": 1});
        for (body, fields) in [
            (unknown.clone(), fields_of::<Transaction>()),
            (json!({"reads": [unknown]}), fields_of::<Read>()),
            (json!({"guards": [unknown]}), fields_of::<Guard>()),
            (json!({"writes": [unknown]}), fields_of::<Write>()),
        ] {
            assert_eq!(known(&body), fields.into_iter().collect(), "{body}");
        }
    }
}
