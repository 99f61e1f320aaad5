//! What can go wrong: at the start, on a connection, with a message, with a request.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use onelog_record::NodeId;

use crate::frame::{FrameError, FrameKind};
use crate::greeting::Refusal;
use crate::tls_advice::advice;

/// Why the connections cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a node's number is 1 or more")]
    NodeZero,
    #[error(
        "without certificates nodes are connected on one machine only, by a loopback address; {0} is none: configure certificate, key and authority"
    )]
    PlainText(SocketAddr),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("listening for other nodes on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("starting the threads of the connections: {0}")]
    Threads(#[source] io::Error),
}

/// An address that no peer can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("'{}' is no address of a node: HOST:PORT is", .0.escape_debug())]
    Form(String),
    #[error("this node connects to {0} others already, the limit")]
    TooMany(usize),
    #[error("node {0} is this node")]
    Itself(NodeId),
    #[error("the connections are stopped")]
    Stopped,
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("reading {} as PEM: {why}", path.display())]
    Pem { path: PathBuf, why: String },
    #[error("there is no certificate in PEM form in {}", .0.display())]
    Empty(PathBuf),
    #[error("the certificate in {} is not for {name}, the name of this node: {why}", path.display())]
    Name {
        path: PathBuf,
        name: String,
        why: String,
    },
    #[error("using certificate {} with key {}: {source}; the key must be the one that the certificate was made for", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("trusting the authority in {}: {why}", path.display())]
    Authority { path: PathBuf, why: String },
}

/// Why a connection could not be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("looking up {address}: {source}")]
    Resolve { address: String, source: io::Error },
    #[error(
        "{0} is on another machine, and without certificates nodes are connected on one machine only: configure certificate, key and authority"
    )]
    PlainText(SocketAddr),
    #[error("connecting to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connecting to {address}: no answer within {within_ms} ms")]
    NoAnswer { address: String, within_ms: u128 },
    #[error("TLS: {error}{advice}", error = .0, advice = advice(.0))]
    Tls(#[source] io::Error),
    #[error("TLS: {0}; does the other side have certificates configured?")]
    TlsAgainstPlain(#[source] io::Error),
    #[error("it did not say who it is within {0} ms")]
    NoGreeting(u128),
    #[error("closed by the other side before it said who it is")]
    NotGreeted,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("closed by the other side")]
    Closed,
    #[error("cut in the middle of a frame")]
    Cut,
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("closed: {0}")]
    Frame(#[from] FrameError),
    #[error("closed: a frame of kind {0:?} does not belong there")]
    Unexpected(FrameKind),
    #[error("closed: nothing was heard for {0} ms")]
    Silent(u128),
    #[error("closed: the other side has read nothing for {0} ms")]
    Stalled(u128),
    #[error("closed: {0}")]
    Ended(&'static str),
}

impl ConnectionError {
    /// Whether a process of onelog has answered, and one of the two does not want the other.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Tls(_) | Self::TlsAgainstPlain(_) => true,
            Self::Refused(refusal) => !matches!(refusal, Refusal::Greeting(_)),
            _ => false,
        }
    }
}

/// Why a message is dropped, or a request not sent. Nothing of it has reached the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("node {0} is no peer")]
    NotAPeer(NodeId),
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    #[error("too much waits already to be sent to the node, or to be answered by it")]
    Full,
    #[error("it has {is} bytes; one of this lane has at most {max}")]
    TooLarge { is: usize, max: usize },
    #[error("the connections are stopped")]
    Stopped,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    NotSent(#[from] SendError),
    #[error("the connection ended: {why}")]
    Lost { is_sent: bool, why: String },
    #[error("no answer in time")]
    TimedOut { is_sent: bool },
    #[error("the other node has too many requests at once")]
    Busy,
    #[error("the other node did not take the request")]
    Refused,
    #[error("the other node took the request and gave no answer")]
    Unanswered,
    #[error("the other node could not send the answer: too much waits to be sent")]
    AnswerDropped,
}

impl RequestError {
    /// Whether the other node may have carried the request out.
    #[must_use]
    pub const fn may_be_done(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Busy | Self::Refused => false,
            Self::Lost { is_sent, .. } | Self::TimedOut { is_sent } => *is_sent,
            Self::Unanswered | Self::AnswerDropped => true,
        }
    }
}
