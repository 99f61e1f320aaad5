//! One node in one thread on two simulated disks: the same engine, log and state as the real
//! node, driven by a seeded scheduler instead of threads.
//!
//! A [`World`] outlives its node: it has the disks, the clients and the history. A life of the
//! node begins with recovery and ends with a crash, a failed call or a shutdown. Same seed, same
//! faults: same history.

mod actions;
mod clients;
mod crash;
mod life;
mod rules;
mod witness;
mod world;

pub use crash::{CrashPoint, Which, crash_again, crash_at, fail_at, survey};
pub use world::{Image, Stopped, World};

use onelog_record::Compression;

/// A bug of the shell, planted to prove that the checks see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShellBug {
    /// None.
    #[default]
    None,
    /// Entries count as durable as soon as they are staged: answers come before the flush.
    AnswerOnStage,
    /// Flushes count in the order in which they end, not in the order of the log.
    FlushOutOfOrder,
    /// Retention drops what the state has not checkpointed.
    RetainPastCheckpoint,
    /// Replay after a start skips the last entry.
    ReplayShort,
}

/// The bounds of a world: small, so that every path is walked often.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// How many clients there are.
    pub clients: usize,
    /// How many actions the scheduler takes before it drains.
    pub actions: usize,
    /// The log's segment size.
    pub segment_bytes: u64,
    /// The memtable is frozen at this size.
    pub memtable_bytes: usize,
    /// How many writes the validator's window holds.
    pub window_writes_max: usize,
    /// How many ids are remembered.
    pub ids_max: usize,
    /// How entries are stored.
    pub compression: Compression,
    /// How many flushes may be in flight.
    pub flushes_in_flight: usize,
    /// A bug of the shell.
    pub bug: ShellBug,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            clients: 6,
            actions: 1_500,
            segment_bytes: 16 << 10,
            memtable_bytes: 4 << 10,
            window_writes_max: 64,
            ids_max: 100_000,
            compression: Compression::None,
            flushes_in_flight: 3,
            bug: ShellBug::None,
        }
    }
}
