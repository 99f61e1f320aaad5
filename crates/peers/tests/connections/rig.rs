//! Nodes over loopback, and what their handlers have seen.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use onelog_peers::frame::{Decoder, Frame};
use onelog_peers::greeting::{Greeting, VERSIONS};
use onelog_peers::limits::BULK_BYTES_MAX;
use onelog_peers::{
    Figures, Handler, Lane, LaneFigures, Peers, PeersOptions, Reply, Timing, TlsFiles,
};
use onelog_record::NodeId;
use onelog_testkit::Certificates;

pub const LOG: u128 = 0xa;
/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Of requests that are answered.
pub const LONG: Duration = PATIENCE;

/// What a node does with a request, by its topic.
pub const ECHO: u16 = 1;
pub const HOLD: u16 = 2;
pub const REFUSE: u16 = 3;
pub const DROP: u16 = 4;
/// Answers with as many bytes as the first eight of the request say.
pub const LENGTH: u16 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected(NodeId, Lane, u128),
    Lost(NodeId, Lane),
    Message(NodeId, u16, Bytes),
    Request(NodeId, u16, Bytes),
}

#[derive(Debug, Default)]
pub struct Recorder {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub struct Seen {
    pub events: Vec<Event>,
    pub held: Vec<Reply>,
    pub refused: Vec<NodeId>,
}

impl Recorder {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub fn wait_for<T>(&self, what: &str, found: impl Fn(&mut Seen) -> Option<T>) -> T {
        let mut result = None;
        let (seen, timeout) = self
            .changed
            .wait_timeout_while(self.seen(), PATIENCE, |seen| {
                result = found(seen);
                result.is_none()
            })
            .unwrap();
        assert!(!timeout.timed_out(), "no {what}: {:?}", seen.events);
        result.unwrap()
    }

    pub fn wait_for_event(&self, event: &Event) {
        self.wait_for(&format!("{event:?}"), |seen| {
            seen.events.contains(event).then_some(())
        });
    }

    fn add(&self, event: Event) {
        self.seen().events.push(event);
        self.changed.notify_all();
    }
}

impl Handler for Recorder {
    fn admits(&self, from: NodeId, _address: &str) -> bool {
        !self.seen().refused.contains(&from)
    }

    fn message(&self, from: NodeId, topic: u16, bytes: Bytes) {
        self.add(Event::Message(from, topic, bytes));
    }

    fn request(&self, from: NodeId, topic: u16, bytes: Bytes, reply: Reply) {
        match topic {
            HOLD => self.seen().held.push(reply),
            REFUSE => reply.refuse(),
            DROP => drop(reply),
            LENGTH => {
                let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                static SEVENS: OnceLock<Bytes> = OnceLock::new();
                let sevens = SEVENS.get_or_init(|| vec![7; BULK_BYTES_MAX].into());
                reply.send(sevens.slice(..len as usize));
            }
            _ => {
                reply.send(bytes);
                return;
            }
        }
        self.add(Event::Request(from, topic, bytes));
    }

    fn connected(&self, to: NodeId, lane: Lane, log_id: u128, _process: u64) {
        self.add(Event::Connected(to, lane, log_id));
    }

    fn lost(&self, to: NodeId, lane: Lane) {
        self.add(Event::Lost(to, lane));
    }
}

pub struct Node {
    pub id: NodeId,
    pub peers: Peers,
    pub recorder: Arc<Recorder>,
}

/// Short intervals, so that tests do not wait; nothing depends on them.
pub fn timing() -> Timing {
    Timing {
        ping: Duration::from_millis(100),
        pause_shortest: Duration::from_millis(5),
        pause_longest: Duration::from_millis(50),
        tick: Duration::from_millis(20),
        connect: Duration::from_secs(20),
        greeting: Duration::from_secs(20),
        silence: Duration::from_secs(20),
        ..Timing::default()
    }
}

pub fn options(node: u64) -> PeersOptions {
    PeersOptions {
        node: NodeId(node),
        log_id: LOG,
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        tls: None,
        timing: timing(),
    }
}

pub fn files(certificates: &Certificates) -> TlsFiles {
    TlsFiles {
        certificate: certificates.certificate.clone(),
        key: certificates.key.clone(),
        authority: certificates.root.clone(),
    }
}

impl Node {
    pub fn start(node: u64) -> Self {
        Self::start_with(options(node))
    }

