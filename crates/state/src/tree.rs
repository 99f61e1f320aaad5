//! The B-tree on disk: one redb file that is only ever changed by checkpoints.
//!
//! ```text
//! table "state": table u32 BE | key            → version u64 LE | value
//! table "ids":   number of the chunk's first id → packed ids (see ids.rs)
//! table "meta":  see meta.rs; "format" → u32 LE, only in files without a header page
//! ```
//! Every transaction is durable when it returns. The position is written in the transaction of
//! the rows that it covers: whatever instant a crash picks, the tree is exactly one checkpoint.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::RESTORE_OR_REPLACE;
use onelog_record::{Index, KeyRange, Offset, Position, TableId, Term, panic_message};
use redb::{
    Database, Durability, Range, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction,
};

use crate::backend::Backend;
use crate::cursor::Candidate;
use crate::digest::Digest;
use crate::fault::{FirstFault, REBUILD, ReadFault};
use crate::ids::{RememberedId, chunk_len, decode_chunk};
use crate::key::{base_key, split_base_key, with_base_key};
use crate::memtable::Found;
use crate::meta::{Installed, META, Meta};
use crate::options::StateOptions;
use crate::successor::Successor;

pub(crate) const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
pub(crate) const IDS: TableDefinition<u64, &[u8]> = TableDefinition::new("ids");
const META_FORMAT: &str = "format";
/// The format of a file without a header page.
const BARE_FORMAT: u32 = 1;

const VERSION_BYTES: usize = 8;

/// How far the log has been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Every record below it is in.
    pub position: Position,
    /// The last applied entry; zero before the first.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The highest timestamp of the entries so far; no later one may be below it.
    pub timestamp_ms: u64,
}

/// The state could not be opened. It can always be had again: by replaying the log, when it
/// still reaches back to offset 0, or from a backup or a peer.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed while the file was looked for or made.
    #[error("the disk failed at the state file '{file}': {source}")]
    Disk {
        file: &'static str,
        source: std::io::Error,
    },
    /// The file cannot be read as a B-tree.
    #[error("the state file is unreadable: {source}. {REBUILD} {RESTORE_OR_REPLACE}")]
    Unreadable { source: Box<redb::Error> },
    /// The B-tree gave up over the file's contents.
    #[error("the state file is damaged ({0}). {REBUILD} {RESTORE_OR_REPLACE}")]
    Damaged(String),
    /// A page could not be read as it was written.
    #[error(transparent)]
    Page(#[from] ReadFault),
    /// The file was made by a newer version of onelog.
    #[error(transparent)]
    Newer(#[from] onelog_log::NewerFormat),
}

/// The B-tree could not answer a read. Final: what it would say is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A page could not be read as it was written.
    #[error(transparent)]
    Page(#[from] ReadFault),
    /// Reading the file failed.
    #[error("reading the state file failed: {source}")]
    Tree { source: Box<redb::Error> },
    /// A row is not as it was written.
    #[error(
        "the state file holds a damaged row in table {table}, key {key:?}: {what}. {REBUILD} {RESTORE_OR_REPLACE}"
    )]
    Row {
        table: TableId,
        key: Bytes,
        what: &'static str,
    },
}

impl ReadError {
    pub(crate) fn tree(source: impl Into<redb::Error>) -> Self {
        let source = source.into();
        match ReadFault::of(&source) {
            Some(fault) => Self::Page(fault.clone()),
            None => Self::Tree {
                source: Box::new(source),
            },
        }
    }

    /// Whether the tree refuses to be read because another call had failed.
    fn is_of_an_earlier_failure(&self) -> bool {
        matches!(self, Self::Tree { source } if matches!(**source, redb::Error::PreviousIo))
    }

    pub(crate) fn short_key(key: &[u8]) -> Self {
        Self::Row {
            table: TableId::ZERO,
            key: Bytes::copy_from_slice(key),
            what: "its key is shorter than a table's number",
        }
    }
}

