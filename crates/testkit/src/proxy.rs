//! A TCP proxy on loopback that delays, refuses and cuts, at an exact byte where a test wants it.
//!
//! Threads: one accepts, two for each connection. One lock guards the list of connections and the
//! trap; nothing is read or written under it.

mod connection;
mod trap;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connection::{Connection, reset_at_close};
use trap::{Trap, Verdict};

use crate::port::Port;
use crate::server::Server;

pub use trap::Direction;

/// How long a test waits for something to happen at the proxy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A proxy in front of one server; dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: Port,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    refuses: bool,
    listens: bool,
    ends: bool,
    delay: Duration,
    trap: Option<Trap>,
    connections: HashMap<u64, Arc<Connection>>,
    accepted: u64,
    /// How often all connections were cut: one that is being made then is cut as well.
    rounds: u64,
    cuts: usize,
}

impl Proxy {
    /// Starts a proxy to a server, which need not be up.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let port = Port::take();
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = thread::Builder::new()
            .name("proxy".into())
            .spawn({
                let (shared, port) = (Arc::clone(&shared), port.number());
                move || accept_until_the_end(&shared, port)
            })
            .expect("a thread can be started");
        let proxy = Self {
            shared,
            port,
            acceptor: Some(acceptor),
        };
        proxy.wait_for("the proxy to listen", |state| state.listens);
        proxy
    }

    /// Starts a proxy to a server of this kit.
    #[must_use]
    pub fn in_front_of(server: &dyn Server) -> Self {
        Self::to((Ipv4Addr::LOCALHOST, server.port()).into())
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The server's url with this proxy as its host.
    #[must_use]
    pub fn url_of(&self, server_url: &str) -> String {
        let (scheme, rest) = server_url
            .split_once("://")
            .unwrap_or_else(|| panic!("'{server_url}' is not a url"));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("{scheme}://{user}{}{path}", self.address())
    }

    /// Closes all connections with a reset; returns when they are gone. New ones are welcome.
    pub fn cut(&self) {
        let last = self.shared.state().accepted;
        self.shared.cut_all();
        self.wait_for("the connections to end", |state| {
            state.connections.keys().all(|number| *number > last)
        });
    }

    /// Arms: when so many more bytes went that way, on all connections together, everything is
    /// cut. With 0 the next byte is one too many.
    pub fn cut_after_bytes(&self, direction: Direction, bytes: usize) {
        self.shared.state().trap = Some(Trap::AfterBytes {
            direction,
            left: bytes,
        });
    }

    /// Arms: a request that contains these bytes, such as `COMMIT`, reaches the server, which
    /// carries it out; its answer is lost, and once the server is done the connection is cut.
    pub fn cut_answer_after(&self, pattern: &[u8]) {
        assert!(!pattern.is_empty(), "a pattern has a byte");
        self.shared.state().trap = Some(Trap::AnswerAfter {
            pattern: pattern.to_owned(),
        });
    }

    /// Whether new connections are refused, as when no server runs; open ones are not touched.
    pub fn refuse(&self, refuse: bool) {
        self.shared.state().refuses = refuse;
        self.shared.changed.notify_all();
        if refuse {
            self.wake_acceptor();
        }
        self.wait_for("the port to change", |state| state.listens != refuse);
    }

    /// Holds back every piece of an answer for so long.
    pub fn delay_ms(&self, delay_ms: u64) {
        self.shared.state().delay = Duration::from_millis(delay_ms);
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Waits until at least so many connections are open.
    pub fn wait_for_connections(&self, count: usize) {
        self.wait_for("connections", |state| state.connections.len() >= count);
    }

    /// How many connections were cut so far, by whatever.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.shared.state().cuts
    }

    /// Waits until at least so many connections were cut: an armed trap has sprung.
    pub fn wait_for_cuts(&self, count: usize) {
        self.wait_for("cuts", |state| state.cuts >= count);
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.state(), PATIENCE, |state| !is_so(state))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited in vain for {what}: {state:?}");
    }

    /// It looks up only when a client connects.
    fn wake_acceptor(&self) {
        let _ = TcpStream::connect(self.address());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.shared.changed.notify_all();
        self.wake_acceptor();
        self.shared.cut_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cut_all(&self) {
        let mut state = self.state();
        state.rounds += 1;
        state.cuts += state
            .connections
            .values()
            .filter(|open| !open.is_cut())
            .count();
        for connection in state.connections.values() {
            connection.sever();
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn cut_one(&self, connection: &Connection) {
        connection.sever();
        self.state().cuts += 1;
        self.changed.notify_all();
    }

    pub(crate) fn judge(&self, going: Direction, seen: &mut Vec<u8>, data: &[u8]) -> Verdict {
        trap::judge(&mut self.state().trap, seen, going, data)
    }

    /// Waits for as long as the test wants answers to be late, or until the connection is cut.
    pub(crate) fn delay(&self, connection: &Connection) {
        let mut state = self.state();
        let until = Instant::now() + state.delay;
        while !connection.is_cut() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn accept_until_the_end(shared: &Arc<Shared>, port: u16) {
    loop {
        let state = shared
            .changed
            .wait_while(shared.state(), |state| state.refuses && !state.ends)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ends {
            return;
        }
        drop(state);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .expect("no other process takes a port that is held");
        shared.state().listens = true;
        shared.changed.notify_all();
        accept(shared, &listener);
        drop(listener);
        shared.state().listens = false;
        shared.changed.notify_all();
    }
}

/// Accepts until the proxy refuses or ends.
fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        // A client may be gone before it is accepted.
        let client = listener.accept();
        let mut state = shared.state();
        if state.refuses || state.ends {
            return;
        }
        let Ok((client, _)) = client else {
            continue;
        };
        state.accepted += 1;
        let (number, round) = (state.accepted, state.rounds);
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || connect(&shared, client, number, round));
    }
}

/// Connects a client that came in `round` to the server and passes data until both have ended.
fn connect(shared: &Arc<Shared>, client: TcpStream, number: u64, round: u64) {
    let server = TcpStream::connect(shared.server);
    let mut state = shared.state();
    let (Ok(server), false) = (server, state.ends || state.rounds != round) else {
        reset_at_close(&client);
        return;
    };
    let connection = Arc::new(Connection::new(client, server));
    state.connections.insert(number, Arc::clone(&connection));
    drop(state);
    shared.changed.notify_all();
    connection::serve(shared, &connection);
    let mut state = shared.state();
    state.connections.remove(&number);
    // Closes the sockets before a test hears that the connection is gone.
    drop(connection);
    drop(state);
    shared.changed.notify_all();
}