    pub fn start_with(options: PeersOptions) -> Self {
        let recorder = Arc::new(Recorder::default());
        let id = options.node;
        let handler: Arc<dyn Handler> = Arc::<Recorder>::clone(&recorder);
        let peers = Peers::start(options, handler).unwrap();
        Self {
            id,
            peers,
            recorder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.peers.local_address()
    }

    /// Calls another node, and waits until it is connected.
    pub fn connect(&self, other: &Self) {
        self.set(other.id, other.address());
        self.wait_connected(other.id);
    }

    pub fn set(&self, node: NodeId, address: SocketAddr) {
        self.peers.set(node, &address.to_string()).unwrap();
    }

    pub fn wait_connected(&self, node: NodeId) {
        for lane in Lane::ALL {
            self.recorder
                .wait_for(&format!("connection to {node}"), |_| {
                    self.lane(node, lane).is_connected.then_some(())
                });
        }
    }

    pub fn lane(&self, node: NodeId, lane: Lane) -> LaneFigures {
        let figures = self.peers.figures();
        let peer = figures.peers.iter().find(|peer| peer.node == node);
        let at = Lane::ALL.iter().position(|other| *other == lane).unwrap();
        peer.expect("it is a peer").lanes[at].clone()
    }

    /// Waits until an attempt has failed, or a connection ended, for a reason with this text.
    pub fn wait_for_error(&self, node: NodeId, lane: Lane, text: &str) {
        self.wait_until(|| {
            let error = self.lane(node, lane).last_error;
            error.is_some_and(|error| error.contains(text))
        });
    }

    pub fn wait_for_figures(&self, are_so: impl Fn(&Figures) -> bool) {
        self.wait_until(|| are_so(&self.peers.figures()));
    }

    /// Figures change without an event that a test could wait for, so they are looked at again and
    /// again.
    pub fn wait_until(&self, is_so: impl FnMut() -> bool) {
        wait_until(&format!("{:?}", self.id), is_so, || {
            format!("{:?}", self.peers.figures())
        });
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, state: impl Fn() -> String) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: {}", state());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A side of a connection that a test plays itself, without TLS.
pub struct Raw {
    pub stream: TcpStream,
    decoder: Decoder,
}

pub fn greeting(from: u64, to: u64, lane: Lane) -> Greeting {
    Greeting {
        versions: VERSIONS,
        log_id: LOG,
        from: NodeId(from),
        to: NodeId(to),
        process: 0xbeef,
        lane,
        address: "127.0.0.1:1".to_owned(),
    }
}

impl Raw {
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            decoder: Decoder::new(BULK_BYTES_MAX),
        }
    }

    /// Connects and is greeted.
    pub fn greeted(node: &Node, from: u64, lane: Lane) -> Self {
        let mut raw = Self::connect(node.address());
        raw.send(&greeting(from, node.id.get(), lane).to_frame());
        let theirs = raw.next().expect("a greeting");
        assert_eq!(Greeting::decode(&theirs.body).unwrap().from, node.id);
        raw
    }

    /// Takes the next connection that a node makes, and greets it.
    pub fn called(listener: &std::net::TcpListener, as_node: u64) -> (Self, Greeting) {
        let mut raw = Self::over(listener.accept().unwrap().0);
        let theirs = Greeting::decode(&raw.next().expect("a greeting").body).unwrap();
        let ours = greeting(as_node, theirs.from.get(), theirs.lane);
        raw.send(&ours.to_frame());
        (raw, theirs)
    }

    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode());
    }

    /// The other side may have closed already.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        use std::io::Write as _;
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame, none when the connection was closed.
    pub fn next(&mut self) -> Option<Frame> {
        use std::io::Read as _;
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 64 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(len) => self.decoder.space().put_slice(&piece[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads until the other side closes.
    pub fn wait_for_end(&mut self) {
        while self.next().is_some() {}
    }
}
