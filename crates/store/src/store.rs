//! The contract between the runner and a store. `conformance` tests its sentences on every
//! implementation.
//!
//! A store holds, beside the rows, one record per sink: the log's id, the position with the checksum
//! of the log's chain there, the epoch and the plan's fingerprint.
//!
//! ```text
//!   nothing ── take_over ──▶ epoch, no position ── rebuild ──▶ epoch, position P
//!                                                                 │ apply (P, Q]
//!                                                                 ▼
//!                                                            epoch, position Q
//! ```
//!
//! The usual order of calls: `open`, `check_target`, `take_over`, `position`; then `check_shape` and
//! batches where the position is one of this log, else a rebuild and batches behind it.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use bytes::Bytes;
use onelog_mapping::{MappingPlan, Row, show_key};
use onelog_record::{Offset, Position};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::batch::{Batch, Change};
use crate::mismatch::Remedy;

/// How long a batch should take where others wait while it is applied.
pub const BATCH_TIME: Range<Duration> = Duration::from_millis(50)..Duration::from_millis(200);

/// A place in one history of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub position: Position,
    /// What the log's chain of checksums says there: it differs where a log of the same id was put
    /// back to an older copy and went another way since. `None`: not known.
    pub chain: Option<u32>,
}

impl From<Position> for LogPlace {
    fn from(position: Position) -> Self {
        Self {
            position,
            chain: None,
        }
    }
}

/// The position of a store, as the store itself keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePosition {
    /// The store equals this log …
    pub log_id: String,
    /// … at this position …
    pub position: Position,
    /// … of the history with this checksum; see [`LogPlace`].
    pub chain: Option<u32>,
    /// The number of the last takeover.
    pub epoch: u64,
}

/// What a sink follows, whatever its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    pub log_id: String,
    /// How far the store got; of a store in several parts, the part that got furthest. `None`: it was
    /// never backfilled, or a takeover under another plan has forgotten the position since.
    pub place: Option<LogPlace>,
}

/// Rows that no mapping of a sink names any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What they are called in the store, for messages.
    pub name: String,
    pub rows: u64,
}

/// What the end of a rebuild may do to the rows that a mapping's table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Whatever makes it equal to the log.
    Anything,
    /// It deletes so many of them at most.
    Deletes(u64),
    /// They are others': it deletes and changes none of them, nor what is written meanwhile.
    Untouched,
}

impl Guard {
    /// How many rows may be deleted. `None`: any number.
    #[must_use]
    pub const fn deletes_max(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Deletes(most) => Some(most),
            Self::Untouched => Some(0),
        }
    }
}

/// A store that follows the log. One value belongs to one sink and one thread.
///
/// - Every method that changes the store MUST do so in one atomic step: a reader sees all of it or
///   nothing, and so does a process that opens the store after a crash at any instruction.
/// - Every method that changes the store, except `take_over`, MUST check the epoch in that same step:
///   after a later takeover it changes nothing and answers [`StoreError::Fenced`], and where the epoch
///   is lower than its own [`StoreError::PutBack`]; see [`StoreError::of_epoch`].
/// - After an error that [`StoreError::is_retryable`], the store is dropped and opened again; the
///   position that is then read MUST show whether the step took place.
/// - A store MUST NOT remember a position: each call answers what the store holds.
/// - Durability MAY lag behind atomicity: a store that loses its newest steps in a power failure
///   loses rows and position together, and the log fills the gap.
/// - For tests, `apply` MUST come to the place `before_commit` of [`failpoint`](crate::failpoint) when
///   everything is prepared and nothing is visible, and `finish_rebuild` SHOULD come to `before_swap`
///   and, when its step has taken place, to `after_swap`.
pub trait Store: Send {
    /// The position of the store. `None` when it was never backfilled under this plan, which is not the
    /// same as position 0: nothing is known about its rows. A position of another log is answered as
    /// it is, with that log's id. `epoch` is the last takeover, of this value or a later one.
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError>;

    /// What the sink of this name follows in this store, under any plan. `None`: the store knows no
    /// such sink. MAY be called before a takeover.
    fn followed(&mut self) -> Result<Option<Followed>, StoreError>;

