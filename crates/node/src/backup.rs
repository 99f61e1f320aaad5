//! Consistent copies of a running node: the last checkpoint and the log, entry by entry, every
//! checksum verified on the way. The copy is a fork: it gets a log id of its own, because from its
//! end on it may go another way, and a store that follows one must never follow the other.
//!
//! Whichever node of a cluster makes it, the copy is one of node 1, alone: the members are left out
//! of the state, and an entry that changes them is an empty one. Positions and indexes stay. It can be
//! opened alone, and grow again; the former cluster's nodes are not connected to it, whose log has
//! another id.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{
    Disk, HardState, HardStateRead, Log, LogOptions, LogReader, Place, ReadError, RealDisk,
    make_folder,
};
use onelog_record::{Entry, EntryHeader, EntryKind, Index, NodeId, Position, Term};
use onelog_replica::READ_REPLICA;
use onelog_state::{State, StateOptions};

use crate::Node;
use crate::copy::{UNFINISHED_LOG, finish_copy};
use crate::folder::{ApartError, check_apart, entries, shown};

const STATE: &str = "state";
/// How many bytes of the log are copied at once.
const COPY_BYTES: usize = 8 << 20;

/// A copy was not made. What was written of it is gone, unless the process ended meanwhile; the folder
/// still shows that it is no copy: remove it before trying again.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder cannot be used.
    #[error("cannot use the folder {folder}: {cause}")]
    Folder { folder: String, cause: io::Error },
    /// The folder is in the node's own, or around it.
    #[error(transparent)]
    Apart(#[from] ApartError),
    /// The folder holds something.
    #[error("the folder {folder} is not empty, it holds {entries}; choose a new one")]
    NotEmpty { folder: String, entries: String },
    /// The state could not be copied.
    #[error(transparent)]
    State(#[from] onelog_state::CopyError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] onelog_log::ReadError),
    /// The copy of the log could not be made.
    #[error("the copy of the log could not be written: {0}")]
    Write(String),
    /// The folder of a member cannot be opened.
    #[error("the folder cannot be opened: {0}")]
    Member(String),
    /// The log was cut while it was copied, past what the copied checkpoint needs.
    #[error("the log was cut while it was copied; try again")]
    Overtaken,
}

/// The entry as a node that is alone has it: without a change of the members.
fn of_one_node(entry: Entry) -> Entry {
    if entry.header.kind != EntryKind::Membership {
        return entry;
    }
    let header = EntryHeader {
        timestamp_ms: entry.header.timestamp_ms,
        ..EntryHeader::empty(EntryKind::NoOp, entry.header.base_offset)
    };
    Entry {
        header,
        body: Bytes::new(),
        ..entry
    }
}

fn write_failed(cause: impl std::fmt::Display) -> BackupError {
    BackupError::Write(cause.to_string())
}

impl Node {
    /// Copies the node into an empty folder while it runs; answers the position of the copy, which
    /// has every transaction below it and none above. Blocks.
    pub fn backup(&self, into: &Path) -> Result<Position, BackupError> {
        let folder = |cause| BackupError::Folder {
            folder: into.display().to_string(),
            cause,
        };
        check_apart(&self.shared.options.folder, into)?;
        make_folder(into).map_err(folder)?;
        let held = entries(into).map_err(folder)?;
        if !held.is_empty() {
            return Err(BackupError::NotEmpty {
                folder: into.display().to_string(),
                entries: shown(&held),
            });
        }
        self.copy_into(into).inspect_err(|_| remove_parts(into))
    }

    fn copy_into(&self, into: &Path) -> Result<Position, BackupError> {
        let folder = |cause| BackupError::Folder {
            folder: into.display().to_string(),
            cause,
        };
        // Joined before anything is read: retention stays where it is until the copy is made.
        let held = self.follower("backup", self.log_start());
        let log_disk: Arc<dyn Disk> =
            Arc::new(RealDisk::open(into.join(UNFINISHED_LOG)).map_err(folder)?);
        let state_disk = RealDisk::open(into.join(STATE)).map_err(folder)?;
        let checkpoint = self.shared.state.copy_base_alone(&state_disk)?;
        let copy = LogCopy {
            reader: &self.shared.reader,
            log_start: self.log_start(),
            checkpoint: checkpoint.index,
            last: self.shared.applied_index(),
            segment_bytes: self.shared.options.segment_bytes,
        };
        let position = copy.run(log_disk)?;
        drop(held);
        finish_copy(into).map_err(folder)?;
        Ok(position)
    }
}

/// A part of a copy takes room and is of no use but to show that the copy is none: the empty folder of
/// its log stays for that. All of it is the copy's own, since the folder was empty before.
fn remove_parts(of: &Path) {
    let log = of.join(UNFINISHED_LOG);
    let removed = match std::fs::remove_dir_all(of.join(STATE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if !log.exists() => Ok(()),
        _ => std::fs::remove_dir_all(&log).and_then(|()| std::fs::create_dir(&log)),
    };
    if let Err(error) = removed {
        tracing::warn!(folder = %of.display(), %error, "what a failed copy has written was not removed");
    }
}

/// A log of one node that was made of a member's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The member whose folder it was; none of a read replica, which has no number.
    pub node: Option<NodeId>,
    /// Everything below it is in.
    pub position: Position,
    /// The member knew that everything below it is committed, and nothing of what is behind it.
    pub committed: Position,
    /// How many entries are behind that.
    pub beyond: u64,
}

/// Makes a log of one node of all that the folder of a stopped member has, for the time when too few
/// members are left to ever lead again. What the member did not know to be committed is in: of that,
/// some may have been acknowledged and some not. `member` is changed as by a start of the node: give
/// it a copy. [`finish_copy`] ends it. Blocks.
pub fn restore_alone(member: &Path, into: &Path) -> Result<Survivor, BackupError> {
    let folder = |cause| BackupError::Folder {
        folder: into.display().to_string(),
        cause,
    };
    let disk = |name: &str| RealDisk::open(member.join(name)).map_err(folder);
    let (log, found) = Log::open(Arc::new(disk("log")?), LogOptions::default())
        .map_err(|error| BackupError::Member(error.to_string()))?;
    let HardStateRead::Present(was) = found.hard_state else {
        return Err(BackupError::Member("its log is empty".to_owned()));
    };
    let (state, opened) = State::open(Arc::new(disk("state")?), StateOptions::default())
        .map_err(|error| BackupError::Member(error.to_string()))?;
    if opened.applied.index > found.last_index {
        let cause = "its log ends before its state, which came from another member and was not taken in yet: start the node, which needs no others for that, stop it, and restore it then";
        return Err(BackupError::Member(cause.to_owned()));
    }
    let reader = log.reader();
    let log_disk = RealDisk::open(into.join(UNFINISHED_LOG)).map_err(folder)?;
    let state_disk = RealDisk::open(into.join(STATE)).map_err(folder)?;
    let copy = LogCopy {
        reader: &reader,
        log_start: found.start,
        checkpoint: state.copy_base_alone(&state_disk)?.index,
        last: found.last_index,
        segment_bytes: LogOptions::default().segment_bytes,
    };
    let position = copy.run(Arc::new(log_disk))?;
    let committed = was.commit.min(found.last_index);
    let place = reader.place(committed)?;
    Ok(Survivor {
        node: Some(NodeId(was.node)).filter(|node| *node != READ_REPLICA),
        position,
        committed: place.map_or(found.start, |place| place.end),
        beyond: found.last_index.get() - committed.get(),
    })
}

/// A log as it is copied for one node.
struct LogCopy<'l> {
    reader: &'l LogReader,
    log_start: Position,
    /// The last entry of the copied checkpoint.
    checkpoint: Index,
    /// The last entry to copy.
    last: Index,
    segment_bytes: u64,
}

