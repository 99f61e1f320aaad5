//! What the connections are started with.

use std::net::SocketAddr;
use std::time::Duration;

use onelog_record::NodeId;

use crate::tls::TlsFiles;

#[derive(Clone, Debug)]
pub struct PeersOptions {
    /// The number of this node.
    pub node: NodeId,
    /// The log's id, or [`crate::NO_LOG`] where it is still to be learned from a peer.
    pub log_id: u128,
    /// Where other nodes connect to.
    pub listen: SocketAddr,
    /// The address by which they reach it, said to each of them: `HOST:PORT`. Without one it is the
    /// address where this node listens.
    pub advertise: Option<String>,
    /// Without them, loopback addresses alone.
    pub tls: Option<TlsFiles>,
    pub timing: Timing,
}

/// Intervals and time limits. The defaults suit machines in one region.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a look-up of a name together with a TCP connection may take.
    pub connect: Duration,
    /// How long TLS together with the greetings may take.
    pub greeting: Duration,
    /// How often each side sends something.
    pub ping: Duration,
    /// A connection ends when nothing was heard for so long.
    pub silence: Duration,
    /// A connection ends when the other side, though it is heard, has read nothing for so long.
    pub stall: Duration,
    /// How often the above is looked at, and how late a request may give up.
    pub tick: Duration,
    /// The pause after the first attempt that failed; it doubles up to the longest one. Each pause is
    /// cut by a random part of up to a half.
    pub pause_shortest: Duration,
    pub pause_longest: Duration,
    /// After so long a connection counts as one that works: faults are logged again.
    pub steady: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            greeting: Duration::from_secs(3),
            ping: Duration::from_secs(1),
            silence: Duration::from_secs(4),
            stall: Duration::from_secs(30),
            tick: Duration::from_millis(100),
            pause_shortest: Duration::from_millis(50),
            pause_longest: Duration::from_secs(2),
            steady: Duration::from_secs(5),
        }
    }
}
