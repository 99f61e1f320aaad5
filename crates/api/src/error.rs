//! The body of every answer that is no success.

use std::borrow::Cow;

use onelog_record::{JsonText, Offset, Position, TxnId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Bytes, Fault};
use onelog_request::WireBytes;

/// What is wrong. Which further fields there are depends on `error`; `null` where something is
/// known not to be there.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(examples(
    json!({"error": "conflict",
        "message": "conflict: key \"o-1\" of table 'shop.orders' was written at offset 41, at or after the read position; read again at position 42 and retry",
        "where": "reads[0]", "table": "shop.orders", "key": "o-1", "version": 41, "retry_at": 42}),
    json!({"error": "guard_failed",
        "message": "guards[0] does not hold for key \"o-1\" of table 'shop.orders': it met no value",
        "where": "guards[0]", "guard": 0, "table": "shop.orders", "key": "o-1", "met": null,
        "version": null, "retry_at": 42}),
    json!({"error": "unknown_table",
        "message": "there is no table 'shop.order'; did you mean 'shop.orders'?",
        "table": "shop.order", "nearest": "shop.orders"}),
    json!({"error": "overloaded",
        "message": "overloaded: 256 readers of the log are connected already; nothing was done, retry in 1000 ms",
        "retry_after_ms": 1000}),
))]
pub struct Error {
    /// A stable code for programs.
    pub error: &'static str,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// The place in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub r#where: Option<Option<String>>,
    /// The number of the guard that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The known name that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub nearest: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    pub key: Option<WireBytes>,
    /// The value that the guard met.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub met: Option<Box<RawValue>>,
    /// The unique field that two keys would share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value that another key has in the unique field, where it has at most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub value: Option<JsonText>,
    /// The key that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    pub owner: Option<WireBytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub version: Option<Option<Offset>>,
    /// The position to read at for the next try.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub retry_at: Option<Position>,
    /// The transaction that the refusal is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<TxnId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub position: Option<Option<Position>>,
    /// The node of the cluster that runs the sink; null where it runs on none now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub runs_on: Option<Option<u64>>,
    /// The address of the server that the read replica follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The oldest position that would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub floor: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub log_start: Option<Position>,
    /// The end of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub latest: Option<Position>,
    /// The name of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Why the sink has stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<Fault>>,
}
