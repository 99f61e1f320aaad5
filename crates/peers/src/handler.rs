//! What the connections call.

use bytes::Bytes;
use onelog_record::NodeId;

use crate::lane::Lane;
use crate::request::Reply;

/// Takes what comes from other nodes. It is called on the threads of the connections and must not
/// wait there, nor panic: what it cannot take at once it drops, refuses, or hands to another thread.
///
/// `from` is checked: with TLS by the node's certificate.
pub trait Handler: Send + Sync + 'static {
    /// Whether a node may connect to this one. `address` is where it says that it can be reached.
    fn admits(&self, from: NodeId, address: &str) -> bool {
        let _ = (from, address);
        true
    }

    /// A message has come. Those of one connection come in the order in which they were sent, the last
    /// ones perhaps not at all, and none twice.
    fn message(&self, from: NodeId, topic: u16, bytes: Bytes);

    /// A request has come. Its answer may be given later, by any thread.
    fn request(&self, from: NodeId, topic: u16, bytes: Bytes, reply: Reply);

    /// This node's connection to a peer is there. `log_id` is that of the peer's log,
    /// [`crate::NO_LOG`] where it has none; `process` is another number for each start of the peer.
    fn connected(&self, to: NodeId, lane: Lane, log_id: u128, process: u64) {
        let _ = (to, lane, log_id, process);
    }

    /// It has ended; messages that were sent last may not have arrived.
    fn lost(&self, to: NodeId, lane: Lane) {
        let _ = (to, lane);
    }
}
