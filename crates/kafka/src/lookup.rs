//! Finding a record of a topic by its time. Times never fall in the log.

use onelog::{LogBatch, Node, ReadLogError};
use onelog_record::{Position, USER_TABLES_FROM};

use crate::options::{LOG_BATCH_BYTES, LOOKUP_BACK_BYTES_MAX, LOOKUP_BYTES_MAX};
use crate::topics::Topic;

/// How many positions the first step back has; each further one is twice as long.
const STEP_FIRST: u64 = 1024;

/// A place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: Position,
    pub timestamp: Option<i64>,
}

/// An offset was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Log(#[from] ReadLogError),
    #[error("the last {LOOKUP_BACK_BYTES_MAX} bytes of the log have no record of topic '{topic}'")]
    TooFar { topic: String },
}

/// The first record of a topic whose time is at or after `timestamp_ms`; `None` where there is none.
/// Where the next one is further than `LOOKUP_BYTES_MAX` bytes of log, the offset up to which there is
/// none: a reader from there on gets the same records. Reads files; blocks.
pub fn at_time(
    node: &Node,
    topic: &Topic,
    timestamp_ms: u64,
) -> Result<Option<Found>, LookupError> {
    let mut next = node.position_at_time(timestamp_ms)?.max(node.log_start());
    let mut looked_at = 0;
    while next < node.position() {
        let packed = node.read_packed_log(next, LOG_BATCH_BYTES)?;
        looked_at += packed.unpacked_bytes();
        let batch = packed.unpack()?;
        if let Some(found) = places(topic, &batch, next).next() {
            return Ok(Some(found));
        }
        next = batch.next;
        if looked_at > LOOKUP_BYTES_MAX {
            return Ok(Some(Found {
                offset: next,
                timestamp: None,
            }));
        }
    }
    Ok(None)
}

/// The last record of a topic, which has the highest time. Reads files; blocks.
pub fn last(node: &Node, topic: &Topic) -> Result<Option<Found>, LookupError> {
    let (start, mut end) = (node.log_start(), node.position());
    let (mut step, mut looked_at) = (STEP_FIRST, 0);
    while end > start {
        let from = Position(end.get().saturating_sub(step)).max(start);
        let (mut next, mut found) = (from, None);
        while next < end {
            let packed = node.read_packed_log(next, LOG_BATCH_BYTES)?;
            looked_at += packed.unpacked_bytes();
            let batch = packed.unpack()?;
            let behind = places(topic, &batch, next);
            found = behind.filter(|found| found.offset < end).last().or(found);
            next = batch.next;
        }
        if found.is_some() {
            return Ok(found);
        }
        if looked_at > LOOKUP_BACK_BYTES_MAX {
            return Err(LookupError::TooFar {
                topic: topic.name().to_owned(),
            });
        }
        (end, step) = (from, step.saturating_mul(2));
    }
    Ok(None)
}

/// The topic's records in a piece of the log, from a position on.
fn places<'b>(
    topic: &'b Topic,
    batch: &'b LogBatch,
    from: Position,
) -> impl Iterator<Item = Found> + 'b {
    let of_transaction = move |transaction: &'b onelog::LogTransaction| {
        let timestamp = Some(transaction.timestamp_ms.cast_signed());
        let last = Position(transaction.end.get() - 1);
        transaction.records.iter().filter_map(move |record| {
            let offset = match topic {
                Topic::WholeLog if record.table >= USER_TABLES_FROM => last,
                Topic::Table(table) if record.table == table.id => Position(record.offset.get()),
                _ => return None,
            };
            Some(Found { offset, timestamp })
        })
    };
    let places = batch.transactions.iter().flat_map(of_transaction);
    places.filter(move |found| found.offset >= from)
}