    /// With which epoch a sink begins that the store does not know: 1, unless this is called before the
    /// takeover. What the store forgot of a former sink of this name is its epoch as well; a process
    /// that still writes for that one must not be taken for one of the new sink. So the runner gives
    /// one here that is above all that a former sink can have had.
    fn set_first_epoch(&mut self, epoch: u64);

    /// Takes the sink over: raises its epoch by one, in the store, and answers it. From then on a rival
    /// that took over earlier MUST change nothing and get [`StoreError::Fenced`]. MUST be called before
    /// anything that changes the store. A position that was reached under another plan MUST be forgotten
    /// here.
    ///
    /// Where the store knows the sink as one of another log, this MUST change nothing and answer
    /// [`StoreError::OtherLog`], unless that log is `from`: then the sink is this log's from now on,
    /// without a position.
    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError>;

    /// [`Store::take_over_from`], where no other log's sink may be taken.
    fn take_over(&mut self) -> Result<u64, StoreError> {
        self.take_over_from(None)
    }

    /// Fails where this sink's tables cannot be written: a name belongs to another owner, a place
    /// cannot be written. MUST NOT change rows. MAY be called before a takeover.
    fn check_target(&mut self) -> Result<(), StoreError>;

    /// The mappings whose tables hold rows of others: each was there before this sink, which has not
    /// backfilled it yet. MAY be called before a takeover.
    fn foreign_tables(&mut self) -> Result<Vec<usize>, StoreError> {
        Ok(Vec::new())
    }

    /// What the next backfill deletes beside rows of the mappings: what this sink wrote and no mapping
    /// names any more. MAY be called before a takeover.
    fn leftovers(&mut self) -> Result<Vec<Leftover>, StoreError> {
        Ok(Vec::new())
    }

    /// Fails with [`StoreError::SchemaMismatch`] where a table is no longer as the plan defines it, or
    /// no longer as it was when it was backfilled, so that its values may have changed with it, or is
    /// another one of its name. By what that is seen MUST be kept in the steps that it is about, so
    /// that it is seen whether a session was open or not. The runner calls this in each session and
    /// once a minute.
    fn check_shape(&mut self) -> Result<(), StoreError>;

    /// Applies a batch and moves the position from `batch.from` to `batch.to`, with `batch.chain` beside
    /// it, in one atomic step.
    /// - MUST check, in that same step, the epoch, the log's id and that the store is at
    ///   `batch.from`: otherwise it changes nothing and answers `Fenced` or `PositionMismatch`.
    /// - A row that the store refuses MUST fail the whole step with [`StoreError::Refused`], which
    ///   names table, key and offset, and holds the message of the store. It SHOULD name the other
    ///   rows of the batch that are refused in the same error: what is not named costs an attempt.
    /// - SHOULD do deletes before upserts. An upsert writes every column.
    /// - A delete MUST NOT fail where there is no such row, nor where the key has no place in the
    ///   table at all: an earlier put of that key was never in the store.
    /// - SHOULD write `batch.changes`; `batch.in_order` is for stores in which one row can exclude
    ///   another, as with unique columns.
    /// - A batch without changes moves the position all the same.
    /// - A batch from P to P is a repair: the same checks, and its rows MUST be written, or deleted,
    ///   regardless of what the store has there.
    /// - SHOULD notice in that same step that a table was redefined since its statements were made, and
    ///   then change nothing and answer `Unavailable` or `SchemaMismatch`. Where a product cannot
    ///   tell, `check_shape` finds it a minute later, and the store's page says so.
    /// - After `Refused` the store MUST stay usable: the batch comes again without that record.
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// How long a batch should take while there is a backlog: below, the next one is larger, above,
    /// smaller. Long batches cost less for each row, but locks are held and others wait meanwhile.
    fn batch_time(&self) -> Range<Duration> {
        BATCH_TIME
    }

