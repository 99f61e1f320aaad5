//! Taking a transfer's chunks into a new state file beside the live one.
//!
//! Rows come in order and go to the end of the B-tree, in durable transactions of bounded size: what
//! redb remembers of a transaction's pages grows with it. Where the file reaches is written by the
//! last transaction, so a file that was left unfinished is never taken for a state.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_log::DiskFile;
use onelog_record::Position;
use redb::WriteTransaction;

use super::{CURSOR_BYTES_MAX, Chunk, Content, Cursor, Head, Malformed};
use crate::backend::{Backend, begin_file, remove_new_file};
use crate::checkpoint::is_no_space;
use crate::copy::append_failed;
use crate::digest::{Digest, IdsHasher, RowHasher};
use crate::ids::{CHUNK_IDS, ID_BYTES, RememberedId, decode_chunk};
use crate::key::TABLE_PREFIX_BYTES;
use crate::meta::{Installed, Meta};
use crate::options::StateOptions;
use crate::state::{Shared, State};
use crate::tree::{Applied, Base, IDS, OpenError, ROWS, Tree, split_version, unreadable};

/// After so many bytes of rows a transaction is committed.
const COMMIT_BYTES: usize = 64 << 20;
/// Memory for the pages of the new file while it is written.
const IMPORT_CACHE_BYTES: usize = 64 << 20;
const PACKED_CHUNK_BYTES: usize = CHUNK_IDS * ID_BYTES;

/// A transfer could not be taken in. Drop the import, which removes what it has written, unless
/// [`can_be_requested_again`](Self::can_be_requested_again).
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is one already.
    #[error("another transfer into this state is under way; end it first")]
    UnderWay,
    /// The new file could not be made or opened.
    #[error("making the new state file failed: {0}")]
    Make(#[from] OpenError),
    /// Writing the new file failed.
    #[error("writing the new state file failed: {0}")]
    Write(Box<redb::Error>),
    /// The bytes of a chunk are not as a node sends them.
    #[error("a chunk of a transfer is damaged: {0}; request it again")]
    Malformed(#[from] Malformed),
    /// The chunk is of another checkpoint.
    #[error("a chunk is of the checkpoint at entry {is}, the transfer is of that at {wanted}")]
    OtherCheckpoint {
        is: onelog_record::Index,
        wanted: onelog_record::Index,
    },
    /// The chunk does not begin where the one before ended.
    #[error("a chunk does not begin where the one before it ended; request the one that is wanted")]
    NotWanted,
    /// A row of the chunk cannot be part of this checkpoint.
    #[error("a chunk holds what cannot be in this checkpoint: {0}")]
    Contents(&'static str),
    /// Writing failed before.
    #[error("the transfer failed before; begin it again")]
    Broken,
    /// Not everything is there yet.
    #[error("the transfer has {rows} rows and {ids} ids, its head says {head_rows} and {head_ids}")]
    Unfinished {
        rows: u64,
        ids: u64,
        head_rows: u64,
        head_ids: u64,
    },
    /// What came is not what was sent.
    #[error("the digest of the {what} of a transfer is not that of its head; begin it again")]
    Digest { what: &'static str },
}

impl ImportError {
    /// Whether the import is as it was before, and the wanted chunk can be requested again, also from
    /// another node with the same head.
    #[must_use]
    pub const fn can_be_requested_again(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::OtherCheckpoint { .. }
                | Self::NotWanted
                | Self::Contents(_)
                | Self::Unfinished { .. }
        )
    }

    /// Whether there was no room on the disk.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Write(source) | Self::Make(OpenError::Unreadable { source }) => {
                is_no_space(source)
            }
            Self::Make(OpenError::Disk { source, .. }) => onelog_log::is_no_space(source),
            _ => false,
        }
    }
}

fn write_failed(source: impl Into<redb::Error>) -> ImportError {
    ImportError::Write(Box::new(source.into()))
}

/// Holds the name of the new file for one import. Removes the file unless it was published.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) shared: Arc<Shared>,
    pub(super) is_published: bool,
}

