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
//! | 404 | `unknown_member` | | no node of the cluster has this number |
//! | 404 | `no_checkpoint` | | a read replica wants a checkpoint, and there is none yet |
//! | 404 | `unknown_sink` | `sink`, `nearest` | there is no such sink |
//! | 405 | `method_not_allowed` | | the header `Allow` lists the methods |
//! | 408 | `body_timeout` | `timeout_ms` | the body did not arrive in time |
//! | 409 | `conflict` | `where`, `table`, `key`, `version`, `retry_at` | something that was read was written since: read again at `retry_at`, retry |
//! | 409 | `not_unique` | `where`, `table`, `key`, `field`, `value`, `owner` | another key has this value in a unique field; one of more than 1 KiB is not repeated |
//! | 409 | `id_mismatch` | `id`, `position` | the id belongs to another request |
//! | 409 | `table_exists`, `sink_exists` | `table` or `sink` | the name is taken |
//! | 409 | `table_in_use` | `table` | sinks follow the table, or the configuration declares it |
//! | 409 | `too_many_sinks` | `max` | no more sinks can be made |
//! | 409 | `sink_stopped` | `sink`, `fault` | the sink has stopped, and why: mend it, then resume or rebuild |
//! | 409 | `sink_waiting` | `sink`, `fault` | its store cannot be used now: it tries again by itself |
//! | 409 | `sink_elsewhere` | `sink`, `runs_on` | no node of the cluster runs the sink now, or it is moving: nothing was done, request it again |
//! | 409 | `sink_node_lost` | `sink` | its store is on the machine of a node that is out of reach: nothing was done; start that node, or give the sink another `run_on` |
//! | 409 | `sink_not_filled` | `sink`, `fault` | there is nothing to compare: not yet, or no longer |
//! | 409 | `sink_too_far_behind` | `sink`, `position`, `floor` | its state is no longer kept: let it catch up, a paused one once it is resumed |
//! | 409 | `sink_ahead` | `sink`, `position`, `latest` | its store is ahead of the log: rebuild it |
//! | 409 | `other_log` | | a read replica has another log: give it the address of its own source |
//! | 409 | `other_history` | | a read replica has another entry there: give it an empty folder |
//! | 409 | `source_behind` | | a read replica has more of the log than this server: it comes again |
//! | 409 | `other_log` | `sink` | what a store is to forget is another log's: request it with `release_other_log` |
//! | 409 | `too_many_deletes` | `sink` | a repair would delete many rows: request it with `delete_rows` |
//! | 409 | `not_a_cluster` | | the server was started without a number: it has no members to change |
//! | 409 | `change_under_way` | | another change of the members goes on: request it again when that has ended |
//! | 409 | `member_removed` | | the number was used by a node that was removed: use a new one, and an empty folder |
//! | 409 | `not_caught_up` | | the learner lacks too much of the log to vote: request it again later |
//! | 409 | `majority_lost` | | too few of the voters that would be left are connected: start them, or remove the lost ones first |
//! | 409 | `last_voter`, `too_many_members` | | the members would be none, or too many |
//! | 409 | `not_a_voter` | | a learner cannot lead: promote it first |
//! | 409 | `leadership_not_taken` | | that voter did not take over: request it again when it has caught up |
//! | 409 | `wrong_table` | `table` | a stream table has no state to read: read the log |
//! | 410 | `snapshot_too_old` | `floor` | the position is older than what is kept: read at a newer one |
//! | 410 | `id_expired` | `id`, `floor` | whether this id was committed must be looked up in the log |
//! | 410 | `state_gone` | | the checkpoint that a read replica fetches is not kept any more: begin again |
//! | 410 | `log_cut` | `log_start` | the log no longer reaches back so far |
//! | 412 | `guard_failed` | `where`, `guard`, `table`, `key`, `met`, `version`, `retry_at` | a guard does not hold |
//! | 413 | `too_large` | `limit`, `max`, `is`, `unit` | a limit that the message names; `DECISION_STEPS_MAX`, `JSON_BYTES_READ_MAX`, `SCHEMA_STEPS_MAX`: it would hold up all others |
//! | 421 | `read_replica` | `source` | the server answers reads alone: send it to the server that it follows (also the header `Onelog-Source`) |
//! | 422 | `malformed` | `where` | the request cannot be understood |
//! | 422 | `unknown_table` | `where`, `table`, `nearest` | a transaction names a table that is not there |
//! | 422 | `bad_operation` | `where` | the write does not fit the value or table it met |
//! | 422 | `schema` | `where` | the value breaks the table's JSON Schema |
//! | 422 | `position_in_future` | `where`, `latest` | the log ends before that position; a node of several gives itself a second to get there |
//! | 500 | `internal` | | the node could not do it; its log says more |
//! | 502 | `store_failed` | | a sink's store could not be used; `message` has the store's own |
//! | 503 | `overloaded` | `retry_after_ms` | nothing was done: retry after the delay (also the header `Retry-After`) |
//! | 503 | `source_away` | | the server that this read replica follows has not said its position in time: retry after the delay |
//! | 503 | `no_leader` | | no leader of the cluster was found in time, and nothing was done: retry after the delay |
//! | 503 | `change_unknown` | | the members may have been changed: look at them, then request it again where it is missing |
//! | 503 | `not_leader`, `stopped` | | whether it took place is unknown: repeat it under the same id |
//! | 504 | `wait_timed_out` | `position` | the position was not reached in time |
//! | 504 | `sink_unanswered` | `sink`, `runs_on` | the sink, or the node that runs it, did not answer: it may still be carried out; look at the sink before it is requested again |
//! | 504 | `request_timeout` | `timeout_ms` | no answer in time: repeat it under the same id |
//! | 507 | `disk_full` | | the disk is nearly full: nothing was done; reads go on, and writes when there is room |

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use onelog_record::{QUOTED_BYTES_MAX, TableId, TooLarge, ValueKind, code, quoted};

