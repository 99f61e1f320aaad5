//! `/v1/sinks`: the stores that follow the log.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use onelog_sinks::{PARKED_MAX, Parked, Replay, SinkError, SinkStatus, Sinks};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Shared, json};
use crate::app::{App, busy};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::query::Query;
use crate::refusals::refused;
use crate::text::WireBytes;

/// How many rows a trial shows of each mapping, when nothing is asked for.
const TRIAL_ROWS: usize = 5;
/// How many parked keys are listed, when nothing is asked for.
const PARKED_LIMIT: usize = 100;

#[derive(Serialize)]
struct SinksOut {
    sinks: Vec<SinkStatus>,
}

#[derive(Serialize)]
struct DeletedOut<'s> {
    sink: &'s str,
    deleted: bool,
}

#[derive(Serialize)]
struct ParkedOut<'s> {
    sink: &'s str,
    total: usize,
    parked: Vec<Parked>,
}

/// Which parked keys are replayed; all unless given.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayIn {
    keys: Option<Vec<ReplayKeyIn>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayKeyIn {
    into: String,
    key: WireBytes,
}

/// Makes a store follow the log.
#[utoipa::path(
    post,
    path = "/v1/sinks",
    tag = "sinks",
    request_body = crate::openapi::NewSink,
    responses(
        (status = 201, description = "It follows", body = crate::openapi::Sink),
        (status = 409, description = "`sink_exists`", body = crate::openapi::Error),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn create(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let definition = app
        .sinks
        .read_definition(&body.bytes)
        .map_err(|error| ApiError::malformed(&error.place, error.what))?;
    let status = ask(&app, move |sinks| sinks.create(definition)).await?;
    json(StatusCode::CREATED, &status)
}

/// Lists the sinks.
#[utoipa::path(
    get,
    path = "/v1/sinks",
    tag = "sinks",
    responses((status = 200, description = "All sinks by name", body = crate::openapi::Sinks))
)]
pub(crate) async fn list(State(app): State<Shared>) -> Answer {
    let sinks = app.blocking(|app| app.sinks.list()).await?;
    json(StatusCode::OK, &SinksOut { sinks })
}

/// Tells how a sink is doing.
#[utoipa::path(
    get,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "Position, lag, rate, last error", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
    )
)]
pub(crate) async fn get(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = ask(&app, move |sinks| sinks.get(&name)).await?;
    json(StatusCode::OK, &status)
}

/// Ends a sink. The store keeps what it has.
#[utoipa::path(
    delete,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "It no longer follows", body = crate::openapi::SinkDeleted),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn delete(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let sink = name.clone();
    ask(&app, move |sinks| sinks.delete(&name)).await?;
    json(
        StatusCode::OK,
        &DeletedOut {
            sink: &sink,
            deleted: true,
        },
    )
}

/// Lets a sink stand still.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/pause",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "It stands still", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn pause(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = ask(&app, move |sinks| sinks.pause(&name)).await?;
    json(StatusCode::OK, &status)
}

/// Lets a sink go on.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/resume",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "It goes on", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn resume(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = ask(&app, move |sinks| sinks.resume(&name)).await?;
    json(StatusCode::OK, &status)
}

/// Compares the store with the log, row by row, at one position.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/verify",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink"),
        ("repair" = Option<bool>, Query, description = "Writes differing rows again, deletes extra ones, and compares once more"),
    ),
    responses(
        (status = 200, description = "Equal or not, and which rows differ", body = crate::openapi::Verification),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "`overloaded`: other verifications are running", body = crate::openapi::Error),
    )
)]
pub(crate) async fn verify(
    State(app): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let repair = Query::parse(uri.query(), &["repair"])?.flag("repair")?;
    let verified = app
        .verification(move |app| {
            let verified = match repair {
                true => app.sinks.verify_and_repair(&name),
                false => app.sinks.verify(&name),
            };
            verified.map_err(|error| sink_error(app, error))
        })
        .await??;
    json(StatusCode::OK, &verified)
}