impl LogCopy<'_> {
    fn run(&self, disk: Arc<dyn Disk>) -> Result<Position, BackupError> {
        let options = LogOptions {
            segment_bytes: self.segment_bytes,
            ..LogOptions::default()
        };
        let (mut copy, _) = Log::open(disk, options).map_err(write_failed)?;
        let last = self.last;
        let mut hard_state = HardState {
            term: Term::ZERO,
            vote: 0,
            commit: Index::ZERO,
            durable: Index::ZERO,
            clean: false,
            log_id: rand::random(),
            node: onelog_replica::FOUNDER.get(),
        };
        copy.save_hard_state(&hard_state).map_err(write_failed)?;
        let mut position = Position::ZERO;
        let mut at = self.first_to_copy()?;
        if at > Index::ZERO.next() {
            let place = self.place_before(at)?;
            copy.restart_behind(place).map_err(write_failed)?;
            (hard_state.term, position) = (place.term, place.end);
        }
        while at <= last {
            let entries = self.reader.entries(at, last.next(), COPY_BYTES);
            let entries = entries.map_err(|error| match error {
                ReadError::Cut { .. } => BackupError::Overtaken,
                error => error.into(),
            })?;
            let entries: Vec<Entry> = entries.into_iter().map(of_one_node).collect();
            // A state of another node, and the log behind it, have taken the place of these.
            let Some(end) = entries.last() else {
                return Err(BackupError::Overtaken);
            };
            (at, position) = (end.index.next(), end.header.end());
            hard_state.term = end.term;
            for flush in copy.stage(&entries).map_err(write_failed)? {
                flush.run().map_err(write_failed)?;
                copy.flushed(flush.number);
            }
        }
        hard_state.commit = last;
        hard_state.clean = true;
        copy.close(&hard_state).map_err(write_failed)?;
        Ok(position)
    }

    /// The first entry that a copy has: that of the log, where it is one that follows the checkpoint.
    fn first_to_copy(&self) -> Result<Index, BackupError> {
        let reader = self.reader;
        if reader.place(Index::ZERO)?.is_some() {
            return Ok(Index::ZERO.next());
        }
        // A search by position passes over entries without records: there may be some before the one
        // that it finds, and there may be no others.
        let entries = reader.entries_from(self.log_start, self.last.next(), 1)?;
        let next = self.checkpoint.next();
        Ok(entries.first().map_or(next, |entry| entry.index.min(next)))
    }

    /// Where the copy of a log begins whose start was cut.
    fn place_before(&self, first: Index) -> Result<Place, BackupError> {
        let reader = self.reader;
        let before = Index(first.get() - 1);
        if let Some(place) = reader.place(before)? {
            return Ok(place);
        }
        // The checkpoint has everything: a state that another node has sent, since when nothing was
        // written. The log does not begin behind it any more.
        if first > self.last {
            return Err(BackupError::Overtaken);
        }
        // Copies of before do not say what was before their first entry.
        let entries = reader.entries(first, first.next(), 1)?;
        let base = entries.first().map(|entry| entry.header.base_offset);
        Ok(Place {
            index: before,
            end: base.map_or(self.log_start, |base| Position(base.get())),
            ..Place::START
        })
    }
}
