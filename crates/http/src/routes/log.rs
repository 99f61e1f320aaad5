//! `GET /v1/log`: what was committed, in order.
//!
//! As NDJSON, one record a line, up to the end of the log at the time of the request. `from` may be
//! any position, also one inside a transaction: going on with the last line's `offset` + 1 loses
//! and repeats nothing.
//!
//! As an event stream, one transaction an event, for ever. The event's id is the position behind
//! the transaction, so a client that goes on with `Last-Event-ID` gets whole transactions, none
//! twice. Signs of life carry an id too: a reader of a quiet table goes on from there.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use onelog::{Catalog, LogTransaction, Node, ReadLogError};
use onelog_record::{Position, Record, TableId, code};

use super::log_stream::{Reader, event_stream, ndjson};
use super::{Answer, Shared};
use crate::api::{EventRecord, Headers, LogRecord};
use crate::app::{App, log_end};
use crate::errors::{ApiError, TableNames as _};
use crate::query::Query;
use onelog_request::{BytesOut, ValueOut};

/// Reads the log, or follows it.
#[utoipa::path(
    get,
    path = "/v1/log",
    tag = "log",
    params(
        ("from" = Option<String>, Query, description = "A position; `start` (the default) is the oldest record that the log has, `latest` its end", example = "start"),
        ("table" = Option<String>, Query, description = "Only records of this table", example = "shop.orders"),
        ("limit" = Option<u64>, Query, description = "The most records; an event stream ends behind the transaction that reaches it", example = 1),
        ("Last-Event-ID" = Option<u64>, Header, description = "Goes on with an event stream; stronger than `from`", example = 4),
        ("Accept" = Option<String>, Header, description = "`text/event-stream` follows the log for ever", example = "text/event-stream"),
    ),
    responses(
        (status = 200, description = "One record a line, or one transaction an event", content(
            (crate::api::LogRecord = "application/x-ndjson"), (crate::api::LogTransaction = "text/event-stream"))),
        (status = 404, description = "`unknown_table`", body = crate::api::Error),
        (status = 410, description = "`log_cut`: the log starts at `log_start`", body = crate::api::Error),
        (status = 422, description = "Malformed, or `position_in_future`", body = crate::api::Error),
        (status = 503, description = "`overloaded`: too many readers", body = crate::api::Error),
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
    app.catch_up_with(from).await;
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
pub(crate) fn unreadable_log(node: &Node, error: &ReadLogError) -> ApiError {
    match error {
        ReadLogError::Cut { log_start, .. } => {
            ApiError::new(StatusCode::GONE, "log_cut", format!("from: {error}"))
                .at("from".to_owned())
                .with(|body| body.log_start = Some(*log_start))
        }
        ReadLogError::InFuture { position, latest } => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            code::POSITION_IN_FUTURE,
            format!(
                "from: position {position} lies in the future, {}",
                log_end(node, *latest)
            ),
        )
        .at("from".to_owned())
        .with(|body| body.latest = Some(*latest)),
        ReadLogError::Stopped { reason, .. } => ApiError::stopped(reason.clone()),
        other => ApiError::internal(format!("the log could not be read: {other}")),
    }
}

/// One record as a line of NDJSON, with its transaction.
pub(crate) fn line<'r>(
    catalog: &Catalog,
    record: &'r Record,
    transaction: &LogTransaction,
) -> LogRecord<'r> {
    let EventRecord {
        offset,
        table,
        op,
        key,
        value,
        headers,
    } = event_record(catalog, record);
    LogRecord {
        offset,
        position: transaction.end,
        id: transaction.id,
        table,
        op,
        key,
        value,
        headers,
        timestamp_ms: transaction.timestamp_ms,
    }
}

/// One record inside of an event.
pub(crate) fn event_record<'r>(catalog: &Catalog, record: &'r Record) -> EventRecord<'r> {
    let (table, kind) = catalog.describe(record.table);
    EventRecord {
        offset: record.offset,
        table,
        op: record.op.into(),
        key: BytesOut(&record.key),
        value: record
            .value
            .as_deref()
            .map(|bytes| ValueOut { kind, bytes }),
        headers: Headers::of(record),
    }
}

/// Whether a reader wants a record.
pub(crate) fn wanted(record: &Record, table: Option<TableId>) -> bool {
    table.is_none_or(|table| record.table == table)
}