impl NewFile {
    fn claim(shared: &Arc<Shared>) -> Result<Self, ImportError> {
        if shared.is_importing.swap(true, Ordering::AcqRel) {
            return Err(ImportError::UnderWay);
        }
        Ok(Self {
            shared: shared.clone(),
            is_published: false,
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_published
            && let Err(error) = remove_new_file(self.shared.disk.as_ref())
        {
            tracing::warn!(%error, "an unfinished state file is left behind; the next start removes it");
        }
        self.shared.is_importing.store(false, Ordering::Release);
    }
}

/// Where the next chunk begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// The rows behind this one.
    Rows(Vec<u8>),
    Ids(u64),
    Nothing,
}

impl Wanted {
    fn cursor(&self) -> Option<Cursor<'_>> {
        match self {
            Self::Rows(behind) => Some(Cursor::Rows(behind)),
            Self::Ids(left) => Some(Cursor::Ids(*left)),
            Self::Nothing => None,
        }
    }
}

/// A transfer that is being taken in. Dropping it removes what it has written.
#[derive(Debug)]
pub struct Import {
    head: Head,
    wanted: Wanted,
    rows: u64,
    ids: u64,
    digest: Digest,
    ids_hasher: IdsHasher,
    /// Where the last id ends.
    ids_position: Position,
    hasher: RowHasher,
    writer: NewTree,
    is_broken: bool,
    /// Behind the tree, so that the file is closed before it is removed.
    new_file: NewFile,
}

impl Import {
    /// Begins to take in the transfer of this head, in a new file beside the live one of `state`.
    ///
    /// # Errors
    /// When there is another import, or the file cannot be made.
    pub fn begin(state: &State, head: Head) -> Result<Self, ImportError> {
        let new_file = NewFile::claim(&state.shared)?;
        let writer = NewTree::begin(&state.shared)?;
        let mut import = Self {
            wanted: Wanted::Rows(Vec::new()),
            rows: 0,
            ids: 0,
            digest: Digest::default(),
            ids_hasher: IdsHasher::default(),
            ids_position: Position::ZERO,
            hasher: RowHasher::default(),
            writer,
            is_broken: false,
            head,
            new_file,
        };
        import.want_next(Vec::new());
        Ok(import)
    }

    /// What the transfer will bring. Another node can go on with it if its head is equal.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The cursor of the chunk that is wanted next; `None` when everything is here.
    #[must_use]
    pub fn wanted(&self) -> Option<Vec<u8>> {
        self.wanted.cursor().map(Cursor::encode)
    }

    /// How many rows and remembered ids are here.
    #[must_use]
    pub const fn taken(&self) -> (u64, u64) {
        (self.rows, self.ids)
    }

    fn want_next(&mut self, last_key: Vec<u8>) {
        self.wanted = if self.rows < self.head.rows {
            Wanted::Rows(last_key)
        } else if self.ids < self.head.ids {
            Wanted::Ids(self.head.ids - self.ids)
        } else {
            Wanted::Nothing
        };
    }

    /// Takes in the wanted chunk, or nothing of it. Blocks.
    ///
    /// # Errors
    /// When the chunk is not as it should be, or the disk fails.
    pub fn put(&mut self, chunk: &[u8]) -> Result<(), ImportError> {
        if self.is_broken {
            return Err(ImportError::Broken);
        }
        let chunk = Chunk::decode(chunk)?;
        if chunk.index != self.head.applied.index {
            return Err(ImportError::OtherCheckpoint {
                is: chunk.index,
                wanted: self.head.applied.index,
            });
        }
        if self.wanted.cursor() != Some(chunk.from) {
            return Err(ImportError::NotWanted);
        }
        match chunk.content {
            Content::Rows(_) => self.put_rows(&chunk),
            Content::Ids(packed) => self.put_ids(packed),
        }
    }

