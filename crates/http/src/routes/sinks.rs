//! `/v1/sinks`: the stores that follow the log.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use onelog_record::quoted;
use onelog_sinks::{PARKED_MAX, Replay, SinkError, SinkFault};
use serde_json::Value;

use super::{Answer, Shared, json};
use crate::api::{
    DryRun, ParkedKeys, ReplayKeys, Replayed, SinkDeleted, SinkForgotten, Sinks, Verification,
};
use crate::app::{App, busy};
use crate::body::read_body;
use crate::errors::{ApiError, SINK_ELSEWHERE};
use crate::object::read_object;
use crate::query::Query;
use crate::refusals::refused;

/// How many rows a dry run shows of each mapping, unless the request says.
const DRY_RUN_ROWS: usize = 5;
/// How many parked keys are listed, unless the request says.
const PARKED_LIMIT: usize = 100;

/// Makes a store follow the log.
#[utoipa::path(
    post,
    path = "/v1/sinks",
    tag = "sinks",
    request_body = crate::api::NewSink,
    responses(
        (status = 201, description = "It follows", body = crate::api::Sink),
        (status = 409, description = "`sink_exists`, `too_many_sinks`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 502, description = "`store_failed`: the store cannot be opened as it is defined", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn create(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let definition = app
        .sinks
        .read_definition(&body.bytes)
        .map_err(|error| ApiError::malformed(&error.place, error.what))?;
    let status = {
        let name = definition.name.clone();
        on_sinks(&app, &name, move |sinks, _| sinks.create(definition)).await?
    };
    json(StatusCode::CREATED, &app.options.declared.sink(status))
}

/// Lists all sinks with their state.
#[utoipa::path(
    get,
    path = "/v1/sinks",
    tag = "sinks",
    responses((status = 200, description = "All sinks by name", body = crate::api::Sinks))
)]
pub(crate) async fn list(State(app): State<Shared>) -> Answer {
    let sinks = app.blocking(|app| app.sinks.list()).await?;
    json(
        StatusCode::OK,
        &Sinks {
            sinks: sinks
                .into_iter()
                .map(|status| app.options.declared.sink(status))
                .collect(),
        },
    )
}

/// Reads the state of a sink.
#[utoipa::path(
    get,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    responses(
        (status = 200, description = "Position, lag, rate, last error", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
    )
)]
pub(crate) async fn get(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = on_sinks(&app, &name, |sinks, name| sinks.get(name)).await?;
    json(StatusCode::OK, &app.options.declared.sink(status))
}

/// Ends a sink. The store keeps what it has.
#[utoipa::path(
    delete,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    responses(
        (status = 200, description = "It no longer follows", body = crate::api::SinkDeleted),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn delete(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let remains = on_sinks(&app, &name, |sinks, name| sinks.delete(name)).await?;
    json(
        StatusCode::OK,
        &SinkDeleted {
            sink: &name,
            deleted: true,
            declared: app.options.declared.sinks.get(&name).map(String::as_str),
            remains: remains.map(Into::into),
        },
    )
}

/// Stops a sink from following until it is resumed.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/pause",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    responses(
        (status = 200, description = "It is paused", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn pause(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = on_sinks(&app, &name, |sinks, name| sinks.pause(name)).await?;
    json(StatusCode::OK, &app.options.declared.sink(status))
}

/// Lets a paused or stopped sink follow again.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/resume",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    responses(
        (status = 200, description = "It follows again", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn resume(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let status = on_sinks(&app, &name, |sinks, name| sinks.resume(name)).await?;
    json(StatusCode::OK, &app.options.declared.sink(status))
}

/// Compares the store with the log, row by row, at one position.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/verify",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink", example = "search"),
        ("repair" = Option<bool>, Query, description = "Writes differing rows again, deletes extra ones, and compares once more", example = true),
        ("delete_rows" = Option<bool>, Query, description = "With `repair`: deletes rows that the log does not have, however many", example = true),
    ),
    responses(
        (status = 200, description = "Equal or not, and which rows differ", body = crate::api::Verification),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 409, description = "`sink_stopped`, `sink_waiting`, `sink_not_filled`, `sink_too_far_behind`, `sink_ahead`, `too_many_deletes`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 502, description = "`store_failed`", body = crate::api::Error),
        (status = 503, description = "`overloaded`: other verifications are running", body = crate::api::Error),
    )
)]
pub(crate) async fn verify(
    State(app): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let query = Query::parse(uri.query(), &["repair", "delete_rows"])?;
    let (repair, may_delete) = (query.flag("repair")?, query.flag("delete_rows")?);
    let verified = app
        .verification(move |app| {
            let verified = match (repair, may_delete) {
                (true, true) => app.sinks.verify_and_repair_deleting(&name),
                (true, false) => app.sinks.verify_and_repair(&name),
                (false, _) => app.sinks.verify(&name),
            };
            verified.map_err(|error| sink_error(app, &name, error))
        })
        .await??;
    json(StatusCode::OK, &Verification::from(verified))
}

