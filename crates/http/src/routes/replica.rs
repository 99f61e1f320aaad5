//! What a read replica gets: the log as it is stored, the last checkpoint, the position behind a read
//! barrier. Nothing is kept for it, but for a checkpoint while that is being fetched.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use onelog::{FeedError, Index, LogFeed, PULSE_EVERY, PinnedState, WaitError};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Answer, Shared, json};
use crate::api::ReplicaPosition;
use crate::app::{App, busy};
use crate::errors::ApiError;
use crate::options::{LOG_BATCH_BYTES, REPLICA_PIN_IDLE, REPLICA_PINS_MAX};
use crate::query::Query;
use crate::routes::keys::catch_up;

/// The most hexadecimal digits of a cursor: those of a key and what is before it.
const CURSOR_DIGITS_MAX: usize = 16 << 10;

/// The log behind an entry, without end, as it is stored.
#[utoipa::path(
    get,
    path = "/v1/replica/log",
    tag = "read replicas",
    params(
        ("log_id" = String, Query, description = "The id of the log, 32 hexadecimal digits", example = "0123456789abcdef0123456789abcdef"),
        ("index" = u64, Query, description = "The last entry that the read replica has; 0 for none", example = 0),
        ("checksum" = u64, Query, description = "The checksum of its frame; 0 for none", example = 0),
    ),
    responses(
        (status = 200, description = "Entries and pulses, docs/format.md", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 409, description = "`other_log`; `other_history`: that entry is another one at this server; `source_behind`: this server does not have it yet", body = crate::api::Error),
        (status = 410, description = "`log_cut`: the log no longer has what follows", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`overloaded`: too many read replicas are connected", body = crate::api::Error),
    )
)]
pub(crate) async fn log(State(app): State<Shared>, uri: Uri) -> Answer {
    let query = Query::parse(uri.query(), &["log_id", "index", "checksum"])?;
    let log_id = log_id(&query)?;
    let index = Index(needed(&query, "index")?);
    let checksum = u32::try_from(needed(&query, "checksum")?)
        .map_err(|_| ApiError::malformed("checksum", "it is no number of 32 bits"))?;
    let room = app.replicas.stream()?;
    let feed = app
        .blocking(move |app| app.node.feed(log_id, index, checksum))
        .await?
        .map_err(not_fed)?;
    let mut first = feed.start().to_vec();
    first.extend_from_slice(&feed.pulse());
    let feeding = Feeding {
        app,
        feed: Some(feed),
        pulsed: Instant::now(),
        _room: room,
    };
    let body = stream::unfold((feeding, Some(first)), |(mut feeding, first)| async move {
        let bytes = match first {
            Some(first) => Some(first.into()),
            None => feeding.next().await,
        };
        bytes.map(|bytes: Bytes| (Ok::<_, Infallible>(bytes), (feeding, None)))
    });
    Ok(bytes_response(Body::from_stream(body)))
}

fn log_id(query: &Query<'_>) -> Result<u128, ApiError> {
    let text = query.text("log_id")?.unwrap_or_default();
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(log_id) if is_hex => Ok(log_id),
        _ => Err(ApiError::malformed(
            "log_id",
            "32 hexadecimal digits are the id of a log",
        )),
    }
}

fn needed(query: &Query<'_>, name: &str) -> Result<u64, ApiError> {
    let number = query.number(name)?;
    number.ok_or_else(|| ApiError::malformed(name, "the parameter is missing"))
}

fn not_fed(error: FeedError) -> ApiError {
    let message = error.to_string();
    let conflict = |code| ApiError::new(StatusCode::CONFLICT, code, message.clone());
    match error {
        FeedError::OtherLog { .. } => conflict("other_log"),
        FeedError::OtherHistory { .. } => conflict("other_history"),
        FeedError::Behind { .. } => conflict("source_behind"),
        FeedError::Cut { log_start, .. } => ApiError::new(StatusCode::GONE, "log_cut", message)
            .with(|body| body.log_start = Some(log_start)),
        FeedError::Read(_) => ApiError::internal(message),
    }
}

