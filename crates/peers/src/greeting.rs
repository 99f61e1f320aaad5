//! The first frame of each side: who it is, and whether the two may be connected.
//!
//! ```text
//!  0 magic u32 "OLPR" | 4 oldest u16 | 6 newest u16: versions of what follows that it speaks
//!  8 log_id u128: 0 where it has no log yet | 24 from u64: its node | 32 to u64: the node it wants
//! 40 process u64: random for each start | 48 lane u8: 1 control, 2 bulk | 49 zero u8
//! 50 address_len u16 | 52 address: where it can be reached
//! ```
//!
//! This layout never changes; what a later version adds comes behind the address and is not read by
//! this one.

use bytes::Bytes;
use onelog_record::NodeId;

use crate::frame::{Frame, FrameKind};
use crate::lane::Lane;
use crate::limits::{ADDRESS_BYTES_MAX, REFUSAL_BYTES_MAX};

const MAGIC: u32 = u32::from_le_bytes(*b"OLPR");
const FIXED_BYTES: usize = 52;
/// The versions that this build speaks.
pub const VERSIONS: Versions = Versions {
    oldest: 1,
    newest: 1,
};
/// The id of the log where there is none yet.
pub const NO_LOG: u128 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub oldest: u16,
    pub newest: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub versions: Versions,
    pub log_id: u128,
    pub from: NodeId,
    pub to: NodeId,
    /// Tells two processes that have the same number.
    pub process: u64,
    pub lane: Lane,
    pub address: String,
}

/// Bytes that are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    #[error("it does not speak the protocol of onelog's peers")]
    Magic,
    #[error("its greeting ends early")]
    Short,
    #[error("its greeting has the reserved number of a node, 0")]
    NodeZero,
    #[error("its greeting is for a lane that is not known, {0}")]
    Lane(u8),
    #[error("its greeting has an address that is no short text")]
    Address,
}

/// Why two nodes are not connected. Both sides see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("node {from} has the log {theirs:032x}, this node {to} has {ours:032x}")]
    WrongLog {
        from: NodeId,
        to: NodeId,
        theirs: u128,
        ours: u128,
    },
    #[error("the address leads to node {is}, wanted is node {wanted}")]
    WrongNode { wanted: NodeId, is: NodeId },
    #[error(
        "node {from} speaks the versions {}..={} of the peers' protocol, this node {}..={}: upgrade the older one",
        theirs.oldest, theirs.newest, VERSIONS.oldest, VERSIONS.newest
    )]
    Version { from: NodeId, theirs: Versions },
    #[error("the address of a peer leads to node {0} itself")]
    Itself(NodeId),
    #[error(
        "two processes are node {node}: stop the wrong one, or give it a number of its own; they are at {first} and {second}"
    )]
    SameNumber {
        node: NodeId,
        /// Where the one is that stays.
        first: String,
        second: String,
    },
    #[error("node {0} is no member here")]
    NotAdmitted(NodeId),
    #[error("its certificate is not for {}: {why}", crate::tls::name_of(*.node))]
    Certificate { node: NodeId, why: String },
    #[error("there are {0} connections already")]
    TooMany(usize),
    #[error("{0}")]
    Greeting(#[from] GreetingError),
    /// By the other side, with its reason.
    #[error("{}", text.escape_debug())]
    There { code: u16, text: String },
}