/// Fills new tables beside the old ones from the log's state, and swaps them.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/rebuild",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "It is being rebuilt", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn rebuild(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = ask(&app, move |sinks| sinks.rebuild(&name)).await?;
    json(StatusCode::OK, &status)
}

/// Gives a sink another definition.
#[utoipa::path(
    put,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    request_body = crate::openapi::NewSink,
    responses(
        (status = 200, description = "It has it; where its mappings changed the store is filled anew", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn replace(
    State(app): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let definition = app
        .sinks
        .read_definition(&named(&body.bytes, &name))
        .map_err(|error| ApiError::malformed(&error.place, error.what))?;
    if definition.name != name {
        let message = format!(
            "the path names the sink '{name}'; leave 'name' out, or delete this sink and make another one"
        );
        return Err(ApiError::malformed("name", message));
    }
    let status = ask(&app, move |sinks| sinks.replace(definition)).await?;
    json(StatusCode::OK, &status)
}

/// The definition with the name of the path, where it has none.
fn named(body: &[u8], name: &str) -> Vec<u8> {
    // Read as text once more, so that a field that stands twice is still found.
    let has_name = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) => fields.contains_key("name") || fields.is_empty(),
        _ => true,
    };
    let start = body.iter().position(|byte| *byte == b'{');
    match start {
        Some(start) if !has_name => {
            let field = format!("{{\"name\":{},", Value::from(name));
            [&body[..start], field.as_bytes(), &body[start + 1..]].concat()
        }
        _ => body.to_vec(),
    }
}

/// Shows the first rows that a definition would write. No store is touched.
#[utoipa::path(
    post,
    path = "/v1/sinks/try",
    tag = "sinks",
    params(("rows" = Option<u64>, Query, description = "Rows of each mapping: 5 unless given, at most 100")),
    request_body = crate::openapi::NewSink,
    responses(
        (status = 200, description = "Rows, and records that do not fit", body = crate::openapi::Trial),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
    )
)]
pub(crate) async fn try_out(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Answer {
    let rows = Query::parse(uri.query(), &["rows"])?.limit(
        "rows",
        TRIAL_ROWS,
        onelog_sinks::TRIAL_ROWS_MAX,
    )?;
    let body = read_body(&app, &headers, body).await?;
    let definition: Value = serde_json::from_slice(&body.bytes)
        .map_err(|error| ApiError::malformed("body", format!("this is not JSON: {error}")))?;
    let trial = ask(&app, move |sinks| sinks.try_json(&definition, rows)).await?;
    json(StatusCode::OK, &trial)
}

/// Lists the keys that are set aside because the store refused a record of theirs.
#[utoipa::path(
    get,
    path = "/v1/sinks/{name}/parked",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink"),
        ("limit" = Option<u64>, Query, description = "100 unless given, at most 10000"),
    ),
    responses(
        (status = 200, description = "The keys, and the store's words", body = crate::openapi::ParkedKeys),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
    )
)]
pub(crate) async fn parked(
    State(app): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let limit = Query::parse(uri.query(), &["limit"])?.limit("limit", PARKED_LIMIT, PARKED_MAX)?;
    let sink = name.clone();
    let mut parked = ask(&app, move |sinks| sinks.parked(&name)).await?;
    let total = parked.len();
    parked.truncate(limit);
    let sink = &sink;
    json(
        StatusCode::OK,
        &ParkedOut {
            sink,
            total,
            parked,
        },
    )
}

/// Gives the store the newest images of keys that are set aside.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/replay",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    request_body = crate::openapi::ReplayKeys,
    responses(
        (status = 200, description = "What the store took and what it still refuses", body = crate::openapi::Replayed),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 409, description = "`sink_stopped`, `sink_not_filled`, `sink_too_far_behind`", body = crate::openapi::Error),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn replay(
    State(app): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let which = which(&body.bytes)?;
    let replayed = app
        .verification(move |app| {
            app.sinks
                .replay(&name, which)
                .map_err(|error| sink_error(app, error))
        })
        .await??;
    json(StatusCode::OK, &replayed)
}

