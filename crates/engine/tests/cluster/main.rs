//! Several engines in one thread: what no single voter can show. Messages are delayed, reordered,
//! doubled and lost, flushes end late, nodes crash and come back with what was durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod handing_on;
mod leadership;
mod node;
mod random;
mod scripted;
mod support;
mod world;
