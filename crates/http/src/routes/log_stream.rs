//! The two forms of the log, as bodies that are made while they are read: at most
//! one batch is in memory for each reader.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use onelog::{LogBatch, WaitError};
use onelog_record::{Position, TableId};
use tokio::sync::OwnedSemaphorePermit;

use super::log::{event_record, line, unreadable_log, wanted};
use super::{Answer, Shared};
use crate::api::LogTransaction;
use crate::errors::ApiError;
use crate::options::LOG_BATCH_BYTES;

/// One reader of the log, and how far it is.
pub(crate) struct Reader {
    app: Shared,
    next: Position,
    table: Option<TableId>,
    /// How many records may still be sent.
    left: u64,
    _room: OwnedSemaphorePermit,
}

impl Reader {
    pub(crate) fn open(
        app: &Shared,
        from: Position,
        table: Option<TableId>,
        limit: Option<u64>,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            app: Arc::clone(app),
            next: from,
            table,
            left: limit.unwrap_or(u64::MAX),
            _room: app.log_stream()?,
        })
    }

    /// Reads on, and writes what was read with `write`.
    async fn read(&mut self, write: Writer) -> Result<Bytes, ApiError> {
        let (from, table, left) = (self.next, self.table, self.left);
        let (out, next, left) = self
            .app
            .blocking(move |app| {
                let batch = match table {
                    Some(table) => app.node.read_log_of(&[table], from, LOG_BATCH_BYTES),
                    None => app.node.read_log(from, LOG_BATCH_BYTES),
                };
                let batch = batch.map_err(|error| unreadable_log(&app.node, &error))?;
                // The catalog is loaded behind the batch: it knows every table of its records.
                let catalog = app.node.catalog();
                let mut page = Output {
                    catalog: &catalog,
                    from,
                    table,
                    left,
                    next: batch.next,
                    out: Vec::new(),
                };
                write(&mut page, &batch).map_err(|error| {
                    ApiError::internal(format!("a record cannot be written as JSON: {error}"))
                })?;
                Ok::<_, ApiError>((page.out, page.next, page.left))
            })
            .await??;
        assert!(next >= self.next, "reading the log only goes on");
        self.next = next;
        self.left = left;
        Ok(out.into())
    }
}

type Writer = fn(&mut Output<'_>, &LogBatch) -> Result<(), serde_json::Error>;

struct Output<'c> {
    catalog: &'c onelog::Catalog,
    from: Position,
    table: Option<TableId>,
    left: u64,
    next: Position,
    out: Vec<u8>,
}

fn write_lines(page: &mut Output<'_>, batch: &LogBatch) -> Result<(), serde_json::Error> {
    for transaction in &batch.transactions {
        for record in &transaction.records {
            let seen = page.from.sees(record.offset);
            if seen || page.left == 0 || !wanted(record, page.table) {
                continue;
            }
            let line = line(page.catalog, record, transaction);
            serde_json::to_writer(&mut page.out, &line)?;
            page.out.push(b'\n');
            page.left -= 1;
        }
    }
    Ok(())
}

fn write_events(page: &mut Output<'_>, batch: &LogBatch) -> Result<(), serde_json::Error> {
    for transaction in &batch.transactions {
        if page.left == 0 {
            // An id behind what was sent would lose the rest.
            page.next = Position(transaction.first_offset.get());
            break;
        }
        let records: Vec<_> = transaction
            .records
            .iter()
            .filter(|record| wanted(record, page.table))
            .map(|record| event_record(page.catalog, record))
            .collect();
        if records.is_empty() {
            continue;
        }
        page.left = page.left.saturating_sub(records.len() as u64);
        let head = format!("id: {}\nevent: transaction\ndata: ", transaction.end);
        page.out.extend_from_slice(head.as_bytes());
        let data = LogTransaction {
            position: transaction.end,
            id: transaction.id,
            timestamp_ms: transaction.timestamp_ms,
            records,
        };
        serde_json::to_writer(&mut page.out, &data)?;
        page.out.extend_from_slice(b"\n\n");
    }
    Ok(())
}

/// Every record up to the end of the log now, one a line.
pub(crate) async fn ndjson(mut reader: Reader) -> Answer {
    let end = reader.app.node.position();
    // The first batch is read before the answer begins, so that an error still has its status.
    let first = reader.read(write_lines).await?;
    let body = stream::try_unfold(
        (reader, Some(first)),
        move |(mut reader, first)| async move {
            let mut lines = first.unwrap_or_default();
            while lines.is_empty() && reader.next < end && reader.left > 0 {
                lines = reader.read(write_lines).await.map_err(broken)?;
            }
            let more = !lines.is_empty();
            Ok::<_, io::Error>(more.then_some((lines, (reader, None))))
        },
    );
    Ok(stream_response(
        Body::from_stream(body),
        "application/x-ndjson",
    ))
}

/// Behind the head of an answer only a broken body can show an error.
fn broken(error: ApiError) -> io::Error {
    tracing::warn!("a reader of the log was cut off: {error:?}");
    io::Error::other(format!("{error:?}"))
}

/// Every transaction from the reader's position on, as it is committed.
pub(crate) async fn event_stream(mut reader: Reader) -> Answer {
    let first = reader.read(write_events).await?;
    let hello = heartbeat(reader.next);
    let first: Bytes = [&first[..], &hello].concat().into();
    let body = stream::unfold((reader, Some(first)), |(mut reader, first)| async move {
        let events = match first {
            Some(first) => Some(first),
            None => next_events(&mut reader).await,
        };
        events.map(|events| (Ok::<_, Infallible>(events), (reader, None)))
    });
    Ok(stream_response(
        Body::from_stream(body),
        "text/event-stream",
    ))
}

/// The next events, or a sign of life; `None` ends the stream.
async fn next_events(reader: &mut Reader) -> Option<Bytes> {
    if reader.left == 0 {
        return None;
    }
    let silence = Duration::from_millis(reader.app.options.heartbeat_ms);
    let deadline = tokio::time::Instant::now() + silence;
    loop {
        let wanted = Position(reader.next.get() + 1);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let waiting = reader.app.node.wait_for(wanted, left);
        match reader.app.until_stopped(waiting).await {
            Ok(Ok(())) => {}
            Ok(Err(WaitError::TimedOut { .. })) => return Some(heartbeat(reader.next)),
            Ok(Err(WaitError::Stopped)) | Err(_) => return None,
        }
        match reader.read(write_events).await {
            Ok(events) if events.is_empty() => {
                if tokio::time::Instant::now() >= deadline {
                    return Some(heartbeat(reader.next));
                }
            }
            Ok(events) => return Some(events),
            Err(error) => {
                // The client comes back with the last id and is then answered properly.
                tracing::warn!("a follower of the log was cut off: {error:?}");
                return None;
            }
        }
    }
}

/// An id without data: clients remember it and report nothing.
fn heartbeat(position: Position) -> Bytes {
    format!("id: {position}\n: alive\n\n").into()
}

fn stream_response(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
