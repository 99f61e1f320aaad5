//! Several replicas in one thread, each on two simulated disks, with a network in memory: what no
//! single one can show. Messages are delayed, reordered, doubled and lost, jobs end late, disks lose
//! what was not flushed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checkpoints;
mod deposed;
mod digests;
mod earlier_copy;
mod members;
mod only_voter;
mod saved_commit;
mod seeds;
mod snapshots;
mod stories;
mod waiting;
