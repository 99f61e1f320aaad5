//! The options of the HTTP server, and its bounds.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use onelog_sinks::SinkStatus;

use crate::api::Sink;

pub const PORT: u16 = 7070;
/// The most rows of one page of a table.
pub const LIST_LIMIT_MAX: usize = 10_000;
/// The rows of one page of a table, unless the request says.
pub const LIST_LIMIT: usize = 100;
/// The most bytes of keys and values of one page of a table; the page ends early there.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// How long a read waits for a position, unless the request says.
pub const WAIT_TIMEOUT_MS: u64 = 5_000;
/// About how many bytes of the log are read at once for one reader.
pub const LOG_BATCH_BYTES: usize = 256 << 10;
/// How many calls that read files may run at once.
pub const BLOCKING_CALLS_MAX: usize = 16;
/// How many sinks may be verified at once.
pub const VERIFICATIONS_MAX: usize = 2;
/// How many definitions may be tried at once: their programs may take long.
pub const DRY_RUNS_MAX: usize = 4;
/// The most bytes that request bodies over `BODY_FREE_BYTES` may hold together, by default.
pub const BODIES_BYTES_MAX: usize = 128 << 20;
/// A body up to this size is not counted: the number of connections bounds these.
pub const BODY_FREE_BYTES: usize = 64 << 10;
/// The most tables that one request may bring into being with `create_tables`.
pub const TABLES_CREATED_MAX: usize = 16;
/// How many read replicas may be sent the log at once.
pub const REPLICA_STREAMS_MAX: usize = 64;
/// How many checkpoints are kept for read replicas that fetch them.
pub const REPLICA_PINS_MAX: usize = 2;
/// A checkpoint is let go when nothing of it was requested for so long.
pub const REPLICA_PIN_IDLE: Duration = Duration::from_secs(60);
/// How long open connections may take to finish at shutdown.
pub const SHUTDOWN_GRACE_MS: u64 = 10_000;

/// How the door is served.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The address to listen on. `serve` gets a bound listener; this is for the code that binds it.
    pub listen: SocketAddr,
    /// Whether a transaction that names an unknown table creates it (keyed, JSON).
    pub create_tables: bool,
    /// The most connections at once; one more is answered 503 and closed.
    pub max_connections: usize,
    /// How long a request may take behind its body, without the waits that it names.
    pub request_timeout_ms: u64,
    /// How long a client may take to send a request's head.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a request's body.
    pub body_timeout_ms: u64,
    /// The most bytes that large request bodies (over 64 KiB) may hold together.
    pub bodies_bytes_max: usize,
    /// The most readers of `/v1/log` at once.
    pub log_streams_max: usize,
    /// How often a silent event stream shows that it lives.
    pub heartbeat_ms: u64,
    /// What the server's configuration makes again at each start.
    pub declared: Declared,
}

/// The tables and sinks that a configuration declares, each with its place there.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    pub tables: BTreeMap<String, String>,
    pub sinks: BTreeMap<String, String>,
}

impl Declared {
    /// The answer about a sink.
    pub(crate) fn sink(&self, status: SinkStatus) -> Sink {
        let declared = self.sinks.get(&status.name).cloned();
        Sink::new(status, declared)
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            create_tables: false,
            max_connections: 1024,
            request_timeout_ms: 30_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            bodies_bytes_max: BODIES_BYTES_MAX,
            log_streams_max: 256,
            heartbeat_ms: 10_000,
            declared: Declared::default(),
        }
    }
}
