//! The start of a node of a cluster: whose log it is, before anything is opened.
//!
//! | node | its folder | what follows |
//! |---|---|---|
//! | any | has a log | that is opened; other nodes have the same one or are not connected |
//! | not 1 | empty | the log's id is learned from a peer; refused where it was here before ([`newcomer`]); else it waits to be added |
//! | 1 | empty, no peers listed | begins a log |
//! | 1 | empty, a peer has a log | refused: this disk has lost it |
//! | 1 | empty, all peers have none | begins a log |
//! | 1 | empty, a peer refuses the connection | refused: it could have the log |
//! | 1 | empty, a peer does not answer | refused, unless the options say `found` |

use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_log::{Corruption, Disk, HARD_STATE_FILE, HardState, HardStateError, is_log_file};
use onelog_peers::{AddressError, NO_LOG, PeerFigures, Peers, PeersOptions, StartError};
use onelog_record::{Index, NodeId};
use onelog_replica::{ELECTION_MS_MAX, ELECTION_MS_MIN, FOUNDER, READ_REPLICA};

use super::inbox::{Inbox, Logs, Messages};
use super::{Cluster, ClusterOptions, newcomer};

/// How often a node that waits for answers looks whether it is refused instead.
const REFUSAL_LOOK: Duration = Duration::from_millis(100);

