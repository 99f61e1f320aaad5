//! Redis (and Valkey) as a store: one server, or a cluster by partitions.
//!
//! Rows and position move in one `MULTI … EXEC` (`write`). Redis has no transactions that undo
//! and no snapshots, so: nothing is sent before every row of a batch has been made, commands are
//! chosen so that none can fail inside `EXEC`, and snapshots are made by copying what is about to
//! change (`snapshot`). A rebuild is written under other names and put in place by one script
//! (`rebuild`), which also takes away the keys of templates that are no longer used (`retired`).
//!
//! Redis may lose its newest steps in a crash (`appendfsync everysec`); rows and position are lost
//! together, and the log fills the gap. A position that is absent is not position 0: nothing is
//! known about the rows then, and the sink is backfilled, which also takes away what was left.
//!
//! With partitions a batch is atomic in each of them only. The position is the least of theirs.
//!
//! One value belongs to one thread; its snapshots are read by others.

mod bookkeeping;
mod connection;
mod decode;
mod encode;
mod error;
mod fence;
mod kind;
mod reader;
mod rebuild;
mod retired;
mod scripts;
mod snapshot;
mod store;
mod write;

#[cfg(test)]
mod tests;

pub use self::kind::{KIND, PARTITIONS_MAX, RedisKind, RedisTarget};
pub use self::store::RedisStore;
