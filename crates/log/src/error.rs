//! One error per operation; each keeps its cause and says where and what to do.

use std::fmt;
use std::io;

use onelog_record::{Index, Position};

use crate::{HardStateError, NewerFormat, is_no_space};

/// What to do with a node whose files have lost something, as the end of a message. A backup under a
/// member's number would be a node that has forgotten what it voted for and acknowledged.
pub const RESTORE_OR_REPLACE: &str = "alone, restore a backup; in a cluster, remove this node from it and add a new one, empty and under a new number";

/// Bytes on disk are not what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    pub file: String,
    pub at: u64,
    /// The entry that is missing or damaged.
    pub index: Index,
    pub what: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            at,
            index,
            what,
        } = self;
        write!(f, "{file}, byte {at}, entry {index}: {what}")
    }
}

/// The file of a segment is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSegment {
    /// The first number that no file has.
    pub number: u64,
    /// The names of the files before and behind the gap.
    pub before: Option<String>,
    pub after: Option<String>,
    /// The last entry that was in it, as far as is known.
    pub last: Index,
}

impl fmt::Display for MissingSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, last, .. } = self;
        write!(f, "the file of segment {number} is missing ")?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(
                f,
                "between {before} and {after}, and with it entries up to {last}"
            ),
            (None, Some(after)) => write!(
                f,
                "at the log's beginning, before {after}, and with it entries up to {last}"
            ),
            (Some(before), None) => write!(
                f,
                "at the log's end, behind {before}: entries up to {last} were durable"
            ),
            (None, None) => write!(
                f,
                "and so is every other one: entries up to {last} were durable"
            ),
        }
    }
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options make no sense.
    #[error("the log's options are wrong: {0}")]
    Options(String),
    /// Acknowledged entries are damaged or missing.
    #[error("the log is corrupt: {0}; nothing was changed; {RESTORE_OR_REPLACE}")]
    Corrupt(Corruption),
    /// A file that must be there is not.
    #[error(
        "the log is incomplete: {0}; nothing was changed; if that file was moved away, move it back (never an older copy of it); else, {RESTORE_OR_REPLACE}"
    )]
    Missing(MissingSegment),
    /// The files were made by a newer version of onelog.
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    /// The hard state cannot be read.
    #[error(transparent)]
    HardState(#[from] HardStateError),
    #[error("the disk failed while the log was opened ({doing}): {source}")]
    Io { doing: String, source: io::Error },
}

impl OpenError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// A damaged entry was not put back.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The log does not have the entry, and nothing says that it had it.
    #[error("entry {0} does not lie in the log: there is nothing to mend")]
    NotThere(Index),
    /// Its frame is as it should be.
    #[error("entry {0} is not damaged")]
    Whole(Index),
    /// Another entry must be mended first.
    #[error("an earlier entry must be mended first: {0}")]
    Before(Corruption),
    /// More than one frame is gone at the log's end.
    #[error(
        "the log ends at entry {last}, and entries up to {durable} were durable: the disk has lost acknowledged entries, which cannot be mended"
    )]
    LostTail { last: Index, durable: Index },
    /// Only a committed entry may be put where nothing vouches for it.
    #[error(
        "entry {0} is the log's last one, and the copy of it is not known to be committed; try again when it is"
    )]
    NotCommitted(Index),
    /// It is not the entry that was there.
    #[error("entry {index} of another log or history cannot be put here: {what}")]
    Other { index: Index, what: String },
    /// The log's files cannot be read, or the disk failed.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Entries cannot be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// There is no hard state yet: it must be saved first.
    #[error("no hard state was ever saved: save it before the first entry")]
    NoHardState,
    /// A write or flush failed earlier. This is final for the process.
    #[error("the log has stopped: a write or flush failed earlier; restart to recover")]
    Stopped,
    /// Too much is on its way to the disk; try again when a flush has ended.
    #[error(
        "{staged} bytes are on their way to the disk and {more} more would pass the bound of {max}; wait for a flush"
    )]
    InFlight {
        /// Staged and not yet durable, in bytes.
        staged: usize,
        more: usize,
        max: usize,
    },
    /// The entries do not continue the log. Nothing was staged.
    #[error("entry {index} does not continue the log: {what}")]
    OutOfOrder { index: Index, what: String },
}

