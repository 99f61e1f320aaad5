//! The options of the door, and its bounds.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use onelog_record::{HEADERS_MAX, RECORDS_MAX, TRANSACTION_BYTES_MAX};

use crate::door::Advertised;

pub const PORT: u16 = 9092;
/// The most bytes of a request that produces: a transaction at its limit, with room beside it.
pub const PRODUCE_BYTES_MAX: usize = 16 << 20;
/// The most bytes of any other request.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The most bytes that requests over `REQUEST_FREE_BYTES` may hold together.
pub const REQUESTS_BYTES_MAX: usize = 128 << 20;
/// A request up to this size is not counted: the number of connections bounds these.
pub const REQUEST_FREE_BYTES: usize = 16 << 10;
/// How long a client may take to send a request, once it has begun, and to take an answer.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that is silent for so long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The most bytes that the records of a batch have when they are unpacked: a transaction at its limit,
/// and what the batch adds to each record.
pub const BATCH_BYTES_MAX: usize = TRANSACTION_BYTES_MAX + 64 * RECORDS_MAX;
/// The most headers of a record in a batch: those of a record of the log, and those that onelog adds.
pub const BATCH_HEADERS_MAX: usize = HEADERS_MAX + 3;
/// How long a client may wait for a transaction.
pub const PRODUCE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many batches of each idempotent producer are remembered for each table.
pub const PRODUCER_BATCHES: usize = 5;
/// How many idempotent producers are remembered, each for each of its tables.
pub const PRODUCERS_MAX: usize = 65_536;
/// About how many bytes of records one fetch is answered with, whatever the client allows.
pub const FETCH_BYTES_MAX: usize = 4 << 20;
/// About how many bytes all answers to fetches may hold together.
pub const FETCHES_BYTES_MAX: usize = 256 << 20;
/// How long a fetch may wait for records.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// About how many bytes of the log are read at once.
pub const LOG_BATCH_BYTES: usize = 256 << 10;
/// After how many bytes of the log a fetch lets others have their turn.
pub const SCAN_BYTES_MAX: usize = 8 << 20;
/// Of how many partitions a connection remembers how far they were looked at.
pub const SCANS_REMEMBERED_MAX: usize = 1024;
/// How many bytes of the log are read to find the record of a time.
pub const LOOKUP_BYTES_MAX: usize = 16 << 20;
/// How many bytes of the log are read to find the last record of a topic.
pub const LOOKUP_BACK_BYTES_MAX: usize = 256 << 20;
/// How many calls that read files may run at once.
pub const BLOCKING_CALLS_MAX: usize = 16;
/// A request of more bytes is worth a switch of threads.
pub const LARGE_REQUEST_BYTES: usize = 256 << 10;
/// The most topics that one request may bring into being.
pub const TOPICS_CREATED_MAX: usize = 16;
/// When no connection can be accepted (too many open files), the next try comes after this.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open connections may take to finish at shutdown.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// How the door is served.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The address to listen on. `serve` gets a bound listener; this is for the code that binds it.
    pub listen: SocketAddr,
    /// Where Metadata sends clients; where the door listens, unless it is set.
    pub advertised: Option<Advertised>,
    /// Whether a client that asks for an unknown topic, and allows it, gets a table made.
    pub create_topics: bool,
    /// The most connections at once; one more is closed.
    pub max_connections: usize,
    /// The tables that a configuration declares, each with its place there.
    pub declared: BTreeMap<String, String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            advertised: None,
            create_topics: false,
            max_connections: 1024,
            declared: BTreeMap::new(),
        }
    }
}