impl Greeting {
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        let mut body = Vec::with_capacity(FIXED_BYTES + self.address.len());
        body.extend_from_slice(&MAGIC.to_le_bytes());
        body.extend_from_slice(&self.versions.oldest.to_le_bytes());
        body.extend_from_slice(&self.versions.newest.to_le_bytes());
        body.extend_from_slice(&self.log_id.to_le_bytes());
        body.extend_from_slice(&self.from.get().to_le_bytes());
        body.extend_from_slice(&self.to.get().to_le_bytes());
        body.extend_from_slice(&self.process.to_le_bytes());
        body.extend_from_slice(&[self.lane as u8, 0]);
        body.extend_from_slice(&(self.address.len() as u16).to_le_bytes());
        body.extend_from_slice(self.address.as_bytes());
        Frame {
            body: body.into(),
            ..Frame::bare(FrameKind::Greeting, 0, 0)
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(body: &[u8]) -> Result<Self, GreetingError> {
        if !body.starts_with(&MAGIC.to_le_bytes()) {
            return Err(GreetingError::Magic);
        }
        let Some((fixed, rest)) = body.split_first_chunk::<FIXED_BYTES>() else {
            return Err(GreetingError::Short);
        };
        let address_len = usize::from(u16_at(fixed, 50));
        let address = rest.get(..address_len).ok_or(GreetingError::Short)?;
        let address = std::str::from_utf8(address).map_err(|_| GreetingError::Address)?;
        if address.len() > ADDRESS_BYTES_MAX || address.chars().any(char::is_control) {
            return Err(GreetingError::Address);
        }
        let (from, to) = (u64_at(fixed, 24), u64_at(fixed, 32));
        if from == 0 || to == 0 {
            return Err(GreetingError::NodeZero);
        }
        let log_id = u128::from(u64_at(fixed, 8)) | u128::from(u64_at(fixed, 16)) << 64;
        Ok(Self {
            versions: Versions {
                oldest: u16_at(fixed, 4),
                newest: u16_at(fixed, 6),
            },
            log_id,
            from: NodeId(from),
            to: NodeId(to),
            process: u64_at(fixed, 40),
            lane: Lane::of(fixed[48]).ok_or(GreetingError::Lane(fixed[48]))?,
            address: address.to_owned(),
        })
    }

    /// Another process, at `first`, has the number of the one that sent this.
    #[must_use]
    pub fn same_number(&self, first: &str) -> Refusal {
        Refusal::SameNumber {
            node: self.from,
            first: first.to_owned(),
            second: self.address.clone(),
        }
    }

    /// Whether the side that sent this one may be connected with the side that sends `ours`. For the
    /// side that was called, `ours.to` is what the caller says that it is.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, ours: &Self) -> Result<(), Refusal> {
        let theirs = self.versions;
        if theirs.newest < VERSIONS.oldest || theirs.oldest > VERSIONS.newest {
            return Err(Refusal::Version {
                from: self.from,
                theirs,
            });
        }
        // First: nodes of different clusters have the same numbers.
        let are_known = self.log_id != NO_LOG && ours.log_id != NO_LOG;
        if are_known && self.log_id != ours.log_id {
            return Err(Refusal::WrongLog {
                from: self.from,
                to: ours.from,
                theirs: self.log_id,
                ours: ours.log_id,
            });
        }
        if self.from == ours.from {
            return Err(match self.process == ours.process {
                true => Refusal::Itself(ours.from),
                false => self.same_number(&ours.address),
            });
        }
        for (wanted, is) in [(ours.to, self.from), (self.to, ours.from)] {
            if wanted != is {
                return Err(Refusal::WrongNode { wanted, is });
            }
        }
        Ok(())
    }
}

impl Refusal {
    /// The number of the reason, which never changes.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::WrongLog { .. } => 1,
            Self::WrongNode { .. } => 2,
            Self::Version { .. } => 3,
            Self::Itself(_) => 4,
            Self::SameNumber { .. } => 5,
            Self::NotAdmitted(_) => 6,
            Self::Certificate { .. } => 7,
            Self::TooMany(_) => 8,
            Self::Greeting(_) => 9,
            Self::There { code, .. } => *code,
        }
    }

    /// Whether a node is no member, as one of the two sides says.
    #[must_use]
    pub const fn is_not_admitted(&self) -> bool {
        self.code() == Self::NotAdmitted(NodeId::ZERO).code()
    }

    #[must_use]
    pub fn to_frame(&self) -> Frame {
        let mut text = self.to_string();
        text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
        Frame {
            body: Bytes::from(text),
            ..Frame::bare(FrameKind::Refusal, self.code(), 0)
        }
    }

    /// What the other side has sent.
    #[must_use]
    pub fn of_frame(frame: &Frame) -> Self {
        let mut text = String::from_utf8_lossy(&frame.body).into_owned();
        text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
        Self::There {
            code: frame.topic,
            text,
        }
    }
}

fn u16_at(bytes: &[u8; FIXED_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8; FIXED_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
