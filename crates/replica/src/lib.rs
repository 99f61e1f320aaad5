//! One replica of the log as a state machine: everything that decides, and nothing that waits.
//!
//! ```text
//!            Event ──▶ ┌─────────────────────────────────────────────┐ ──▶ Answer
//!  Submitted           │ Replica                                     │     by ticket
//!  ReadBarrier         │   engine      validate, number, agree       │ ──▶ Job
//!  Flushed             │   log, state  stage, apply                  │     Flush, Checkpoint,
//!  Checkpointed        │   catalog     the tables at this position   │     Prepare, Retain,
//!  Prepared, Retained  │   hard state, checkpoints, retention,       │     SaveWatermark
//!  WatermarkSaved      │   limits                                    │ ──▶ Observer
//!  Idle, Stop          │                                             │     what readers may see
//!  + the time: Now ──▶ └─────────────────────────────────────────────┘
//! ```
//!
//! It has no threads, no clock and no channel. A driver reports [`Event`]s together with the time,
//! runs the [`Job`]s wherever it likes, and hands the [`Answer`]s to those who wait. Two drivers
//! exist: the node (package `onelog`), with threads; and the simulator, which does one thing after
//! the other in an order that a seed decides, on disks that fail and forget. Both drive this code.
//!
//! A driver's loop, one turn after the other:
//! 1. [`Replica::handle`] for what has ended, then for requests while [`Replica::may_take`];
//! 2. [`Replica::end_turn`];
//! 3. when nothing was to be done: wait, and report [`Event::Idle`] after a while of silence.
//!
//! Invariants:
//! - An answer leaves only when what it rests on is durable and applied.
//! - The catalog that decides a request is the one at its place in the log: requests behind a
//!   definition are held until it is applied, and the catalog never lags behind the position.
//! - What is committed can be applied: a change of the tables is checked against that catalog.
//! - The log is never cut above what the last checkpoint needs, nor, unless the options say so,
//!   above what a follower needs.
//! - A failure is final. Nothing is tried again: the next start recovers from the disks. That a
//!   checkpoint finds no room on the disk is no failure: it waits until there is some.

mod catalog;
mod checkpoints;
mod cluster;
mod definitions;
mod digests;
mod dropped;
mod effects;
mod events;
mod failure;
mod followers;
mod handing_on;
mod hard_state;
mod jobs;
mod log_clock;
mod observer;
mod opening;
mod options;
pub mod planted;
mod read_replica;
mod replica;
mod retention;
mod schema;
mod snapshots;
mod space;
mod start;
mod system_writes;
mod view;

pub use catalog::{Catalog, CatalogError};
pub use cluster::Role;
pub use definitions::{Creation, NewTable, TableError, check, creation, removal};
pub use digests::{Contents, DIGESTS_MAX, DigestAt};
pub use events::{Event, Now, Request};
pub use failure::Failure;
pub use followers::{Follower, Followers, sink_follower};
pub use jobs::{Answer, CheckpointJob, Checkpointed, Job, Outbox, ReadForFollower, TransferError};
pub use observer::Observer;
pub use onelog_engine::READ_REPLICA;
pub use opening::{Recovered, StartError};
pub use options::{
    ELECTION_MS, ELECTION_MS_MAX, ELECTION_MS_MIN, FOUNDER, QUEUE_WAIT_MS_MAX, ReplicaOptions,
};
pub use read_replica::{FromSource, with_read_replica};
pub use replica::Replica;
pub use schema::SchemaError;
pub use snapshots::{ArrivedSnapshot, PinnedSnapshot, SendSnapshot};
pub use space::SpaceReport;
pub use start::StartProgress;