pub(crate) fn unreadable(source: impl Into<redb::Error>) -> OpenError {
    let source = source.into();
    match ReadFault::of(&source) {
        Some(fault) => OpenError::Page(fault.clone()),
        None => OpenError::Unreadable {
            source: Box::new(source),
        },
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    database: Database,
    fault: FirstFault,
}

impl Tree {
    /// Makes an empty state of the empty file behind `backend`.
    pub(crate) fn create(backend: Backend, options: &StateOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_with(backend, options, Self::initialize)
    }

    /// Makes a tree without contents of the empty file behind `backend`: until it says how far it
    /// was applied, it is no state.
    pub(crate) fn create_unfinished(
        backend: Backend,
        options: &StateOptions,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_with(backend, options, |tree| {
            let transaction = tree.begin_write().map_err(unreadable)?;
            transaction.open_table(ROWS).map_err(unreadable)?;
            transaction.open_table(IDS).map_err(unreadable)?;
            transaction.commit().map_err(unreadable)
        })
    }

    /// Opens the file behind `backend`.
    pub(crate) fn open(backend: Backend, options: &StateOptions) -> Result<Arc<Self>, OpenError> {
        let is_bare = backend.is_bare();
        Self::open_with(backend, options, |tree| match is_bare {
            true => tree.check_bare_format(),
            false => Ok(()),
        })
    }

    fn open_with(
        backend: Backend,
        options: &StateOptions,
        begin: impl FnOnce(&Self) -> Result<(), OpenError>,
    ) -> Result<Arc<Self>, OpenError> {
        let fault = backend.fault();
        let first = fault.clone();
        // redb may panic over a file that was altered behind its back. Nothing that a panic could
        // leave half changed outlives this call.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Database::builder()
                .set_cache_size(options.cache_bytes)
                .set_check_integrity_on_open(options.check_integrity)
                .create_with_backend(backend)
                .map_err(unreadable)?;
            let tree = Self { database, fault };
            begin(&tree)?;
            Ok(Arc::new(tree))
        }));
        let opened = opened.unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            Err(OpenError::Damaged(
                message.unwrap_or("no further message").to_owned(),
            ))
        });
        opened.map_err(|error| first.get().map_or(error, OpenError::Page))
    }

    /// Writes the first checkpoint, of nothing, into a new file.
    fn initialize(&self) -> Result<(), OpenError> {
        let transaction = self.begin_write().map_err(unreadable)?;
        transaction.open_table(ROWS).map_err(unreadable)?;
        transaction.open_table(IDS).map_err(unreadable)?;
        let meta = Meta {
            applied: Applied::default(),
            members: None,
            digest: Some(Digest::default()),
            installed: None,
        };
        meta.write(&transaction).map_err(unreadable)?;
        transaction.commit().map_err(unreadable)
    }

    fn check_bare_format(&self) -> Result<(), OpenError> {
        let transaction = self.database.begin_read().map_err(unreadable)?;
        let meta = transaction.open_table(META).map_err(unreadable)?;
        let format = meta.get(META_FORMAT).map_err(unreadable)?;
        match format.and_then(|bytes| u32_of(bytes.value())) {
            Some(BARE_FORMAT) => Ok(()),
            Some(format) => Err(OpenError::Damaged(format!(
                "it has no header page and names the format {format}"
            ))),
            None => Err(OpenError::Damaged("it names no format".into())),
        }
    }

    /// Begins a transaction that is durable, and cheap to recover from, once it is committed.
    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    /// The failure after which the tree can never be read again: nothing opens it anew.
    pub(crate) fn fault(&self) -> Option<ReadFault> {
        self.fault.get()
    }

    /// The tree as it is now; later checkpoints do not change it.
    pub(crate) fn view(self: &Arc<Self>) -> Result<Base, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = Meta::read(&transaction.open_table(META)?)?;
        Ok(Base {
            applied: meta.applied,
            members: meta.members,
            digest: meta.digest,
            installed: meta.installed,
            rows: transaction.open_table(ROWS)?,
            ids: transaction.open_table(IDS)?,
            successor: Successor::default(),
            tree: self.clone(),
        })
    }
}

