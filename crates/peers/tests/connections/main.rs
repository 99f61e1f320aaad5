//! Nodes that are connected over loopback, with real sockets and real certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broken;
mod ends;
mod many;
mod refusals;
mod rig;
mod secure;
mod traffic;
