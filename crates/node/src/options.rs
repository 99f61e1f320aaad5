//! How a node works. Every bound has a name and a default.

use std::path::PathBuf;
use std::sync::Arc;

use onelog_record::Compression;
pub use onelog_replica::QUEUE_WAIT_MS_MAX;

use crate::cluster::ClusterOptions;
use crate::follow::Source;

/// The default size of a segment of the log.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The memtable is checkpointed when it reaches this size.
pub const MEMTABLE_BYTES: usize = 96 << 20;
/// All memtables together may not grow beyond this: requests wait, then are refused.
pub const MEMTABLE_BYTES_MAX: usize = 256 << 20;
/// The B-tree's page cache.
pub const CACHE_BYTES: usize = 256 << 20;
/// A checkpoint is made at least this often while something changes.
pub const CHECKPOINT_INTERVAL_MS: u64 = 30_000;
/// How many groups are flushed at the same time.
pub const FLUSHES_IN_FLIGHT: usize = 4;
/// How many requests may wait to be decided.
pub const QUEUE_REQUESTS_MAX: usize = 8_192;
/// How many bytes of requests may wait to be decided.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How many transaction ids are remembered.
pub const IDS_MAX: usize = 1_000_000;
/// How many writes the validator's fast window holds.
pub const WINDOW_WRITES_MAX: usize = 65_536;
/// How long an old snapshot is kept readable by its position after a checkpoint replaced it.
pub const SNAPSHOT_AGE_MS_MAX: u64 = 60_000;

/// With less room on the disk the node is read-only. A large entry and the next segment fit in it.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// With less room on the disk the node logs a warning.
pub const DISK_WARNING_BYTES: u64 = 1 << 30;

/// Options of a node. [`Options::new`] has defaults for everything but the folder.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where log and state live. Made when missing; only one process may use it at a time.
    pub folder: PathBuf,
    /// The size of a segment of the log.
    pub segment_bytes: u64,
    /// The memtable is checkpointed when it reaches this size.
    pub memtable_bytes: usize,
    /// All memtables together may not grow beyond this.
    pub memtable_bytes_max: usize,
    pub cache_bytes: usize,
    /// A checkpoint is made at least this often while something changes.
    pub checkpoint_interval_ms: u64,
    /// How long an old snapshot stays readable by its position.
    pub snapshot_age_ms_max: u64,
    /// The log is cut from its start when it is larger than this; `None` keeps everything.
    pub retain_bytes: Option<u64>,
    /// Entries older than this are cut from the log's start; `None` keeps everything.
    pub retain_ms: Option<u64>,
    /// Cut the log even when a sink or another follower still needs it.
    pub retain_past_followers: bool,
    /// With less room on the disk nothing is written and reads go on, until there is more.
    pub disk_reserve_bytes: u64,
    /// With less room on the disk there is a warning.
    pub disk_warning_bytes: u64,
    /// How entries are stored.
    pub compression: Compression,
    /// How many groups are flushed at the same time, 1 to 4.
    pub flushes_in_flight: usize,
    /// How many requests may wait to be decided.
    pub queue_requests_max: usize,
    /// How many bytes of requests may wait to be decided.
    pub queue_bytes_max: usize,
    /// How many transaction ids are remembered.
    pub ids_max: usize,
    /// How many writes the validator's fast window holds.
    pub window_writes_max: usize,
    /// Other nodes; `None` where this one is alone.
    pub cluster: Option<ClusterOptions>,
    /// The server that this one follows as a read replica; not together with `cluster`.
    pub follow: Option<Arc<dyn Source>>,
}

impl Options {
    /// The defaults, for a folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: SEGMENT_BYTES,
            memtable_bytes: MEMTABLE_BYTES,
            memtable_bytes_max: MEMTABLE_BYTES_MAX,
            cache_bytes: CACHE_BYTES,
            checkpoint_interval_ms: CHECKPOINT_INTERVAL_MS,
            snapshot_age_ms_max: SNAPSHOT_AGE_MS_MAX,
            retain_bytes: None,
            retain_ms: None,
            retain_past_followers: false,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            disk_warning_bytes: DISK_WARNING_BYTES,
            compression: Compression::None,
            flushes_in_flight: FLUSHES_IN_FLIGHT,
            queue_requests_max: QUEUE_REQUESTS_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            ids_max: IDS_MAX,
            window_writes_max: WINDOW_WRITES_MAX,
            cluster: None,
            follow: None,
        }
    }
}
