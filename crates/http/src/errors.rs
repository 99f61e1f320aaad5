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
//! | 404 | `unknown_sink` | `sink`, `nearest` | there is no such sink |
//! | 405 | `method_not_allowed` | | the header `Allow` lists the methods |
//! | 408 | `body_timeout` | `timeout_ms` | the body did not arrive in time |
//! | 409 | `conflict` | `where`, `table`, `key`, `version`, `retry_at` | something that was read was written since: read again at `retry_at`, retry |
//! | 409 | `not_unique` | `where`, `table`, `key`, `field`, `value`, `owner` | another key has this value in a unique field |
//! | 409 | `id_mismatch` | `id`, `position` | the id belongs to another request |
//! | 409 | `table_exists`, `sink_exists` | `table` or `sink` | the name is taken |
//! | 409 | `too_many_sinks` | `max` | no more sinks can be made |
//! | 409 | `sink_stopped` | `sink`, `fault` | the sink has stopped, and why: mend it, then resume or rebuild |
//! | 409 | `sink_not_filled` | `sink` | there is nothing to compare yet |
//! | 409 | `sink_too_far_behind` | `sink`, `position`, `floor` | its state is no longer kept: let it catch up |
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
//! | 502 | `store_failed` | | a sink's store could not be used: its own words |
//! | 503 | `overloaded` | `retry_after_ms` | nothing was done: retry after the delay (also the header `Retry-After`) |
//! | 503 | `not_leader`, `stopped` | | whether it took place is unknown: ask again under the same id |
//! | 504 | `wait_timed_out` | `position` | the position was not reached in time |
//! | 504 | `request_timeout` | `timeout_ms` | no answer in time: ask again under the same id |

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use onelog_record::{TableId, TooLarge, ValueKind};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::text::BytesOut;

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

    pub(crate) fn not_leader(message: String) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_leader", message);
        error.0.retry_after_ms = Some(RETRY_AFTER_MS_MIN);
        error
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

pub(crate) fn meant(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean '{nearest}'?"),
        None => "; GET /v1/tables lists them, POST /v1/tables makes one".to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = serde_json::to_vec(&self.0.body).unwrap_or_default();
        body.push(b'\n');
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

/// A key for a sentence.
pub(crate) fn show(key: &[u8]) -> String {
    serde_json::to_string(&BytesOut(key)).unwrap_or_default()
}
