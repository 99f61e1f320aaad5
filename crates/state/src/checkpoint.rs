//! A checkpoint: a frozen memtable goes into the B-tree, sorted, in one durable transaction that
//! also says how far the tree now reaches.
//!
//! A crash before the commit returns leaves the tree at the checkpoint before; the log replays
//! the rest. A failure is final: the tree refuses to be used further and the process stops. Only
//! where there was no room to write, the tree is opened again at the checkpoint before, for redb
//! takes no call after one that failed, and the same memtable can be written later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_record::Position;
use redb::{ReadableTable, Table, WriteTransaction};

use crate::digest::{Digest, Running, StateDigest, scan_digest};
use crate::drops::Drops;
use crate::fault::ReadFault;
use crate::ids::{CHUNK_IDS, RememberedId, chunk_len, encode_chunk};
use crate::key::VersionKey;
use crate::memtable::Memtable;
use crate::meta::{META, Meta, write_applied};
use crate::planted::{self, Bug};
use crate::snapshot::Reach;
use crate::state::Shared;
use crate::tree::{Applied, IDS, OpenError, ROWS, Tree, write_value};

/// A checkpoint failed. Final unless there was no room: stop, and let the log rebuild what is missing.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Writing the state file failed.
    #[error(
        "the checkpoint at position {position} failed: {source}. The log has everything it would have written; the process must stop"
    )]
    Tree {
        /// Where the checkpoint would have reached.
        position: Position,
        source: Box<redb::Error>,
    },
    /// What the checkpoint changes could not be read, or a read failed before.
    #[error("the checkpoint at position {position} failed: {source}")]
    Read {
        position: Position,
        source: ReadFault,
    },
    /// There was no room on the disk. The state is as before.
    #[error("the checkpoint at position {position} found no room on the disk: {source}")]
    NoSpace {
        position: Position,
        source: Box<redb::Error>,
        /// To be run again when there is more room.
        checkpoint: Box<Checkpoint>,
    },
    /// The tree cannot be opened again after a checkpoint that found no room.
    #[error("the state cannot be opened again after a checkpoint that found no room: {0}")]
    Reopen(#[source] Box<OpenError>),
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Where the tree reaches now.
    pub position: Position,
    /// The digest of its rows: equal on every replica that has a checkpoint at the same place.
    pub digest: StateDigest,
    /// How many keys were written or deleted.
    pub keys: u64,
    pub duration: Duration,
}

/// A frozen memtable on its way into the B-tree. Run it on any thread; while it is neither run
/// nor dropped no other begins, and dropping it ends checkpoints for good.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) shared: Arc<Shared>,
    pub(crate) memtable: Arc<Memtable>,
    pub(crate) applied: Applied,
    pub(crate) ids: VecDeque<RememberedId>,
    pub(crate) drops: Drops,
    /// The members at that place, where they were set since the checkpoint before.
    pub(crate) members: Option<Bytes>,
    /// A kept view that memory was too short for. Freeing it takes time, so it happens here.
    pub(crate) discarded: Option<Arc<Reach>>,
}

impl Checkpoint {
    /// Where the tree will reach.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.applied.position
    }

    /// Writes the memtable into the tree and lets readers read from there.
    ///
    /// # Errors
    /// When the disk fails: final. When it is full: the checkpoint is in the error.
    pub fn run(mut self) -> Result<CheckpointReport, CheckpointError> {
        drop(self.discarded.take());
        let begun = Instant::now();
        let position = self.applied.position;
        let len = self.shared.file_len();
        let (keys, digest) = match self.write() {
            Ok(written) => written,
            Err(source) if is_no_space(&source) => {
                let reopened = len.and_then(|len| self.shared.reopen(len));
                reopened.map_err(|error| {
                    self.shared.views().end_bases(None);
                    CheckpointError::Reopen(Box::new(error))
                })?;
                return Err(CheckpointError::NoSpace {
                    position,
                    source: Box::new(source),
                    checkpoint: Box::new(self),
                });
            }
            Err(source) => {
                self.shared.views().end_bases(None);
                return Err(match self.shared.tree().fault() {
                    Some(source) => CheckpointError::Read { position, source },
                    None => CheckpointError::Tree {
                        position,
                        source: Box::new(source),
                    },
                });
            }
        };
        let duration = begun.elapsed();
        tracing::debug!(position = position.0, keys, ?duration, "checkpoint");
        Ok(CheckpointReport {
            position,
            digest: StateDigest {
                applied: self.applied,
                digest,
            },
            keys,
            duration,
        })
    }

    fn write(&self) -> Result<(u64, Digest), redb::Error> {
        let (shared, applied) = (&self.shared, self.applied);
        let batch = Batch {
            memtable: &self.memtable,
            applied,
            ids: &self.ids,
            ids_max: shared.options.ids_max,
            drops: &self.drops,
            members: match planted::is(Bug::MembersOfLaterEntry) {
                true => shared.last_members().or_else(|| self.members.clone()),
                false => self.members.clone(),
            },
        };
        let tree = shared.tree();
        let written = batch.write(&tree)?;
        let base = tree.view()?;
        assert_eq!(
            base.applied, applied,
            "the tree reads back the position that was committed with it"
        );
        shared.publish(Arc::new(base));
        Ok(written)
    }
}

