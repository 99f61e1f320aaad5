//! How far the sinks of a cluster are, in the log: from there on every node keeps the log for a sink
//! that may come to it. The record of a sink in `onelog.sink_positions` is `{"position": P}`: its store
//! has everything below P, or had when that was written.
//!
//! The node that runs a sink writes it, and that seldom: when as much of the log lies between the
//! record and the sink that it is worth a record. So an idle log gets none, and records make no others
//! necessary. A node that is alone writes none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{CommitRequest, Guard, KeyRange, Node, Operation, Position, Predicate, Write};
use onelog_record::{TABLE_SINK_POSITIONS, TABLE_SINKS};
use serde::{Deserialize, Serialize};

use crate::error::SinkError;
use crate::sinks::Inner;

/// How often floors are recorded at most.
const INTERVAL: Duration = Duration::from_secs(5);
/// So much of the log must lie between a sink and its record. All records that are written together
/// are far less.
const WORTH_BYTES: u64 = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Floor {
    position: Position,
}

/// When floors were recorded last.
#[derive(Debug, Default)]
pub(crate) struct Recording(Option<Instant>);

/// What the log says of one sink.
pub(crate) fn of(node: &Node, name: &str) -> Option<Position> {
    let row = node.snapshot().get(TABLE_SINK_POSITIONS, name.as_bytes());
    position(&row.ok()??.value)
}

fn position(record: &[u8]) -> Option<Position> {
    let floor: Floor = serde_json::from_slice(record).ok()?;
    Some(floor.position)
}

fn record(position: Position) -> Bytes {
    // A number is always JSON.
    serde_json::json!(Floor { position }).to_string().into()
}

fn all(node: &Node) -> Result<BTreeMap<String, Position>, onelog::ReadError> {
    let range = KeyRange {
        table: TABLE_SINK_POSITIONS,
        from: Bytes::new(),
        to: None,
    };
    let mut out = BTreeMap::new();
    for row in node.snapshot().scan(&range, false)? {
        let row = row?;
        if let Some(position) = position(&row.value) {
            out.insert(String::from_utf8_lossy(&row.key).into_owned(), position);
        }
    }
    Ok(out)
}

impl Inner {
    /// Moves the holds of sinks that run elsewhere, and records where those are that run here.
    pub(crate) fn follow_floors(&self, recording: &mut Recording) {
        if self
            .node
            .cluster()
            .is_none_or(|cluster| cluster.leader.is_none())
        {
            return;
        }
        let floors = match all(&self.node) {
            Ok(floors) => floors,
            Err(error) => {
                tracing::warn!(%error, "how far the sinks are cannot be read");
                return;
            }
        };
        let moved = self.compare_floors(&floors);
        let is_due = recording.0.is_none_or(|last| last.elapsed() >= INTERVAL);
        if !moved.is_empty() && is_due {
            recording.0 = Some(Instant::now());
            self.record_floors(&moved);
        }
    }

    /// The sinks whose records are to be written.
    fn compare_floors(&self, floors: &BTreeMap<String, Position>) -> Vec<(String, Position)> {
        let sinks = self.sinks.lock();
        let mut moved = Vec::new();
        for (name, handle) in sinks.iter() {
            let floor = floors.get(name).copied();
            if !handle.is_here() {
                if let Some(floor) = floor {
                    handle.retention.advance(floor);
                }
                continue;
            }
            // Until its store was read it is not known where it is.
            let Some(at) = handle.progress.position() else {
                continue;
            };
            let is_worth_it = floor.is_none_or(|floor| {
                let behind = |position| self.node.log_bytes_from(position);
                at < floor || behind(floor).saturating_sub(behind(at)) >= WORTH_BYTES
            });
            if is_worth_it {
                moved.push((name.clone(), at));
            }
        }
        moved
    }

    fn record_floors(&self, moved: &[(String, Position)]) {
        let key = |name: &String| Bytes::from(name.clone());
        let guards = moved.iter().map(|(name, _)| Guard {
            // One that was deleted meanwhile must not come back.
            table: TABLE_SINKS,
            key: key(name),
            predicate: Predicate::Exists,
        });
        let writes = moved.iter().map(|(name, position)| Write {
            table: TABLE_SINK_POSITIONS,
            key: key(name),
            operation: Operation::Put(record(*position)),
            headers: Vec::new(),
        });
        let request = CommitRequest {
            guards: guards.collect(),
            writes: writes.collect(),
            ..CommitRequest::default()
        };
        if let Err(error) = self.node.submit_system(request).wait() {
            tracing::debug!(%error, "how far the sinks are was not recorded; tried again");
        }
    }

    /// What a sink's deletion takes away beside its definition.
    pub(crate) fn floor_deletion(&self, name: &str) -> Result<Option<Write>, SinkError> {
        let row = self
            .node
            .snapshot()
            .get(TABLE_SINK_POSITIONS, name.as_bytes());
        let row = row.map_err(|cause| SinkError::Read { cause })?;
        Ok(row.map(|_| Write {
            table: TABLE_SINK_POSITIONS,
            key: Bytes::from(name.to_owned()),
            operation: Operation::Delete,
            headers: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_these_bytes() {
        assert_eq!(&record(Position(42))[..], br#"{"position":42}"#);
        assert_eq!(position(br#"{"position":42}"#), Some(Position(42)));
        assert_eq!(position(b"42"), None);
    }
}
