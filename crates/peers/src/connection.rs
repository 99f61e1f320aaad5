//! One connection: TCP, TLS, the greetings, then frames both ways until it ends.
//!
//! It is one task. Reading never waits for those who use what comes, so a connection on which nothing
//! is heard is one whose other side is gone: each side sends a ping at least every `Timing::ping`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use onelog_record::NodeId;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::ConnectionError;
use crate::frame::{Decoder, Frame, FrameKind};
use crate::greeting::{Greeting, Refusal};
use crate::limits::{COPIED_BYTES_MAX, GREETING_BYTES_MAX, PIECE_BYTES};
use crate::link::Link;
use crate::options::Timing;
use crate::tls::{self, Configs};

/// How much of what is not wanted any more is read before the connection is closed.
const LINGER_READS_MAX: usize = 64;

/// TCP with or without TLS.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection whose sides may still have to say who they are.
pub(crate) struct Open {
    io: Box<dyn Io>,
    decoder: Decoder,
}

/// Connects to `address`, as node `to` of the certificates.
pub(crate) async fn call(
    address: &str,
    to: NodeId,
    configs: Option<Configs>,
    timing: &Timing,
) -> Result<Open, ConnectionError> {
    let no_answer = || ConnectionError::NoAnswer {
        address: address.to_owned(),
        within_ms: timing.connect.as_millis(),
    };
    let tcp = timeout(timing.connect, connect(address, configs.is_some(), timing))
        .await
        .map_err(|_| no_answer())??;
    let _ = tcp.set_nodelay(true);
    let io: Box<dyn Io> = match configs {
        None => Box::new(tcp),
        Some(configs) => {
            let handshake =
                TlsConnector::from(configs.client).connect(tls::server_name_of(to), tcp);
            let handshake = timeout(timing.greeting, handshake).await;
            Box::new(handshake.map_err(|_| no_answer())?.map_err(of_tls)?)
        }
    };
    Ok(Open::new(io))
}

async fn connect(
    address: &str,
    has_tls: bool,
    timing: &Timing,
) -> Result<TcpStream, ConnectionError> {
    let addresses = tokio::net::lookup_host(address).await;
    let addresses = addresses.map_err(|source| ConnectionError::Resolve {
        address: address.to_owned(),
        source,
    })?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if !has_tls && let Some(other) = addresses.iter().find(|a| !a.ip().is_loopback()) {
        return Err(ConnectionError::PlainText(*other));
    }
    // A name may have several addresses, of which the first does not answer.
    let each = timing.connect / addresses.len().max(1) as u32;
    let mut source = io::Error::from(io::ErrorKind::NotFound);
    for to in addresses {
        match timeout(each, TcpStream::connect(to)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => source = error,
            Err(_) => source = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(ConnectionError::Connect {
        address: address.to_owned(),
        source,
    })
}

/// Takes a connection of another node; with TLS, what its certificate says is checked by
/// `check_name` once it has said who it is.
pub(crate) async fn accept(
    tcp: TcpStream,
    configs: Option<Configs>,
) -> Result<(Open, Option<Certificates>), ConnectionError> {
    let _ = tcp.set_nodelay(true);
    let Some(configs) = configs else {
        return Ok((Open::new(Box::new(tcp)), None));
    };
    let handshake = TlsAcceptor::from(configs.server).accept(tcp);
    let tls = match handshake.into_fallible().await {
        Ok(tls) => tls,
        Err((error, mut tcp)) => {
            // The alert that says why is lost if the other side is cut off before it has read it.
            linger(&mut tcp).await;
            return Err(of_tls(error));
        }
    };
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = shown.iter().map(|c| c.clone().into_owned()).collect();
    Ok((Open::new(Box::new(tls)), Some(shown)))
}

pub(crate) type Certificates = Vec<rustls::pki_types::CertificateDer<'static>>;

fn of_tls(error: io::Error) -> ConnectionError {
    use rustls::{Error, InvalidMessage};
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            ConnectionError::TlsAgainstPlain(error)
        }
        _ => ConnectionError::Tls(error),
    }
}

impl Open {
    fn new(io: Box<dyn Io>) -> Self {
        Self {
            io,
            decoder: Decoder::new(GREETING_BYTES_MAX),
        }
    }

    pub async fn send(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        self.io.write_all(&frame.encode()).await.map_err(of_io)?;
        self.io.flush().await.map_err(of_io)
    }

    /// Sends why the connection is not wanted, and lets the other side read it.
    pub async fn refuse(mut self, refusal: &Refusal, within: Duration) {
        let goodbye = async {
            let _ = self.send(&refusal.to_frame()).await;
            linger(&mut self.io).await;
        };
        let _ = timeout(within, goodbye).await;
    }

