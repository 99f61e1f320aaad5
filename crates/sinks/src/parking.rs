//! Records that a store refuses are parked where the definition says so: the record and every later
//! one of its key, until it is replayed; everything else goes on.
//!
//! What is parked is kept in the table `onelog.parked`, so it survives restarts and failovers. It
//! is committed there *before* the store passes the record, and taken out *after* the store has the
//! key's newest image: whatever crashes in between, the table has every key whose row may be old,
//! and perhaps one more. A replayed key is remembered with the position of its replay, because a
//! store that is restored from a copy made before it has the old row again.
//!
//! One thread, the sink's own, changes the records of a sink.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onelog::{
    CommitRequest, KeyRange, Node, Offset, Operation, Position, ReadError, Snapshot, Write,
};
use onelog_record::{KEY_BYTES_MAX, TABLE_PARKED};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::SinkFault;
use crate::progress::now_ms;
use crate::session_end::SessionEnd;
use onelog_mapping::{Plan, show_key};
use onelog_store::{Batch, RejectedRow};

/// The most keys that a sink parks; then it stops.
pub const PARKED_MAX: usize = 10_000;
/// The most replayed keys that are remembered for stores restored from an older copy.
const REPLAYED_MAX: usize = 10_000;
/// How many records are committed at once, at most.
const COMMIT_RECORDS_MAX: usize = 500;
/// How much of a store's message is kept with each record.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A key that is parked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parked {
    /// The table of the log.
    pub table: String,
    /// The table of the store.
    pub into: String,
    /// The key, whole: a text, or `{"base64": …}`.
    pub key: Value,
    /// The record that was refused first: from it on nothing of this key went into the store.
    pub first_offset: Offset,
    /// The record that holds the key's newest image now; `None` when it has been deleted since.
    pub newest_offset: Option<Offset>,
    /// The store's message.
    pub what: String,
    /// When it was refused, in milliseconds since 1970.
    pub at_ms: u64,
    /// `key` as it is in the log.
    #[serde(skip)]
    pub key_bytes: Bytes,
}

/// A record of `onelog.parked`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    table: String,
    into: String,
    key: StoredKey,
    first_offset: u64,
    what: String,
    at_ms: u64,
    /// It is no longer parked: the store got its newest image at this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replayed_at: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredKey {
    Text(String),
    Base64 { base64: String },
}

impl StoredKey {
    fn new(key: &[u8]) -> Self {
        match std::str::from_utf8(key) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 {
                base64: STANDARD.encode(key),
            },
        }
    }

    fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64 { base64 } => STANDARD.decode(base64).ok().map(Bytes::from),
        }
    }
}

/// Names of sinks and tables have no NUL, so the parts cannot run into each other.
fn record_key(sink: &str, into: &str, key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(sink.len() + into.len() + key.len() + 2);
    out.extend_from_slice(sink.as_bytes());
    out.push(0);
    out.extend_from_slice(into.as_bytes());
    out.push(0);
    if out.len() + key.len() <= KEY_BYTES_MAX {
        out.extend_from_slice(key);
    } else {
        out.extend_from_slice(blake3::hash(key).as_bytes());
    }
    out.into()
}

fn range_of(sink: &str) -> KeyRange {
    let bound = |last: u8| Bytes::from([sink.as_bytes(), &[last]].concat());
    KeyRange {
        table: TABLE_PARKED,
        from: bound(0),
        to: Some(bound(1)),
    }
}

/// Every record of a sink, in the order of the keys. One that cannot be read is logged and left out.
fn stored(snapshot: &Snapshot, sink: &str) -> Result<Vec<(Bytes, Stored, Bytes)>, ReadError> {
    let mut out = Vec::new();
    for row in snapshot.scan(&range_of(sink), false)? {
        let row = row?;
        let read = serde_json::from_slice::<Stored>(&row.value).ok();
        match read.and_then(|stored| stored.key.bytes().map(|key| (stored, key))) {
            Some((stored, key)) => out.push((row.key, stored, key)),
            None => {
                tracing::error!(sink, key = %show_key(&row.key), "a record of onelog.parked cannot be read");
            }
        }
    }
    Ok(out)
}

