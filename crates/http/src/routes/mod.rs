//! One file per resource.

pub(crate) mod backup;
pub(crate) mod cluster;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod log_stream;
pub(crate) mod replica;
pub(crate) mod sinks;
pub(crate) mod system;
pub(crate) mod tables;
pub(crate) mod transactions;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use onelog_record::Position;
use serde::Serialize;

use crate::app::App;
use crate::errors::ApiError;

pub(crate) type Shared = Arc<App>;
pub(crate) type Answer = Result<Response, ApiError>;

/// The offset of the record that wrote the value.
pub(crate) const ONELOG_VERSION: HeaderName = HeaderName::from_static("onelog-version");
/// The position that was read at, or that the change is below.
pub(crate) const ONELOG_POSITION: HeaderName = HeaderName::from_static("onelog-position");

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(body).map_err(|error| {
        ApiError::internal(format!("the answer cannot be written as JSON: {error}"))
    })?;
    // For people at a terminal.
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// The same answer, saying at which position.
pub(crate) fn at_position(mut response: Response, position: Position) -> Response {
    let value = HeaderValue::from(position.get());
    response.headers_mut().insert(ONELOG_POSITION, value);
    response
}
