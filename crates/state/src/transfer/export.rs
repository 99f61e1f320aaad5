//! Reading the last checkpoint as a stream of chunks.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata};

use super::{CURSOR_BYTES_MAX, ChunkWriter, Cursor, Head, Malformed};
use crate::digest::{Digest, IdsHasher, scan_digest};
use crate::ids::{ID_BYTES, chunk_len};
use crate::key::split_base_key;
use crate::state::State;
use crate::tree::{Applied, Base, ReadError};

/// A chunk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The B-tree cannot be read.
    #[error("the state cannot be read for a transfer: {0}")]
    Read(#[from] ReadError),
    /// The cursor came from elsewhere.
    #[error("the cursor of a transfer cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// Nothing is behind the cursor.
    #[error("nothing is behind the cursor of a transfer: it belongs to another checkpoint")]
    NothingBehind,
}

/// The state's last checkpoint, on its way to another node.
///
/// It keeps the checkpoint's pages in the file for as long as it lives, while later checkpoints write
/// new ones beside them: drop it when the transfer has ended or nothing was requested for a while.
/// The receiver can go on with another export of the same checkpoint, and begins again with one of a
/// later checkpoint.
#[derive(Debug)]
pub struct Export {
    base: Arc<Base>,
    rows: u64,
    ids: u64,
    /// The number of the first id behind all of them.
    ids_end: u64,
    digest: Digest,
    ids_digest: u128,
}

impl State {
    /// Pins the last checkpoint to read it for another node. Reads the remembered ids, and all rows
    /// where their digest is not known yet. Blocks.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn export(&self) -> Result<Export, ReadError> {
        let base = self.shared.views().current.base.clone();
        let ids_max = self.shared.options.ids_max as u64;
        base.read_on(&|base| {
            let digest = match base.digest {
                Some(digest) => digest,
                None => scan_digest(&base.rows).map_err(ReadError::tree)?,
            };
            let (ids_first, ids_end) = ids_bounds(base)?;
            let mut export = Export {
                base: Arc::clone(base),
                rows: base.rows.len().map_err(ReadError::tree)?,
                ids: (ids_end - ids_first).min(ids_max),
                ids_end,
                digest,
                ids_digest: 0,
            };
            let mut hasher = IdsHasher::default();
            export.visit_ids(base, export.ids, &mut |packed| {
                hasher.add(packed);
                true
            })?;
            export.ids_digest = hasher.finish();
            Ok(export)
        })
    }
}

/// The number of the first id, and the one behind the last.
fn ids_bounds(base: &Base) -> Result<(u64, u64), ReadError> {
    let first = base.ids.first().map_err(ReadError::tree)?;
    let last = base.ids.last().map_err(ReadError::tree)?;
    let (Some((first, _)), Some((last, chunk))) = (first, last) else {
        return Ok((0, 0));
    };
    let len = chunk_len(chunk.value()).ok_or_else(damaged_ids)?;
    Ok((first.value(), last.value().saturating_add(len)))
}

fn damaged_ids() -> ReadError {
    ReadError::tree(redb::Error::Corrupted(
        "the remembered ids are not as they were written".into(),
    ))
}

impl Export {
    /// The place of the checkpoint.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.base.applied
    }

    /// The members there, as they were set.
    #[must_use]
    pub fn members(&self) -> Option<&Bytes> {
        self.base.members.as_ref()
    }

    /// What the stream will bring. `checksum` is the chain checksum (`frame_crc`) of the entry at
    /// [`applied`](Self::applied), which the log knows.
    #[must_use]
    pub fn head(&self, checksum: u32) -> Head {
        Head {
            applied: self.base.applied,
            checksum,
            members: self.base.members.clone(),
            rows: self.rows,
            ids: self.ids,
            digest: self.digest,
            ids_digest: self.ids_digest,
        }
    }

    /// The chunk that begins at a cursor: [`Import::wanted`](super::Import::wanted) of the receiver.
    ///
    /// # Errors
    /// When the B-tree cannot be read, or the cursor is none of this checkpoint.
    pub fn chunk(&self, cursor: &[u8]) -> Result<Vec<u8>, ExportError> {
        let cursor = Cursor::decode(cursor)?;
        let chunk = self.base.read_on(&|base| {
            let mut chunk = ChunkWriter::begin(base.applied.index, cursor);
            match cursor {
                Cursor::Rows(behind) => add_rows(base, behind, &mut chunk)?,
                Cursor::Ids(left) if left > self.ids => {}
                Cursor::Ids(left) => self.visit_ids(base, left, &mut |packed| {
                    let has_room = chunk.has_room(packed.len());
                    if has_room {
                        chunk.ids(packed);
                    }
                    has_room
                })?,
            }
            Ok(chunk)
        })?;
        if chunk.count() == 0 {
            return Err(ExportError::NothingBehind);
        }
        Ok(chunk.finish())
    }

    /// Shows the newest `left` ids, packed, oldest first, a stored chunk at a time, until `visit`
    /// says that it is enough.
    fn visit_ids(
        &self,
        base: &Base,
        left: u64,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), ReadError> {
        let mut next = self.ids_end - left;
        // The chunk that holds the first of them begins at or before it.
        let before = base
            .ids
            .range(..=next)
            .map_err(ReadError::tree)?
            .next_back();
        let start = match before {
            Some(row) => row.map_err(ReadError::tree)?.0.value(),
            None => next,
        };
        for row in base.ids.range(start..).map_err(ReadError::tree)? {
            let (first, chunk) = row.map_err(ReadError::tree)?;
            let skipped = next.checked_sub(first.value()).ok_or_else(damaged_ids)?;
            let len = chunk_len(chunk.value()).ok_or_else(damaged_ids)?;
            if skipped > len {
                return Err(damaged_ids());
            }
            let packed = &chunk.value()[skipped as usize * ID_BYTES..];
            next += len - skipped;
            if !packed.is_empty() && !visit(packed) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn add_rows(base: &Base, behind: &[u8], chunk: &mut ChunkWriter) -> Result<(), ReadError> {
    let from = match behind {
        [] => Bound::Unbounded,
        _ => Bound::Excluded(behind),
    };
    let rows = base.rows.range::<&[u8]>((from, Bound::Unbounded));
    for row in rows.map_err(ReadError::tree)? {
        let (key, value) = row.map_err(ReadError::tree)?;
        let (key, value) = (key.value(), value.value());
        let (table, row_key) = split_base_key(key).ok_or_else(|| ReadError::short_key(key))?;
        let (_, _) = base.split_value(table, row_key, value)?;
        if key.len() >= CURSOR_BYTES_MAX {
            return Err(ReadError::Row {
                table,
                key: Bytes::copy_from_slice(row_key),
                what: "its key is longer than any that can be written",
            });
        }
        if !chunk.has_room(key.len() + value.len()) {
            break;
        }
        chunk.row(key, value);
    }
    Ok(())
}