/// Names the format as the first versions did.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn name_bare_format(tree: &Tree) {
    let transaction = tree.begin_write().unwrap();
    let format = BARE_FORMAT.to_le_bytes();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert(META_FORMAT, format.as_slice()).unwrap();
    drop(meta);
    transaction.commit().unwrap();
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// The tree as one checkpoint left it. Its tables stay open: a read takes no transaction.
pub(crate) struct Base {
    pub(crate) applied: Applied,
    /// The members at that place.
    pub(crate) members: Option<Bytes>,
    /// The digest of the rows, where it is known.
    pub(crate) digest: Option<Digest>,
    pub(crate) installed: Option<Installed>,
    pub(crate) rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) ids: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) successor: Successor,
    /// Behind the tables, so that it is dropped after them.
    pub(crate) tree: Arc<Tree>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl Base {
    /// Reads from here, or from what comes behind it when the tree refuses to be read.
    pub(crate) fn read_on<R>(
        self: &Arc<Self>,
        read: &dyn Fn(&Arc<Self>) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        match read(self) {
            Err(error) => self.successor_after(error)?.read_on(read),
            answer => answer,
        }
    }

    /// Where to read on where the tree refuses to be read; else the failure that readers shall see.
    fn successor_after(&self, error: ReadError) -> Result<Arc<Self>, ReadError> {
        if !error.is_of_an_earlier_failure() {
            return Err(error);
        }
        match self.first_failure(error) {
            error if error.is_of_an_earlier_failure() => self.successor.get().ok_or(error),
            error => Err(error),
        }
    }

    /// The failure of a read that this one comes from, if there was one: nothing opens the tree anew
    /// after that.
    pub(crate) fn first_failure(&self, error: ReadError) -> ReadError {
        match self.tree.fault() {
            Some(fault) if error.is_of_an_earlier_failure() => fault.into(),
            _ => error,
        }
    }

    pub(crate) fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Found>, ReadError> {
        match self.get_here(table, key) {
            Err(error) => self.successor_after(error)?.get(table, key),
            found => found,
        }
    }

    fn get_here(&self, table: TableId, key: &[u8]) -> Result<Option<Found>, ReadError> {
        let row = with_base_key(table, key, |key| self.rows.get(key)).map_err(ReadError::tree)?;
        let Some(row) = row else { return Ok(None) };
        let (version, value) = self.split_value(table, key, row.value())?;
        Ok(Some(Found {
            version,
            value: Some(Bytes::copy_from_slice(value)),
        }))
    }

    /// Takes apart a row's value: its version and the value itself.
    pub(crate) fn split_value<'v>(
        &self,
        table: TableId,
        key: &[u8],
        bytes: &'v [u8],
    ) -> Result<(Offset, &'v [u8]), ReadError> {
        let what = match split_version(bytes) {
            None => "it is shorter than a version",
            Some((version, value)) => {
                if self.applied.position.sees(version) {
                    return Ok((version, value));
                }
                "its version lies behind the checkpoint that wrote it"
            }
        };
        Err(ReadError::Row {
            table,
            key: Bytes::copy_from_slice(key),
            what,
        })
    }

    pub(crate) fn cursor(
        self: &Arc<Self>,
        range: &KeyRange,
        reverse: bool,
    ) -> Result<BaseCursor, ReadError> {
        let from = base_key(range.table, &range.from);
        let to = match &range.to {
            Some(to) => Some(base_key(range.table, to)),
            None => range
                .table
                .0
                .checked_add(1)
                .map(|next| base_key(TableId(next), b"")),
        };
        let mut cursor = BaseCursor {
            rows: None,
            base: self.clone(),
            table: range.table,
            bounds: (
                Bound::Included(from),
                to.map_or(Bound::Unbounded, Bound::Excluded),
            ),
            last: None,
            reverse,
        };
        cursor.begin()?;
        Ok(cursor)
    }

    /// The newest remembered ids, oldest first.
    pub(crate) fn read_newest_ids(&self, ids_max: usize) -> Result<Vec<RememberedId>, OpenError> {
        let mut ids = self.read_ids()?;
        ids.drain(..ids.len().saturating_sub(ids_max));
        Ok(ids)
    }

    fn read_ids(&self) -> Result<Vec<RememberedId>, OpenError> {
        let mut ids = Vec::new();
        for row in self.ids.range::<u64>(..).map_err(unreadable)? {
            let (_, chunk) = row.map_err(unreadable)?;
            if chunk_len(chunk.value()).is_none() {
                return Err(OpenError::Damaged(
                    "a chunk of ids has an odd length".into(),
                ));
            }
            ids.extend(decode_chunk(chunk.value()));
        }
        Ok(ids)
    }
}