/// A node cannot take part in its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Connections(#[from] StartError),
    #[error("node {node} cannot be connected to: {source}")]
    Peer { node: NodeId, source: AddressError },
    #[error(
        "an election after {election_ms} ms without a leader is not possible: choose from {ELECTION_MS_MIN} to {ELECTION_MS_MAX} ms, the same on all nodes"
    )]
    ElectionTime { election_ms: u64 },
    /// Others could not call back.
    #[error(
        "a node that listens on {0} is reached there by no other node: configure the address by which they reach it"
    )]
    NoAddress(std::net::SocketAddr),
    #[error(
        "node {0} joins a cluster and knows no other node: list at least one member with its address as a peer"
    )]
    NoPeers(NodeId),
    /// A joining node found no member.
    #[error(
        "no member of the cluster answered within {seconds} s ({tried}): start one, or correct the addresses"
    )]
    NoAnswer { seconds: u64, tried: String },
    /// The members do not take a joining node.
    #[error(
        "node {node} was removed from the cluster, says node {peer}, and numbers are not used again: start this machine with its empty folder under a new number"
    )]
    NumberUsed { node: NodeId, peer: NodeId },
    /// The founder's disk is empty and should not be.
    #[error(
        "the folder of node 1 is empty, but node {peer} has the log {log_id:032x} of this cluster: node 1 has lost its disk, and with it what it voted for. Remove node 1 from the cluster, and let this machine join it under a new number, as a learner first"
    )]
    DiskLost { peer: NodeId, log_id: u128 },
    /// The disk of a node that has voted or acknowledged entries is empty.
    #[error(
        "the folder of node {node} is empty, but node {node} has taken part in this cluster: it has lost its disk, and with it what it voted for and acknowledged. Remove node {node} from the cluster, and let this machine join it under a new number, as a learner first"
    )]
    NodeDiskLost { node: NodeId },
    /// Whether a node with an empty disk has lost it is not known.
    #[error(
        "the folder of node {node} is empty, and no leader has said within {seconds} s whether node {node} is new ({tried}): it could have lost its disk. Start the other nodes first; where no majority is left without this node, restore a backup"
    )]
    NoLeader {
        node: NodeId,
        seconds: u64,
        tried: String,
    },
    /// The founder's disk is empty, and whether it should be is not known.
    #[error(
        "the folder of node 1 is empty, and not all of its peers answered within {seconds} s ({tried}): they could have the log that this node has lost. Start them first; or, if this cluster has never run before, start node 1 with the option to found it"
    )]
    MayBeLost { seconds: u64, tried: String },
    /// The founder's disk is empty, and a process that is listed as a peer refuses to be one.
    #[error(
        "the folder of node 1 is empty, and a peer refuses the connection ({tried}): it could have the log that this node has lost, which no option overrules. Correct the list of peers, or what the reason says; or stop that process if it belongs to no cluster of yours"
    )]
    Refused { tried: String },
    /// The peers that are listed belong to two clusters.
    #[error(
        "node {first} has the log {first_id:032x} and node {second} the log {second_id:032x}: they belong to different clusters; correct the list of members"
    )]
    TwoLogs {
        first: NodeId,
        first_id: u128,
        second: NodeId,
        second_id: u128,
    },
    /// The log is shorter than it was: what it voted and acknowledged is not known.
    #[error(
        "the log of node {node} ends at entry {last}, and entries up to {durable} were durable here: its disk has lost acknowledged entries, so this node must not vote. Remove node {node} from the cluster, and let this machine join it with an empty folder under a new number, as a learner first"
    )]
    LostTail {
        node: NodeId,
        last: Index,
        durable: Index,
    },
    /// A damaged entry waits for a node that has it.
    #[error(
        "the log of node {node} is damaged ({fault}): {why}. Start another node that has the entry, then this one; or remove node {node} from the cluster, and let this machine join it with an empty folder under a new number, as a learner first"
    )]
    Damaged {
        node: NodeId,
        fault: Corruption,
        why: String,
    },
    /// The damage is of a kind that other nodes cannot mend.
    #[error(
        "the log of node {node} is damaged ({fault}) and cannot be mended: {why}. Remove node {node} from the cluster, and let this machine join it with an empty folder under a new number, as a learner first"
    )]
    NotMended {
        node: NodeId,
        fault: Corruption,
        why: String,
    },
    #[error(
        "so many frames of the log of node {node} are damaged that its disk is to be replaced: remove node {node} from the cluster, and let this machine join it with an empty folder under a new number, as a learner first"
    )]
    TooDamaged { node: NodeId },
    /// A member's folder was opened as that of a node that is alone.
    #[error(
        "the folder belongs to node {node} of a cluster: start it with its number, its address and its peers"
    )]
    NotAlone { node: NodeId },
    /// The log's own file cannot be read.
    #[error(transparent)]
    HardState(#[from] HardStateError),
    #[error("the log's folder cannot be read: {0}")]
    Disk(#[source] std::io::Error),
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Refuses the folder of a node that only a cluster has.
pub(crate) fn check_alone(log: &dyn Disk) -> Result<(), ClusterError> {
    match HardState::read(log) {
        // That of a read replica is refused by the opening.
        Ok(Some(found)) if ![FOUNDER, READ_REPLICA].contains(&NodeId(found.node)) => {
            Err(ClusterError::NotAlone {
                node: NodeId(found.node),
            })
        }
        // Whatever else is wrong is found by the opening, which says more.
        _ => Ok(()),
    }
}

/// A node's connections before it is opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) cluster: Cluster,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) messages: Messages,
    /// That of the folder, or that of the cluster; `None` where a log is to be begun.
    pub(crate) log_id: Option<u128>,
}

impl Opening {
    /// Connects, and finds out whose log it is. Blocks until enough peers have answered.
    pub(crate) fn begin(log: &dyn Disk, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let election_ms = options.election_ms;
        if !(ELECTION_MS_MIN..=ELECTION_MS_MAX).contains(&election_ms) {
            return Err(ClusterError::ElectionTime { election_ms });
        }
        if options.address.is_none() && options.listen.ip().is_unspecified() {
            return Err(ClusterError::NoAddress(options.listen));
        }
        let own = own_log(log)?;
        let is_empty = own == Own::Empty;
        if is_empty && options.node != FOUNDER && options.peers.is_empty() {
            return Err(ClusterError::NoPeers(options.node));
        }
        let known = match own {
            Own::Log(log_id) => log_id,
            Own::Empty | Own::Unknown => NO_LOG,
        };
        let (inbox, messages) = Inbox::new(options.node);
        let peers_options = PeersOptions {
            node: options.node,
            log_id: known,
            listen: options.listen,
            advertise: options.address.clone(),
            tls: options.tls.clone(),
            timing: options.timing,
        };
        let handler = Arc::clone(&inbox) as Arc<dyn onelog_peers::Handler>;
        let peers = Peers::start(peers_options, handler)?;
        for (node, address) in &options.peers {
            let set = peers.set(*node, address);
            set.map_err(|source| ClusterError::Peer {
                node: *node,
                source,
            })?;
        }
        let log_id = match own {
            Own::Log(log_id) => Some(log_id),
            Own::Unknown => None,
            Own::Empty => learn(options, &inbox, &peers)?,
        };
        let cluster = Cluster::new(options, peers).map_err(ClusterError::Thread)?;
        if is_empty && options.node != FOUNDER {
            newcomer::check(&cluster, options)?;
        }
        Ok(Self {
            cluster,
            inbox,
            messages,
            log_id,
        })
    }
}

/// Whose log a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Log(u128),
    Empty,
    /// There is something that the opening will refuse.
    Unknown,
}

