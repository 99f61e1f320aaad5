//! `POST /v1/transactions`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use onelog::{CommitRequest, NewTable, Node, TableError, Ticket};
use onelog_record::{Position, check_table_name};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::sinks::sink_error;
use super::{Answer, Shared, json};
use crate::api::{Committed, Offsets, Waited};
use crate::app::{App, CatalogTables};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::options::{TABLES_CREATED_MAX, WAIT_TIMEOUT_MS};
use crate::refusals::refused;
use onelog_request::{ParseError, Parsed, parse_request};

/// A body of more bytes is worth a switch of threads.
const LARGE_BODY_BYTES: usize = 256 << 10;

/// Commits one transaction.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    tag = "transactions",
    request_body = crate::api::Transaction,
    responses(
        (status = 200, description = "It is in the log: durable and ordered", body = crate::api::Committed),
        (status = 403, description = "A write to a table `onelog.*`", body = crate::api::Error),
        (status = 404, description = "`unknown_sink` in `wait_for`; nothing was committed", body = crate::api::Error),
        (status = 408, description = "The body did not arrive in time", body = crate::api::Error),
        (status = 409, description = "`conflict`: something that was read was written since; `not_unique`; `id_mismatch`", body = crate::api::Error),
        (status = 410, description = "`snapshot_too_old`, `id_expired`", body = crate::api::Error),
        (status = 412, description = "A guard does not hold: which one, and what it met", body = crate::api::Error),
        (status = 413, description = "`too_large`: over the limit that `limit` names; `DECISION_STEPS_MAX`, `SCHEMA_STEPS_MAX` and `JSON_BYTES_READ_MAX` bound what deciding it may cost", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
        (status = 504, description = "No answer in time: repeat it under the same id", body = crate::api::Error),
    )
)]
pub(crate) async fn commit(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let parsed = parse(&app, &body.bytes).await?;
    app.sinks
        .check_names(&parsed.wait_for)
        .await
        .map_err(|error| sink_error(&app, "", error))?;
    let count = parsed.request.writes.len() as u64;
    let timeout = Duration::from_millis(parsed.wait_timeout_ms.unwrap_or(WAIT_TIMEOUT_MS));
    let ticket = submit(&app.node, body.bytes.len(), parsed.request);
    let answer = app.in_time(ticket).await?;
    match answer {
        Ok(committed) => json(
            StatusCode::OK,
            &Committed {
                id: committed.id,
                position: committed.position,
                offsets: Offsets {
                    first: committed.first_offset.get(),
                    count,
                },
                repeated: committed.repeated,
                waited: wait(&app, &parsed.wait_for, timeout, committed.position).await,
            },
        ),
        Err(refusal) => {
            let catalog = app.node.catalog();
            let again = || parse_request(&body.bytes, &CatalogTables(&catalog)).ok();
            Err(refused(refusal, &*catalog, again))
        }
    }
}

/// What is put is checked against schemas here. Where that may take long, the other tasks of this
/// thread go on by another one, as far as there is one.
fn submit(node: &Node, bytes: usize, request: CommitRequest) -> Ticket {
    let runtime = Handle::current().runtime_flavor();
    match bytes > LARGE_BODY_BYTES && runtime == RuntimeFlavor::MultiThread {
        true => tokio::task::block_in_place(|| node.submit(request)),
        false => node.submit(request),
    }
}

/// What was committed stays committed, so the closing of the door is answered for each sink as well.
async fn wait(
    app: &App,
    names: &[String],
    timeout: Duration,
    position: Position,
) -> BTreeMap<String, Waited> {
    let waited = app.until_stopped(app.sinks.wait_all(names, position, timeout));
    match waited.await {
        Ok(waited) => waited
            .into_iter()
            .map(|(name, waited)| (name, waited.into()))
            .collect(),
        Err(_) => {
            let given_up = || onelog_sinks::Waited::given_up("the server is shutting down");
            names
                .iter()
                .map(|name| (name.clone(), given_up().into()))
                .collect()
        }
    }
}

/// Parses a body; with `create_tables`, tables that it names and that are not there are made.
async fn parse(app: &App, body: &[u8]) -> Result<Parsed, ApiError> {
    let parsed = parse_request(body, &CatalogTables(&app.node.catalog()));
    if !matches!(parsed, Err(ParseError::UnknownTable { .. })) {
        return Ok(parsed?);
    }
    // A node that is behind the leader may not know a table that was made.
    let timeout = Duration::from_millis(app.options.request_timeout_ms);
    super::keys::catch_up(app, timeout).await?;
    for _ in 0..TABLES_CREATED_MAX {
        let parsed = parse_request(body, &CatalogTables(&app.node.catalog()));
        match parsed {
            Err(ParseError::UnknownTable { place, name, .. }) if app.options.create_tables => {
                check_table_name(&name).map_err(|error| ApiError::malformed(&place, error))?;
                create(app, &place, name).await?;
            }
            parsed => return Ok(parsed?),
        }
    }
    parse_request(body, &CatalogTables(&app.node.catalog())).map_err(ApiError::from)
}

async fn create(app: &App, place: &str, name: String) -> Result<(), ApiError> {
    match app
        .in_time(app.node.create_table(NewTable::keyed(name)))
        .await?
    {
        // Another request made it meanwhile, perhaps as another kind: parsing looks again.
        Ok(_) | Err(TableError::Exists { .. }) => Ok(()),
        Err(TableError::Refused(refusal)) => Err(refused(refusal, &*app.node.catalog(), || None)),
        Err(error) => Err(ApiError::malformed(place, error)),
    }
}
