//! The body of a request: bounded in size, in time, and together with all others.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use onelog_record::{HTTP_BODY_BYTES_MAX, TooLarge};
use tokio::sync::SemaphorePermit;

use crate::app::{App, busy};
use crate::errors::ApiError;
use crate::options::BODY_FREE_BYTES;

/// So many bytes behind the limit are read and thrown away, so that a client that sends before
/// it listens still gets its answer.
const DRAIN_BYTES_MAX: usize = 64 << 20;

/// A whole body. While it lives, its bytes count against those of all requests.
pub(crate) struct WholeBody<'a> {
    pub(crate) bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

/// Reads a whole body.
pub(crate) async fn read_body<'a>(
    app: &'a App,
    headers: &HeaderMap,
    body: Body,
) -> Result<WholeBody<'a>, ApiError> {
    let timeout_ms = app.options.body_timeout_ms;
    let reading = collect(app, declared(headers), body);
    match tokio::time::timeout(Duration::from_millis(timeout_ms), reading).await {
        Ok(read) => read,
        Err(_) => {
            let message = format!("the body did not arrive within {timeout_ms} ms");
            Err(
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
                    .with(|body| body.timeout_ms = Some(timeout_ms)),
            )
        }
    }
}

fn declared(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    length
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

async fn collect(app: &App, declared: usize, body: Body) -> Result<WholeBody<'_>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut room: Option<SemaphorePermit<'_>> = None;
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut len = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::malformed("body", format!("the body could not be read: {error}"))
        })?;
        let before = len;
        len = len.saturating_add(chunk.len());
        if len > HTTP_BODY_BYTES_MAX {
            drop((first, whole, room));
            return Err(too_large(drain(stream, len).await.max(declared)));
        }
        if len > BODY_FREE_BYTES {
            let counted = if before > BODY_FREE_BYTES {
                chunk.len()
            } else {
                len
            };
            let more = u32::try_from(counted).map_err(ApiError::internal)?;
            let Ok(more) = app.bodies.try_acquire_many(more) else {
                drop((first, whole, room));
                drain(stream, len).await;
                return Err(busy("the bodies of other requests fill the memory"));
            };
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        if before == 0 {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&chunk);
    }
    let bytes = if whole.is_empty() {
        first
    } else {
        whole.freeze()
    };
    assert_eq!(bytes.len(), len, "a body is all of its chunks");
    Ok(WholeBody { bytes, _room: room })
}

/// Reads the rest and throws it away; answers how long the body was, as far as it was read.
async fn drain(mut stream: axum::body::BodyDataStream, mut len: usize) -> usize {
    while let Some(Ok(chunk)) = stream.next().await {
        len = len.saturating_add(chunk.len());
        if len > HTTP_BODY_BYTES_MAX + DRAIN_BYTES_MAX {
            break;
        }
    }
    len
}

fn too_large(len: usize) -> ApiError {
    ApiError::too_large(&TooLarge {
        what: "the body".to_owned(),
        limit: "HTTP_BODY_BYTES_MAX".into(),
        is: len,
        max: HTTP_BODY_BYTES_MAX,
        unit: "bytes".into(),
    })
}
