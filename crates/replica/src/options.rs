//! How a replica works. Bounds without a default here have theirs with the driver.

use onelog_record::{Compression, NodeId};

/// The node that began the log, alone: its number is the same in every cluster. Each other node joins.
pub const FOUNDER: NodeId = NodeId(1);
/// See [`ReplicaOptions::election_ms`].
pub const ELECTION_MS: u64 = 1_000;
/// A shorter time would be over while a thread waits for a processor: leaders would come and go.
pub const ELECTION_MS_MIN: u64 = 100;
pub const ELECTION_MS_MAX: u64 = 60_000;
/// A request that has waited longer than this to be decided is refused.
pub const QUEUE_WAIT_MS_MAX: u64 = 10_000;

/// What can be chosen about a replica.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// This node's number. [`FOUNDER`] begins a log where there is none; any other node begins with an
    /// empty one, and its members bring it the entries. [`READ_REPLICA`](crate::READ_REPLICA) is no
    /// member: it takes what another server has committed.
    pub node: NodeId,
    /// The id that the log gets where there is none yet. Never zero. A node that joins MUST know that
    /// of its cluster.
    pub new_log_id: u128,
    /// How long a node waits for a leader before it seeks the leadership, at least, where there are
    /// others; up to twice as long. A leader is heard of five times as often, and hands the leadership
    /// on within this time or not at all. Within [`ELECTION_MS_MIN`] and [`ELECTION_MS_MAX`].
    pub election_ms: u64,
    /// The size of a segment of the log.
    pub segment_bytes: u64,
    /// How many bytes of frames lie between two points of the log's sparse index.
    pub index_every_bytes: u64,
    /// The memtable is checkpointed when it reaches this size.
    pub memtable_bytes: usize,
    /// At this size of all memtables together no request is taken until a checkpoint has ended.
    pub memtable_bytes_max: usize,
    /// The page cache of the B-tree.
    pub cache_bytes: usize,
    /// A checkpoint is made at least this often while something changes.
    pub checkpoint_interval_ms: u64,
    /// How long an old snapshot stays readable by its position.
    pub snapshot_age_ms_max: u64,
    /// The log is cut from its start when it is larger than this; `None` keeps everything.
    pub retain_bytes: Option<u64>,
    /// Entries older than this are cut from the log's start; `None` keeps everything.
    pub retain_ms: Option<u64>,
    /// Cut the log even when a follower still needs it.
    pub retain_past_followers: bool,
    /// With less room on the disk nothing is written.
    pub disk_reserve_bytes: u64,
    /// With less room on the disk there is a warning.
    pub disk_warning_bytes: u64,
    /// How entries are stored.
    pub compression: Compression,
    /// How many groups are flushed at the same time.
    pub flushes_in_flight: usize,
    /// How many transaction ids are remembered.
    pub ids_max: usize,
    /// How many writes the validator's window holds.
    pub window_writes_max: usize,
}
