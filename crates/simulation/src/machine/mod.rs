//! One node in one thread on two simulated disks: the same replica as the real node's, driven by a
//! seeded scheduler instead of threads.
//!
//! A [`World`] outlives its node: it has the disks, the clients and the history. A life of the
//! node begins with recovery and ends with a crash, a failed call or a shutdown. Same seed, same
//! faults: same history.

mod actions;
mod clients;
mod crash;
mod life;
mod published;
mod witness;
mod world;

pub use crash::{CrashPoint, Which, crash_again, crash_at, fail_at, survey};
pub use world::{Image, Stopped, World};

use onelog_record::Compression;

/// The bounds of a world: small, so that every path is walked often.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    pub clients: usize,
    /// How many actions the scheduler takes before it drains.
    pub actions: usize,
    pub segment_bytes: u64,
    /// The memtable is frozen at this size.
    pub memtable_bytes: usize,
    /// At this size of all memtables requests wait for a checkpoint.
    pub memtable_bytes_max: usize,
    pub checkpoint_interval_ms: u64,
    /// How long the view before a checkpoint stays readable.
    pub snapshot_age_ms_max: u64,
    /// The log is cut beyond this size.
    pub retain_bytes: Option<u64>,
    /// Entries that are older are cut.
    pub retain_ms: Option<u64>,
    /// How many writes the validator's window holds.
    pub window_writes_max: usize,
    /// How many ids are remembered.
    pub ids_max: usize,
    /// How entries are stored.
    pub compression: Compression,
    pub flushes_in_flight: usize,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            clients: 6,
            actions: 1_500,
            segment_bytes: 16 << 10,
            memtable_bytes: 4 << 10,
            memtable_bytes_max: 256 << 10,
            checkpoint_interval_ms: 500,
            snapshot_age_ms_max: u64::MAX,
            retain_bytes: Some(64 << 10),
            retain_ms: None,
            window_writes_max: 64,
            ids_max: 100_000,
            compression: Compression::None,
            flushes_in_flight: 3,
        }
    }
}