fn which(body: &[u8]) -> Result<Replay, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Replay::All);
    }
    let wanted: ReplayIn =
        serde_json::from_slice(body).map_err(|error| ApiError::malformed("body", error))?;
    let Some(keys) = wanted.keys else {
        return Ok(Replay::All);
    };
    if keys.len() > PARKED_MAX {
        let message = format!("{} keys are named, the limit is {PARKED_MAX}", keys.len());
        return Err(ApiError::malformed("keys", message));
    }
    let keys: Vec<(String, Bytes)> = keys.into_iter().map(|key| (key.into, key.key.0)).collect();
    Ok(Replay::Keys(keys))
}

/// Waits until a sink has reached a position: then its store shows everything below it.
#[utoipa::path(
    get,
    path = "/v1/sinks/{name}/wait",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink"),
        ("position" = Option<u64>, Query, description = "The position; the log's end unless given"),
        ("timeout_ms" = Option<u64>, Query, description = "5000 unless given, at most 60000"),
    ),
    responses(
        (status = 200, description = "It is there", body = crate::openapi::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
        (status = 503, description = "Stopped", body = crate::openapi::Error),
        (status = 504, description = "`wait_timed_out`", body = crate::openapi::Error),
    )
)]
pub(crate) async fn wait(State(app): State<Shared>, Path(name): Path<String>, uri: Uri) -> Answer {
    let query = Query::parse(uri.query(), &["position", "timeout_ms"])?;
    let timeout = query.timeout()?;
    let position = query
        .position("position")?
        .unwrap_or_else(|| app.node.position());
    let waited = app
        .until_stopped(app.sinks.wait(&name, position, timeout))
        .await?;
    json(
        StatusCode::OK,
        &waited.map_err(|error| sink_error(&app, error))?,
    )
}

/// What the sinks answer, away from the threads that serve connections.
async fn ask<T: Send + 'static>(
    app: &Shared,
    question: impl FnOnce(&Sinks) -> Result<T, SinkError> + Send + 'static,
) -> Result<T, ApiError> {
    app.blocking(move |app| question(&app.sinks).map_err(|error| sink_error(app, error)))
        .await?
}

pub(crate) fn sink_error(app: &App, error: SinkError) -> ApiError {
    let message = error.to_string();
    let conflict = |code| ApiError::new(StatusCode::CONFLICT, code, message.clone());
    match error {
        SinkError::Definition(error) => ApiError::malformed(&error.place, error.what),
        SinkError::Exists { name } => conflict("sink_exists").with("sink", name),
        SinkError::Unknown { name, nearest } => {
            ApiError::new(StatusCode::NOT_FOUND, "unknown_sink", message)
                .with("sink", name)
                .with("nearest", nearest)
        }
        SinkError::TooMany { max } => conflict("too_many_sinks").with("max", max),
        SinkError::Stopped { name, fault } => conflict("sink_stopped")
            .with("sink", name)
            .with("fault", fault),
        SinkError::Unfilled { name } => conflict("sink_not_filled").with("sink", name),
        SinkError::TooFarBehind {
            name,
            position,
            floor,
        } => conflict("sink_too_far_behind")
            .with("sink", name)
            .with("position", position)
            .with("floor", floor),
        SinkError::TimedOut { name, position, .. } => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "wait_timed_out", message)
                .with("sink", name)
                .with("position", position)
        }
        SinkError::Commit(refusal) => refused(refusal, &*app.node.catalog(), || None),
        SinkError::Busy { .. } => busy(message),
        SinkError::Reserved { .. } => ApiError::malformed("name", message),
        SinkError::Read { .. } => ApiError::internal(message),
        SinkError::Store(_) | SinkError::Verify(_) | SinkError::Failed { .. } => {
            tracing::warn!("a sink's store failed: {message}");
            ApiError::new(StatusCode::BAD_GATEWAY, "store_failed", message)
        }
        SinkError::Start(_) => ApiError::internal(message),
    }
}
