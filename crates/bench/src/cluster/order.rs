//! What the process that measures says to a node's process, and what comes back: JSON, one line each.

use std::net::SocketAddr;
use std::path::PathBuf;

use onelog::{ClusterOptions, Node, NodeId, Options, Position};
use serde::{Deserialize, Serialize};

use crate::load::{Failure, Shape};

/// How a node's process is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    pub folder: PathBuf,
    pub cache_bytes: usize,
    pub flushes: usize,
    pub memtable_bytes: usize,
    /// The node's number; `None`: it is alone.
    pub number: Option<u64>,
    /// Where it listened before; a port is chosen where there is none.
    pub listen: Option<SocketAddr>,
    pub peers: Vec<(u64, String)>,
}

impl Start {
    pub fn open(&self) -> Result<Node, Failure> {
        let mut options = Options {
            cache_bytes: self.cache_bytes,
            flushes_in_flight: self.flushes,
            memtable_bytes: self.memtable_bytes,
            memtable_bytes_max: onelog::MEMTABLE_BYTES_MAX.max(self.memtable_bytes * 4),
            ..Options::new(&self.folder)
        };
        if let Some(number) = self.number {
            let listen = self.listen.unwrap_or(([127, 0, 0, 1], 0).into());
            let peers = self.peers.iter();
            options.cluster = Some(ClusterOptions {
                peers: peers
                    .map(|(peer, address)| (NodeId(*peer), address.clone()))
                    .collect(),
                ..ClusterOptions::new(NodeId(number), listen)
            });
        }
        Ok(Node::open(options)?)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Makes the table and fills it.
    Fill {
        keys: u64,
    },
    /// Transactions, so many in flight.
    Load {
        shape: Shape,
        in_flight: usize,
        time_ms: u64,
    },
    /// Transactions of one client, one after the other.
    OneClient {
        commits: u64,
    },
    Add {
        number: u64,
        address: String,
    },
    Promote {
        number: u64,
    },
    Remove {
        number: u64,
    },
    /// One transaction, as often as it takes until it is committed.
    Commit,
    /// Waits until everything below a position is applied.
    Reach {
        position: Position,
    },
    /// Waits until a member has stored, durably, what the other ones have now. For the leader.
    Stored {
        number: u64,
    },
    /// Where the node is, without waiting.
    Where,
    /// Waits until another node than this leads, and all voters are connected and active where this one
    /// leads.
    Leader {
        other_than: Option<u64>,
    },
    Stop,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The process is ready; where other nodes reach it.
    Started {
        address: Option<String>,
    },
    Done,
    Loaded(Loaded),
    /// The median latency.
    Median {
        ms: f64,
    },
    At {
        position: Position,
        log_bytes: u64,
    },
    Leader {
        number: u64,
    },
    Failed {
        what: String,
    },
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// Transactions per second.
    pub rate: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
    /// Of the groups that were flushed meanwhile, on the average.
    pub group_transactions: f64,
    pub group_bytes: f64,
}
