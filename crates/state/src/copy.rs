//! Reading the whole B-tree in order: for a backup, and for comparing it with the log.

use std::io;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use onelog_log::Disk;
use onelog_record::{Offset, TableId};
use redb::CursorError;

use crate::backend::{STATE_FILE, begin_file, open_file, publish_file};
use crate::fault::ReadFault;
use crate::key::split_base_key;
use crate::meta::Meta;
use crate::state::State;
use crate::tree::{Applied, Base, IDS, OpenError, ROWS, ReadError, Tree};

/// Is shown the table, key, version and value of each row; may break off.
pub type RowVisitor<'v> = dyn FnMut(TableId, &[u8], Offset, &[u8]) -> ControlFlow<()> + 'v;

/// The B-tree could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is a state already.
    #[error("the folder to copy into already holds a state ('{STATE_FILE}'); choose an empty one")]
    Exists,
    /// The new file could not be made.
    #[error("making the copy failed: {0}")]
    Make(#[from] OpenError),
    /// What would be copied could not be read as it was written.
    #[error("copying the state failed: {0}")]
    Read(#[from] ReadFault),
    /// Reading the one tree or writing the other failed.
    #[error("copying the state failed: {0}")]
    Tree(Box<redb::Error>),
}

fn tree_failed(source: impl Into<redb::Error>) -> CopyError {
    CopyError::Tree(Box::new(source.into()))
}

/// The cause of a failure to append a row.
pub(crate) fn append_failed(error: CursorError) -> redb::Error {
    match error {
        CursorError::Storage(source) => source.into(),
        other => io::Error::other(other.to_string()).into(),
    }
}

impl State {
    /// Copies the last checkpoint into another folder as a fresh state file, written in key
    /// order. Answers how far it reaches. Reading and writing go on meanwhile.
    ///
    /// # Errors
    /// When there is a state already, or a disk fails.
    pub fn copy_base(&self, into: &dyn Disk) -> Result<Applied, CopyError> {
        let base = self.shared.views().current.base.clone();
        self.copy(&base, base.members.clone(), into)
    }

    /// [`State::copy_base`] without the members: the copy is one of a node that began its log alone.
    ///
    /// # Errors
    /// As those of [`State::copy_base`].
    pub fn copy_base_alone(&self, into: &dyn Disk) -> Result<Applied, CopyError> {
        let base = self.shared.views().current.base.clone();
        self.copy(&base, None, into)
    }

    fn copy(
        &self,
        base: &Base,
        members: Option<Bytes>,
        into: &dyn Disk,
    ) -> Result<Applied, CopyError> {
        if open_file(into)?.is_some() {
            return Err(CopyError::Exists);
        }
        let copy = Tree::create(begin_file(into)?, &self.shared.options)?;
        copy_rows(base, members, &copy).map_err(|error| match base.tree.fault() {
            Some(fault) => CopyError::Read(fault),
            None => error,
        })?;
        drop(copy);
        publish_file(into)?;
        Ok(base.applied)
    }

    /// Shows every row of the last checkpoint to `visit`, in order of table and key, until it
    /// breaks. Answers how far the checkpoint reaches.
    ///
    /// # Errors
    /// When the B-tree cannot be read or holds a row that was never written.
    pub fn scan_base(&self, visit: &mut RowVisitor<'_>) -> Result<Applied, ReadError> {
        let base = self.shared.views().current.base.clone();
        let failed = |source| base.first_failure(ReadError::tree(source));
        for row in base.rows.range::<&[u8]>(..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let (table, key) =
                split_base_key(key.value()).ok_or_else(|| ReadError::short_key(key.value()))?;
            let (version, value) = base.split_value(table, key, value.value())?;
            if visit(table, key, version, value).is_break() {
                break;
            }
        }
        Ok(base.applied)
    }
}

fn copy_rows(from: &Base, members: Option<Bytes>, to: &Tree) -> Result<(), CopyError> {
    let transaction = to.begin_write().map_err(tree_failed)?;
    {
        let mut rows = transaction.open_table(ROWS).map_err(tree_failed)?;
        let mut end = rows
            .upper_bound_mut(Bound::<&[u8]>::Unbounded)
            .map_err(tree_failed)?;
        for row in from.rows.range::<&[u8]>(..).map_err(tree_failed)? {
            let (key, value) = row.map_err(tree_failed)?;
            end.insert_before(key.value(), value.value())
                .map_err(|error| tree_failed(append_failed(error)))?;
        }
        end.close().map_err(tree_failed)?;
        let mut ids = transaction.open_table(IDS).map_err(tree_failed)?;
        for chunk in from.ids.range::<u64>(..).map_err(tree_failed)? {
            let (first, chunk) = chunk.map_err(tree_failed)?;
            ids.insert(first.value(), chunk.value())
                .map_err(tree_failed)?;
        }
    }
    let meta = Meta {
        applied: from.applied,
        members,
        digest: from.digest,
        installed: None,
    };
    meta.write(&transaction).map_err(tree_failed)?;
    transaction.commit().map_err(tree_failed)
}