/// One read replica, and how far it was sent the log.
struct Feeding {
    app: Shared,
    /// Absent while it reads.
    feed: Option<LogFeed>,
    pulsed: Instant,
    _room: OwnedSemaphorePermit,
}

impl Feeding {
    /// What comes next, or a sign of life; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut feed = self.feed.take()?;
            let read = self.app.blocking(move |_| {
                let read = feed.read(LOG_BATCH_BYTES);
                (feed, read)
            });
            let (feed, read) = read.await.ok()?;
            let mut bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => {
                    // It comes again, and is then answered properly.
                    tracing::warn!(%error, "a read replica was cut off");
                    return None;
                }
            };
            if bytes.is_empty() {
                let left = PULSE_EVERY.saturating_sub(self.pulsed.elapsed());
                match self.app.until_stopped(feed.wait(left)).await {
                    Ok(Ok(()) | Err(WaitError::TimedOut { .. })) => {}
                    Ok(Err(WaitError::Stopped)) | Err(_) => return None,
                }
            }
            if self.pulsed.elapsed() >= PULSE_EVERY {
                self.pulsed = Instant::now();
                bytes.extend_from_slice(&feed.pulse());
            }
            self.feed = Some(feed);
            if !bytes.is_empty() {
                return Some(bytes.into());
            }
        }
    }
}

/// The last checkpoint: its head, or a piece of it.
#[utoipa::path(
    get,
    path = "/v1/replica/state",
    tag = "read replicas",
    params(
        ("index" = Option<u64>, Query, description = "The entry of the checkpoint, as its head says; without it the head of the last one", example = 7),
        ("cursor" = Option<String>, Query, description = "Where the piece begins, in hexadecimal digits", example = "01"),
    ),
    responses(
        (status = 200, description = "A head or a piece, docs/format.md", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "`no_checkpoint`: there is none yet", body = crate::api::Error),
        (status = 410, description = "`state_gone`: there is a later one, begin with its head", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`overloaded`: too many checkpoints are being fetched", body = crate::api::Error),
    )
)]
pub(crate) async fn state(State(app): State<Shared>, uri: Uri) -> Answer {
    let query = Query::parse(uri.query(), &["index", "cursor"])?;
    let bytes = match (query.number("index")?, query.text("cursor")?) {
        (None, None) => head(&app).await?,
        (Some(index), Some(cursor)) => {
            let cursor = from_hex(cursor)?;
            chunk(&app, Index(index), cursor).await?
        }
        _ => {
            return Err(ApiError::malformed(
                "cursor",
                "'index' and 'cursor' go together; without both the answer is the head",
            ));
        }
    };
    Ok(bytes_response(Body::from(bytes)))
}

fn from_hex(text: &str) -> Result<Vec<u8>, ApiError> {
    let wrong =
        || ApiError::malformed("cursor", "an even number of hexadecimal digits is a cursor");
    if text.len() > CURSOR_DIGITS_MAX || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return Err(wrong());
    };
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    pairs
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

async fn head(app: &Shared) -> Result<Bytes, ApiError> {
    let pinned = app.blocking(|app| app.node.pin_state()).await?;
    let pinned = pinned.map_err(ApiError::internal)?;
    let Some(pinned) = pinned else {
        let message =
            "there is no checkpoint here yet: the log has everything from its first entry on";
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no_checkpoint",
            message,
        ));
    };
    let head = pinned.head();
    app.replicas.pin(app, pinned)?;
    Ok(head)
}

