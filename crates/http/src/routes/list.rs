//! `GET /v1/tables/{table}/keys`: a page of a table.
//!
//! `next` is the key at which the next page starts: it goes into `from`, or with `reverse` into
//! `to` (which the page does not include). With `at` set to the answer's position all pages show
//! the same state.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use onelog::{ReadError, Row, Snapshot};
use onelog_record::{KeyRange, Position, TableId, ValueKind};

use super::keys::{readable_table, snapshot};
use super::{Answer, Shared, at_position, json};
use crate::api::{self, Page};
use crate::errors::ApiError;
use crate::options::{LIST_BYTES_MAX, LIST_LIMIT, LIST_LIMIT_MAX};
use crate::query::Query;
use onelog_request::prefix_end;
use onelog_request::{BytesOut, ValueOut};

const PARAMETERS: &[&str] = &[
    "from",
    "to",
    "prefix",
    "limit",
    "reverse",
    "at",
    "after",
    "linearizable",
    "timeout_ms",
    "encoding",
];

/// The rows of a page, and the key behind them.
struct Found {
    rows: Vec<Row>,
    next: Option<Bytes>,
}

/// Lists keys with their values, in the order of their bytes.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}/keys",
    tag = "reads",
    params(
        ("table" = String, Path, description = "The table", example = "shop.orders"),
        ("from" = Option<String>, Query, description = "The first key", example = "o"),
        ("to" = Option<String>, Query, description = "The first key behind the range", example = "p"),
        ("prefix" = Option<String>, Query, description = "Only keys that start with it", example = "o-"),
        ("limit" = Option<u64>, Query, description = "The most rows: 100 unless given, at most 10000; a page may also end earlier, at 8 MiB", example = 1),
        ("reverse" = Option<bool>, Query, description = "Downwards", example = true),
        crate::api::ReadAt,
        ("encoding" = Option<String>, Query, description = "`text` (the default) or `base64`: how keys are written in this URL", example = "text"),
    ),
    responses(
        (status = 200, description = "A page", body = crate::api::Page,
            headers(("Onelog-Position" = u64, description = "The position it was read at"))),
        (status = 404, description = "`unknown_table`", body = crate::api::Error),
        (status = 409, description = "`wrong_table`: a stream table has no state", body = crate::api::Error),
        (status = 410, description = "`snapshot_too_old`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`overloaded`", body = crate::api::Error),
        (status = 504, description = "`wait_timed_out`", body = crate::api::Error),
    )
)]
pub(crate) async fn list(State(app): State<Shared>, Path(table): Path<String>, uri: Uri) -> Answer {
    let query = Query::parse(uri.query(), PARAMETERS)?;
    let limit = limit(&query)?;
    let reverse = query.flag("reverse")?;
    let snapshot = snapshot(&app, &query).await?;
    let table = readable_table(&app, &table)?;
    let range = range(&query, table.id)?;
    let kind = table.value;
    app.blocking(move |_| {
        let page = page(&snapshot, &range, limit, reverse)
            .map_err(|error| ApiError::internal(format!("the keys could not be read: {error}")))?;
        answer(snapshot.position(), kind, &page)
    })
    .await?
}

fn limit(query: &Query<'_>) -> Result<usize, ApiError> {
    let limit = query.number("limit")?.unwrap_or(LIST_LIMIT as u64);
    match usize::try_from(limit) {
        Ok(limit @ 1..=LIST_LIMIT_MAX) => Ok(limit),
        _ => Err(ApiError::malformed(
            "limit",
            format!(
                "{limit} is not between 1 and {LIST_LIMIT_MAX}; 'next' of the answer leads to the next page"
            ),
        )),
    }
}

fn range(query: &Query<'_>, table: TableId) -> Result<KeyRange, ApiError> {
    let mut from = query.key("from")?.unwrap_or_default();
    let mut to = query.key("to")?;
    if let Some(prefix) = query.key("prefix")? {
        to = match (to, prefix_end(&prefix)) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        from = from.max(prefix);
    }
    if to.as_ref().is_some_and(|to| *to < from) {
        to = Some(from.clone());
    }
    Ok(KeyRange { table, from, to })
}

fn page(
    snapshot: &Snapshot,
    range: &KeyRange,
    limit: usize,
    reverse: bool,
) -> Result<Found, ReadError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut bytes = 0;
    for row in snapshot.scan(range, reverse)? {
        let row = row?;
        bytes += row.key.len() + row.value.len();
        if rows.len() == limit || (bytes > LIST_BYTES_MAX && !rows.is_empty()) {
            // Upwards the next page starts with this key; downwards it ends before the last one.
            let next = if reverse {
                rows.last().map(|last| last.key.clone())
            } else {
                Some(row.key)
            };
            return Ok(Found { rows, next });
        }
        rows.push(row);
    }
    Ok(Found { rows, next: None })
}

fn answer(position: Position, kind: ValueKind, page: &Found) -> Answer {
    let rows = page.rows.iter().map(|row| api::Row {
        key: BytesOut(&row.key),
        version: row.version,
        value: ValueOut {
            kind,
            bytes: &row.value,
        },
    });
    let body = Page {
        position,
        rows: rows.collect(),
        next: page.next.as_deref().map(BytesOut),
    };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}