    fn put_rows(&mut self, chunk: &Chunk<'_>) -> Result<(), ImportError> {
        if u64::from(chunk.count) > self.head.rows - self.rows {
            return Err(ImportError::Contents(
                "there are more rows than its head says",
            ));
        }
        let last_key = self.check_rows(chunk)?.to_vec();
        self.is_broken = true;
        let digest = self.writer.add_rows(chunk, &mut self.hasher)?;
        self.is_broken = false;
        self.digest.add(digest);
        self.rows += u64::from(chunk.count);
        self.want_next(last_key);
        Ok(())
    }

    /// Checks every row of a chunk; answers the last one's key.
    fn check_rows<'c>(&self, chunk: &Chunk<'c>) -> Result<&'c [u8], ImportError> {
        let (Cursor::Rows(mut last), Content::Rows(mut rows)) = (chunk.from, chunk.content) else {
            return Err(ImportError::NotWanted);
        };
        while let Some((key, value)) = rows.next()? {
            if key.len() < TABLE_PREFIX_BYTES || key.len() >= CURSOR_BYTES_MAX {
                return Err(ImportError::Contents(
                    "a key has a length that none can have",
                ));
            }
            if key <= last {
                return Err(ImportError::Contents("its rows are not in order"));
            }
            last = key;
            let Some((version, _)) = split_version(value) else {
                return Err(ImportError::Contents("a value is shorter than a version"));
            };
            if !self.head.applied.position.sees(version) {
                return Err(ImportError::Contents(
                    "a version lies behind the checkpoint",
                ));
            }
        }
        Ok(last)
    }

    fn put_ids(&mut self, packed: &[u8]) -> Result<(), ImportError> {
        let count = (packed.len() / ID_BYTES) as u64;
        if count > self.head.ids - self.ids {
            return Err(ImportError::Contents(
                "there are more ids than its head says",
            ));
        }
        let mut position = self.ids_position;
        for id in decode_chunk(packed) {
            let is_next = id.first_offset >= position.next_offset()
                && id.position <= self.head.applied.position;
            if !is_next {
                return Err(ImportError::Contents(
                    "its ids are not in the order of the log",
                ));
            }
            position = id.position;
        }
        self.is_broken = true;
        self.writer.add_ids(packed)?;
        self.is_broken = false;
        self.ids_hasher.add(packed);
        self.ids_position = position;
        self.ids += count;
        self.want_next(Vec::new());
        Ok(())
    }

    /// Checks the whole, and makes it durable. [`State::install`] puts it in place. Blocks.
    ///
    /// # Errors
    /// When something is missing or is not what was sent, or the disk fails.
    pub fn finish(self) -> Result<Imported, ImportError> {
        if self.is_broken {
            return Err(ImportError::Broken);
        }
        if self.wanted != Wanted::Nothing {
            return Err(ImportError::Unfinished {
                rows: self.rows,
                ids: self.ids,
                head_rows: self.head.rows,
                head_ids: self.head.ids,
            });
        }
        if self.digest != self.head.digest {
            return Err(ImportError::Digest { what: "rows" });
        }
        if self.ids_hasher.finish() != self.head.ids_digest {
            return Err(ImportError::Digest { what: "ids" });
        }
        let applied = self.head.applied;
        let meta = Meta {
            applied,
            members: self.head.members,
            digest: Some(self.digest),
            installed: Some(Installed {
                index: applied.index,
                term: applied.term,
                end: applied.position,
                checksum: self.head.checksum,
            }),
        };
        let tree = self.writer.finish(&meta, &self.new_file.shared.options)?;
        let base = tree.view().map_err(unreadable)?;
        let ids = base.read_newest_ids(self.new_file.shared.options.ids_max)?;
        Ok(Imported {
            ids,
            base: Arc::new(base),
            tree,
            new_file: self.new_file,
        })
    }
}

/// The new file while it is written.
struct NewTree {
    /// Before the tree, so that it is given up first.
    transaction: Option<WriteTransaction>,
    tree: Arc<Tree>,
    file: Arc<dyn DiskFile>,
    uncommitted_bytes: usize,
    /// Packed ids that fill no chunk yet.
    ids: Vec<u8>,
    next_id: u64,
}

