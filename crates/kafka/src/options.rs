//! The options of the door, and its bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

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
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            advertised: None,
            create_topics: false,
            max_connections: 1024,
        }
    }
}
