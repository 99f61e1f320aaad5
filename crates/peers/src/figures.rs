//! What is known about the connections, for status and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use onelog_record::NodeId;

use crate::lane::Lane;

/// All connections at one moment. Counts never fall while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub peers: Vec<PeerFigures>,
    /// Connections that other nodes have made, also those that are no peers of this one.
    pub incoming: Vec<IncomingFigures>,
    /// Of connections that others have made: refused by this node, for a reason of the greetings or of
    /// TLS; ended because of bytes that are no frame, or none that belongs there.
    pub refused: u64,
    pub damaged: u64,
}

/// A node that this one connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFigures {
    pub node: NodeId,
    pub address: String,
    /// In the order of [`crate::Lane::ALL`].
    pub lanes: [LaneFigures; 2],
}

/// A connection that another node has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingFigures {
    pub node: NodeId,
    pub lane: Lane,
    /// Where the node says that it can be reached.
    pub address: String,
    /// Where another process says that it is this node too, which was refused lately.
    pub other: Option<String>,
    /// Of its log, 0 where it has none.
    pub log_id: u128,
    pub received_bytes: u64,
}

/// This node's connection to a peer on one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneFigures {
    pub is_connected: bool,
    /// Milliseconds since 1970.
    pub connected_since_ms: Option<u64>,
    /// Of the peer, 0 where it has none.
    pub log_id: Option<u128>,
    pub attempts: u64,
    /// How many connections have ended.
    pub lost: u64,
    /// Messages and requests with their bytes, without greetings and pings.
    pub sent: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub queued: usize,
    pub queued_bytes: usize,
    pub unanswered: usize,
    /// Messages that were not sent: not connected, too much queued, or queued when a connection ended.
    pub dropped: u64,
    pub round_trip_us: Option<u64>,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
    /// Whether the peer refuses this node as no member (any more).
    pub is_not_admitted: bool,
    /// Whether a process of onelog answers there, and is not connected for what one of the two is.
    pub is_refused: bool,
}

#[derive(Debug, Default)]
pub(crate) struct LaneCounters {
    pub attempts: AtomicU64,
    pub lost: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    dropped: AtomicU64,
    round_trip_us: AtomicU64,
    has_round_trip: AtomicBool,
    connected_since_ms: AtomicU64,
}

impl LaneCounters {
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn dropped(&self, messages: usize) {
        self.dropped.fetch_add(messages as u64, Ordering::Relaxed);
    }

    pub fn round_trip(&self, us: u64) {
        self.round_trip_us.store(us, Ordering::Relaxed);
        self.has_round_trip.store(true, Ordering::Relaxed);
    }

    pub fn connected(&self) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since_1970.map_or(0, |since| since.as_millis() as u64);
        self.connected_since_ms.store(ms, Ordering::Relaxed);
    }

    pub fn figures(&self) -> LaneFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LaneFigures {
            connected_since_ms: Some(of(&self.connected_since_ms)),
            attempts: of(&self.attempts),
            lost: of(&self.lost),
            sent: of(&self.sent),
            sent_bytes: of(&self.sent_bytes),
            received_bytes: of(&self.received_bytes),
            dropped: of(&self.dropped),
            round_trip_us: self
                .has_round_trip
                .load(Ordering::Relaxed)
                .then(|| of(&self.round_trip_us)),
            ..LaneFigures::default()
        }
    }
}
