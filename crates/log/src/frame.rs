//! The frame: one entry on disk, a header of 88 bytes and the body, padded with zeros to a
//! multiple of eight. Little-endian.
//!
//! ```text
//!  shared by every replica, byte for byte
//!  0 magic u32 "OLG1" | 4 format u8 = 1 | 5 zero [3] | 8 body_len u32 | 12 body_crc u32
//! 16 term u64         | 24 index u64
//! 32 payload header [32]: kind, compression, raw_len, base_offset, counts, timestamp
//! 64 previous u32: frame_crc of the frame before | 68 frame_crc u32: CRC-32C of bytes 0..68
//!  local, never chained
//! 72 durable u64: the highest index known to be durable here when this frame was staged
//! 80 local_crc u32: CRC-32C of bytes 68..80, seeded with the log's salt | 84 zero u32
//! 88 body [body_len] | zeros to a multiple of 8
//! ```
//! `frame_crc` covers `body_crc` and `previous`, so each one vouches for the whole log before it.
//! The salt comes from the log's random id: bytes that a client stored can never pass for a frame
//! of this log when recovery looks behind damage.

use std::ops::Deref;

use onelog_record::{BODY_BYTES_MAX, Entry, EntryHeader, Index, PAYLOAD_HEADER_BYTES, Term};

/// The bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 88;
/// The bytes of the part of it that every replica has.
pub const SHARED_HEADER_BYTES: usize = 72;
/// Frames start and end at multiples of this.
pub const FRAME_ALIGNMENT: usize = 8;
/// The first four bytes of a frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"OLG1");
/// What the first frame of a log carries as the checksum of the one before.
pub const CHAIN_START: u32 = 0;

const FORMAT: u8 = 1;
const PAYLOAD_AT: usize = 32;
const FRAME_CRC_AT: usize = 68;
const LOCAL_CRC_AT: usize = 80;

/// What the local checksums of one log are seeded with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salt(u32);

impl Salt {
    /// The salt of the log with this id.
    #[must_use]
    pub fn of(log_id: u128) -> Self {
        Self(crc32c::crc32c(&log_id.to_le_bytes()))
    }
}

/// The part of a frame's header that every replica has, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedHead {
    /// The body's length as stored.
    pub body_len: u32,
    /// The body's CRC-32C.
    pub body_crc: u32,
    pub term: Term,
    pub index: Index,
    pub header: EntryHeader,
    /// The checksum of the frame before.
    pub previous: u32,
    /// This frame's own, which the next one carries.
    pub frame_crc: u32,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub shared: SharedHead,
    pub durable: Index,
}

impl Deref for FrameHead {
    type Target = SharedHead;

    fn deref(&self) -> &SharedHead {
        &self.shared
    }
}

/// A whole frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub head: FrameHead,
    /// Its body as stored.
    pub body: &'a [u8],
}

/// Why bytes are not the frame that should be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The file or the buffer ends first.
    #[error("the frame reaches behind the end of the file")]
    CutOff,
    /// No frame starts here.
    #[error("no frame starts here (the first four bytes are {0:#010x})")]
    Magic(u32),
    /// A format that this build does not know.
    #[error("unknown frame format {0}: written by a newer onelog?")]
    Format(u8),
    /// Bytes that must be zero are not.
    #[error("reserved or padding bytes are not zero")]
    Reserved,
    /// The shared header is damaged.
    #[error("the checksum of the frame's header does not match")]
    HeaderChecksum,
    /// The local part is damaged, or the frame belongs to another log.
    #[error("the checksum of the frame's local part does not match")]
    LocalChecksum,
    /// The body is damaged.
    #[error("the checksum of the frame's body does not match")]
    BodyChecksum,
    /// A whole header with a senseless content.
    #[error("the entry's header is malformed: {0}")]
    Payload(#[from] onelog_record::PayloadError),
    /// A watermark at or above the frame's own index.
    #[error("the durable watermark {durable} is not below the frame's own index {index}")]
    Watermark { durable: Index, index: Index },
    /// The index does not continue the frame before.
    #[error("index {found} where {expected} must stand")]
    Index { expected: Index, found: Index },
    /// The chain is broken.
    #[error("the chain is broken: the frame follows {found:#010x}, not {expected:#010x}")]
    Chain {
        /// The checksum of the frame before.
        expected: u32,
        found: u32,
    },
    /// The record numbering does not continue.
    #[error("base offset {found} where {expected} must stand")]
    Offset { expected: u64, found: u64 },
    /// A term below that of the frame before.
    #[error("term {found} behind term {before}")]
    Term {
        /// The term of the frame before.
        before: Term,
        found: Term,
    },
}

