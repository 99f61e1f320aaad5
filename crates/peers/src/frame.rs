//! What travels on a connection: frames.
//!
//! ```text
//!  0 version u8 = 1 | 1 kind u8 | 2 topic u16 | 4 body_len u32 | 8 id u64
//! 16 crc u32: CRC-32C of bytes 0..16 and of the body | 20 body
//! ```
//!
//! Numbers are little-endian. The topic of a message, a request or an answer is the affair of those
//! who use the connection; of a failure it says what happened, of a refusal why. The id pairs an
//! answer with its request, a pong with its ping; elsewhere it is 0.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::PIECE_BYTES;

/// The version of this layout. A greeting has it for ever, so that each can read the other's.
pub const FRAME_VERSION: u8 = 1;
pub const FRAME_HEAD_BYTES: usize = 20;
/// How TLS begins, and how it answers what is none.
const TLS_HANDSHAKE: u8 = 22;
const TLS_ALERT: u8 = 21;

/// What a frame is for. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first frame of each side.
    Greeting = 1,
    /// In place of a greeting or right behind it: the connection is not wanted.
    Refusal = 2,
    Message = 3,
    Request = 4,
    Answer = 5,
    /// A request has no answer.
    Failure = 6,
    Ping = 7,
    Pong = 8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub topic: u16,
    pub id: u64,
    pub body: Bytes,
}

/// Bytes that are no frame; nothing behind them can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the other side speaks TLS, and this node has no certificate configured for its peers")]
    Tls,
    #[error(
        "a frame of version {0}; known is version {FRAME_VERSION}: is it the address that a node has for the others (--peer-listen)?"
    )]
    Version(u8),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of {is} bytes; at most {max} are taken here")]
    TooLarge { is: usize, max: usize },
    #[error("a damaged frame: its checksum is {is:08x}, its bytes have {of_bytes:08x}")]
    Checksum { is: u32, of_bytes: u32 },
}

impl FrameKind {
    const ALL: [Self; 8] = [
        Self::Greeting,
        Self::Refusal,
        Self::Message,
        Self::Request,
        Self::Answer,
        Self::Failure,
        Self::Ping,
        Self::Pong,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub const fn bare(kind: FrameKind, topic: u16, id: u64) -> Self {
        Self {
            kind,
            topic,
            id,
            body: Bytes::new(),
        }
    }

    /// How many bytes it has on the connection.
    #[must_use]
    pub fn size(&self) -> usize {
        FRAME_HEAD_BYTES + self.body.len()
    }

    /// The head; the body follows it as it is. The body's length is at most a lane's bound.
    #[must_use]
    pub fn head(&self) -> [u8; FRAME_HEAD_BYTES] {
        let mut head = [0; FRAME_HEAD_BYTES];
        head[0] = FRAME_VERSION;
        head[1] = self.kind as u8;
        head[2..4].copy_from_slice(&self.topic.to_le_bytes());
        head[4..8].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&self.id.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..16]), &self.body);
        head[16..20].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The whole frame as it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.extend_from_slice(&self.head());
        out.extend_from_slice(&self.body);
        out
    }
}

/// A head whose body may not be here yet.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: FrameKind,
    topic: u16,
    id: u64,
    body_len: usize,
    crc: u32,
    crc_of_head: u32,
}

impl Head {
    fn decode(bytes: &[u8; FRAME_HEAD_BYTES], body_max: usize) -> Result<Self, FrameError> {
        let [
            _,
            kind,
            topic @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = *bytes;
        let kind = FrameKind::of(kind).ok_or(FrameError::Kind(kind))?;
        let mut rest = &bytes[4..];
        let body_len = rest.get_u32_le() as usize;
        if body_len > body_max {
            return Err(FrameError::TooLarge {
                is: body_len,
                max: body_max,
            });
        }
        Ok(Self {
            kind,
            topic: u16::from_le_bytes(topic),
            id: rest.get_u64_le(),
            body_len,
            crc: rest.get_u32_le(),
            crc_of_head: crc32c::crc32c(&bytes[..16]),
        })
    }
}

/// What begins otherwise is refused before there is a whole head of it.
const fn check_version(version: u8) -> Result<(), FrameError> {
    match version {
        FRAME_VERSION => Ok(()),
        TLS_ALERT | TLS_HANDSHAKE => Err(FrameError::Tls),
        other => Err(FrameError::Version(other)),
    }
}

/// Finds the frames in what comes from a connection. It holds at most one frame of the largest size
/// and a piece of what follows it.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Decoded as soon as it is here: a length that is too large is refused before its bytes come.
    head: Option<Head>,
    body_max: usize,
}

impl Decoder {
    #[must_use]
    pub fn new(body_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            head: None,
            body_max,
        }
    }

    /// The bound of the frames whose heads were not read yet.
    pub const fn set_body_max(&mut self, body_max: usize) {
        self.body_max = body_max;
    }

    /// Where to put what comes next; there is room for at least one byte.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = self.head.map_or(0, |head| {
            (FRAME_HEAD_BYTES + head.body_len).saturating_sub(self.buffer.len())
        });
        self.buffer.reserve(missing.max(PIECE_BYTES));
        &mut self.buffer
    }

    /// Whether the bytes so far end inside a frame.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next frame, once it is whole. After an error there is no way on.
    ///
    /// # Errors
    /// When what came is no frame, or one that is not taken here.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let head = match self.head {
            Some(head) => head,
            None => {
                if let Some(version) = self.buffer.first() {
                    check_version(*version)?;
                }
                let Some(bytes) = self.buffer.first_chunk() else {
                    return Ok(None);
                };
                *self.head.insert(Head::decode(bytes, self.body_max)?)
            }
        };
        let len = FRAME_HEAD_BYTES + head.body_len;
        if self.buffer.len() < len {
            return Ok(None);
        }
        self.head = None;
        let mut body = self.buffer.split_to(len);
        if len > PIECE_BYTES {
            // The memory of a large frame goes with it, instead of being kept by small ones behind.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        body.advance(FRAME_HEAD_BYTES);
        let of_bytes = crc32c::crc32c_append(head.crc_of_head, &body);
        if of_bytes != head.crc {
            return Err(FrameError::Checksum {
                is: head.crc,
                of_bytes,
            });
        }
        Ok(Some(Frame {
            kind: head.kind,
            topic: head.topic,
            id: head.id,
            body: body.freeze(),
        }))
    }
}
