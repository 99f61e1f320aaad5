//! What every refusal looks like.
//!
//! The body is always a JSON object with `error`, a stable code for programs, and `message`, for
//! people: what, where, and what to do. The rest depends on the code:
//!
//! | status | `error` | more fields | what it means |
//! |---|---|---|---|
//! | 403 | `reserved_table` | `where`, `table` | the tables `onelog.*` are written by onelog alone |
//! | 404 | `not_found` | | no such route |
//! | 404 | `key_not_found` | `table`, `key`, `position` | the key was not there at that position |
//! | 404 | `unknown_table` | `table`, `nearest` | a path names a table that is not there |
//! | 404 | `unknown_sink` | `sink` | there is no such sink |
//! | 405 | `method_not_allowed` | | the header `Allow` lists the methods |
//! | 408 | `body_timeout` | `timeout_ms` | the body did not arrive in time |
//! | 409 | `conflict` | `where`, `table`, `key`, `version`, `retry_at` | something that was read was written since: read again at `retry_at`, retry |
//! | 409 | `not_unique` | `where`, `table`, `key`, `field`, `value`, `owner` | another key has this value in a unique field |
//! | 409 | `id_mismatch` | `id`, `position` | the id belongs to another request |
//! | 409 | `table_exists`, `sink_exists` | `table` or `sink` | the name is taken |
//! | 409 | `wrong_table` | `table` | a stream table has no state to read: read the log |
//! | 410 | `snapshot_too_old` | `floor` | the position is older than what is kept: read at a newer one |
//! | 410 | `id_expired` | `id`, `floor` | whether this id was committed must be looked up in the log |
//! | 410 | `log_cut` | `log_start` | the log no longer reaches back so far |
//! | 412 | `guard_failed` | `where`, `guard`, `table`, `key`, `met`, `version`, `retry_at` | a guard does not hold |
//! | 413 | `too_large` | `limit`, `max`, `is`, `unit` | a limit of the crate `record` |
//! | 422 | `malformed` | `where` | the request cannot be understood |
//! | 422 | `unknown_table` | `where`, `table`, `nearest` | a transaction names a table that is not there |
//! | 422 | `bad_operation` | `where` | the write does not fit the value or table it met |
//! | 422 | `schema` | `where` | the value breaks the table's JSON Schema |
//! | 422 | `position_in_future` | `where`, `latest` | the log ends before that position |
//! | 500 | `internal` | | the node could not do it; its log says more |
//! | 503 | `overloaded` | `retry_after_ms` | nothing was done: retry after the delay (also the header `Retry-After`) |
//! | 503 | `not_leader`, `stopped` | | whether it took place is unknown: ask again under the same id |
//! | 504 | `wait_timed_out` | `position` | the position was not reached in time |
//! | 504 | `request_timeout` | `timeout_ms` | no answer in time: ask again under the same id |

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use onelog_record::{OperationFault, Refusal, TableId, TooLarge, ValueKind};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::parse::{ParseError, Parsed};
use crate::text::{BytesOut, ValueOut};

/// The shortest delay that an overloaded server asks for.
const RETRY_AFTER_MS_MIN: u64 = 100;

/// An answer that is no success.
pub(crate) struct ApiError(Box<Inner>);

struct Inner {
    status: StatusCode,
    retry_after_ms: Option<u64>,
    body: Map<String, Value>,
}