    /// Whether what was applied is visible only after [`Store::publish`]. Then the runner publishes
    /// when the end of the log is reached, and from time to time before; a client that waits for a
    /// position waits for that.
    fn publishes(&self) -> bool {
        false
    }

    /// Shows readers everything that was applied. A takeover MUST do so too.
    fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Begins to backfill new tables beside the old ones, which stay readable and unchanged. Rows of an
    /// earlier, unfinished rebuild MUST NOT be in it.
    fn begin_rebuild(&mut self) -> Result<(), StoreError>;

    /// Adds rows of one mapping to the new tables. Keys come in order, each once; all are puts. A
    /// refused row MUST leave what earlier calls loaded, and nothing of its own call: the others are
    /// loaded again without it.
    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError>;

    /// What the end of a rebuild may do to the rows that are there, by mapping; none was given: all. A
    /// store that writes into tables which others can write MUST hold to it in the atomic step of
    /// [`Store::finish_rebuild`], or fail with [`StoreError::Guarded`] and change nothing: what was
    /// counted before may be another number by then. One that replaces tables SHOULD do so as well.
    fn guard(&mut self, _guards: &[Guard]) {}

    /// Whether [`Store::finish_rebuild`] counts by their keys what it deletes, also of tables that it
    /// replaces, and holds to the guards by that. Else the runner counts once more before it.
    fn counts_deletes(&self) -> bool {
        false
    }

    /// Records of these keys are refused in this rebuild, so no row of theirs was loaded; comes before
    /// [`Store::finish_rebuild`], once for a mapping at most. `true`: the rows that are there are merged
    /// into, and those of these keys stay as they are, neither deleted nor changed nor counted for the
    /// guard. `false`: new tables take the place of the old ones, which go with all their rows.
    fn keep(&mut self, _mapping: usize, _keys: &[&[u8]]) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Puts the new tables in the place of the old ones and sets position, chain, log and plan, in one
    /// atomic step. SHOULD fail, and change nothing, where a table belongs to another sink by now.
    ///
    /// A store whose tables refuse rows only now answers `Refused`, which names all that it found, and
    /// has taken them out of the new tables: the step can be tried again without them, and the rows that
    /// are there of these keys stay, as [`Store::keep`] says.
    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError>;

    /// Opens a consistent snapshot of the store at its position; it lives on its own and MUST NOT
    /// change when batches are applied later, nor hold them up. MUST fail where
    /// [`Store::position`] is `None`.
    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// Forgets the sink: its position, its epoch, an unfinished rebuild. The rows stay, without an
    /// owner, until another sink takes their names.
    fn remove(&mut self) -> Result<(), StoreError>;
}

/// What a scan calls for each row.
pub type EachRow<'f> = &'f mut dyn FnMut(&Row) -> ControlFlow<()>;

/// A consistent snapshot of a store.
pub trait StoreReader: Send {
    /// The position of the snapshot.
    fn position(&self) -> Position;

    /// Gives every row of a mapping once, in any order, with its cells in the plan's order and in
    /// canonical form: a cell that was written as projected MUST come back equal.
    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError>;

    /// As [`StoreReader::scan`], for a mapping that has the column of the key alone: what a row holds
    /// beside its key MUST NOT matter.
    fn scan_keys(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        self.scan(mapping, each)
    }

    /// Compares a mapping's full-text index with the rows it covers. `None` when there is no index.
    fn check_index(
        &mut self,
        mapping: usize,
        faults_max: usize,
    ) -> Result<Option<IndexCheck>, StoreError>;
}

/// What is wrong with a full-text index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexCheck {
    pub faults_total: u64,
    /// Descriptions of the first ones.
    pub faults: Vec<String>,
}

/// A record that the store does not take.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the record at offset {offset} of table '{table}', key {key}, is refused: {what}")]
pub struct Refused {
    pub table: String,
    /// The key as [`show_key`] shows it.
    pub key: Value,
    /// The key as it is in the log.
    pub key_bytes: Bytes,
    pub offset: Offset,
    /// The table of the store, where it is known: one record can go into several.
    pub into: Option<String>,
    /// The message of the store, or why the value does not fit its column.
    pub what: String,
    /// Other records of the same call that are refused as well, where the store looked for them.
    pub more: Vec<Refused>,
}

pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or used now; trying again later can help.
    #[error("{what}: {cause}")]
    Unavailable {
        /// What was tried, and where.
        what: String,
        cause: Cause,
    },
    /// The store answers and takes no writes for now: a replica that waits for its promotion, a
    /// full disk, a block. It passes, and needs a new connection, which may lead to another server.
    #[error("{what}: not writable now: {cause}")]
    NotWritable {
        /// What was tried, and where.
        what: String,
        cause: Cause,
    },
    /// The store lets the sink not in: the user or the password is not one of its own now. Passwords
    /// change and users are locked for a while, so trying again later can help.
    #[error("{what}: {cause}")]
    NoAccess {
        /// What was tried, and where.
        what: String,
        cause: Cause,
    },
    /// A record cannot be stored.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// Another process took the sink over.
    #[error(
        "another process took this sink over in the store (epoch {found}, ours is {ours}); stop one of the two, then resume"
    )]
    Fenced { ours: u64, found: u64 },
    /// The store is an older copy of itself: a failover to a server that missed the last takeover, a
    /// restore in place. Opening it again and going on from the position that it has is right.
    #[error(
        "the store was put back to an older copy: its epoch is {found}, and this process raised it to {ours}. No other process did this; the sink is taken over again, and followed from the position that the store has"
    )]
    PutBack { ours: u64, found: u64 },
    /// The sink of this name is another log's.
    #[error(
        "this store follows another log: its sink of this name belongs to the log {found}, and this log is {ours}; give the sink another name and other tables, or, if this log is to have the store and its rows from now on, \"take_from_log\": \"{found}\" in its definition. That holds once: a definition that has it already has used it up: delete the sink then, which keeps the rows, and make it again"
    )]
    OtherLog { ours: String, found: String },
    /// The store is not at the position where the batch begins.
    #[error("{}{}", place_of(found), expected.map_or_else(String::new, |p| format!("; onelog left it at position {p}")))]
    PositionMismatch {
        /// `None`: it is not known where the step that failed would have begun.
        expected: Option<Position>,
        found: Option<StorePosition>,
    },
    /// A table is not as the mapping needs it.
    #[error("the table '{into}' in the store does not fit its mapping: {what}{remedy}")]
    SchemaMismatch {
        into: String,
        what: String,
        remedy: Remedy,
    },
    /// The definition names something that is not there, or not there now: a database can be renamed
    /// and made again. `field` is its place in the definition.
    #[error("{what}: {cause}")]
    NoSuchPlace {
        field: &'static str,
        /// What was tried, and where.
        what: String,
        cause: Cause,
    },
    /// A name belongs to another sink, or to no sink at all.
    #[error("'{into}' in the store is not this sink's: {what}")]
    NotOwner {
        into: String,
        /// The sink that has it.
        owner: Option<String>,
        /// Its owner, and what to do.
        what: String,
    },
    /// A rebuild would do more to the rows that are there than its [`Guard`] allows.
    #[error(
        "making '{into}' equal to the log would delete {deletes} and change {changes} of its {rows} rows; nothing was changed"
    )]
    Guarded {
        into: String,
        rows: u64,
        deletes: u64,
        changes: u64,
    },
    /// The store is damaged or is something else.
    #[error("{what}: {cause}")]
    Broken {
        /// What was found, and where.
        what: String,
        cause: Cause,
    },
}

/// What programs tell the errors of stores apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorCode {
    Unavailable,
    NotWritable,
    NoAccess,
    Refused,
    Fenced,
    OtherLog,
    PositionMismatch,
    SchemaMismatch,
    NotOwner,
    Broken,
}

impl StoreErrorCode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::NotWritable => "not_writable",
            Self::NoAccess => "no_access",
            Self::Refused => "refused",
            Self::Fenced => "fenced",
            Self::OtherLog => "other_log",
            Self::PositionMismatch => "position_mismatch",
            Self::SchemaMismatch => "schema_mismatch",
            Self::NotOwner => "not_owner",
            Self::Broken => "broken",
        }
    }
}