/// The bytes of a frame whose body has `body_len` bytes.
#[must_use]
pub const fn frame_len(body_len: usize) -> usize {
    (FRAME_HEADER_BYTES + body_len).next_multiple_of(FRAME_ALIGNMENT)
}

impl SharedHead {
    /// Reads and checks the first bytes of a frame.
    pub fn decode(head: &[u8; SHARED_HEADER_BYTES]) -> Result<Self, FrameFault> {
        if word(head, 0) != MAGIC {
            return Err(FrameFault::Magic(word(head, 0)));
        }
        if crc32c::crc32c(&head[..FRAME_CRC_AT]) != word(head, FRAME_CRC_AT) {
            return Err(FrameFault::HeaderChecksum);
        }
        if head[4] != FORMAT {
            return Err(FrameFault::Format(head[4]));
        }
        if head[5..8] != [0; 3] {
            return Err(FrameFault::Reserved);
        }
        let decoded = Self {
            body_len: word(head, 8),
            body_crc: word(head, 12),
            term: Term(long(head, 16)),
            index: Index(long(head, 24)),
            header: EntryHeader::decode(&head[PAYLOAD_AT..PAYLOAD_AT + PAYLOAD_HEADER_BYTES])?,
            previous: word(head, 64),
            frame_crc: word(head, FRAME_CRC_AT),
        };
        if decoded.body_len as usize > BODY_BYTES_MAX {
            let too_long = onelog_record::PayloadError::TooLong(decoded.body_len as usize);
            return Err(too_long.into());
        }
        Ok(decoded)
    }

    /// The part of the header of `entry`'s frame that every replica has, behind a frame with the
    /// checksum `previous`; its own checksum is in the last four bytes.
    #[must_use]
    pub fn encode(entry: &Entry, previous: u32) -> [u8; SHARED_HEADER_BYTES] {
        assert!(entry.body.len() <= BODY_BYTES_MAX, "the body fits");
        let mut head = [0; SHARED_HEADER_BYTES];
        head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4] = FORMAT;
        head[8..12].copy_from_slice(&(entry.body.len() as u32).to_le_bytes());
        head[12..16].copy_from_slice(&crc32c::crc32c(&entry.body).to_le_bytes());
        head[16..24].copy_from_slice(&entry.term.0.to_le_bytes());
        head[24..32].copy_from_slice(&entry.index.0.to_le_bytes());
        head[32..64].copy_from_slice(&entry.header.encode());
        head[64..68].copy_from_slice(&previous.to_le_bytes());
        let frame_crc = crc32c::crc32c(&head[..FRAME_CRC_AT]);
        head[FRAME_CRC_AT..].copy_from_slice(&frame_crc.to_le_bytes());
        head
    }
}

impl FrameHead {
    /// The bytes of the whole frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        frame_len(self.shared.body_len as usize)
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8], salt: Salt) -> Result<Self, FrameFault> {
        let head = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .ok_or(FrameFault::CutOff)?;
        let shared = head.first_chunk().ok_or(FrameFault::CutOff)?;
        let shared = SharedHead::decode(shared)?;
        if word(head, 84) != 0 {
            return Err(FrameFault::Reserved);
        }
        if local_crc(salt, head) != word(head, LOCAL_CRC_AT) {
            return Err(FrameFault::LocalChecksum);
        }
        let durable = Index(long(head, 72));
        if durable >= shared.index {
            let index = shared.index;
            return Err(FrameFault::Watermark { durable, index });
        }
        Ok(Self { shared, durable })
    }
}

/// Appends the frame of `entry`; answers its `frame_crc`, which the next frame carries.
pub fn encode(entry: &Entry, previous: u32, durable: Index, salt: Salt, out: &mut Vec<u8>) -> u32 {
    assert!(durable < entry.index, "what is being staged is not durable");
    let mut head = [0; FRAME_HEADER_BYTES];
    head[..SHARED_HEADER_BYTES].copy_from_slice(&SharedHead::encode(entry, previous));
    head[72..80].copy_from_slice(&durable.0.to_le_bytes());
    let local = local_crc(salt, &head);
    head[80..84].copy_from_slice(&local.to_le_bytes());
    let start = out.len();
    out.extend_from_slice(&head);
    out.extend_from_slice(&entry.body);
    out.resize(start + frame_len(entry.body.len()), 0);
    word(&head, FRAME_CRC_AT)
}