pub(crate) fn own_log(log: &dyn Disk) -> Result<Own, ClusterError> {
    if let Some(found) = HardState::read(log)? {
        return Ok(Own::Log(found.log_id));
    }
    let names = log.list().map_err(ClusterError::Disk)?;
    // What a start leaves that was cut short before anything was there.
    let is_begun = |name: &String| is_log_file(name) && !name.starts_with(HARD_STATE_FILE);
    Ok(match names.iter().any(is_begun) {
        true => Own::Unknown,
        false => Own::Empty,
    })
}

/// The id of the cluster's log; `None` where this node is to begin it.
fn learn(
    options: &ClusterOptions,
    inbox: &Inbox,
    peers: &Peers,
) -> Result<Option<u128>, ClusterError> {
    let listed = options.peers.len();
    if listed == 0 {
        return Ok(None);
    }
    let founds = options.node == FOUNDER;
    let has_log = |logs: &Logs| logs.values().any(|id| *id != NO_LOG);
    let is_enough = |logs: &Logs| has_log(logs) || founds && logs.len() == listed;
    let logs = wait_for_logs(options, inbox, peers, is_enough)?;
    let mut found = logs.iter().filter(|(_, id)| **id != NO_LOG);
    let seconds = options.start_timeout.as_secs();
    let Some((&first, &first_id)) = found.next() else {
        let tried = tried(peers, &logs);
        let lanes = peers.figures().peers.into_iter().flat_map(|p| p.lanes);
        let is_refused = lanes.into_iter().any(|lane| lane.is_refused);
        return match () {
            () if founds && is_refused => Err(ClusterError::Refused { tried }),
            () if !founds => Err(ClusterError::NoAnswer { seconds, tried }),
            () if logs.len() == listed || options.found => Ok(None),
            () => Err(ClusterError::MayBeLost { seconds, tried }),
        };
    };
    if let Some((&second, &second_id)) = found.find(|(_, id)| **id != first_id) {
        return Err(ClusterError::TwoLogs {
            first,
            first_id,
            second,
            second_id,
        });
    }
    if founds {
        return Err(ClusterError::DiskLost {
            peer: first,
            log_id: first_id,
        });
    }
    peers.set_log_id(first_id);
    Ok(Some(first_id))
}

/// Waits for what peers answer; ends early where one says that this node was removed.
fn wait_for_logs(
    options: &ClusterOptions,
    inbox: &Inbox,
    peers: &Peers,
    is_enough: impl Fn(&Logs) -> bool,
) -> Result<Logs, ClusterError> {
    let deadline = Instant::now() + options.start_timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let logs = inbox.wait_for_logs(left.min(REFUSAL_LOOK), &is_enough);
        if is_enough(&logs) || left.is_zero() {
            return Ok(logs);
        }
        let figures = peers.figures().peers;
        let refuses = |peer: &PeerFigures| peer.lanes.iter().any(|lane| lane.is_not_admitted);
        if let Some(peer) = figures.iter().find(|peer| refuses(peer)) {
            return Err(ClusterError::NumberUsed {
                node: options.node,
                peer: peer.node,
            });
        }
    }
}

/// Which peers were tried, and what became of it.
fn tried(peers: &Peers, logs: &Logs) -> String {
    let figures = peers.figures().peers;
    let each = figures.into_iter().map(|peer| {
        let [control, bulk] = peer.lanes;
        let why = match logs.contains_key(&peer.node) {
            true => "has no log yet".to_owned(),
            false => (control.last_error.or(bulk.last_error))
                .unwrap_or_else(|| "not connected".to_owned()),
        };
        format!("node {} at {}: {why}", peer.node, peer.address)
    });
    each.collect::<Vec<_>>().join("; ")
}
