//! `GET /v1/log`: what was committed, in order.
//!
//! As NDJSON, one record a line, up to the end of the log at the time of asking. `from` may be
//! any position, also one inside a transaction: going on with the last line's `offset` + 1 loses
//! and repeats nothing.
//!
//! As an event stream, one transaction an event, for ever. The event's id is the position behind
//! the transaction, so a client that goes on with `Last-Event-ID` gets whole transactions, none
//! twice. Signs of life carry an id too: a reader of a quiet table goes on from there.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use onelog::{Catalog, LogTransaction, ReadLogError};
use onelog_record::{Op, Position, Record, TableId};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::log_stream::{Reader, event_stream, ndjson};
use super::{Answer, Shared};
use crate::app::App;
use crate::errors::{ApiError, TableNames as _};
use crate::query::Query;
use crate::text::{BytesOut, ValueOut};

/// Reads the log, or follows it.
#[utoipa::path(
    get,
    path = "/v1/log",
    tag = "log",
    params(
        ("from" = Option<String>, Query, description = "A position; `start` (the default) is the oldest record that the log has, `latest` its end"),
        ("table" = Option<String>, Query, description = "Only records of this table"),
        ("limit" = Option<u64>, Query, description = "The most records; an event stream ends behind the transaction that reaches it"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Goes on with an event stream; stronger than `from`"),
        ("Accept" = Option<String>, Header, description = "`text/event-stream` follows the log for ever"),
    ),
    responses(
        (status = 200, description = "One record a line, or one transaction an event", content(
            (crate::openapi::LogRecord = "application/x-ndjson"), (crate::openapi::LogTransaction = "text/event-stream"))),
        (status = 404, description = "`unknown_table`", body = crate::openapi::Error),
        (status = 410, description = "`log_cut`: the log starts at `log_start`", body = crate::openapi::Error),
        (status = 422, description = "Malformed, or `position_in_future`", body = crate::openapi::Error),
        (status = 503, description = "`overloaded`: too many readers", body = crate::openapi::Error),
    )
)]
pub(crate) async fn read(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    let query = Query::parse(uri.query(), &["from", "table", "limit"])?;
    let table = match query.text("table")? {
        Some(name) => Some(app.table(name)?.id),
        None => None,
    };
    let left = query.number("limit")?;
    if left == Some(0) {
        return Err(ApiError::malformed(
            "limit",
            "0 records are none; leave it out for all",
        ));
    }
    let live = wants_events(&headers);
    let mut from = start(&app, &query)?;
    if live && let Some(id) = headers.get("last-event-id") {
        let id = id.to_str().ok().and_then(|text| text.parse().ok());
        from = Position(id.ok_or_else(|| {
            ApiError::malformed("Last-Event-ID", "expected the id of an event, a position")
        })?);
    }
    let reader = Reader::open(&app, from, table, left)?;
    if live {
        event_stream(reader).await
    } else {
        ndjson(reader).await
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"))
}

fn start(app: &App, query: &Query<'_>) -> Result<Position, ApiError> {
    match query.text("from")? {
        None | Some("start") => Ok(app.node.log_start()),
        Some("latest") => Ok(app.node.position()),
        Some(_) => {
            let position = query.position("from").map_err(|_| {
                ApiError::malformed("from", "expected a position, 'start' or 'latest'")
            })?;
            Ok(position.unwrap_or_default())
        }
    }
}

/// The answer to a place in the log that cannot be read.
pub(crate) fn unreadable_log(error: &ReadLogError) -> ApiError {
    match error {
        ReadLogError::Cut { log_start, .. } => {
            ApiError::new(StatusCode::GONE, "log_cut", format!("from: {error}"))
                .with("where", "from")
                .with("log_start", log_start)
        }
        ReadLogError::InFuture { latest, .. } => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "position_in_future",
            format!("from: {error}"),
        )
        .with("where", "from")
        .with("latest", latest),
        other => ApiError::internal(format!("the log could not be read: {other}")),
    }
}

/// One record, as a line of NDJSON (with its transaction) or inside of an event (without).
pub(crate) struct RecordOut<'r> {
    pub(crate) catalog: &'r Catalog,
    pub(crate) record: &'r Record,
    pub(crate) transaction: Option<&'r LogTransaction>,
}

struct HeadersOut<'r>(&'r Record);

impl Serialize for HeadersOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.headers.len()))?;
        for header in &self.0.headers {
            let name = String::from_utf8_lossy(&header.name);
            map.serialize_entry(&*name, &BytesOut(&header.value))?;
        }
        map.end()
    }
}

impl Serialize for RecordOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let (table, kind) = self.catalog.describe(record.table);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &record.offset)?;
        if let Some(transaction) = self.transaction {
            map.serialize_entry("position", &transaction.end)?;
            map.serialize_entry("id", &transaction.id)?;
        }
        map.serialize_entry("table", &table)?;
        map.serialize_entry("op", op_name(record.op))?;
        map.serialize_entry("key", &BytesOut(&record.key))?;
        if let Some(value) = &record.value {
            map.serialize_entry("value", &ValueOut { kind, bytes: value })?;
        }
        if !record.headers.is_empty() {
            map.serialize_entry("headers", &HeadersOut(record))?;
        }
        if let Some(transaction) = self.transaction {
            map.serialize_entry("timestamp_ms", &transaction.timestamp_ms)?;
        }
        map.end()
    }
}

/// One transaction as the data of an event.
#[derive(Serialize)]
pub(crate) struct TransactionOut<'t> {
    pub(crate) position: Position,
    pub(crate) id: onelog_record::TxnId,
    pub(crate) timestamp_ms: u64,
    pub(crate) records: Vec<RecordOut<'t>>,
}

const fn op_name(op: Op) -> &'static str {
    match op {
        Op::Put => "put",
        Op::Delete => "delete",
        Op::Event => "event",
    }
}

/// Whether a reader wants a record.
pub(crate) fn wanted(record: &Record, table: Option<TableId>) -> bool {
    table.is_none_or(|table| record.table == table)
}