/// Backfills new tables beside the old ones from the log's state, and swaps them.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/rebuild",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink", example = "search"),
        ("delete_rows" = Option<bool>, Query, description = "Deletes rows that the log does not have, however many", example = true),
    ),
    responses(
        (status = 200, description = "It is being rebuilt", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 422, description = "A parameter is malformed", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn rebuild(
    State(app): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let may_delete = Query::parse(uri.query(), &["delete_rows"])?.flag("delete_rows")?;
    let rebuild = move |sinks: &onelog_sinks::Sinks, name: &str| match may_delete {
        true => sinks.rebuild_deleting(name),
        false => sinks.rebuild(name),
    };
    let status = on_sinks(&app, &name, rebuild).await?;
    json(StatusCode::OK, &app.options.declared.sink(status))
}

/// Gives a sink another definition.
#[utoipa::path(
    put,
    path = "/v1/sinks/{name}",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    request_body = crate::api::NewSink,
    responses(
        (status = 200, description = "It has it; where its mappings changed the store is backfilled", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 502, description = "`store_failed`: the store cannot be opened as it is defined", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
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
    let replace = |sinks: &onelog_sinks::Sinks, _: &str| sinks.replace_and_leave(definition);
    let replaced = on_sinks(&app, &name, replace).await?;
    let sink = app.options.declared.sink(replaced.status);
    let sink = sink.replaced(replaced.remains, replaced.lost);
    json(StatusCode::OK, &sink)
}

/// The definition with the name of the path, where it has none.
fn named(body: &[u8], name: &str) -> Vec<u8> {
    // Read as text once more, so that a field that occurs twice is still found.
    let comma = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) if fields.is_empty() => "",
        Ok(Value::Object(fields)) if !fields.contains_key("name") => ",",
        _ => return body.to_vec(),
    };
    let Some(start) = body.iter().position(|byte| *byte == b'{') else {
        return body.to_vec();
    };
    let field = format!("{{\"name\":{}{comma}", Value::from(name));
    [&body[..start], field.as_bytes(), &body[start + 1..]].concat()
}

/// Takes away what a sink that was deleted or moved has left in its former store.
///
/// Its position and the ownership of its tables stay there where the store could not be reached at
/// that moment. The body is the sink's former definition; the rows stay.
#[utoipa::path(
    post,
    path = "/v1/sinks/forget",
    tag = "sinks",
    params(("release_other_log" = Option<bool>, Query, description = "Also a sink of the log that the definition names in `take_from_log`, which then stops wherever it runs", example = true)),
    request_body = crate::api::NewSink,
    responses(
        (status = 200, description = "The store knows nothing of the sink", body = crate::api::SinkForgotten),
        (status = 409, description = "`sink_exists`: a sink of this name writes to this store; `other_log`: it is another log's, see `release_other_log`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 502, description = "`store_failed`: the store cannot be opened", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
    )
)]
pub(crate) async fn forget(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Answer {
    let release = Query::parse(uri.query(), &["release_other_log"])?.flag("release_other_log")?;
    let body = read_body(&app, &headers, body).await?;
    let definition = app
        .sinks
        .read_definition(&body.bytes)
        .map_err(|error| ApiError::malformed(&error.place, error.what))?;
    let sink = definition.name.clone();
    let forget = move |sinks: &onelog_sinks::Sinks, _: &str| match release {
        true => sinks.forget_of_other_log(&definition),
        false => sinks.forget(&definition),
    };
    let forgotten = on_sinks(&app, &sink, forget).await?;
    let sink = &sink;
    json(StatusCode::OK, &SinkForgotten { sink, forgotten })
}

/// Shows the first rows that a definition would write, and what a backfill would delete.
///
/// Nothing is written to the store. Where the definition says where it is, the keys of its tables are
/// read.
#[utoipa::path(
    post,
    path = "/v1/sinks/dry-run",
    tag = "sinks",
    params(("rows" = Option<u64>, Query, description = "Rows of each mapping: 5 unless given, at most 100", example = 2)),
    request_body = crate::api::NewSink,
    responses(
        (status = 200, description = "Rows, and records that do not fit", body = crate::api::DryRun),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`overloaded`: other dry runs are running", body = crate::api::Error),
    )
)]
pub(crate) async fn dry_run(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Answer {
    let rows = Query::parse(uri.query(), &["rows"])?.limit(
        "rows",
        DRY_RUN_ROWS,
        onelog_sinks::DRY_RUN_ROWS_MAX,
    )?;
    let body = read_body(&app, &headers, body).await?;
    let definition: Value = serde_json::from_slice(&body.bytes)
        .map_err(|error| ApiError::malformed("body", format!("this is not JSON: {error}")))?;
    let name = definition["name"].as_str().unwrap_or_default().to_owned();
    let dry_run = app.dry_run(move |app| {
        let done = app.sinks.dry_run_json(&definition, rows);
        done.map_err(|error| sink_error(app, &name, error))
    });
    let dry_run = dry_run.await??;
    json(StatusCode::OK, &DryRun::from(dry_run))
}

/// Lists the parked keys: those of which the store refused a record.
#[utoipa::path(
    get,
    path = "/v1/sinks/{name}/parked",
    tag = "sinks",
    params(
        ("name" = String, Path, description = "The sink", example = "search"),
        ("limit" = Option<u64>, Query, description = "100 unless given, at most 10000", example = 10),
    ),
    responses(
        (status = 200, description = "The keys, and the store's messages", body = crate::api::ParkedKeys),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
    )
)]
pub(crate) async fn parked(
    State(app): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let limit = Query::parse(uri.query(), &["limit"])?.limit("limit", PARKED_LIMIT, PARKED_MAX)?;
    let mut parked = on_sinks(&app, &name, |sinks, name| sinks.parked(name)).await?;
    let total = parked.len();
    parked.truncate(limit);
    json(
        StatusCode::OK,
        &ParkedKeys {
            sink: &name,
            total,
            parked: parked.into_iter().map(Into::into).collect(),
        },
    )
}