/// A flush failed. This is final: it is never tried again.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The file was to be made by this flush.
    #[error(
        "the segment {file} for new entries could not be made or opened: {source}; restart to recover"
    )]
    Segment { file: String, source: io::Error },
    #[error("writing {bytes} bytes to {file} at byte {at} failed: {source}")]
    Write {
        file: String,
        at: u64,
        bytes: usize,
        source: io::Error,
    },
    #[error("flushing {file} failed: {source}")]
    Sync { file: String, source: io::Error },
    #[error("the thread {thread} panicked: {message}; this is a fault of onelog, please report it")]
    Panicked { thread: String, message: String },
    /// An earlier one failed, or this one was run before: nothing was written.
    #[error("the log has stopped: a write or flush failed earlier; restart to recover")]
    Stopped,
}

/// The end of the log was not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Flushes are in flight.
    #[error("{0} flushes are in flight: wait for them first")]
    InFlight(usize),
    /// The index does not lie in the log.
    #[error("entry {from} does not lie in the log, which holds {first} to {last}")]
    Outside {
        from: Index,
        first: Index,
        last: Index,
    },
    /// Entries that are committed are never cut.
    #[error(
        "the log was to be cut from entry {from} on, but is committed up to {committed}; this is a fault of onelog, please report it"
    )]
    Committed { from: Index, committed: Index },
    /// The log has stopped.
    #[error("the log has stopped: a write or flush failed earlier; restart to recover")]
    Stopped,
    /// The disk failed. This is final; recovery completes what was begun.
    #[error("the disk failed while the end of the log was cut: {0}; restart to recover")]
    Io(#[from] io::Error),
    /// The log could not be read.
    #[error("the log could not be read while its end was cut: {0}")]
    Read(#[from] ReadError),
}

/// The log was not begun anew.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// Flushes are in flight.
    #[error("{0} flushes are in flight: wait for them first")]
    InFlight(usize),
    /// There is no hard state yet.
    #[error("no hard state was ever saved: save it before the log is begun anew")]
    NoHardState,
    /// Committed entries behind the new begin would be lost.
    #[error(
        "the log was to begin anew behind entry {at}, but is committed up to {committed}; this is a fault of onelog, please report it"
    )]
    Committed { at: Index, committed: Index },
    /// No entry can follow.
    #[error("the log was to begin anew behind the highest index that there is")]
    LastIndex,
    /// The log has stopped.
    #[error("the log has stopped: a write or flush failed earlier; restart to recover")]
    Stopped,
    /// The disk failed. This is final; the next opening finds the old log or the new one.
    #[error("the disk failed while the log was begun anew: {0}; restart to recover")]
    Io(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The log has stopped.
    #[error("the log has stopped: a write or flush failed earlier; restart to recover")]
    Stopped,
    /// The disk failed. This is final; recovery completes what was begun.
    #[error("the disk failed while old segments were dropped: {0}; restart to recover")]
    Io(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What was requested is no longer in the log.
    #[error(
        "the log begins at entry {first_index}, position {start}: what lies before was dropped"
    )]
    Cut {
        /// The first entry that is there.
        first_index: Index,
        /// The first position that is there.
        start: Position,
    },
    /// Durable bytes are damaged. They are not served.
    #[error("the log is corrupt: {0}; {RESTORE_OR_REPLACE}")]
    Corrupt(Corruption),
    #[error("reading {file} failed: {source}")]
    Io { file: String, source: io::Error },
}

/// A file could not be made ready ahead of time. The log goes on without it.
#[derive(Debug, thiserror::Error)]
#[error("preparing the log's next files failed: {0}")]
pub struct PrepareError(#[from] pub(crate) io::Error);

impl PrepareError {
    /// Whether there was no room for it.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        is_no_space(&self.0)
    }
}

/// The log could not be closed in order. Nothing acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Flushes are in flight.
    #[error("{0} flushes are in flight: wait for them first")]
    InFlight(usize),
    /// The log has stopped.
    #[error("the log has stopped: a write or flush failed earlier")]
    Stopped,
    #[error("the disk failed while the log was closed: {0}")]
    Io(#[from] io::Error),
}
