//! What is true now: a memtable of recent versions over a B-tree, snapshots at a position,
//! checkpoints.
//!
//! A read takes the newest version below its position: memtables first, then the B-tree. A
//! checkpoint puts a frozen memtable into the B-tree in one durable transaction, on a thread of
//! its own. The log is the tree's write-ahead log: after a crash the tree is at its last
//! checkpoint and the log's entries behind [`Opened::applied`] are applied again.
//!
//! Threads: one applies ([`State::apply`], [`State::freeze`], [`State::drop_table`]), any one runs
//! a [`Checkpoint`], all may read. A [`Snapshot`] is read without any lock of ours.

mod apply;
mod backend;
mod blocks;
mod checked;
mod checkpoint;
mod copy;
mod cursor;
mod digest;
mod drops;
mod fault;
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod ids;
mod key;
mod latest;
mod memtable;
mod meta;
mod options;
pub mod planted;
mod scan;
mod snapshot;
mod state;
mod successor;
mod sums;
mod transfer;
mod tree;
mod views;

pub use apply::ApplyError;
pub use backend::{STATE_FILE, is_state_file};
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointReport};
pub use copy::{CopyError, RowVisitor};
pub use digest::{Digest, StateDigest};
pub use fault::ReadFault;
pub use ids::RememberedId;
pub use latest::{Latest, LatestView};
pub use memtable::Written;
pub use meta::Installed;
pub use options::StateOptions;
pub use scan::{Row, Scan};
pub use snapshot::{Snapshot, Versioned};
pub use state::{Memory, Opened, ReleasedView, SnapshotError, State};
pub use transfer::{
    CHUNK_BYTES, CHUNK_BYTES_MAX, CURSOR_BYTES_MAX, Export, ExportError, HEAD_BYTES_MAX, Head,
    Import, ImportError, Imported, InstallError, Malformed,
};
pub use tree::{Applied, OpenError, ReadError};
