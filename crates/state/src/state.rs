//! The state: what a committed log makes true.
//!
//! One thread applies entries, freezes memtables and drops tables; checkpoints run on another;
//! any thread reads. Invariants:
//! - the position moves only when a whole entry is in, and only ever up;
//! - every write and delete at or above `floor()` is in a memtable of the views;
//! - a view's base holds exactly the records below its position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use onelog_log::Disk;
use onelog_record::{KeyRange, Offset, Position, TableId};
use parking_lot::{Mutex, RwLock};

use crate::apply::Writer;
use crate::backend::{begin_file, cut_file, file_len, open_file, publish_file, remove_new_file};
use crate::blocks::RangedTables;
use crate::checkpoint::Checkpoint;
use crate::digest::{StateDigest, scan_digest};
use crate::fault::ReadFault;
use crate::ids::RememberedId;
use crate::latest::{Latest, LatestView};
use crate::memtable::{Memtable, Written};
use crate::meta::Installed;
use crate::options::{MEMTABLE_BYTES_MIN, StateOptions};
use crate::snapshot::{Reach, Snapshot};
use crate::tree::{Applied, Base, OpenError, ReadError, Tree, unreadable};
use crate::views::Views;

/// What `State::open` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How far the B-tree reaches. Replay the log from the entry behind it.
    pub applied: Applied,
    /// The remembered ids of transactions below it, oldest first.
    pub ids: Vec<RememberedId>,
    /// The members at that place, as they were set; `None` where they never were.
    pub members: Option<Bytes>,
    /// The state came from a peer and has no checkpoint since: a log that ends before this place must
    /// be made to begin behind it.
    pub installed: Option<Installed>,
}

/// There is no snapshot at the wanted position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The position lies below what is kept.
    #[error("that position is too old: the oldest one that can be read is {floor}")]
    TooOld {
        /// The oldest position that can be read.
        floor: Position,
    },
    /// The position is not reached yet.
    #[error("that position is in the future: the newest one is {latest}")]
    InFuture {
        /// The newest position.
        latest: Position,
    },
}

/// A view that readers no longer begin to use. Freeing its memory takes time: drop it where
/// nothing waits for it.
#[derive(Debug)]
pub struct ReleasedView(#[expect(dead_code, reason = "it is only dropped")] Arc<Views>);

/// Memory of the memtables, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The memtable that takes writes.
    pub active_bytes: usize,
    /// The memtable that is being checkpointed.
    pub frozen_bytes: usize,
    /// The memtable of the view before the last checkpoint.
    pub kept_bytes: usize,
    /// Memtables that only snapshots hold.
    pub pinned_bytes: usize,
}

impl Memory {
    /// What the views hold: what the limit is about.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes + self.kept_bytes
    }
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: StateOptions,
    pub(crate) disk: Arc<dyn Disk>,
    /// Another one after a checkpoint that found no room, and after an installation.
    pub(crate) tree: Mutex<Arc<Tree>>,
    /// Whether there is a transfer into a new file; there is only one name for it.
    pub(crate) is_importing: AtomicBool,
    pub(crate) live_bytes: Arc<AtomicUsize>,
    ranged: Arc<RangedTables>,
    /// The published position. Stored, with release order, after everything below it is in.
    position: AtomicU64,
    applied: Mutex<Applied>,
    views: RwLock<Arc<Views>>,
    writer: Mutex<Writer>,
}

impl Shared {
    pub(crate) fn new_memtable(&self) -> Arc<Memtable> {
        Arc::new(Memtable::new(
            self.options.memtable_bytes,
            self.live_bytes.clone(),
            self.ranged.clone(),
        ))
    }

    /// The members that were set since the last freeze.
    pub(crate) fn last_members(&self) -> Option<Bytes> {
        self.writer.lock().members.clone()
    }

    /// Makes everything up to `applied` visible.
    pub(crate) fn advance(&self, applied: Applied) {
        *self.applied.lock() = applied;
        self.position.store(applied.position.0, Ordering::Release);
    }

    fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// The views and a position that they reach. Freezing takes the lock for writing, so whatever
    /// is published while it is held for reading is in this active memtable.
    fn views_at_position(&self) -> (Arc<Views>, Position) {
        let views = self.views.read();
        (views.clone(), self.position())
    }