struct Batch<'c> {
    memtable: &'c Memtable,
    applied: Applied,
    ids: &'c VecDeque<RememberedId>,
    ids_max: usize,
    drops: &'c Drops,
    members: Option<Bytes>,
}

impl Batch<'_> {
    fn write(&self, tree: &Tree) -> Result<(u64, Digest), redb::Error> {
        if planted::is(Bug::PositionOutsideCheckpoint) {
            let early = tree.begin_write()?;
            write_applied(&early, self.applied)?;
            early.commit()?;
        }
        let transaction = tree.begin_write()?;
        let before = Meta::read(&transaction.open_table(META)?)?;
        let (keys, digest) = self.write_rows(&transaction, Running::new(before.digest))?;
        self.write_ids(&transaction)?;
        let meta = Meta {
            applied: self.applied,
            members: self.members.clone().or(before.members),
            digest: Some(digest),
            // What was applied since is in the log, so the log begins there.
            installed: None,
        };
        meta.write(&transaction)?;
        transaction.commit()?;
        Ok((keys, digest))
    }

    fn write_rows(
        &self,
        transaction: &WriteTransaction,
        mut digest: Running,
    ) -> Result<(u64, Digest), redb::Error> {
        let mut rows = transaction.open_table(ROWS)?;
        self.drops.remove_from(&mut rows, &mut digest)?;
        let mut keys = 0;
        let mut last: Option<VersionKey> = None;
        let mut key_bytes = Vec::new();
        let mut value_bytes = Vec::new();
        for entry in self.memtable.versions.iter() {
            let key = entry.key();
            // Versions of a key are side by side, newest first.
            if last.as_ref().is_some_and(|last| key.is_same_key(last)) {
                continue;
            }
            last = Some(key.clone());
            if self.drops.hides(key) {
                continue;
            }
            key_bytes.clear();
            key_bytes.extend_from_slice(&key.table().0.to_be_bytes());
            key.write_key(&mut key_bytes);
            keys += 1;
            match entry.value() {
                Some(value) => {
                    write_value(&mut value_bytes, key.offset(), value);
                    digest.add(&key_bytes, &value_bytes);
                    if let Some(old) = rows.insert(key_bytes.as_slice(), value_bytes.as_slice())? {
                        digest.take_away(&key_bytes, old.value());
                    }
                }
                None if planted::is(Bug::TombstoneLost) => {}
                None => {
                    let old = rows.remove(key_bytes.as_slice())?;
                    if let Some(old) = old
                        && !planted::is(Bug::DigestForgetsDeletes)
                    {
                        digest.take_away(&key_bytes, old.value());
                    }
                }
            }
        }
        let digest = match digest.digest {
            Some(digest) => digest,
            None => {
                tracing::info!(
                    "the state has no digest of its rows yet; reading all of them, once"
                );
                scan_digest(&rows)?
            }
        };
        Ok((keys, digest))
    }

    /// Appends the ids and forgets whole chunks in front of the window.
    fn write_ids(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(IDS)?;
        let mut next = match table.last()? {
            None => 0,
            Some((first, chunk)) => first.value() + chunk_len(chunk.value()).unwrap_or(0),
        };
        let (front, back) = self.ids.as_slices();
        let mut ids = front.iter().chain(back).peekable();
        while ids.peek().is_some() {
            let chunk = encode_chunk(ids.by_ref().take(CHUNK_IDS));
            table.insert(next, chunk.as_slice())?;
            next += chunk_len(&chunk).unwrap_or(0);
        }
        let window_start = next.saturating_sub(self.ids_max as u64);
        while let Some((first, len)) = first_chunk(&table)? {
            if first + len > window_start {
                break;
            }
            table.remove(first)?;
        }
        Ok(())
    }
}

pub(crate) fn is_no_space(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(source) if onelog_log::is_no_space(source))
}

fn first_chunk(table: &Table<'_, u64, &[u8]>) -> Result<Option<(u64, u64)>, redb::Error> {
    let row = table.first()?;
    Ok(row.map(|(first, chunk)| (first.value(), chunk_len(chunk.value()).unwrap_or(0))))
}