/// Reads and checks the frame at the start of `bytes`. Never panics, whatever the bytes are.
pub fn decode(bytes: &[u8], salt: Salt) -> Result<Frame<'_>, FrameFault> {
    let head = FrameHead::decode(bytes, salt)?;
    let end = FRAME_HEADER_BYTES + head.body_len as usize;
    if bytes.len() < head.frame_len() {
        return Err(FrameFault::CutOff);
    }
    let body = &bytes[FRAME_HEADER_BYTES..end];
    if crc32c::crc32c(body) != head.body_crc {
        return Err(FrameFault::BodyChecksum);
    }
    if bytes[end..head.frame_len()].iter().any(|b| *b != 0) {
        return Err(FrameFault::Reserved);
    }
    Ok(Frame { head, body })
}

fn local_crc(salt: Salt, head: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(salt.0, &head[FRAME_CRC_AT..LOCAL_CRC_AT])
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onelog_record::{Compression, EntryKind, Offset};
    use proptest::prelude::*;

    use super::*;

    fn entry(body: &[u8]) -> Entry {
        Entry {
            term: Term(3),
            index: Index(9),
            header: EntryHeader {
                kind: EntryKind::Transactions,
                compression: Compression::None,
                raw_len: body.len() as u32,
                base_offset: Offset(40),
                record_count: 2,
                transaction_count: 1,
                timestamp_ms: 0x0102_0304,
            },
            body: Bytes::copy_from_slice(body),
        }
    }

    fn encoded(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(
            &entry(body),
            0xa1b2_c3d4,
            Index(7),
            Salt::of(0x55),
            &mut out,
        );
        out
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let found = encoded(b"body!");
        let mut expected = Vec::new();
        expected.extend_from_slice(b"OLG1\x01\0\0\0");
        expected.extend_from_slice(&5u32.to_le_bytes());
        expected.extend_from_slice(&crc32c::crc32c(b"body!").to_le_bytes());
        expected.extend_from_slice(&3u64.to_le_bytes());
        expected.extend_from_slice(&9u64.to_le_bytes());
        expected.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
        expected.extend_from_slice(&40u64.to_le_bytes());
        expected.extend_from_slice(&[2, 0, 0, 0, 1, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1]);
        expected.extend_from_slice(&crc32c::crc32c(&expected.clone()).to_le_bytes());
        expected.extend_from_slice(&7u64.to_le_bytes());
        let mut salted = 0x55u128.to_le_bytes().to_vec();
        salted.extend_from_slice(&expected[68..80]);
        expected.extend_from_slice(&crc32c::crc32c(&salted).to_le_bytes());
        expected.extend_from_slice(&[0; 4]);
        expected.extend_from_slice(b"body!\0\0\0");
        assert_eq!(found, expected);
        assert_eq!(found.len(), frame_len(5));
        assert_eq!(word(&found, 68), 0x0a38_38a0, "made by another program");
        assert_eq!(word(&found, 80), 0x0fff_d80d, "made by another program");
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(
            decode(&[0; 4096], Salt::default()),
            Err(FrameFault::Magic(0))
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = encoded(b"some body");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, Salt::of(0x55)).is_err(), "bit {bit}");
        }
        assert!(decode(&whole, Salt::of(0x55)).is_ok());
        assert_eq!(
            decode(&whole, Salt::of(0x56)),
            Err(FrameFault::LocalChecksum),
            "a frame of another log"
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            body in prop::collection::vec(any::<u8>(), 0..300),
            term: u64, index in 1u64.., previous: u32, log_id: u128, base: u64, timestamp: u64,
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut given = entry(&body);
            given.term = Term(term);
            given.index = Index(index);
            given.header.base_offset = Offset(base);
            given.header.timestamp_ms = timestamp;
            let salt = Salt::of(log_id);
            let mut bytes = Vec::new();
            let crc = encode(&given, previous, Index(index / 2), salt, &mut bytes);
            prop_assert_eq!(bytes.len(), frame_len(body.len()));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end], salt).is_err());
            }
            bytes.extend_from_slice(&behind);
            let frame = decode(&bytes, salt).unwrap();
            prop_assert_eq!(frame.body, &body[..]);
            prop_assert_eq!((frame.head.term, frame.head.index), (given.term, given.index));
            prop_assert_eq!((frame.head.previous, frame.head.frame_crc), (previous, crc));
            prop_assert_eq!(frame.head.durable, Index(index / 2));
            prop_assert_eq!(frame.head.header, given.header);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(b"OLG1");
            }
            prop_assert!(decode(&bytes, Salt::default()).is_err());
        }
    }
}