    pub(crate) fn views(&self) -> Arc<Views> {
        self.views.read().clone()
    }

    /// Puts other views in place; answers the old ones, which are freed outside of the lock.
    fn replace_views(&self, change: impl FnOnce(&Views) -> Views) -> Arc<Views> {
        let mut views = self.views.write();
        let new = Arc::new(change(&views));
        std::mem::replace(&mut *views, new)
    }

    /// Puts other views and another place in; answers the former views.
    pub(crate) fn replace_state(&self, new: Views, applied: Applied) -> Arc<Views> {
        let mut views = self.views.write();
        // A reader of both takes the same lock, so it never has the one without the other.
        self.advance(applied);
        std::mem::replace(&mut *views, Arc::new(new))
    }

    pub(crate) fn file_len(&self) -> Result<u64, OpenError> {
        file_len(self.disk.as_ref())
    }

    pub(crate) fn tree(&self) -> Arc<Tree> {
        Arc::clone(&self.tree.lock())
    }

    /// Opens the tree again, where the last checkpoint left it: redb refuses every call after one that
    /// failed, reads too. Reads at that checkpoint go on in the new one.
    ///
    /// `len` is how long the file was then: what it has grown by since is given back to the disk.
    pub(crate) fn reopen(&self, len: u64) -> Result<(), OpenError> {
        cut_file(self.disk.as_ref(), len)?;
        let Some(backend) = open_file(self.disk.as_ref())? else {
            return Err(OpenError::Damaged("the file is gone".into()));
        };
        let tree = Tree::open(backend, &self.options)?;
        let base = tree.view().map_err(unreadable)?;
        let base = Arc::new(base);
        *self.tree.lock() = tree;
        let former = self.replace_views(|old| Views {
            current: Arc::new(Reach {
                memtables: old.current.memtables.clone(),
                base: base.clone(),
            }),
            kept: None,
        });
        former.end_bases(Some(base));
        Ok(())
    }

    /// A checkpoint has ended: readers use the new base, the view before it is kept.
    pub(crate) fn publish(&self, base: Arc<Base>) {
        let replaced = self.replace_views(|old| {
            let (active, frozen) = old.current.memtables.split_at(1);
            // What is kept for old readers may not starve the writers: it would stay until it is old.
            let bytes = old.active().bytes() + old.frozen_bytes();
            let is_short = bytes >= self.options.memtable_bytes_max;
            let kept = Reach {
                memtables: frozen.to_vec(),
                base: old.current.base.clone(),
            };
            Views {
                current: Arc::new(Reach {
                    memtables: active.to_vec(),
                    base,
                }),
                kept: (!is_short).then(|| Arc::new(kept)),
            }
        });
        drop(replaced);
    }
}

/// What is true now, and what was true a little while ago. A handle; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) shared: Arc<Shared>,
}

impl State {
    /// Opens the state of a folder, making an empty one where there is none.
    ///
    /// # Errors
    /// When the disk fails, or when the file is there but unreadable; the log can then rebuild it
    /// if it reaches back to offset 0.
    pub fn open(disk: Arc<dyn Disk>, options: StateOptions) -> Result<(Self, Opened), OpenError> {
        let tree = match open_file(disk.as_ref())? {
            Some(backend) => {
                backend.warn_unchecked();
                // What is left of a transfer that was not installed.
                remove_new_file(disk.as_ref())?;
                Tree::open(backend, &options)?
            }
            None => {
                let tree = Tree::create(begin_file(disk.as_ref())?, &options)?;
                publish_file(disk.as_ref())?;
                tree
            }
        };
        Self::over(disk, tree, options)
    }

