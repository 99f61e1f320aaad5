//! The handle: starts the connections, sends, requests, shows, stops.
//!
//! Threads: `onelog-peers`, two workers of a runtime of its own, so that what else a program does with
//! tokio neither delays heartbeats nor decides when they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onelog_record::NodeId;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::dial::{PeerLane, keep_connected};
use crate::error::{AddressError, SendError, StartError};
use crate::figures::Figures;
use crate::frame::{Frame, FrameKind};
use crate::handler::Handler;
use crate::lane::Lane;
use crate::limits::{ADDRESS_BYTES_MAX, PEERS_MAX};
use crate::link::Link;
use crate::listen;
use crate::options::PeersOptions;
use crate::request::Pending;
use crate::seen::Seen;
use crate::shared::{Peer, Shared, Table};
use crate::tls::Tls;

const WORKERS: usize = 2;
/// How long stopping waits for a look-up of a name that goes on; nothing else can hold it up.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
const STOPPED: &str = "the connections are stopped";

/// The connections between this node and the others. Clones are the same connections; the last one
/// that is dropped stops them.
#[derive(Clone)]
pub struct Peers(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    local_address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
}

impl Peers {
    /// Listens, and is ready for peers to be added.
    ///
    /// # Errors
    /// When the options, the certificates or the address cannot be used.
    pub fn start(options: PeersOptions, handler: Arc<dyn Handler>) -> Result<Self, StartError> {
        if options.node == NodeId::ZERO {
            return Err(StartError::NodeZero);
        }
        if options.tls.is_none() && !options.listen.ip().is_loopback() {
            return Err(StartError::PlainText(options.listen));
        }
        if let Some(address) = &options.advertise {
            check_address(address)?;
        }
        let tls = options.tls.map(|files| Tls::load(files, options.node));
        let tls = tls.transpose()?;
        let listen_failed = |source| StartError::Listen {
            address: options.listen,
            source,
        };
        let listener = std::net::TcpListener::bind(options.listen).map_err(listen_failed)?;
        listener.set_nonblocking(true).map_err(listen_failed)?;
        let local_address = listener.local_addr().map_err(listen_failed)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("onelog-peers")
            .enable_io()
            .enable_time()
            .build()
            .map_err(StartError::Threads)?;
        let registered = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)
        };
        let listener = match registered {
            Ok(listener) => listener,
            Err(error) => {
                runtime.shutdown_background();
                return Err(listen_failed(error));
            }
        };
        let shared = Arc::new(Shared {
            node: options.node,
            process: rand::random(),
            address: options
                .advertise
                .unwrap_or_else(|| local_address.to_string()),
            log_id: Mutex::new(options.log_id),
            tls,
            timing: options.timing,
            handler,
            table: Mutex::default(),
            incoming: Mutex::default(),
            refused: 0.into(),
            damaged: 0.into(),
            seen: Seen::default(),
        });
        runtime.spawn(listen::accept(Arc::clone(&shared), listener));
        Ok(Self(Arc::new(Running {
            shared,
            local_address,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })))
    }

    /// Where it listens; the port is the kernel's choice where the options say 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.0.local_address
    }

    /// Adds a peer, or gives it another address; a connection to another address is ended.
    ///
    /// # Errors
    /// When it can have none.
    pub fn set(&self, node: NodeId, address: &str) -> Result<(), AddressError> {
        let shared = &self.0.shared;
        check_address(address)?;
        if node == shared.node || node == NodeId::ZERO {
            return Err(AddressError::Itself(node));
        }
        let mut table = shared.table.lock();
        if table.is_stopped {
            return Err(AddressError::Stopped);
        }
        if let Some(peer) = table.peers.get(&node) {
            peer.address.send_if_modified(|current| {
                let is_other = current != address;
                if is_other {
                    address.clone_into(current);
                }
                is_other
            });
            return Ok(());
        }
        if table.peers.len() >= PEERS_MAX {
            return Err(AddressError::TooMany(PEERS_MAX));
        }
        let (sender, receiver) = watch::channel(address.to_owned());
        let seen = Arc::new(Seen::default());
        let lanes = Lane::ALL.map(|lane| Arc::new(PeerLane::new(node, lane, Arc::clone(&seen))));
        for lane in &lanes {
            let (shared, lane) = (Arc::clone(shared), Arc::clone(lane));
            let task = keep_connected(shared, lane, receiver.clone());
            self.0.handle.spawn(task);
        }
        let address = sender;
        table.peers.insert(node, Peer { address, lanes });
        Ok(())
    }

    /// Ends the connections to a peer and those that it has made; what has come already may still be
    /// handed to the handler. Whether it may come back is decided by [`Handler::admits`].
    pub fn remove(&self, node: NodeId) {
        const WHY: &str = "the node was removed";
        let peer = self.0.shared.table.lock().peers.remove(&node);
        if let Some(peer) = peer {
            peer.end(WHY);
        }
        self.0.shared.end_incoming_of(Some(node), WHY);
    }

    /// Says from now on that this node has this log. Connections with nodes that have another one, or
    /// had none when they were connected, are ended and made again.
    pub fn set_log_id(&self, log_id: u128) {
        self.0.shared.set_log_id(log_id);
    }

    /// Sends a message. It waits for nothing: what cannot be queued now is dropped and counted, and
    /// what is queued is lost when the connection ends ([`Handler::lost`]).
    ///
    /// # Errors
    /// When the message is dropped.
    pub fn send(&self, to: NodeId, lane: Lane, topic: u16, bytes: Bytes) -> Result<(), SendError> {
        let peer = self.lane(to, lane)?;
        let frame = Frame {
            body: bytes,
            ..Frame::bare(FrameKind::Message, topic, 0)
        };
        let sent = match peer.link() {
            Some(link) => link.push(frame),
            None => Err(SendError::NotConnected(to)),
        };
        sent.inspect_err(|_| peer.count_dropped())
    }

    /// Sends a request. Whatever happens it has an answer or an error soon after `within` at the
    /// latest; the error says whether it may have been carried out. It is never sent twice.
    pub fn request(
        &self,
        to: NodeId,
        lane: Lane,
        topic: u16,
        bytes: Bytes,
        within: Duration,
    ) -> Pending {
        let link = self.lane(to, lane).and_then(|peer| connected(&peer));
        Pending::new(link.and_then(|link| link.request(topic, bytes, within)))
    }

    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.shared.figures()
    }

    /// Ends all connections and answers all requests. When it returns no thread of the connections
    /// runs any more, unless it was called on one of them.
    pub fn stop(&self) {
        self.0.stop();
    }

    fn lane(&self, to: NodeId, lane: Lane) -> Result<Arc<PeerLane>, SendError> {
        let table = self.0.shared.table.lock();
        match table.peers.get(&to) {
            Some(peer) => Ok(Arc::clone(&peer.lanes[lane.at()])),
            None if table.is_stopped => Err(SendError::Stopped),
            None => Err(SendError::NotAPeer(to)),
        }
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("node", &self.0.shared.node)
            .field("local_address", &self.0.local_address)
            .finish_non_exhaustive()
    }
}

impl Running {
    fn stop(&self) {
        let peers = {
            let mut table = self.shared.table.lock();
            let Table { is_stopped, peers } = &mut *table;
            *is_stopped = true;
            std::mem::take(peers)
        };
        for peer in peers.values() {
            peer.end(STOPPED);
        }
        self.shared.end_incoming_of(None, STOPPED);
        // A thread of a runtime must not wait for the end of one, nor for another thread that does.
        if Handle::try_current().is_ok() {
            let runtime = self
                .runtime
                .try_lock()
                .and_then(|mut runtime| runtime.take());
            if let Some(runtime) = runtime {
                runtime.shutdown_background();
            }
            return;
        }
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_timeout(STOP_TIMEOUT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn connected(peer: &PeerLane) -> Result<Arc<Link>, SendError> {
    peer.link().ok_or(SendError::NotConnected(peer.node))
}

/// `HOST:PORT`; whether the host has an address is seen when it is connected to.
fn check_address(address: &str) -> Result<(), AddressError> {
    let is_one = address.len() <= ADDRESS_BYTES_MAX
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
        && !address.chars().any(|c| c.is_control() || c == ' ');
    match is_one {
        true => Ok(()),
        false => Err(AddressError::Form(address.to_owned())),
    }
}
