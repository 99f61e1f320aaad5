//! The right to take a store from another log (`take_from_log`), which holds once.
//!
//! The record of a sink in `onelog.sinks` says in `taken_from_log` that the right of its definition is
//! used up. That is committed before the store is taken over, so whatever ends a node in between,
//! neither it nor another one takes the store twice by one definition. The thread that has committed
//! it has the right until a takeover has succeeded.
//!
//! What is used up stays so while the definition names that log, whatever else of it changes. A
//! definition without it ends that: the next one that names the log gives a new right.

use bytes::Bytes;
use onelog::{CommitRequest, Guard, Operation, Predicate, Write};
use onelog_record::TABLE_SINKS;
use onelog_store::Store;
use serde_json::Value;

use crate::error::SinkFault;
use crate::feed::Feed;
use crate::session_end::SessionEnd;

/// The field of a sink's record.
pub(crate) const TAKEN_FROM_LOG: &str = "taken_from_log";
const TAKE_FROM_LOG: &str = "take_from_log";

/// What a sink's thread has of its definition's right.
#[derive(Debug, Default)]
pub(crate) struct Permission {
    is_held: bool,
}

impl Permission {
    /// The log that the store may be taken from in the next takeover.
    pub(crate) fn take<'f>(
        &mut self,
        feed: &'f Feed,
        store: &mut dyn Store,
    ) -> Result<Option<&'f str>, SessionEnd> {
        let Some(from) = feed.definition.take_from_log.as_deref() else {
            return Ok(None);
        };
        if !self.is_held && may_be_used(feed, from, store)? {
            self.is_held = true;
        }
        Ok(self.is_held.then_some(from))
    }

    /// A takeover has succeeded.
    pub(crate) const fn use_up(&mut self) {
        self.is_held = false;
    }
}

/// Whether the right to take a store from this log is still there; then it is used up in the log. A
/// store that is of neither log, or cannot be reached, uses nothing up.
fn may_be_used(feed: &Feed, from: &str, store: &mut dyn Store) -> Result<bool, SessionEnd> {
    let retry = |what: String| SessionEnd::Retry(SinkFault::new(what));
    let name = Bytes::from(feed.definition.name.clone());
    let row = feed.node.snapshot().get(TABLE_SINKS, &name);
    let Some(row) = row.map_err(|error| retry(error.to_string()))? else {
        return Ok(false);
    };
    if is_used_up(&row.value, from) {
        return Ok(false);
    }
    let followed = store.followed()?.map(|found| found.log_id);
    if followed.is_some_and(|log| log != from && log != feed.log_id) {
        return Ok(false);
    }
    let Some(record) = used_up(&row.value, from) else {
        return Ok(false);
    };
    let request = CommitRequest {
        guards: vec![Guard {
            table: TABLE_SINKS,
            key: name.clone(),
            predicate: Predicate::Version(row.version),
        }],
        writes: vec![Write {
            table: TABLE_SINKS,
            key: name,
            operation: Operation::Put(record),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    };
    let committed = feed.node.submit_system(request).wait();
    committed.map_err(|refusal| {
        retry(format!(
            "that the store is taken from another log (take_from_log) could not be recorded: {refusal}"
        ))
    })?;
    Ok(true)
}

/// Whether a sink's record says that its right to take a store from this log is used up.
pub(crate) fn is_used_up(record: &[u8], from: &str) -> bool {
    let record: Option<Value> = serde_json::from_slice(record).ok();
    record.is_some_and(|record| record[TAKEN_FROM_LOG] == from)
}

/// The record of a sink, with its right used up. `None`: its definition does not name this log.
fn used_up(record: &[u8], from: &str) -> Option<Bytes> {
    let mut record: Value = serde_json::from_slice(record).ok()?;
    if record[TAKE_FROM_LOG] != from {
        return None;
    }
    record[TAKEN_FROM_LOG] = from.into();
    Some(record.to_string().into())
}

/// The record that follows another one of the same sink: what was used up stays so where both name the
/// log.
pub(crate) fn carried(before: &[u8], next: Bytes) -> Bytes {
    let before: Option<Value> = serde_json::from_slice(before).ok();
    let taken = before
        .as_ref()
        .and_then(|before| before[TAKEN_FROM_LOG].as_str());
    let carried = taken.and_then(|taken| used_up(&next, taken));
    carried.unwrap_or(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_up_stays_so_while_the_definition_names_the_log() {
        let fresh = Bytes::from_static(br#"{"name":"s","take_from_log":"a"}"#);
        assert!(!is_used_up(&fresh, "a"));
        let used = used_up(&fresh, "a").unwrap();
        assert!(is_used_up(&used, "a") && !is_used_up(&used, "b"));
        let changed = Bytes::from_static(br#"{"name":"s","paused":true,"take_from_log":"a"}"#);
        assert!(is_used_up(&carried(&used, changed), "a"));
        for other in [
            &br#"{"name":"s"}"#[..],
            &br#"{"name":"s","take_from_log":"b"}"#[..],
        ] {
            let other = Bytes::from_static(other);
            assert_eq!(carried(&used, other.clone()), other);
            assert!(!is_used_up(&carried(&other, fresh.clone()), "a"));
        }
        assert_eq!(used_up(b"not JSON", "a"), None);
    }

    #[test]
    fn the_record_is_as_it_is_drawn() {
        let used = used_up(br#"{"name":"s","take_from_log":"a"}"#, "a").unwrap();
        let drawn = r#"{"name":"s","take_from_log":"a","taken_from_log":"a"}"#;
        assert_eq!(used, drawn);
    }
}