impl Serialize for StoreErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn place_of(found: &Option<StorePosition>) -> String {
    match found {
        Some(found) => format!("the store is at position {}", found.position),
        None => "the store has no position of this sink, as before a backfill is done, or after the store was wiped or replaced"
            .to_owned(),
    }
}

impl StoreError {
    /// Whether opening the store again and reading its position can help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::NotWritable { .. }
                | Self::NoAccess { .. }
                | Self::NoSuchPlace { .. }
                | Self::PositionMismatch { .. }
                | Self::PutBack { .. }
        )
    }

    #[must_use]
    pub const fn code(&self) -> StoreErrorCode {
        match self {
            Self::Unavailable { .. } => StoreErrorCode::Unavailable,
            Self::NotWritable { .. } => StoreErrorCode::NotWritable,
            Self::Refused(_) => StoreErrorCode::Refused,
            Self::Fenced { .. } => StoreErrorCode::Fenced,
            Self::OtherLog { .. } => StoreErrorCode::OtherLog,
            Self::PositionMismatch { .. } | Self::PutBack { .. } => {
                StoreErrorCode::PositionMismatch
            }
            Self::SchemaMismatch { .. } => StoreErrorCode::SchemaMismatch,
            Self::NotOwner { .. } | Self::Guarded { .. } => StoreErrorCode::NotOwner,
            Self::NoAccess { .. } | Self::NoSuchPlace { .. } => StoreErrorCode::NoAccess,
            Self::Broken { .. } => StoreErrorCode::Broken,
        }
    }

    /// The store has another epoch than ours: a higher one is a later takeover's.
    #[must_use]
    pub const fn of_epoch(ours: u64, found: u64) -> Self {
        if found < ours {
            Self::PutBack { ours, found }
        } else {
            Self::Fenced { ours, found }
        }
    }

    pub fn refused(
        plan: &MappingPlan,
        key: &[u8],
        offset: Offset,
        what: impl fmt::Display,
    ) -> Self {
        Self::Refused(Box::new(Refused {
            table: plan.table_name.clone(),
            key: show_key(key),
            key_bytes: Bytes::copy_from_slice(key),
            offset,
            into: Some(plan.into.clone()),
            what: what.to_string(),
            more: Vec::new(),
        }))
    }

    /// A name that another sink has, by a `fact` that names it.
    pub fn owned(into: impl Into<String>, owner: &str, fact: impl fmt::Display) -> Self {
        Self::NotOwner {
            into: into.into(),
            owner: Some(owner.to_owned()),
            what: format!(
                "{fact}, which may reach it at another address; choose another name, or delete that sink. If there is none any more, because it was deleted or moved while this store was away, release what it left, with its former definition: onelog sinks forget"
            ),
        }
    }

    /// The same where the sink that has the name follows another log.
    #[must_use]
    pub fn of_sink_of_log(mut self, log: &str, ours: &str) -> Self {
        if let Self::NotOwner { what, .. } = &mut self {
            what.push_str(&format!(
                ". That sink belongs to another log, {log}, and this log is {ours}: it is deleted, or forgotten, by a server of its own log"
            ));
        }
        self
    }

    pub fn refused_change(plan: &MappingPlan, change: &Change, what: impl fmt::Display) -> Self {
        Self::refused(plan, &change.key, change.offset, what)
    }

    /// The same where the store does not say which of its tables refused the record.
    pub fn in_some_table(mut self) -> Self {
        if let Self::Refused(refused) = &mut self {
            refused.into = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_wiped_is_called_so() {
        let error = StoreError::PositionMismatch {
            expected: Some(Position(5)),
            found: None,
        };
        let gone = "the store has no position of this sink, as before a backfill is done, or after the store was wiped or replaced";
        assert_eq!(
            error.to_string(),
            format!("{gone}; onelog left it at position 5")
        );
        // No position is made up where none is known.
        let error = StoreError::PositionMismatch {
            expected: None,
            found: None,
        };
        assert_eq!(error.to_string(), gone);
    }
}
