//! One connection through the proxy: two threads, one for each direction.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::Shared;
use super::trap::{Direction, Verdict};

/// The most that is passed on at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
    cut: AtomicBool,
    /// The server's answers are thrown away from now on; then the client is cut.
    keep_answer: AtomicBool,
    writing_to_client: AtomicBool,
    writing_to_server: AtomicBool,
}

impl Connection {
    pub(crate) fn new(client: TcpStream, server: TcpStream) -> Self {
        for stream in [&client, &server] {
            // Delays of an own would only hide what is tested.
            let _ = stream.set_nodelay(true);
        }
        Self {
            client,
            server,
            cut: AtomicBool::new(false),
            keep_answer: AtomicBool::new(false),
            writing_to_client: AtomicBool::new(false),
            writing_to_server: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    pub(crate) fn sever(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for (stream, writing) in [
            (&self.client, &self.writing_to_client),
            (&self.server, &self.writing_to_server),
        ] {
            // Sends the reset at once and wakes the threads that read or write here.
            if rustix::net::connect_unspec(stream).is_ok() {
                continue;
            }
            // Linux 6.4 to 6.6 do not do that while a thread waits: the reset is sent when the
            // threads have let go of the socket. A writer that is stuck needs more, which the
            // other side may see as an orderly end.
            reset_at_close(stream);
            let how = if writing.load(Ordering::SeqCst) {
                Shutdown::Both
            } else {
                Shutdown::Read
            };
            let _ = stream.shutdown(how);
        }
    }

    /// A severed connection does not begin to write: either it sees `cut`, or `sever` sees that it
    /// writes.
    fn write(&self, direction: Direction, data: &[u8]) -> io::Result<()> {
        let (mut stream, writing) = match direction {
            Direction::ToServer => (&self.server, &self.writing_to_server),
            Direction::ToClient => (&self.client, &self.writing_to_client),
        };
        writing.store(true, Ordering::SeqCst);
        let written = if self.is_cut() {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            stream.write_all(data)
        };
        writing.store(false, Ordering::SeqCst);
        written
    }
}

/// The peer gets a reset instead of an orderly end when this socket is closed.
pub(crate) fn reset_at_close(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Passes data both ways until both sides have ended.
pub(crate) fn serve(shared: &Arc<Shared>, connection: &Arc<Connection>) {
    thread::scope(|scope| {
        scope.spawn(|| pump(shared, connection, Direction::ToClient));
        pump(shared, connection, Direction::ToServer);
    });
}

fn pump(shared: &Shared, connection: &Connection, direction: Direction) {
    let (mut from, to) = match direction {
        Direction::ToServer => (&connection.client, &connection.server),
        Direction::ToClient => (&connection.server, &connection.client),
    };
    let mut data = vec![0; PIECE_BYTES];
    let mut seen = Vec::new();
    loop {
        let read = from.read(&mut data);
        if connection.is_cut() {
            return;
        }
        let keeps_answer = connection.keep_answer.load(Ordering::SeqCst);
        let ours = keeps_answer && direction == Direction::ToClient;
        match read {
            // The server has done all that was requested, and no client heard of it.
            Ok(0) | Err(_) if ours => return shared.cut_one(connection),
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Err(_) => return connection.sever(),
            // It answers: let it finish what else it was sent, then it ends the connection.
            Ok(_) if ours => {
                let _ = connection.server.shutdown(Shutdown::Write);
            }
            Ok(count) => {
                if pass(shared, connection, direction, &mut seen, &data[..count]).is_err() {
                    if !connection.keep_answer.load(Ordering::SeqCst) {
                        connection.sever();
                    }
                    return;
                }
            }
        }
    }
}

fn pass(
    shared: &Shared,
    connection: &Connection,
    direction: Direction,
    seen: &mut Vec<u8>,
    data: &[u8],
) -> io::Result<()> {
    if direction == Direction::ToClient {
        shared.delay(connection);
    }
    match shared.judge(direction, seen, data) {
        Verdict::Pass => connection.write(direction, data),
        Verdict::PassAndCutAll(count) => {
            let written = connection.write(direction, &data[..count]);
            shared.cut_all();
            written
        }
        Verdict::PassAndKeepAnswer => {
            // Before the request leaves: its answer could be back at once.
            connection.keep_answer.store(true, Ordering::SeqCst);
            connection.write(direction, data)
        }
    }
}
