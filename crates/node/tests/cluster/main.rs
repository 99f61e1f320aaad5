//! Nodes of one cluster, from outside.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod backup;
mod disks;
mod failing;
mod failover;
mod growth;
mod joining;
mod not_following;
mod own_joining;
mod reading;
mod rig;
