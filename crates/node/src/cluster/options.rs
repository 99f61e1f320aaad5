//! How a node takes part in a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use onelog_peers::{Timing, TlsFiles};
use onelog_record::NodeId;
pub use onelog_replica::{ELECTION_MS, ELECTION_MS_MAX, ELECTION_MS_MIN};

/// How long a start waits for other nodes to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node requests to become by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// It gets the log and decides nothing.
    Learner,
    /// It votes, once it has caught up.
    Voter,
}

/// A node among several. [`ClusterOptions::new`] has defaults for everything but number and address.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The number of this node, for ever: a node that was removed, or whose disk is lost, comes back
    /// under a new one. Node 1 begins the log; each other one joins it.
    pub node: NodeId,
    /// Where other nodes connect to.
    pub listen: SocketAddr,
    /// The address by which they reach it, `HOST:PORT`. Without one it is the address where this node
    /// listens, which must then be one.
    pub address: Option<String>,
    /// The other nodes, as far as they are known: one that answers is enough.
    pub peers: Vec<(NodeId, String)>,
    /// Without them, loopback addresses alone.
    pub tls: Option<TlsFiles>,
    /// Begin a log on node 1 though some of its peers do not answer. For the first start alone: they
    /// could have a log that this node has lost.
    pub found: bool,
    /// A node that is no member yet requests its own addition, at each start until it is one. One that
    /// was removed is refused. Without it the node waits to be added.
    pub join: Option<Join>,
    /// How long a start with an empty folder waits for other nodes to answer.
    pub start_timeout: Duration,
    /// How long this node waits for a leader before it seeks the leadership: from so many milliseconds
    /// up to twice as many, [`ELECTION_MS_MIN`] at least and [`ELECTION_MS_MAX`] at most. A leader is
    /// heard of five times within it, so it must be several times what a message takes between the
    /// nodes. The same on all nodes.
    pub election_ms: u64,
    pub timing: Timing,
}

impl ClusterOptions {
    #[must_use]
    pub fn new(node: NodeId, listen: SocketAddr) -> Self {
        Self {
            node,
            listen,
            address: None,
            peers: Vec::new(),
            tls: None,
            found: false,
            join: None,
            start_timeout: START_TIMEOUT,
            election_ms: ELECTION_MS,
            timing: Timing::default(),
        }
    }
}
