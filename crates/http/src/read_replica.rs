//! The door of a read replica: reads are answered, whatever else is asked is the source's.
//!
//! Nothing is forwarded: a client that has the source's address has one road for retries under its id.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use onelog::SourceError;

use crate::errors::ApiError;
use crate::routes::Shared;

/// The address of the server that a read replica follows.
const ONELOG_SOURCE: HeaderName = HeaderName::from_static("onelog-source");
const RETRY_AFTER_MS: u64 = 500;
/// What is done here though it is no read of the log: a copy of this very node.
const BACKUP: &str = "/v1/backup";
/// Sinks run elsewhere, and are known where they run; a read replica is in no cluster.
const OF_THE_SOURCE: [&str; 2] = ["/v1/sinks", "/v1/cluster"];

fn is_of_the_source(request: &Request) -> bool {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_below = |of: &&str| {
        let rest = path.strip_prefix(*of);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    OF_THE_SOURCE.iter().any(is_below) || !is_read && path != BACKUP
}

/// Refuses what only the source can do.
pub(crate) async fn refuse(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let Some(source) = app.node.source().filter(|_| is_of_the_source(&request)) else {
        return next.run(request).await;
    };
    let message = format!(
        "this is a read replica: it answers reads, nothing was done here; send the request to the server that it follows, {source}"
    );
    let error = ApiError::new(StatusCode::MISDIRECTED_REQUEST, "read_replica", message);
    let error = error.with(|body| body.source = Some(source.to_owned()));
    let mut response = error.into_response();
    if let Ok(source) = HeaderValue::from_str(source) {
        response.headers_mut().insert(ONELOG_SOURCE, source);
    }
    response
}

/// The source has not said its position in time.
pub(crate) fn source_away(error: &SourceError) -> ApiError {
    let message = format!("what is newest is not known: {error}");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "source_away", message)
        .retry_after(RETRY_AFTER_MS)
}
