//! Clusters of real processes, set up by the flags and the files that users have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod failing;
mod following;
mod growing;
mod load;
mod refused;
mod rig;
#[path = "../command/server.rs"]
#[allow(dead_code, reason = "the tests of single commands use more of it")]
mod server;
mod sinks;