/// The names of tables, for answers.
pub(crate) trait TableNames {
    /// Name and kind of values of a table, also of a deleted one.
    fn describe(&self, table: TableId) -> (String, ValueKind);
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.0.status, self.0.body)
    }
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("error".to_owned(), code.into());
        body.insert("message".to_owned(), message.into().into());
        Self(Box::new(Inner {
            status,
            retry_after_ms: None,
            body,
        }))
    }

    /// The same error with one more field.
    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.0.body.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn malformed(place: &str, message: impl fmt::Display) -> Self {
        let text = format!("{place}: {message}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "malformed", text).with("where", place)
    }

    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        tracing::error!("a request failed: {what}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            what.to_string(),
        )
    }

    pub(crate) fn overloaded(reason: impl fmt::Display, retry_after_ms: u64) -> Self {
        let retry_after_ms = retry_after_ms.max(RETRY_AFTER_MS_MIN);
        let message =
            format!("overloaded: {reason}; nothing was done, retry in {retry_after_ms} ms");
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
            .with("retry_after_ms", retry_after_ms);
        error.0.retry_after_ms = Some(retry_after_ms);
        error
    }

    pub(crate) fn stopped(why: impl fmt::Display) -> Self {
        let message = format!(
            "the node is stopping or has failed ({why}); whether a transaction took place is not known: ask again under the same id"
        );
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", message);
        error.0.retry_after_ms = Some(1000);
        error
    }

    pub(crate) fn too_large(error: &TooLarge) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            error.to_string(),
        )
        .with("limit", error.limit)
        .with("max", error.max)
        .with("is", error.is)
        .with("unit", error.unit)
    }

    /// A table that a path names and that is not there.
    pub(crate) fn unknown_table(name: &str, nearest: Option<&str>) -> Self {
        let message = format!("there is no table '{name}'{}", meant(nearest));
        Self::new(StatusCode::NOT_FOUND, "unknown_table", message)
            .with("table", name)
            .with("nearest", nearest)
    }

    pub(crate) fn reserved_table(place: &str, name: &str) -> Self {
        let message = format!(
            "{place}: the table '{name}' belongs to onelog itself; it can be read but not written or deleted"
        );
        Self::new(StatusCode::FORBIDDEN, "reserved_table", message)
            .with("where", place)
            .with("table", name)
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (u16, &Map<String, Value>) {
        (self.0.status.as_u16(), &self.0.body)
    }
}

fn meant(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean '{nearest}'?"),
        None => "; GET /v1/tables lists them, POST /v1/tables makes one".to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.0.body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(delay_ms) = self.0.retry_after_ms {
            let seconds = delay_ms.div_ceil(1000).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed { place, message } => Self::malformed(&place, message),
            ParseError::UnknownTable {
                place,
                name,
                nearest,
            } => {
                let message = format!(
                    "{place}: there is no table '{name}'{}",
                    meant(nearest.as_deref())
                );
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_table", message)
                    .with("where", place)
                    .with("table", name)
                    .with("nearest", nearest)
            }
            ParseError::ReservedTable { place, name } => Self::reserved_table(&place, &name),
            ParseError::TooLarge(error) => Self::too_large(&error),
        }
    }
}

