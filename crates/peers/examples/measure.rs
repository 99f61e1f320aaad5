//! What the connections cost beside a bare loop over TCP on the same machine, in the same run:
//! `cargo run --release -p onelog-peers --example measure`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::{
    Handler, Lane, Peers, PeersOptions, Reply, SendError, Timing, TlsFiles, name_of,
};
use onelog_record::NodeId;
use onelog_testkit::Authority;

const TWO: NodeId = NodeId(2);
const TOTAL_BYTES: usize = 1 << 30;
const PIECES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];
const ROUND_TRIPS: usize = 5_000;
const IN_FLIGHT: usize = 64;
const LONG: Duration = Duration::from_secs(60);

/// Counts messages and echoes requests.
#[derive(Default)]
struct Counting {
    bytes: AtomicUsize,
    connected: Mutex<usize>,
    changed: Condvar,
}

impl Handler for Counting {
    fn message(&self, _from: NodeId, _topic: u16, bytes: Bytes) {
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
    }

    fn request(&self, _from: NodeId, _topic: u16, bytes: Bytes, reply: Reply) {
        reply.send(bytes);
    }

    fn connected(&self, _to: NodeId, _lane: Lane, _log_id: u128, _process: u64) {
        *self.connected.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

fn main() {
    for piece in PIECES {
        let total = TOTAL_BYTES.min(piece * 200_000);
        println!("{piece} bytes a message:");
        println!(
            "  bare TCP        {:6.0} MB/s",
            bare_throughput(piece, total)
        );
        for (name, authority) in [("peers           ", None), ("peers with TLS  ", Some(()))] {
            let pair = Pair::start(authority.is_some());
            println!("  {name}{:6.0} MB/s", pair.throughput(piece, total));
        }
    }
    println!("round trips of 100 bytes, one at a time, and {IN_FLIGHT} at once:");
    println!("  bare TCP        {:6.1} us", bare_round_trip());
    for (name, has_tls) in [("peers           ", false), ("peers with TLS  ", true)] {
        let pair = Pair::start(has_tls);
        let (one, many) = (pair.round_trip(1), pair.round_trip(IN_FLIGHT));
        println!("  {name}{one:6.1} us, {:7.0} a second", 1e6 / many);
        println!(
            "  {name}{:6.1} us while bulk is sent",
            pair.round_trip_under_load()
        );
    }
}

struct Pair {
    one: Peers,
    _two: Peers,
    counting: Arc<Counting>,
}

impl Pair {
    fn start(has_tls: bool) -> Self {
        let mut authority = has_tls.then(Authority::new);
        let mut start = |node: u64| {
            let tls = authority.as_mut().map(|authority| {
                let issued = authority.issue(&name_of(NodeId(node)));
                TlsFiles {
                    certificate: issued.certificate,
                    key: issued.key,
                    authority: issued.root,
                }
            });
            let options = PeersOptions {
                node: NodeId(node),
                log_id: 1,
                listen: ([127, 0, 0, 1], 0).into(),
                advertise: None,
                tls,
                timing: Timing::default(),
            };
            let counting = Arc::new(Counting::default());
            let handler: Arc<dyn Handler> = Arc::<Counting>::clone(&counting);
            (Peers::start(options, handler).unwrap(), counting)
        };
        let ((one, connected), (two, counting)) = (start(1), start(2));
        one.set(TWO, &two.local_address().to_string()).unwrap();
        let lanes = connected.connected.lock().unwrap();
        let all = |count: &mut usize| *count < Lane::ALL.len();
        drop(connected.changed.wait_while(lanes, all).unwrap());
        Self {
            one,
            _two: two,
            counting,
        }
    }

    fn throughput(&self, piece: usize, total: usize) -> f64 {
        let body = Bytes::from(vec![7; piece]);
        let start = Instant::now();
        for _ in 0..total / piece {
            self.send(&body);
        }
        while self.counting.bytes.load(Ordering::Relaxed) < total / piece * piece {
            thread::yield_now();
        }
        total as f64 / 1e6 / start.elapsed().as_secs_f64()
    }

    fn send(&self, body: &Bytes) {
        loop {
            match self.one.send(TWO, Lane::Bulk, 1, body.clone()) {
                Ok(()) => return,
                Err(SendError::Full) => thread::sleep(Duration::from_micros(200)),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Microseconds for each.
    fn round_trip(&self, in_flight: usize) -> f64 {
        let body = Bytes::from(vec![7; 100]);
        let start = Instant::now();
        let mut pending = std::collections::VecDeque::new();
        for _ in 0..ROUND_TRIPS * in_flight.min(8) {
            if pending.len() == in_flight {
                let first: onelog_peers::Pending = pending.pop_front().unwrap();
                first.wait().unwrap();
            }
            let request = self.one.request(TWO, Lane::Control, 1, body.clone(), LONG);
            pending.push_back(request);
        }
        for pending in pending {
            pending.wait().unwrap();
        }
        start.elapsed().as_secs_f64() * 1e6 / (ROUND_TRIPS * in_flight.min(8)) as f64
    }

    fn round_trip_under_load(&self) -> f64 {
        let ends = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let body = Bytes::from(vec![7; 1 << 20]);
                while !ends.load(Ordering::Relaxed) {
                    self.send(&body);
                }
            });
            let us = self.round_trip(1);
            ends.store(true, Ordering::Relaxed);
            us
        })
    }
}

fn bare() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

fn bare_throughput(piece: usize, total: usize) -> f64 {
    let (mut client, mut server) = bare();
    let start = Instant::now();
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while server.read(&mut buffer).unwrap() > 0 {}
    });
    let body = vec![7; piece];
    for _ in 0..total / piece {
        client.write_all(&body).unwrap();
    }
    drop(client);
    reader.join().unwrap();
    total as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn bare_round_trip() -> f64 {
    let (mut client, mut server) = bare();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 100];
        while server.read_exact(&mut buffer).is_ok() {
            server.write_all(&buffer).unwrap();
        }
    });
    let mut buffer = [7; 100];
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        client.write_all(&buffer).unwrap();
        client.read_exact(&mut buffer).unwrap();
    }
    let us = start.elapsed().as_secs_f64() * 1e6 / ROUND_TRIPS as f64;
    drop(client);
    echo.join().unwrap();
    us
}
