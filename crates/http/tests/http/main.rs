//! The door over a real node on loopback, from outside: what goes in as bytes, what comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod document;
mod hostile;
mod limits;
mod log;
mod numbers;
mod quotes;
mod reads;
mod replica;
mod server;
mod shutdown;
mod sink_names;
mod sinks;
mod system;
mod tables;
mod transactions;
