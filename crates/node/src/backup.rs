//! Consistent copies of a running node: the last checkpoint and the log, entry by entry, every
//! checksum verified on the way. The copy is a fork: it gets a log id of its own, because from its
//! end on it may go another way, and a store that follows one must never follow the other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use onelog_log::{Disk, HardState, Log, LogOptions, Place, RealDisk, make_folder};
use onelog_record::{Index, Position, Term};

use crate::Node;
use crate::copy::{UNFINISHED_LOG, finish_copy};
use crate::folder::{entries, shown};

/// How many bytes of the log are copied at once.
const COPY_BYTES: usize = 8 << 20;

/// A copy was not made. The folder may hold a part of it: remove it before trying again.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder cannot be used.
    #[error("cannot use the folder {folder}: {cause}")]
    Folder { folder: String, cause: io::Error },
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
    /// A copy would have the cluster's members, and could not be opened alone.
    #[error(
        "this node has other members in its cluster, and a copy of it could not be opened alone yet; the other nodes are the copies"
    )]
    Members,
    /// The log was cut while it was copied, past what the copied checkpoint needs.
    #[error("the log was cut while it was copied; try again")]
    Overtaken,
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
        if let Some(cluster) = self.cluster()
            && cluster.members.len() > 1
        {
            return Err(BackupError::Members);
        }
        make_folder(into).map_err(folder)?;
        let held = entries(into).map_err(folder)?;
        if !held.is_empty() {
            return Err(BackupError::NotEmpty {
                folder: into.display().to_string(),
                entries: shown(&held),
            });
        }
        // Joined before anything is read: retention stays where it is until the copy is made.
        let held = self.follower("backup", self.log_start());
        let log_disk: Arc<dyn Disk> =
            Arc::new(RealDisk::open(into.join(UNFINISHED_LOG)).map_err(folder)?);
        let state_disk = RealDisk::open(into.join("state")).map_err(folder)?;
        let checkpoint = self.shared.state.copy_base(&state_disk)?;
        let position = self.copy_log(log_disk, checkpoint.index)?;
        drop(held);
        finish_copy(into).map_err(folder)?;
        Ok(position)
    }

    fn copy_log(&self, disk: Arc<dyn Disk>, checkpoint: Index) -> Result<Position, BackupError> {
        let options = LogOptions {
            segment_bytes: self.shared.options.segment_bytes,
            ..LogOptions::default()
        };
        let (mut copy, _) = Log::open(disk, options).map_err(write_failed)?;
        let last = self.shared.applied_index();
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
        let start = self.log_start();
        let mut at = if start == Position::ZERO {
            // Nothing was cut. A search by position would pass over the first entry, which has no
            // record.
            Index::ZERO.next()
        } else {
            let entries = self.shared.reader.entries_from(start, last.next(), 1)?;
            entries.first().map_or(last, |entry| entry.index)
        };
        if at > checkpoint.next() {
            return Err(BackupError::Overtaken);
        }
        if at > Index::ZERO.next() {
            let place = self.place_before(at)?;
            copy.restart_behind(place).map_err(write_failed)?;
        }
        while at <= last {
            let entries = self.shared.reader.entries(at, last.next(), COPY_BYTES)?;
            let Some(end) = entries.last() else { break };
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

    /// Where the copy of a log begins whose start was cut.
    fn place_before(&self, first: Index) -> Result<Place, BackupError> {
        let reader = &self.shared.reader;
        let before = Index(first.get() - 1);
        if let Some(place) = reader.place(before)? {
            return Ok(place);
        }
        // Copies of before do not say what was before their first entry.
        let entries = reader.entries(first, first.next(), 1)?;
        let base = entries.first().map(|entry| entry.header.base_offset);
        Ok(Place {
            index: before,
            end: base.map_or(self.log_start(), |base| Position(base.get())),
            ..Place::START
        })
    }
}
