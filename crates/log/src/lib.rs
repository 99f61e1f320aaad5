//! The log on disk: frames, segments, hard state, group flush, recovery, readers.
//!
//! One thread owns the [`Log`]: it stages entries and hears of finished flushes. [`Flush`]es, which
//! roll to the next segment, and the jobs [`Prepare`], [`Retain`] and [`SaveWatermark`] run on any
//! thread; [`LogReader`]s read on any thread.
//!
//! Invariants:
//! - An index is durable once its flush and every flush before it has ended well.
//! - Whatever was ever answered as durable is there after any crash, or `Log::open` refuses and
//!   names the place. Only what lies above the highest known watermark is ever cut.
//! - Every frame carries the checksum of the frame before it, so a stale or misplaced frame never
//!   passes for the next one.
//! - Every index is derived: when absent or doubtful it is rebuilt from the frames.

mod check;
mod cut;
pub mod disk;
mod error;
mod flush;
mod folders;
mod format;
pub mod frame;
mod hard_state;
mod index_file;
mod kept;
mod log;
mod mend;
mod names;
mod options;
pub mod planted;
mod prepare;
mod reader;
mod real_disk;
mod recovery;
mod repair;
mod restart;
mod retention;
mod roll;
mod scan;
mod segment;
mod selected;
mod shared;
mod simulated_disk;
pub mod stream;
mod table_index;

pub use check::{CheckError, CheckReport, Checked, check};
pub use disk::{Disk, DiskFile, is_no_space};
pub use error::{
    CloseError, Corruption, CutError, FlushError, MendError, MissingSegment, OpenError,
    PrepareError, RESTORE_OR_REPLACE, ReadError, RestartError, RetainError, StageError,
};
pub use flush::{Flush, FlushPool};
pub use folders::{flush_folder, make_folder};
pub use format::{KnownFormat, NewerFormat};
pub use hard_state::{HARD_STATE_FILE, HardState, HardStateError, HardStateRead};
pub use kept::{CUT_KEPT_BYTES_MAX, CUT_KEPT_ENTRIES_MIN, CUT_KEPT_FILES_MAX, CutEntries, Kept};
pub use log::Log;
pub use names::is_log_file;
pub use options::LogOptions;
pub use prepare::Prepare;
pub use reader::{Chained, LogReader};
pub use real_disk::{FolderLock, LOCK_FILE, RealDisk};
pub use recovery::{Cut, Recovery};
pub use repair::Copied;
pub use restart::Place;
pub use retention::{Dropped, Retain, SegmentSpan};
pub use selected::Selected;
pub use shared::SaveWatermark;
pub use simulated_disk::{CrashMode, Fault, SECTOR_BYTES, SimulatedDisk};