    fn over(
        disk: Arc<dyn Disk>,
        tree: Arc<Tree>,
        mut options: StateOptions,
    ) -> Result<(Self, Opened), OpenError> {
        options.memtable_bytes = options.memtable_bytes.max(MEMTABLE_BYTES_MIN);
        options.memtable_bytes_max = options.memtable_bytes_max.max(options.memtable_bytes);
        let base = tree.view().map_err(unreadable)?;
        let applied = base.applied;
        let opened = Opened {
            applied,
            ids: base.read_newest_ids(options.ids_max)?,
            members: base.members.clone(),
            installed: base.installed,
        };
        let live_bytes = Arc::new(AtomicUsize::new(0));
        let ranged = Arc::default();
        let memtable = Memtable::new(
            options.memtable_bytes,
            live_bytes.clone(),
            Arc::clone(&ranged),
        );
        let active = Arc::new(memtable);
        let current = Arc::new(Reach {
            memtables: vec![active.clone()],
            base: Arc::new(base),
        });
        let shared = Arc::new(Shared {
            options,
            disk,
            tree: Mutex::new(tree),
            is_importing: AtomicBool::new(false),
            live_bytes,
            ranged,
            position: AtomicU64::new(applied.position.0),
            applied: Mutex::new(applied),
            views: RwLock::new(Arc::new(Views {
                current,
                kept: None,
            })),
            writer: Mutex::new(Writer::new(active, applied)),
        });
        Ok((Self { shared }, opened))
    }