impl fmt::Debug for NewTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTree")
            .field("uncommitted_bytes", &self.uncommitted_bytes)
            .field("next_id", &self.next_id)
            .finish_non_exhaustive()
    }
}

impl NewTree {
    fn begin(shared: &Shared) -> Result<Self, ImportError> {
        let backend = begin_file(shared.disk.as_ref())?;
        let file = backend.file();
        let options = StateOptions {
            cache_bytes: IMPORT_CACHE_BYTES.min(shared.options.cache_bytes),
            ..shared.options.clone()
        };
        Ok(Self {
            transaction: None,
            tree: Tree::create_unfinished(backend, &options)?,
            file,
            uncommitted_bytes: 0,
            ids: Vec::new(),
            next_id: 0,
        })
    }

    fn add_rows(
        &mut self,
        chunk: &Chunk<'_>,
        hasher: &mut RowHasher,
    ) -> Result<Digest, ImportError> {
        let mut digest = Digest::default();
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.tree.begin_write().map_err(write_failed)?,
        };
        {
            let mut table = transaction.open_table(ROWS).map_err(write_failed)?;
            let mut end = table
                .upper_bound_mut(Bound::<&[u8]>::Unbounded)
                .map_err(write_failed)?;
            if let Content::Rows(mut rows) = chunk.content {
                while let Some((key, value)) = rows.next()? {
                    digest.add(hasher.row(key, value));
                    self.uncommitted_bytes += key.len() + value.len();
                    end.insert_before(key, value)
                        .map_err(|error| ImportError::Write(Box::new(append_failed(error))))?;
                }
            }
            end.close().map_err(write_failed)?;
        }
        if self.uncommitted_bytes >= COMMIT_BYTES {
            transaction.commit().map_err(write_failed)?;
            self.uncommitted_bytes = 0;
        } else {
            self.transaction = Some(transaction);
        }
        Ok(digest)
    }

    fn add_ids(&mut self, packed: &[u8]) -> Result<(), ImportError> {
        self.ids.extend_from_slice(packed);
        let whole = self.ids.len() - self.ids.len() % PACKED_CHUNK_BYTES;
        let rest = self.ids.split_off(whole);
        let whole = std::mem::replace(&mut self.ids, rest);
        self.write_ids(&whole)
    }

    fn write_ids(&mut self, packed: &[u8]) -> Result<(), ImportError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.tree.begin_write().map_err(write_failed)?,
        };
        {
            let mut table = transaction.open_table(IDS).map_err(write_failed)?;
            for chunk in packed.chunks(PACKED_CHUNK_BYTES) {
                table.insert(self.next_id, chunk).map_err(write_failed)?;
                self.next_id += (chunk.len() / ID_BYTES) as u64;
            }
        }
        self.transaction = Some(transaction);
        Ok(())
    }

    /// Commits what is left with what the file says about itself, and opens it as a state is opened.
    fn finish(mut self, meta: &Meta, options: &StateOptions) -> Result<Arc<Tree>, ImportError> {
        let rest = std::mem::take(&mut self.ids);
        self.write_ids(&rest)?;
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.tree.begin_write().map_err(write_failed)?,
        };
        meta.write(&transaction).map_err(write_failed)?;
        transaction.commit().map_err(write_failed)?;
        let Self { tree, file, .. } = self;
        // The last handle: redb closes the file here.
        drop(tree);
        Ok(Tree::open(Backend::open(file)?, options)?)
    }
}

/// A state that has been taken in, whole and durable, under its preliminary name. Dropping it removes
/// it.
#[derive(Debug)]
pub struct Imported {
    pub(super) ids: Vec<RememberedId>,
    pub(super) base: Arc<Base>,
    pub(super) tree: Arc<Tree>,
    /// Behind the tree, so that the file is closed before it is removed.
    pub(super) new_file: NewFile,
}

impl Imported {
    /// The place of the checkpoint.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.base.applied
    }
}
