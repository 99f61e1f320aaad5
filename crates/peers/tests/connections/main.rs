//! Nodes that are connected over loopback, with real sockets and real certificates.

mod broken;
mod ends;
mod many;
mod refusals;
mod rig;
mod secure;
mod traffic;
