//! What all connections of this node share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use onelog_record::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::dial::PeerLane;
use crate::figures::{Figures, IncomingFigures, PeerFigures};
use crate::greeting::{Greeting, VERSIONS};
use crate::handler::Handler;
use crate::lane::Lane;
use crate::link::Link;
use crate::options::Timing;
use crate::seen::Seen;
use crate::tls::Tls;

/// For how long another process with the number of a connected one is shown; it calls again much
/// sooner.
const OTHER_SHOWN: Duration = Duration::from_secs(60);

pub(crate) struct Shared {
    pub node: NodeId,
    pub process: u64,
    /// Where this node says that it can be reached.
    pub address: String,
    pub log_id: Mutex<u128>,
    pub tls: Option<Tls>,
    pub timing: Timing,
    pub handler: Arc<dyn Handler>,
    pub table: Mutex<Table>,
    pub incoming: Mutex<IncomingTable>,
    pub refused: AtomicU64,
    pub damaged: AtomicU64,
    /// Faults of connections that others make.
    pub seen: Seen,
}

#[derive(Default)]
pub(crate) struct Table {
    pub is_stopped: bool,
    pub peers: BTreeMap<NodeId, Peer>,
}

/// A node to which this one connects. The tasks that do end when the address is dropped.
pub(crate) struct Peer {
    pub address: watch::Sender<String>,
    pub lanes: [Arc<PeerLane>; 2],
}

pub(crate) type IncomingTable = HashMap<(NodeId, Lane), Incoming>;

pub(crate) struct Incoming {
    pub link: Arc<Link>,
    pub process: u64,
    pub address: String,
    /// Where another process with the number was, and when it was refused last.
    pub other: Option<(String, Instant)>,
}

impl Incoming {
    fn other(&self) -> Option<String> {
        let (address, at) = self.other.as_ref()?;
        (at.elapsed() < OTHER_SHOWN).then(|| address.clone())
    }
}

impl Peer {
    pub fn end(&self, why: &'static str) {
        for lane in &self.lanes {
            lane.end(why);
        }
    }
}

impl Shared {
    pub fn greeting(&self, to: NodeId, lane: Lane) -> Greeting {
        Greeting {
            versions: VERSIONS,
            log_id: *self.log_id.lock(),
            from: self.node,
            to,
            process: self.process,
            lane,
            address: self.address.clone(),
        }
    }

    /// Ends a connection that was greeted with an id of the log which is not this node's any more.
    pub fn close_if_greeted_otherwise(&self, link: &Link, greeted_with: u128) {
        let log_id = *self.log_id.lock();
        if log_id != greeted_with {
            self.close_if_other_log(link, log_id);
        }
    }

    fn close_if_other_log(&self, link: &Link, log_id: u128) {
        if link.log_id != log_id {
            link.close("this node has learned the id of its log");
        }
    }

    pub fn set_log_id(&self, log_id: u128) {
        let before = std::mem::replace(&mut *self.log_id.lock(), log_id);
        if before == log_id {
            return;
        }
        for peer in self.table.lock().peers.values() {
            for link in peer.lanes.iter().filter_map(|lane| lane.link()) {
                self.close_if_other_log(&link, log_id);
            }
        }
        for incoming in self.incoming.lock().values() {
            self.close_if_other_log(&incoming.link, log_id);
        }
    }

    /// A node has called, so it can probably be called too.
    pub fn wake(&self, node: NodeId) {
        if let Some(peer) = self.table.lock().peers.get(&node) {
            for lane in &peer.lanes {
                lane.wake();
            }
        }
    }

    /// Ends all connections that a node has made.
    pub fn end_incoming_of(&self, node: Option<NodeId>, why: &'static str) {
        let incoming = self.incoming.lock();
        for ((from, _), incoming) in &*incoming {
            if node.is_none_or(|node| node == *from) {
                incoming.link.close(why);
            }
        }
    }

    pub fn figures(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let peers = self.table.lock();
        let peers = peers.peers.iter().map(|(node, peer)| PeerFigures {
            node: *node,
            address: peer.address.borrow().clone(),
            lanes: peer.lanes.each_ref().map(|lane| lane.figures()),
        });
        let peers = peers.collect();
        let mut incoming: Vec<_> = self
            .incoming
            .lock()
            .iter()
            .map(|((node, lane), incoming)| IncomingFigures {
                node: *node,
                lane: *lane,
                address: incoming.address.clone(),
                other: incoming.other(),
                log_id: incoming.link.log_id,
                received_bytes: incoming.link.counters.figures().received_bytes,
            })
            .collect();
        incoming.sort_by_key(|incoming| (incoming.node, incoming.lane));
        Figures {
            peers,
            incoming,
            refused: of(&self.refused),
            damaged: of(&self.damaged),
        }
    }
}