    /// The greeting of the other side.
    pub async fn greeting(&mut self) -> Result<Greeting, ConnectionError> {
        let frame = loop {
            if let Some(frame) = self.decoder.next_frame()? {
                break frame;
            }
            let read = self.io.read_buf(self.decoder.space()).await;
            match read.map_err(of_io) {
                Ok(0) | Err(ConnectionError::Closed) => return Err(ConnectionError::NotGreeted),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        };
        match frame.kind {
            FrameKind::Greeting => Ok(Greeting::decode(&frame.body).map_err(Refusal::from)?),
            FrameKind::Refusal => Err(Refusal::of_frame(&frame).into()),
            other => Err(ConnectionError::Unexpected(other)),
        }
    }

    /// Carries frames both ways until the connection ends; says why.
    pub async fn run(
        mut self,
        link: &Link,
        timing: &Timing,
        on_frame: impl FnMut(Frame) -> Result<(), ConnectionError>,
    ) -> ConnectionError {
        self.decoder.set_body_max(link.lane.bytes_max());
        let (reader, writer) = tokio::io::split(self.io);
        tokio::select! {
            error = read(reader, self.decoder, link, on_frame) => error,
            error = write(writer, link) => error,
            error = watch(link, timing) => error,
            why = link.closed() => ConnectionError::Ended(why),
        }
    }
}

/// Ends the connection so that the other side reads what was sent last: what it has sent itself and
/// is not read would make of the closing a reset, which discards that.
async fn linger(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = io.shutdown().await;
    let mut rest = [0; 512];
    for _ in 0..LINGER_READS_MAX {
        if !io.read(&mut rest).await.is_ok_and(|n| n > 0) {
            return;
        }
    }
}

async fn read(
    mut io: ReadHalf<Box<dyn Io>>,
    mut decoder: Decoder,
    link: &Link,
    mut on_frame: impl FnMut(Frame) -> Result<(), ConnectionError>,
) -> ConnectionError {
    loop {
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(error) = on_frame(frame) {
                        return error;
                    }
                }
                Err(error) => return error.into(),
            }
        }
        match io.read_buf(decoder.space()).await.map_err(of_io) {
            Ok(0) | Err(ConnectionError::Closed) if decoder.is_inside() => {
                return ConnectionError::Cut;
            }
            Ok(0) => return ConnectionError::Closed,
            Ok(bytes) => link.heard(bytes),
            Err(error) => return error,
        }
    }
}

async fn write(mut io: WriteHalf<Box<dyn Io>>, link: &Link) -> ConnectionError {
    match write_until_an_error(&mut io, link).await {
        Ok(never) => match never {},
        Err(error) => of_io(error),
    }
}

async fn write_until_an_error(
    io: &mut WriteHalf<Box<dyn Io>>,
    link: &Link,
) -> io::Result<std::convert::Infallible> {
    let mut out = Vec::with_capacity(PIECE_BYTES + COPIED_BYTES_MAX);
    loop {
        let frame = match link.take() {
            Some(frame) => frame,
            None => {
                write_all(io, &out, link).await?;
                out.clear();
                io.flush().await?;
                link.next().await
            }
        };
        out.extend_from_slice(&frame.head());
        let is_copied = frame.body.len() <= COPIED_BYTES_MAX;
        if is_copied {
            out.extend_from_slice(&frame.body);
        }
        if !is_copied || out.len() >= PIECE_BYTES {
            write_all(io, &out, link).await?;
            out.clear();
        }
        if !is_copied {
            write_all(io, &frame.body, link).await?;
        }
    }
}

async fn write_all(
    io: &mut WriteHalf<Box<dyn Io>>,
    mut bytes: &[u8],
    link: &Link,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = io.write(bytes).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        link.progressed();
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Pings, gives up requests whose time has passed, and ends a connection on which nothing moves.
async fn watch(link: &Link, timing: &Timing) -> ConnectionError {
    let mut ticks = interval(timing.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last_tick, mut last_ping) = (Instant::now(), None);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if now - last_tick > timing.silence / 2 {
            link.forgive();
        }
        last_tick = now;
        link.give_up(now);
        if link.unheard_for() > timing.silence {
            return ConnectionError::Silent(timing.silence.as_millis());
        }
        let (queued, _, _) = link.load();
        if queued > 0 && link.stalled_for() > timing.stall {
            return ConnectionError::Stalled(timing.stall.as_millis());
        }
        if last_ping.is_none_or(|at| now - at >= timing.ping) {
            last_ping = Some(now);
            link.ping();
        }
    }
}

fn of_io(error: io::Error) -> ConnectionError {
    use io::ErrorKind as Kind;
    match error.kind() {
        // What a side does that ends at once, with or without TLS.
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe | Kind::NotConnected => {
            ConnectionError::Closed
        }
        _ if error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
            ConnectionError::Tls(error)
        }
        _ => ConnectionError::Io(error),
    }
}
