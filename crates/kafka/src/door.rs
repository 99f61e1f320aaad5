//! What every connection shares.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use onelog::Node;
use onelog_sinks::Sinks;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::answer::Fault;
use crate::options::{BLOCKING_CALLS_MAX, FETCHES_BYTES_MAX, KafkaOptions, REQUESTS_BYTES_MAX};
use crate::producers::Producers;
use crate::topics::Topics;

/// The number of a server that is alone, as a Kafka broker.
const ALONE: i32 = 1;

/// An address that clients learn from Metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub host: String,
    pub port: u16,
}

impl From<SocketAddr> for Advertised {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Advertised {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let parts = text.rsplit_once(':');
        let parsed = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parsed {
            Some((host, port)) if !host.is_empty() && !host.contains(':') => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!(
                "'{text}' is not an address: expected host:port, such as 127.0.0.1:9092"
            )),
        }
    }
}

/// The state of the door.
#[derive(Debug)]
pub struct Door {
    pub node: Node,
    pub sinks: Sinks,
    pub options: KafkaOptions,
    /// Where Metadata sends clients.
    pub advertised: Advertised,
    /// Room for large requests, in bytes.
    pub request_bytes: Semaphore,
    fetch_bytes: Arc<Semaphore>,
    blocking: Arc<Semaphore>,
    producers: Mutex<Producers>,
    stop: watch::Sender<bool>,
}

impl Door {
    pub fn new(node: Node, sinks: Sinks, options: KafkaOptions, listens: SocketAddr) -> Arc<Self> {
        let advertised = options.advertised.clone();
        Arc::new(Self {
            node,
            sinks,
            advertised: advertised.unwrap_or_else(|| listens.into()),
            options,
            request_bytes: Semaphore::new(REQUESTS_BYTES_MAX),
            fetch_bytes: Arc::new(Semaphore::new(FETCHES_BYTES_MAX)),
            blocking: Arc::new(Semaphore::new(BLOCKING_CALLS_MAX)),
            producers: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Completes when the door closes.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender lives as long as the door; without it the door is closed as well.
            let _ = stop.wait_for(|stopped| *stopped).await;
        }
    }

    /// What is remembered of idempotent producers.
    pub fn producers(&self) -> MutexGuard<'_, Producers> {
        self.producers.lock()
    }

    /// Takes room for what one fetch may hold.
    pub async fn fetch_memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.fetch_bytes).acquire_many_owned(bytes);
        room.await
            .map_err(|error| Fault::Interrupted(error.to_string()))
    }

    /// Runs a call that may read files, off the tasks that serve connections. Only so many run at once.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let interrupted = |error: &dyn fmt::Display| Fault::Interrupted(error.to_string());
        let turn = Arc::clone(&self.blocking).acquire_owned().await;
        let turn = turn.map_err(|error| interrupted(&error))?;
        let door = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let result = call(&door);
            drop(turn);
            result
        });
        work.await.map_err(|error| interrupted(&error))
    }

    /// This server's number as a Kafka broker: that of its node.
    pub fn broker(&self) -> i32 {
        let cluster = self.node.cluster();
        cluster.map_or(ALONE, |cluster| {
            i32::try_from(cluster.node).unwrap_or(i32::MAX)
        })
    }

    /// The term, as Kafka's leader epoch. The log of a server that is alone never has another leader.
    pub fn epoch(&self) -> i32 {
        let cluster = self.node.cluster();
        cluster.map_or(0, |cluster| i32::try_from(cluster.term).unwrap_or(i32::MAX))
    }

    /// Whether other nodes may have more of the log than this one.
    pub fn is_one_of_several(&self) -> bool {
        self.node.cluster().is_some() || self.node.following().is_some()
    }

    /// The log's id, as Kafka's id of a cluster.
    pub fn cluster_id(&self) -> String {
        format!("{:032x}", self.node.log_id())
    }

    pub fn topics(&self) -> Topics {
        Topics::new(self.node.catalog(), self.node.log_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<Advertised>();
        let named = parse("log.example.org:9092").unwrap();
        assert_eq!((named.host.as_str(), named.port), ("log.example.org", 9092));
        let six = parse("[::1]:9").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 9));
        assert_eq!(six.to_string(), "[::1]:9");
        for wrong in ["", "host", ":1", "host:99999", "a:b:1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
