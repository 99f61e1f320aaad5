//! `/v1/sinks`: the stores that follow the log.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use onelog_sinks::{SinkDefinition, SinkError, SinkStatus};
use serde::Serialize;

use super::{Answer, Shared, json};
use crate::app::{App, busy};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::query::Query;
use crate::refusals::refused;

#[derive(Serialize)]
struct SinksOut {
    sinks: Vec<SinkStatus>,
}

#[derive(Serialize)]
struct DeletedOut<'s> {
    sink: &'s str,
    deleted: bool,
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
    let definition = SinkDefinition::from_slice(&body.bytes)
        .map_err(|error| ApiError::malformed(&error.place, error.what))?;
    let status = app
        .blocking(move |app| {
            app.sinks
                .create(definition)
                .map_err(|error| sink_error(app, error))
        })
        .await??;
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
    let status = app
        .blocking(move |app| app.sinks.get(&name).map_err(|error| sink_error(app, error)))
        .await??;
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
    app.blocking(move |app| {
        app.sinks
            .delete(&name)
            .map_err(|error| sink_error(app, error))
    })
    .await??;
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
    let status = app
        .blocking(move |app| {
            app.sinks
                .pause(&name)
                .map_err(|error| sink_error(app, error))
        })
        .await??;
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
    let status = app
        .blocking(move |app| {
            app.sinks
                .resume(&name)
                .map_err(|error| sink_error(app, error))
        })
        .await??;
    json(StatusCode::OK, &status)
}

/// Compares the store with the log, row by row, at one position.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/verify",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink")),
    responses(
        (status = 200, description = "Equal or not, and which rows differ", body = crate::openapi::Verification),
        (status = 404, description = "`unknown_sink`", body = crate::openapi::Error),
        (status = 503, description = "`overloaded`: other verifications are running", body = crate::openapi::Error),
    )
)]
pub(crate) async fn verify(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let verified = app
        .verification(move |app| {
            app.sinks
                .verify(&name)
                .map_err(|error| sink_error(app, error))
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
    let status = app
        .blocking(move |app| {
            app.sinks
                .rebuild(&name)
                .map_err(|error| sink_error(app, error))
        })
        .await??;
    json(StatusCode::OK, &status)
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

fn sink_error(app: &App, error: SinkError) -> ApiError {
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
        SinkError::Store(_) | SinkError::Verify(_) => {
            tracing::warn!("a sink's store failed: {message}");
            ApiError::new(StatusCode::BAD_GATEWAY, "store_failed", message)
        }
        SinkError::Start(_) => ApiError::internal(message),
    }
}
