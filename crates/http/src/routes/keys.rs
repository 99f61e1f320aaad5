//! `GET /v1/tables/{table}/keys/{key}`: one value.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use onelog::Snapshot;
use onelog_record::{Position, TableDefinition, TableKind, ValueKind};

use super::{Answer, ONELOG_VERSION, Shared, at_position};
use crate::app::{App, unreadable};
use crate::errors::{ApiError, show};
use crate::query::{Query, percent_decoded};
use crate::read_replica::source_away;
use crate::refusals::refused;

/// Reads the value of one key.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}/keys/{key}",
    tag = "reads",
    params(
        ("table" = String, Path, description = "The table", example = "shop.orders"),
        ("key" = String, Path, description = "The key, percent-encoded; base64 with `encoding=base64`", example = "o-1"),
        crate::api::ReadAt,
        ("encoding" = Option<String>, Query, description = "`text` (the default) or `base64`: how keys are written in this URL", example = "text"),
    ),
    responses(
        (status = 200, description = "The value itself, byte for byte", content(
            (serde_json::Value = "application/json"), (Vec<u8> = "application/octet-stream")),
            headers(
                ("Onelog-Version" = u64, description = "The offset of the record that wrote it"),
                ("Onelog-Position" = u64, description = "The position it was read at"))),
        (status = 404, description = "`key_not_found` (with Onelog-Position) or `unknown_table`", body = crate::api::Error,
            headers(("Onelog-Position" = u64, description = "The position it was read at"))),
        (status = 409, description = "`wrong_table`: a stream table has no state", body = crate::api::Error),
        (status = 410, description = "`snapshot_too_old`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`overloaded`: no leader was found in time for `linearizable`; `stopped`", body = crate::api::Error),
        (status = 504, description = "`wait_timed_out`", body = crate::api::Error),
    )
)]
pub(crate) async fn get(State(app): State<Shared>, uri: Uri) -> Answer {
    let known = ["at", "after", "linearizable", "timeout_ms", "encoding"];
    let query = Query::parse(uri.query(), &known)?;
    let (table, key) = path_parts(&uri)?;
    let key = query.decode_key("key", &key)?;
    // First the wait: the table may be made by what is waited for.
    let snapshot = snapshot(&app, &query).await?;
    let table = readable_table(&app, &table)?;
    let position = snapshot.position();
    let found = snapshot
        .get(table.id, &key)
        .map_err(|error| ApiError::internal(format!("the key could not be read: {error}")))?;
    let Some(found) = found else {
        let message = format!(
            "there is no key {} in table '{}' at position {position}",
            show(&key),
            table.name
        );
        let error = ApiError::new(StatusCode::NOT_FOUND, "key_not_found", message).with(|body| {
            body.table = Some(table.name.clone());
            body.key = Some(key.as_ref().into());
            body.position = Some(Some(position));
        });
        return Ok(at_position(error.into_response(), position));
    };
    let mut response = value_response(table.value, found.value);
    let version = HeaderValue::from(found.version.get());
    response.headers_mut().insert(ONELOG_VERSION, version);
    Ok(at_position(response, position))
}

fn value_response(kind: ValueKind, value: Bytes) -> Response {
    let content_type = match kind {
        ValueKind::Json => "application/json",
        ValueKind::Bytes => "application/octet-stream",
    };
    let mut response = Response::new(Body::from(value));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A browser must never guess that bytes are a page.
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Table and key of the path, percent-decoded to the bytes that they are.
fn path_parts(uri: &Uri) -> Result<(String, Vec<u8>), ApiError> {
    // The router has matched `/v1/tables/{table}/keys/{key}`.
    let mut parts = uri.path().split('/').skip(3);
    let table = parts.next().unwrap_or_default();
    let key = parts.nth(1).unwrap_or_default();
    let table = percent_decoded("table", table)?;
    let table = String::from_utf8_lossy(&table).into_owned();
    Ok((table, percent_decoded("key", key)?))
}

/// A table whose state can be read.
pub(crate) fn readable_table(
    app: &App,
    name: &str,
) -> Result<std::sync::Arc<TableDefinition>, ApiError> {
    let table = app.table(name)?;
    if table.kind == TableKind::Stream {
        let message = format!(
            "'{name}' is a stream table: it has events but no state; read them with GET /v1/log?table={name}"
        );
        let error = ApiError::new(StatusCode::CONFLICT, "wrong_table", message);
        return Err(error.with(|body| body.table = Some(name.to_owned())));
    }
    Ok(table)
}

/// Waits until this node has everything that was acknowledged anywhere before.
pub(crate) async fn catch_up(app: &App, timeout: Duration) -> Result<Position, ApiError> {
    if app.node.source().is_some() {
        let barrier = app.until_stopped(app.node.source_barrier(timeout));
        return barrier.await?.map_err(|error| source_away(&error));
    }
    let barrier = app.in_time(app.until_stopped(app.node.read_barrier()));
    let reached = barrier.await??;
    match reached {
        Ok(position) => Ok(position),
        Err(refusal) => Err(refused(refusal, &*app.node.catalog(), || None)),
    }
}

async fn catch_up_within(app: &App, timeout: Duration) -> Result<(), ApiError> {
    let caught_up = tokio::time::timeout(timeout, catch_up(app, timeout)).await;
    caught_up
        .map(|reached| reached.map(drop))
        .unwrap_or_else(|_| {
            let reached = app.node.position();
            let message = format!(
                "this node did not reach what the leader has within {} ms; it is at {reached}",
                timeout.as_millis()
            );
            let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "wait_timed_out", message);
            Err(error.with(|body| body.position = Some(Some(reached))))
        })
}

/// The snapshot that `at` or `after` name, or the newest.
pub(crate) async fn snapshot(app: &App, query: &Query<'_>) -> Result<Snapshot, ApiError> {
    let (at, after) = (query.position("at")?, query.position("after")?);
    let timeout = query.timeout()?;
    if query.flag("linearizable")? {
        if at.is_some() {
            return Err(ApiError::malformed(
                "linearizable",
                "'at' and 'linearizable' do not go together: a read at a position is the same on every node, at any time",
            ));
        }
        match query.number("timeout_ms")? {
            Some(_) => catch_up_within(app, timeout).await?,
            None => catch_up(app, timeout).await.map(drop)?,
        }
    }
    match (at, after) {
        (Some(_), Some(_)) => Err(ApiError::malformed(
            "after",
            "'at' and 'after' do not go together: 'at' reads at exactly that position, 'after' waits for it and reads the newest state",
        )),
        (Some(at), None) => {
            app.catch_up_with(at).await;
            app.node
                .snapshot_at(at)
                .map_err(|error| unreadable(&app.node, at, &error))
        }
        (None, Some(after)) => {
            app.wait_for(after, timeout).await?;
            Ok(app.node.snapshot())
        }
        (None, None) => Ok(app.node.snapshot()),
    }
}