    pub(crate) fn writer(&self) -> parking_lot::MutexGuard<'_, Writer> {
        self.shared.writer.lock()
    }

    /// Everything below it is visible.
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.position()
    }

    /// How far the log has been applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        *self.shared.applied.lock()
    }

    /// How far the B-tree on disk reaches: from here the log is needed after a crash.
    #[must_use]
    pub fn checkpointed(&self) -> Applied {
        self.shared.views().current.base.applied
    }

    /// The failure after which the B-tree can no longer be read or written. Final: stop.
    #[must_use]
    pub fn fault(&self) -> Option<ReadFault> {
        self.shared.tree().fault()
    }

    /// The digest of the rows of the last checkpoint: equal on every replica that has a checkpoint at
    /// the same place. `None` in a file that was made before there were digests, until its next
    /// checkpoint.
    #[must_use]
    pub fn digest(&self) -> Option<StateDigest> {
        let base = self.shared.views().current.base.clone();
        Some(StateDigest {
            applied: base.applied,
            digest: base.digest?,
        })
    }

    /// The digest of the last checkpoint as reading every row of it says.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn scan_digest(&self) -> Result<StateDigest, ReadError> {
        let base = self.shared.views().current.base.clone();
        let digest = base.read_on(&|base| scan_digest(&base.rows).map_err(ReadError::tree))?;
        Ok(StateDigest {
            applied: base.applied,
            digest,
        })
    }

    /// Every write and delete at or above it is in the memtables, and it is the oldest position
    /// that `snapshot_at` serves.
    #[must_use]
    pub fn floor(&self) -> Position {
        self.shared.views().floor()
    }

    /// The newest state as the validator needs it. For more than one question, ask
    /// one view: between two calls on the state itself a checkpoint may end and move the floor.
    #[must_use]
    pub fn latest(&self) -> LatestView {
        let (views, position) = self.shared.views_at_position();
        LatestView { views, position }
    }

    /// [`LatestView::newest`] of this instant.
    ///
    /// # Errors
    /// When the B-tree cannot be read.
    pub fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ReadError> {
        self.latest().newest(table, key)
    }

    /// [`LatestView::written_since`] of this instant, in as many steps as it takes.
    #[must_use]
    pub fn written_since(&self, range: &KeyRange, since: Position) -> Option<(Bytes, Offset)> {
        match self
            .latest()
            .written_since(range, since, &mut usize::MAX.clone())
        {
            Written::At(key, version) => Some((key, version)),
            Written::Nothing | Written::OutOfSteps => None,
        }
    }

    /// The state at `position()`.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (views, position) = self.shared.views_at_position();
        Snapshot::new(views.current.clone(), position)
    }

    /// The state at an older position. It should lie between two transactions, as every position
    /// that a commit answered with does; else half of one is seen.
    ///
    /// # Errors
    /// When the position lies below `floor()` or above `position()`.
    pub fn snapshot_at(&self, at: Position) -> Result<Snapshot, SnapshotError> {
        let (views, latest) = self.shared.views_at_position();
        if at > latest {
            return Err(SnapshotError::InFuture { latest });
        }
        if at >= views.current.base.applied.position {
            return Ok(Snapshot::new(views.current.clone(), at));
        }
        match &views.kept {
            Some(kept) if at >= kept.base.applied.position => Ok(Snapshot::new(kept.clone(), at)),
            _ => Err(SnapshotError::TooOld {
                floor: views.floor(),
            }),
        }
    }

    /// How much memory the memtables take.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let views = self.shared.views();
        let held = Memory {
            active_bytes: views.active().bytes(),
            frozen_bytes: views.frozen_bytes(),
            kept_bytes: views.kept_bytes(),
            pinned_bytes: 0,
        };
        let live_bytes = self.shared.live_bytes.load(Ordering::Relaxed);
        Memory {
            pinned_bytes: live_bytes.saturating_sub(held.held_bytes()),
            ..held
        }
    }

    /// Whether writers must wait until a checkpoint has ended.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.memory().held_bytes() >= self.shared.options.memtable_bytes_max
    }

    /// Whether the active memtable is large enough to be frozen, or memory short enough, and no
    /// checkpoint is under way.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        let memory = self.memory();
        let is_running = self.shared.views().current.memtables.len() > 1;
        let is_short = memory.held_bytes() >= self.shared.options.memtable_bytes_max;
        !is_running
            && (memory.active_bytes >= self.shared.options.memtable_bytes
                || is_short && memory.active_bytes > 0)
    }

    /// Freezes the active memtable and begins a new one. Called by the applying thread. `None`
    /// when nothing was applied since the last time or a checkpoint is still under way.
    #[must_use]
    pub fn freeze(&self) -> Option<Checkpoint> {
        let mut writer = self.writer();
        let views = self.shared.views();
        let applied = writer.applied;
        let is_running = views.current.memtables.len() > 1;
        if is_running || writer.is_broken || applied.index == views.current.base.applied.index {
            return None;
        }
        let frozen = writer.active.clone();
        let active = self.shared.new_memtable();
        let options = &self.shared.options;
        // What is kept for old readers may not starve the writers while the checkpoint runs.
        let is_short = frozen.bytes() + views.kept_bytes() > options.memtable_bytes_max / 2;
        let discarded = views.kept.clone().filter(|_| is_short);
        drop(views);
        let replaced = self.shared.replace_views(|old| Views {
            current: Arc::new(Reach {
                memtables: vec![active.clone(), frozen.clone()],
                base: old.current.base.clone(),
            }),
            kept: old.kept.clone().filter(|_| !is_short),
        });
        drop(replaced);
        writer.active = active;
        Some(Checkpoint {
            shared: self.shared.clone(),
            memtable: frozen,
            applied,
            ids: std::mem::take(&mut writer.ids),
            drops: std::mem::take(&mut writer.drops),
            members: writer.members.take(),
            discarded,
        })
    }

    /// Forgets what a table has below a position: its rows, and those of `onelog.unique` that belong
    /// to it, leave the B-tree at the next checkpoint. Called by the applying thread with the position
    /// behind the record that drops the table, before it freezes what holds that record. Refusing
    /// reads of the table is the caller's task.
    pub fn drop_table(&self, table: TableId, position: Position) {
        self.writer().drops.add(table, position);
    }

    /// Forgets the view before the last checkpoint unless a snapshot uses it; `None` when there is
    /// nothing to forget. Not while a checkpoint runs, whose end would put a younger view there.
    #[must_use]
    pub fn release_old_view(&self) -> Option<ReleasedView> {
        let is_unused = |kept: &&Arc<Reach>| Arc::strong_count(kept) == 1;
        let views = self.shared.views();
        views.kept.as_ref().filter(is_unused)?;
        drop(views);
        Some(ReleasedView(self.shared.replace_views(|old| Views {
            current: old.current.clone(),
            // Cloned last: a clone would count as a user.
            kept: old.kept.as_ref().filter(|kept| !is_unused(kept)).cloned(),
        })))
    }
}

/// Ids beside a memtable: only the newest are worth keeping.
pub(crate) fn remember(ids: &mut VecDeque<RememberedId>, id: RememberedId, ids_max: usize) {
    if ids.len() >= ids_max {
        ids.pop_front();
    }
    if ids_max > 0 {
        ids.push_back(id);
    }
}