/// The answer to a refused transaction. `again` parses the body again, for what the refusal does
/// not repeat.
pub(crate) fn refused(
    refusal: Refusal,
    names: &dyn TableNames,
    again: impl FnOnce() -> Option<Parsed>,
) -> ApiError {
    let message = refusal.to_string();
    let new = |status: StatusCode, code, message: String| ApiError::new(status, code, message);
    match refusal {
        Refusal::Conflict {
            subject,
            table,
            key,
            version,
            retry_at,
        } => {
            let (name, _) = names.describe(table);
            let place = again().map(|parsed| parsed.place(&subject));
            let message = format!(
                "conflict: key {} of table '{name}' was written at offset {version}, at or after the read position; read again at position {retry_at} and retry",
                show(&key)
            );
            new(StatusCode::CONFLICT, "conflict", message)
                .with("where", place)
                .with("table", name)
                .with("key", BytesOut(&key))
                .with("version", version)
                .with("retry_at", retry_at)
        }
        Refusal::GuardFailed {
            index,
            met,
            version,
            retry_at,
        } => {
            let parsed = again();
            let guard = parsed.as_ref().and_then(|p| p.request.guards.get(index));
            let place = format!("guards[{index}]");
            let mut error = new(
                StatusCode::PRECONDITION_FAILED,
                "guard_failed",
                String::new(),
            )
            .with("where", &place)
            .with("guard", index);
            let mut kind = ValueKind::Json;
            let mut what = String::new();
            if let Some(guard) = guard {
                let (name, value) = names.describe(guard.table);
                kind = value;
                what = format!(" for key {} of table '{name}'", show(&guard.key));
                error = error.with("table", name).with("key", BytesOut(&guard.key));
            }
            let found = match version {
                Some(version) => format!("the value written at offset {version}, see 'met'"),
                None => "no value".to_owned(),
            };
            let met = met.as_deref().map(|bytes| ValueOut { kind, bytes });
            error
                .with(
                    "message",
                    format!("{place} does not hold{what}: it met {found}"),
                )
                .with("met", met)
                .with("version", version)
                .with("retry_at", retry_at)
        }
        Refusal::NotUnique {
            index,
            field,
            value,
            owner,
        } => {
            let parsed = again();
            let place = format!("writes[{index}]");
            let message = format!(
                "{place}: field '{field}' must be unique, and {value} belongs to key {}",
                show(&owner)
            );
            let mut error = new(StatusCode::CONFLICT, "not_unique", message).with("where", place);
            if let Some(write) = parsed.as_ref().and_then(|p| p.request.writes.get(index)) {
                let (name, _) = names.describe(write.table);
                error = error.with("table", name).with("key", BytesOut(&write.key));
            }
            error
                .with("field", field)
                .with("value", value)
                .with("owner", BytesOut(&owner))
        }
        Refusal::BadOperation { index, fault } => bad_operation(index, &fault),
        Refusal::UnknownTable { subject, table } => {
            let place = again().map(|parsed| parsed.place(&subject));
            let (name, _) = names.describe(table);
            let message = format!(
                "{}: the table '{name}' was deleted meanwhile",
                place.as_deref().unwrap_or("body")
            );
            new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_table", message)
                .with("where", place)
                .with("table", name)
                .with("nearest", Value::Null)
        }
        Refusal::SnapshotTooOld { floor, .. } => {
            let message = format!("{message}; read again at a newer position and retry");
            new(StatusCode::GONE, "snapshot_too_old", message).with("floor", floor)
        }
        Refusal::SnapshotInFuture { latest, .. } => new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "position_in_future",
            message,
        )
        .with("where", "read_position")
        .with("latest", latest),
        Refusal::IdMismatch { id, position } => new(
            StatusCode::CONFLICT,
            "id_mismatch",
            format!("{message}; use a new id for a new request"),
        )
        .with("id", id)
        .with("position", position),
        Refusal::IdExpired { id, floor } => new(StatusCode::GONE, "id_expired", message)
            .with("id", id)
            .with("floor", floor),
        Refusal::Malformed(message) => ApiError::malformed("body", message),
        Refusal::TooLarge(error) => ApiError::too_large(&error),
        Refusal::Overloaded {
            reason,
            retry_after_ms,
        } => ApiError::overloaded(reason, retry_after_ms),
        Refusal::NotLeader => {
            let mut error = new(StatusCode::SERVICE_UNAVAILABLE, "not_leader", message);
            error.0.retry_after_ms = Some(RETRY_AFTER_MS_MIN);
            error
        }
        Refusal::Stopped(why) => ApiError::stopped(why),
    }
}

fn bad_operation(index: usize, fault: &OperationFault) -> ApiError {
    let place = format!("writes[{index}]");
    let code = match fault {
        OperationFault::Schema(_) => "schema",
        _ => "bad_operation",
    };
    let message = format!("{place}: {fault}");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).with("where", place)
}

/// A key for a sentence.
pub(crate) fn show(key: &[u8]) -> String {
    serde_json::to_string(&BytesOut(key)).unwrap_or_default()
}