async fn chunk(app: &Shared, index: Index, cursor: Vec<u8>) -> Result<Bytes, ApiError> {
    let Some(pinned) = app.replicas.pinned(index) else {
        let message = format!("the checkpoint at entry {index} is not kept any more: begin again");
        return Err(ApiError::new(StatusCode::GONE, "state_gone", message));
    };
    let read = app.blocking(move |_| pinned.chunk(&cursor)).await?;
    match read {
        Ok(chunk) => Ok(chunk.into()),
        Err(error @ onelog::ExportError::Read(_)) => Err(ApiError::internal(error)),
        Err(error) => Err(ApiError::malformed("cursor", error)),
    }
}

/// The position below which everything is that was acknowledged before.
#[utoipa::path(
    get,
    path = "/v1/replica/position",
    tag = "read replicas",
    responses(
        (status = 200, description = "This server has applied everything below it", body = crate::api::ReplicaPosition),
        (status = 503, description = "`no_leader`; `source_away`, where this is a read replica itself", body = crate::api::Error),
    )
)]
pub(crate) async fn position(State(app): State<Shared>) -> Answer {
    let timeout = Duration::from_millis(app.options.request_timeout_ms);
    let position = catch_up(&app, timeout).await?;
    json(StatusCode::OK, &ReplicaPosition { position })
}

fn bytes_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A checkpoint that read replicas fetch, and when one did last.
#[derive(Debug)]
struct Pin {
    state: Arc<PinnedState>,
    touched: Instant,
}

/// What read replicas of this server hold of it.
#[derive(Debug)]
pub(crate) struct Replicas {
    streams: Arc<tokio::sync::Semaphore>,
    streams_max: usize,
    pins: Mutex<Vec<Pin>>,
}

impl Replicas {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self {
            streams: Arc::new(tokio::sync::Semaphore::new(streams_max)),
            streams_max,
            pins: Mutex::default(),
        }
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let room = Arc::clone(&self.streams).try_acquire_owned();
        room.map_err(|_| {
            let max = self.streams_max;
            busy(format!("{max} read replicas are connected already"))
        })
    }

    /// Keeps a checkpoint until nothing of it was requested for a while.
    fn pin(&self, app: &Shared, state: PinnedState) -> Result<(), ApiError> {
        let index = state.index();
        let mut pins = self.pins.lock();
        if let Some(pin) = pins.iter_mut().find(|pin| pin.state.index() == index) {
            pin.touched = Instant::now();
            return Ok(());
        }
        if pins.len() >= REPLICA_PINS_MAX {
            return Err(busy(format!(
                "{REPLICA_PINS_MAX} checkpoints are being fetched already"
            )));
        }
        pins.push(Pin {
            state: Arc::new(state),
            touched: Instant::now(),
        });
        drop(pins);
        tokio::spawn(let_go(Arc::clone(app), index));
        Ok(())
    }

    fn pinned(&self, index: Index) -> Option<Arc<PinnedState>> {
        let mut pins = self.pins.lock();
        let pin = pins.iter_mut().find(|pin| pin.state.index() == index)?;
        pin.touched = Instant::now();
        Some(Arc::clone(&pin.state))
    }

    /// How long the checkpoint is still kept, as far as is known now; `None` once it is let go.
    fn left(&self, index: Index) -> Option<Duration> {
        let mut pins = self.pins.lock();
        let place = pins.iter().position(|pin| pin.state.index() == index)?;
        let left = REPLICA_PIN_IDLE.saturating_sub(pins[place].touched.elapsed());
        if left.is_zero() {
            pins.remove(place);
            return None;
        }
        Some(left)
    }
}

async fn let_go(app: Arc<App>, index: Index) {
    while let Some(left) = app.replicas.left(index) {
        if app.until_stopped(tokio::time::sleep(left)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_from_its_digits() {
        assert!(from_hex("").unwrap().is_empty());
        assert_eq!(from_hex("00ff7F").unwrap(), [0, 0xff, 0x7f]);
        for wrong in ["0", "0g", "+1", "\u{e9}"] {
            assert!(from_hex(wrong).is_err(), "{wrong}");
        }
    }
}