/// Gives the store the newest images of parked keys.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/replay",
    tag = "sinks",
    params(("name" = String, Path, description = "The sink", example = "search")),
    request_body = crate::api::ReplayKeys,
    responses(
        (status = 200, description = "What the store took and what it still refuses", body = crate::api::Replayed),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 409, description = "`sink_stopped`, `sink_waiting`, `sink_not_filled`, `sink_too_far_behind`, `sink_ahead`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
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
                .map_err(|error| sink_error(app, &name, error))
        })
        .await??;
    json(StatusCode::OK, &Replayed::from(replayed))
}

fn which(body: &[u8]) -> Result<Replay, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Replay::All);
    }
    let wanted: ReplayKeys = read_object(body)?;
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
        ("name" = String, Path, description = "The sink", example = "search"),
        ("position" = Option<u64>, Query, description = "The position; the log's end unless given", example = 12),
        ("timeout_ms" = Option<u64>, Query, description = "5000 unless given, at most 60000", example = 10_000),
    ),
    responses(
        (status = 200, description = "It is there", body = crate::api::Sink),
        (status = 404, description = "`unknown_sink`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "Stopped", body = crate::api::Error),
        (status = 504, description = "`wait_timed_out`", body = crate::api::Error),
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
    let status = waited.map_err(|error| sink_error(&app, &name, error))?;
    json(StatusCode::OK, &app.options.declared.sink(status))
}

/// Calls the sinks away from the threads that serve connections.
async fn on_sinks<T: Send + 'static>(
    app: &Shared,
    sink: &str,
    call: impl FnOnce(&onelog_sinks::Sinks, &str) -> Result<T, SinkError> + Send + 'static,
) -> Result<T, ApiError> {
    let sink = sink.to_owned();
    app.blocking(move |app| call(&app.sinks, &sink).map_err(|error| sink_error(app, &sink, error)))
        .await?
}