use crate::api;
use crate::forwarding::RunsElsewhere;
use onelog_request::BytesOut;

/// Another node runs the sink, and nothing was done.
pub(crate) const SINK_ELSEWHERE: &str = "sink_elsewhere";

/// The shortest delay that an overloaded server answers with.
const RETRY_AFTER_MS_MIN: u64 = 100;
/// The longest message about a malformed request. Its parts are cut where they are quoted; what
/// escapes that is cut here.
const MALFORMED_BYTES_MAX: usize = 4 * QUOTED_BYTES_MAX;

/// An answer that is no success.
pub(crate) struct ApiError(Box<Inner>);

struct Inner {
    status: StatusCode,
    retry_after_ms: Option<u64>,
    body: api::Error,
}

/// The names of tables, for answers.
pub(crate) trait TableNames {
    /// Name and kind of values of a table, also of a deleted one.
    fn describe(&self, table: TableId) -> (String, ValueKind);
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = serde_json::to_string(&self.0.body).unwrap_or_default();
        write!(f, "{} {body}", self.0.status)
    }
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            retry_after_ms: None,
            body: api::Error {
                error: code,
                message: message.into(),
                ..api::Error::default()
            },
        }))
    }

    /// The same error with more fields.
    pub(crate) fn with(mut self, set: impl FnOnce(&mut api::Error)) -> Self {
        set(&mut self.0.body);
        self
    }

    /// The same error with the place in the request that it is about.
    pub(crate) fn at(self, place: impl Into<Option<String>>) -> Self {
        let place = place.into();
        self.with(|body| body.r#where = Some(place))
    }

    /// The same error with the delay before the next try.
    pub(crate) fn retry_after(mut self, delay_ms: u64) -> Self {
        self.0.retry_after_ms = Some(delay_ms);
        self
    }

    pub(crate) fn malformed(place: &str, message: impl fmt::Display) -> Self {
        let place = quoted(place);
        let mut text = format!("{place}: {message}");
        if text.len() > MALFORMED_BYTES_MAX {
            text.truncate(text.floor_char_boundary(MALFORMED_BYTES_MAX));
            text.push('…');
        }
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code::MALFORMED, text).at(place)
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
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code::OVERLOADED, message)
            .with(|body| body.retry_after_ms = Some(retry_after_ms));
        error.0.retry_after_ms = Some(retry_after_ms);
        error
    }

    pub(crate) fn stopped(why: impl fmt::Display) -> Self {
        let message = format!(
            "the node is stopping or has failed ({why}); whether a transaction took place is not known: repeat it under the same id"
        );
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code::STOPPED, message);
        error.0.retry_after_ms = Some(1000);
        error
    }

    pub(crate) fn too_large(error: &TooLarge) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            code::TOO_LARGE,
            error.to_string(),
        )
        .with(|body| {
            body.limit = Some(error.limit.clone());
            body.max = Some(error.max);
            body.is = Some(error.is);
            body.unit = Some(error.unit.clone());
        })
    }

    pub(crate) fn without_leader(code: &'static str, message: String) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        error.retry_after(RETRY_AFTER_MS_MIN)
    }

    /// A table that a path names and that is not there.
    pub(crate) fn unknown_table(name: &str, nearest: Option<&str>) -> Self {
        let name = quoted(name);
        let message = format!("there is no table '{name}'{}", meant(nearest));
        Self::new(StatusCode::NOT_FOUND, code::UNKNOWN_TABLE, message).with(|body| {
            body.table = Some(name);
            body.nearest = Some(nearest.map(str::to_owned));
        })
    }

    pub(crate) fn reserved_table(place: &str, name: &str) -> Self {
        let name = quoted(name);
        let message = format!(
            "{place}: the table '{name}' belongs to onelog itself; it can be read but not written or deleted"
        );
        Self::new(StatusCode::FORBIDDEN, code::RESERVED_TABLE, message)
            .at(place.to_owned())
            .with(|body| body.table = Some(name))
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (u16, serde_json::Map<String, serde_json::Value>) {
        match serde_json::to_value(&self.0.body) {
            Ok(serde_json::Value::Object(body)) => (self.0.status.as_u16(), body),
            other => panic!("an error is an object: {other:?}"),
        }
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
        if self.0.body.error == SINK_ELSEWHERE {
            response.extensions_mut().insert(RunsElsewhere);
        }
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
    quoted(&serde_json::to_string(&BytesOut(key)).unwrap_or_default())
}