/// Takes apart the stored form of a row's value; `None` when it is too short to be one.
pub(crate) fn split_version(bytes: &[u8]) -> Option<(Offset, &[u8])> {
    let (version, value) = bytes.split_first_chunk::<VERSION_BYTES>()?;
    Some((Offset(u64::from_le_bytes(*version)), value))
}

/// Makes the stored form of a row's value.
pub(crate) fn write_value(out: &mut Vec<u8>, version: Offset, value: &[u8]) {
    out.clear();
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(value);
}

/// Walks a range of the tree. Holds the tree as it was.
pub(crate) struct BaseCursor {
    rows: Option<Range<'static, &'static [u8], &'static [u8]>>,
    base: Arc<Base>,
    table: TableId,
    bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    /// The key that was given out last.
    last: Option<Bytes>,
    reverse: bool,
}

impl BaseCursor {
    pub(crate) fn next(&mut self) -> Result<Option<Candidate>, ReadError> {
        let found = match self.next_here() {
            Err(error) => {
                self.move_on(error)?;
                return self.next();
            }
            Ok(found) => found,
        };
        self.last = found.as_ref().map(|found| found.key.clone());
        Ok(found)
    }

    /// Begins behind the last key.
    fn begin(&mut self) -> Result<(), ReadError> {
        if let Some(last) = &self.last {
            let last = Bound::Excluded(base_key(self.table, last));
            match self.reverse {
                true => self.bounds.1 = last,
                false => self.bounds.0 = last,
            }
        }
        if let (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) = &self.bounds
            && to <= from
        {
            return Ok(());
        }
        let bounds = (
            self.bounds.0.as_ref().map(Vec::as_slice),
            self.bounds.1.as_ref().map(Vec::as_slice),
        );
        match self
            .base
            .rows
            .range::<&[u8]>(bounds)
            .map_err(ReadError::tree)
        {
            Err(error) => self.move_on(error),
            Ok(rows) => {
                self.rows = Some(rows);
                Ok(())
            }
        }
    }

    fn move_on(&mut self, error: ReadError) -> Result<(), ReadError> {
        let base = self.base.successor_after(error)?;
        self.rows = None;
        self.base = base;
        self.begin()
    }

    fn next_here(&mut self) -> Result<Option<Candidate>, ReadError> {
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let row = if self.reverse {
            rows.next_back()
        } else {
            rows.next()
        };
        let Some(row) = row else { return Ok(None) };
        let (key, bytes) = row.map_err(ReadError::tree)?;
        let (table, key) =
            split_base_key(key.value()).ok_or_else(|| ReadError::short_key(key.value()))?;
        let (version, value) = self.base.split_value(table, key, bytes.value())?;
        Ok(Some(Candidate {
            key: Bytes::copy_from_slice(key),
            version,
            value: Some(Bytes::copy_from_slice(value)),
        }))
    }
}

impl std::fmt::Debug for BaseCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseCursor")
            .field("base", &self.base)
            .field("reverse", &self.reverse)
            .finish_non_exhaustive()
    }
}