fn faulty(error: ApiError, sink: String, fault: SinkFault) -> ApiError {
    error.with(|body| {
        body.sink = Some(sink);
        body.fault = Some(Box::new(fault.into()));
    })
}

pub(crate) fn sink_error(app: &App, sink: &str, error: SinkError) -> ApiError {
    let message = error.to_string();
    let conflict = |code| ApiError::new(StatusCode::CONFLICT, code, message.clone());
    let of_sink = |code, name| conflict(code).with(|body| body.sink = Some(name));
    match error {
        SinkError::Definition(error) => ApiError::malformed(&error.place, error.what),
        SinkError::Exists { name } => of_sink("sink_exists", name),
        SinkError::Unknown { name, nearest } => {
            ApiError::new(StatusCode::NOT_FOUND, "unknown_sink", message).with(|body| {
                body.sink = Some(quoted(&name));
                body.nearest = Some(nearest);
            })
        }
        SinkError::StillThere { name } => of_sink("sink_exists", name),
        SinkError::OfOtherLog { name, .. } => of_sink("other_log", name),
        SinkError::TooManyDeletes { name, .. } => of_sink("too_many_deletes", name),
        SinkError::TooMany { max } => conflict("too_many_sinks").with(|body| body.max = Some(max)),
        SinkError::Stopped { name, fault } => faulty(conflict("sink_stopped"), name, *fault),
        SinkError::Waiting { name, fault } => faulty(conflict("sink_waiting"), name, *fault),
        SinkError::NothingThere { name, fault } => {
            faulty(conflict("sink_not_filled"), name, *fault)
        }
        SinkError::NotBackfilled { name } => of_sink("sink_not_filled", name),
        SinkError::TooFarBehind {
            name,
            position,
            floor,
            is_paused: _,
        } => conflict("sink_too_far_behind").with(|body| {
            body.sink = Some(name);
            body.position = Some(Some(position));
            body.floor = Some(floor);
        }),
        SinkError::Ahead {
            name,
            position,
            latest,
        } => conflict("sink_ahead").with(|body| {
            body.sink = Some(name);
            body.position = Some(Some(position));
            body.latest = Some(latest);
        }),
        SinkError::TimedOut { name, position, .. } => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "wait_timed_out", message).with(|body| {
                body.sink = Some(name);
                body.position = Some(position);
            })
        }
        SinkError::Commit(refusal) => refused(refusal, &*app.node.catalog(), || None),
        SinkError::Elsewhere { name, runs_on } => conflict(SINK_ELSEWHERE).with(|body| {
            body.sink = Some(name);
            body.runs_on = Some(runs_on);
        }),
        SinkError::NodeLost { name, .. } => of_sink("sink_node_lost", name),
        SinkError::Unanswered { name } => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "sink_unanswered", message)
                .with(|body| body.sink = Some(name))
        }
        SinkError::Busy { .. } => busy(message),
        SinkError::Reserved { .. } => ApiError::malformed("name", message),
        SinkError::Read { .. } => ApiError::internal(message),
        SinkError::Store(_) | SinkError::Verify(_) | SinkError::Failed { .. } => {
            tracing::warn!(sink, error = message, "a sink's store failed");
            ApiError::new(StatusCode::BAD_GATEWAY, "store_failed", message)
        }
        SinkError::Start(_) => ApiError::internal(message),
    }
}
