//! Whether anything that the client read was written since.

use bytes::Bytes;
use onelog_record::{Offset, PointRead, Position, Refusal, Subject, TableId, TableKind};

use crate::newest::Now;
use crate::planted::{self, Bug};
use crate::rejection::Rejection;
use crate::view::{Rules, TableRules};
use crate::window::WriteWindow;

/// The rules of a table that can be read: live and keyed.
pub fn keyed_table(
    rules: &dyn Rules,
    table: TableId,
    subject: impl Fn() -> Subject,
) -> Result<&TableRules, Rejection> {
    let Some(found) = rules.table(table) else {
        return Err(Rejection::now(Refusal::UnknownTable {
            subject: subject(),
            table,
        }));
    };
    if found.definition.kind == TableKind::Stream {
        return Err(Rejection::malformed(format!(
            "{:?} names table '{}', which is a stream: it has events but no state that could be read or compared",
            subject(),
            found.definition.name
        )));
    }
    Ok(found)
}

fn written_since(version: Offset, position: Position) -> bool {
    if planted::is(Bug::OffByOneRead) {
        return version.0 > position.0;
    }
    !position.sees(version)
}

/// The refusal of a read position at which a key cannot be decided.
pub fn too_old(now: &Now<'_>, read_position: Position) -> Rejection {
    Rejection::now(Refusal::SnapshotTooOld {
        read_position,
        floor: now.view.floor(),
    })
}

pub fn conflict(
    now: &Now<'_>,
    subject: Subject,
    table: TableId,
    key: Bytes,
    version: Offset,
) -> Rejection {
    // A write in flight has a row; without one (two keys share a fingerprint) wait for everything.
    let after = match now.overlay.get(table, &key) {
        Some(row) => now.in_flight(row.end),
        None if version.0 >= now.applied.0 => now.everything(),
        None => Position::ZERO,
    };
    let retry_at = now.readable(after);
    Rejection::after(
        Refusal::Conflict {
            subject,
            table,
            key,
            version,
            retry_at,
        },
        after,
    )
}

/// Refuses a point read whose key was written at or after the read position.
pub fn check_point(
    now: &Now<'_>,
    window: &WriteWindow,
    fingerprint: u64,
    index: usize,
    read: &PointRead,
    read_position: Position,
) -> Result<(), Rejection> {
    let version = if window.covers(read_position) {
        let version = window.last_write(fingerprint);
        if planted::is(Bug::ValidateCommittedOnly) {
            version.filter(|version| version.0 < now.applied.0)
        } else {
            version
        }
    } else {
        let newest = now.newest(read.table, &read.key)?;
        if newest.version.is_none() && read_position < now.view.floor() {
            return Err(too_old(now, read_position));
        }
        newest.version
    };
    match version {
        Some(version) if written_since(version, read_position) => Err(conflict(
            now,
            Subject::PointRead(index),
            read.table,
            read.key.clone(),
            version,
        )),
        _ => Ok(()),
    }
}