/// The keys of a sink that are parked.
pub(crate) fn parked(node: &Node, sink: &str) -> Result<Vec<Parked>, ReadError> {
    let snapshot = node.snapshot();
    let catalog = node.catalog();
    let mut out = Vec::new();
    for (_, stored, key) in stored(&snapshot, sink)? {
        if stored.replayed_at.is_some() {
            continue;
        }
        let newest = match catalog.by_name(&stored.table) {
            Some(table) => snapshot.get(table.id, &key)?.map(|found| found.version),
            None => None,
        };
        out.push(Parked {
            key: serde_json::to_value(&stored.key).unwrap_or(Value::Null),
            table: stored.table,
            into: stored.into,
            first_offset: Offset(stored.first_offset),
            newest_offset: newest,
            what: stored.what,
            at_ms: stored.at_ms,
            key_bytes: key,
        });
    }
    Ok(out)
}

/// Forgets everything of a sink.
pub(crate) fn forget(node: &Node, sink: &str) -> Result<(), SessionEnd> {
    let records =
        stored(&node.snapshot(), sink).map_err(|e| SessionEnd::Retry(SinkFault::new(e)))?;
    let keys = records.into_iter().map(|(key, ..)| (key, None));
    commit(node, keys.collect())
}

fn commit(node: &Node, records: Vec<(Bytes, Option<Stored>)>) -> Result<(), SessionEnd> {
    let failed = |what: String| {
        SessionEnd::Retry(SinkFault::new(format!(
            "the parked keys could not be committed: {what}"
        )))
    };
    for part in records.chunks(COMMIT_RECORDS_MAX) {
        let mut request = CommitRequest::default();
        for (key, stored) in part {
            let operation = match stored {
                None => Operation::Delete,
                Some(stored) => {
                    let text = serde_json::to_vec(stored).map_err(|e| failed(e.to_string()))?;
                    Operation::Put(text.into())
                }
            };
            request.writes.push(Write {
                table: TABLE_PARKED,
                key: key.clone(),
                operation,
                headers: Vec::new(),
            });
        }
        // With an unknown outcome the session ends, and the next one reads the table again.
        let committed = node.submit_system(request).wait();
        committed.map_err(|refusal| failed(refusal.to_string()))?;
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct ParkedRecord {
    first_offset: Offset,
    what: String,
    at_ms: u64,
}

impl ParkedRecord {
    /// Whether they differ in nothing but the time.
    fn is_same(&self, other: &Self) -> bool {
        self.first_offset == other.first_offset && self.what == other.what
    }
}

/// What a sink has parked, by mapping; a copy of `onelog.parked` that its thread keeps.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys {
    sink: String,
    keys: Vec<HashMap<Bytes, ParkedRecord>>,
    /// Of tables that no mapping of the sink names any more.
    strays: Vec<Bytes>,
    /// Replayed, and remembered.
    replayed: Vec<(Position, Bytes)>,
    /// Replayed at a position that the store has not passed, so perhaps not in this copy of it.
    to_repeat: Vec<(usize, Bytes)>,
}

impl ParkedKeys {
    pub(crate) fn new(sink: &str, plan: &Plan) -> Self {
        Self {
            sink: sink.to_owned(),
            keys: vec![HashMap::new(); plan.mappings.len()],
            ..Self::default()
        }
    }

    /// Reads what is parked for a store that is at `at`.
    pub(crate) fn load(
        node: &Node,
        sink: &str,
        plan: &Plan,
        at: Option<Position>,
    ) -> Result<Self, SessionEnd> {
        let mut out = Self::new(sink, plan);
        let mut outdated = Vec::new();
        let records = stored(&node.snapshot(), sink)
            .map_err(|error| SessionEnd::Retry(SinkFault::new(error)))?;
        for (record_key, stored, key) in records {
            let mapping = plan.mappings.iter().position(|m| m.into == stored.into);
            let Some(mapping) = mapping else {
                out.strays.push(record_key);
                continue;
            };
            if let Some(replayed_at) = stored.replayed_at.map(Position) {
                if replayed_at < node.log_start() {
                    // A copy that old is backfilled.
                    outdated.push((record_key, None));
                    continue;
                }
                out.replayed.push((replayed_at, record_key));
                if at.is_none_or(|at| at > replayed_at) {
                    continue;
                }
                out.to_repeat.push((mapping, key.clone()));
            }
            let parked = ParkedRecord {
                first_offset: Offset(stored.first_offset),
                what: stored.what,
                at_ms: stored.at_ms,
            };
            out.keys[mapping].insert(key, parked);
        }
        // They are of no use any more, and no reason not to follow: a full disk takes no commit.
        if let Err(end) = commit(node, outdated) {
            tracing::debug!(why = %end.fault().what, "records of parked rows are removed later");
        }
        Ok(out)
    }

    /// How many keys are parked.
    pub(crate) fn len(&self) -> usize {
        self.keys.iter().map(HashMap::len).sum()
    }

    /// The keys, by mapping.
    pub(crate) fn keys(&self) -> Vec<HashSet<Bytes>> {
        let keys = |parked: &HashMap<Bytes, ParkedRecord>| parked.keys().cloned().collect();
        self.keys.iter().map(keys).collect()
    }

    /// All keys with their mappings.
    pub(crate) fn all(&self) -> Vec<(usize, Bytes)> {
        let parked = self.keys.iter().enumerate();
        parked
            .flat_map(|(mapping, parked)| parked.keys().map(move |key| (mapping, key.clone())))
            .collect()
    }

    pub(crate) fn contains(&self, mapping: usize, key: &[u8]) -> bool {
        self.keys[mapping].contains_key(key)
    }

    /// The keys that have to be replayed once more.
    pub(crate) fn to_repeat(&self) -> &[(usize, Bytes)] {
        &self.to_repeat
    }

    /// Takes what is parked out of a batch that is not sealed yet.
    pub(crate) fn leave_out(&self, batch: &mut Batch) {
        if self.len() == 0 {
            return;
        }
        batch.in_order.retain(|(mapping, change)| {
            self.keys[*mapping]
                .get(&change.key)
                .is_none_or(|parked| change.offset < parked.first_offset)
        });
    }

    /// Parks keys: in the log first. Keys that were known get the new message; one that is there as it
    /// is already is not written again, however often a backfill begins anew.
    pub(crate) fn park(
        &mut self,
        node: &Node,
        plan: &Plan,
        rejected: &[RejectedRow],
    ) -> Result<(), SessionEnd> {
        let mut records = Vec::with_capacity(rejected.len());
        let mut more = Vec::with_capacity(rejected.len());
        for rejected in rejected {
            let known = self.keys[rejected.mapping].get(&rejected.key);
            let parked = ParkedRecord {
                first_offset: known
                    .map_or(rejected.offset, |k| k.first_offset.min(rejected.offset)),
                what: cut(&rejected.what),
                at_ms: now_ms(),
            };
            let is_repeated = || {
                let mut repeated = self.to_repeat.iter();
                repeated.any(|(of, key)| *of == rejected.mapping && *key == rejected.key)
            };
            if known.is_some_and(|known| known.is_same(&parked)) && !is_repeated() {
                continue;
            }
            records.push(self.record(plan, rejected.mapping, &rejected.key, &parked, None));
            more.push((rejected.mapping, rejected.key.clone(), parked));
        }
        let new: HashSet<(usize, &Bytes)> = more
            .iter()
            .filter(|(mapping, key, _)| !self.contains(*mapping, key))
            .map(|(mapping, key, _)| (*mapping, key))
            .collect();
        if self.len() + new.len() > PARKED_MAX {
            return Err(SessionEnd::Stop(too_many(rejected)));
        }
        let parked: HashSet<Bytes> = records.iter().map(|(key, _)| key.clone()).collect();
        commit(node, records)?;
        self.replayed.retain(|(_, key)| !parked.contains(key));
        for (mapping, key, parked) in more {
            // A later record of the key changes nothing that people must do.
            if !self.keys[mapping].contains_key(&key) {
                tracing::warn!(
                    sink = self.sink, table = plan.mappings[mapping].table_name,
                    key = %show_key(&key), offset = %parked.first_offset, what = parked.what,
                    "a record is parked"
                );
            }
            self.to_repeat
                .retain(|(of, other)| *of != mapping || *other != key);
            self.keys[mapping].insert(key, parked);
        }
        Ok(())
    }

    /// The store has the newest images of these keys at `at`: they are no longer parked.
    pub(crate) fn release(
        &mut self,
        node: &Node,
        plan: &Plan,
        keys: &[(usize, Bytes)],
        at: Position,
    ) -> Result<(), SessionEnd> {
        let mut records = Vec::with_capacity(keys.len());
        for (mapping, key) in keys {
            if let Some(parked) = self.keys[*mapping].get(key) {
                records.push(self.record(plan, *mapping, key, parked, Some(at)));
            }
        }
        let fresh: Vec<Bytes> = records.iter().map(|(key, _)| key.clone()).collect();
        let known: HashSet<&Bytes> = fresh.iter().collect();
        self.replayed.retain(|(_, key)| !known.contains(key));
        self.replayed.sort_unstable();
        let over = (self.replayed.len() + fresh.len()).saturating_sub(REPLAYED_MAX);
        let over = over.min(self.replayed.len());
        records.extend(self.replayed.drain(..over).map(|(_, key)| (key, None)));
        commit(node, records)?;
        self.replayed.extend(fresh.into_iter().map(|key| (at, key)));
        for (mapping, key) in keys {
            self.keys[*mapping].remove(key);
        }
        let parked = &self.keys;
        self.to_repeat
            .retain(|(mapping, key)| parked[*mapping].contains_key(key));
        Ok(())
    }

    /// The store was backfilled at `at`, and refused exactly these keys, which are in the log already.
    pub(crate) fn backfilled(
        &mut self,
        node: &Node,
        plan: &Plan,
        refused: &[RejectedRow],
        at: Position,
    ) -> Result<(), SessionEnd> {
        let still: HashSet<(usize, &Bytes)> = refused.iter().map(|u| (u.mapping, &u.key)).collect();
        let taken: Vec<(usize, Bytes)> = self
            .all()
            .into_iter()
            .filter(|(mapping, key)| !still.contains(&(*mapping, key)))
            .collect();
        self.release(node, plan, &taken, at)?;
        let strays = std::mem::take(&mut self.strays);
        commit(node, strays.into_iter().map(|key| (key, None)).collect())?;
        for rejected in refused {
            // Older records of the key are in no row of the new tables.
            if let Some(parked) = self.keys[rejected.mapping].get_mut(&rejected.key) {
                parked.first_offset = rejected.offset.min(parked.first_offset);
            }
        }
        self.to_repeat.clear();
        Ok(())
    }

    fn record(
        &self,
        plan: &Plan,
        mapping: usize,
        key: &Bytes,
        parked: &ParkedRecord,
        replayed_at: Option<Position>,
    ) -> (Bytes, Option<Stored>) {
        let mapping = &plan.mappings[mapping];
        let stored = Stored {
            table: mapping.table_name.clone(),
            into: mapping.into.clone(),
            key: StoredKey::new(key),
            first_offset: parked.first_offset.get(),
            what: parked.what.clone(),
            at_ms: parked.at_ms,
            replayed_at: replayed_at.map(Position::get),
        };
        (record_key(&self.sink, &mapping.into, key), Some(stored))
    }
}

fn too_many(rejected: &[RejectedRow]) -> SinkFault {
    let last = rejected
        .last()
        .map_or("", |rejected| rejected.what.as_str());
    SinkFault::new(format!(
        "the store refuses more than {PARKED_MAX} keys, which is the most that a sink parks; mend the cause, then replay or rebuild. The last refusal: {last}"
    ))
}

fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_a_sink_are_together_and_no_others_among_them() {
        let inside = |sink: &str, key: &Bytes| {
            let range = range_of(sink);
            *key >= range.from && range.to.is_none_or(|to| *key < to)
        };
        let key = record_key("cache", "orders", b"a");
        assert!(inside("cache", &key));
        assert!(!inside("cach", &key) && !inside("cache2", &key));
        assert_ne!(key, record_key("cache", "orders", b"b"));
        let long = record_key("cache", "orders", &[7; KEY_BYTES_MAX]);
        assert!(long.len() <= KEY_BYTES_MAX && inside("cache", &long));
        assert_ne!(long, record_key("cache", "orders", &[8; KEY_BYTES_MAX]));
    }

    #[test]
    fn any_key_is_stored_whole() {
        for key in [&b"text"[..], &[0xff, 0], b"", &[0xfe; 3000]] {
            let text = serde_json::to_string(&StoredKey::new(key)).unwrap();
            let read: StoredKey = serde_json::from_str(&text).unwrap();
            assert_eq!(read.bytes().unwrap(), key);
        }
    }
}
