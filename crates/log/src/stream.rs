//! The log on its way to a read replica: entries behind a place, and signs of life between them.
//!
//! ```text
//! stream := start, then item *             numbers little-endian
//! start  := 0 magic u32 "OLRS" | 4 version u8 = 1 | 5 zero [3] | 8 log_id u128 | 24 index u64 | 32 crc u32
//! item   := entry | pulse
//! entry  := bytes 0..72 of the frame as it is stored, then its body; no local part, no padding
//! pulse  := 0 magic u32 "OLRP" | 4 age_ms u32 | 8 applied index u64 | 16 position u64 | 24 crc u32
//! ```
//!
//! `index` is that of the entry which the first one follows; `crc` is CRC-32C of the bytes before it.
//! A pulse says how far the sender has applied its log. An entry that does not continue the chain is
//! never decoded, whatever its sender.

use bytes::Bytes;
use onelog_record::{Entry, Index, Position};

use crate::frame::{FrameFault, MAGIC, SHARED_HEADER_BYTES, SharedHead, long, word};
use crate::restart::Place;
use crate::scan::Expect;

/// The bytes of the beginning of a stream.
pub const START_BYTES: usize = 36;
/// The bytes of a pulse.
pub const PULSE_BYTES: usize = 28;

const START_MAGIC: u32 = u32::from_le_bytes(*b"OLRS");
const PULSE_MAGIC: u32 = u32::from_le_bytes(*b"OLRP");
const VERSION: u8 = 1;
const MAGIC_BYTES: usize = 4;
const START_CRC_AT: usize = START_BYTES - 4;
const PULSE_CRC_AT: usize = PULSE_BYTES - 4;

/// How far the sender of a stream has applied its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// How long ago the server that writes the log was heard of: 0 from that one itself, more from a
    /// read replica.
    pub age_ms: u32,
    pub applied: Index,
    pub position: Position,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Entry(Entry),
    Pulse(Pulse),
}

/// Bytes that do not go on with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("it does not begin as the log does (its first four bytes are {0:#010x})")]
    Magic(u32),
    #[error("it has version {0}, this program knows {VERSION}: update it")]
    Version(u8),
    #[error("the checksum of its {0} does not match")]
    Checksum(&'static str),
    #[error("reserved bytes of its {0} are not zero")]
    Reserved(&'static str),
    #[error("it is of the log {found:032x}, not of {expected:032x}")]
    OtherLog { expected: u128, found: u128 },
    #[error("it begins behind entry {found}, not behind {expected}")]
    OtherPlace { expected: Index, found: Index },
    #[error("the entry that is to be number {index}: {fault}")]
    Entry { index: Index, fault: FrameFault },
}

/// The beginning of a stream behind the entry at `index`.
#[must_use]
pub fn encode_start(log_id: u128, index: Index) -> [u8; START_BYTES] {
    let mut out = [0; START_BYTES];
    out[0..4].copy_from_slice(&START_MAGIC.to_le_bytes());
    out[4] = VERSION;
    out[8..24].copy_from_slice(&log_id.to_le_bytes());
    out[24..32].copy_from_slice(&index.0.to_le_bytes());
    let crc = crc32c::crc32c(&out[..START_CRC_AT]);
    out[START_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Appends an entry behind one with the checksum `previous`; answers its own.
pub fn encode_entry(entry: &Entry, previous: u32, out: &mut Vec<u8>) -> u32 {
    let head = SharedHead::encode(entry, previous);
    out.extend_from_slice(&head);
    out.extend_from_slice(&entry.body);
    word(&head, SHARED_HEADER_BYTES - 4)
}

#[must_use]
pub fn encode_pulse(pulse: Pulse) -> [u8; PULSE_BYTES] {
    let mut out = [0; PULSE_BYTES];
    out[0..4].copy_from_slice(&PULSE_MAGIC.to_le_bytes());
    out[4..8].copy_from_slice(&pulse.age_ms.to_le_bytes());
    out[8..16].copy_from_slice(&pulse.applied.0.to_le_bytes());
    out[16..24].copy_from_slice(&pulse.position.0.to_le_bytes());
    let crc = crc32c::crc32c(&out[..PULSE_CRC_AT]);
    out[PULSE_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What is being read.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    /// The first bytes of an item, which say what it is.
    Magic,
    Pulse,
    Head,
    Body(SharedHead),
}

impl Stage {
    const fn bytes(self) -> usize {
        match self {
            Self::Start => START_BYTES,
            Self::Magic => MAGIC_BYTES,
            Self::Pulse => PULSE_BYTES,
            Self::Head => SHARED_HEADER_BYTES,
            Self::Body(head) => head.body_len as usize,
        }
    }
}

/// Reads a stream from pieces of any length. It holds one item at most. Behind an error it is of no
/// use.
#[derive(Debug)]
pub struct Decoder {
    log_id: u128,
    behind: Place,
    stage: Stage,
    held: Vec<u8>,
}

impl Decoder {
    /// Reads the stream of the log `log_id` behind a place of it.
    #[must_use]
    pub const fn new(log_id: u128, behind: Place) -> Self {
        Self {
            log_id,
            behind,
            stage: Stage::Start,
            held: Vec::new(),
        }
    }

    /// The place of the last entry that was read.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.behind
    }

    /// Takes bytes off `piece` until an item is whole; `None` when they do not suffice.
    ///
    /// # Errors
    /// When they are not what goes on with the log.
    pub fn next(&mut self, piece: &mut &[u8]) -> Result<Option<Item>, StreamError> {
        loop {
            let lacks = self.stage.bytes() - self.held.len();
            let (taken, left) = piece.split_at(lacks.min(piece.len()));
            self.held.extend_from_slice(taken);
            *piece = left;
            if taken.len() < lacks {
                return Ok(None);
            }
            if let Some(item) = self.go_on()? {
                return Ok(Some(item));
            }
        }
    }

    /// Everything of this stage is held.
    fn go_on(&mut self) -> Result<Option<Item>, StreamError> {
        match self.stage {
            Stage::Start => {
                self.check_start()?;
                self.begin(Stage::Magic);
                Ok(None)
            }
            Stage::Magic => {
                self.stage = match word(&self.held, 0) {
                    MAGIC => Stage::Head,
                    PULSE_MAGIC => Stage::Pulse,
                    other => return Err(StreamError::Magic(other)),
                };
                Ok(None)
            }
            Stage::Pulse => {
                let pulse = self.pulse()?;
                self.begin(Stage::Magic);
                Ok(Some(Item::Pulse(pulse)))
            }
            Stage::Head => {
                let head = self.head().map_err(|fault| self.at_fault(fault))?;
                self.begin(Stage::Body(head));
                Ok(None)
            }
            Stage::Body(head) => {
                if crc32c::crc32c(&self.held) != head.body_crc {
                    return Err(self.at_fault(FrameFault::BodyChecksum));
                }
                let body = Bytes::from(std::mem::take(&mut self.held));
                self.begin(Stage::Magic);
                self.behind = Place {
                    index: head.index,
                    term: head.term,
                    end: head.header.end(),
                    checksum: head.frame_crc,
                };
                Ok(Some(Item::Entry(Entry {
                    term: head.term,
                    index: head.index,
                    header: head.header,
                    body,
                })))
            }
        }
    }

    fn begin(&mut self, stage: Stage) {
        self.held.clear();
        self.stage = stage;
    }

    fn check_start(&self) -> Result<(), StreamError> {
        let start = &self.held;
        if word(start, 0) != START_MAGIC {
            return Err(StreamError::Magic(word(start, 0)));
        }
        if crc32c::crc32c(&start[..START_CRC_AT]) != word(start, START_CRC_AT) {
            return Err(StreamError::Checksum("beginning"));
        }
        if start[4] != VERSION {
            return Err(StreamError::Version(start[4]));
        }
        if start[5..8] != [0; 3] {
            return Err(StreamError::Reserved("beginning"));
        }
        let found = u128::from(long(start, 8)) | u128::from(long(start, 16)) << 64;
        if found != self.log_id {
            let expected = self.log_id;
            return Err(StreamError::OtherLog { expected, found });
        }
        let (expected, found) = (self.behind.index, Index(long(start, 24)));
        if found != expected {
            return Err(StreamError::OtherPlace { expected, found });
        }
        Ok(())
    }

    fn pulse(&self) -> Result<Pulse, StreamError> {
        let pulse = &self.held;
        if crc32c::crc32c(&pulse[..PULSE_CRC_AT]) != word(pulse, PULSE_CRC_AT) {
            return Err(StreamError::Checksum("pulse"));
        }
        Ok(Pulse {
            age_ms: word(pulse, 4),
            applied: Index(long(pulse, 8)),
            position: Position(long(pulse, 16)),
        })
    }

    fn head(&self) -> Result<SharedHead, FrameFault> {
        let head = self.held.first_chunk().ok_or(FrameFault::CutOff)?;
        let head = SharedHead::decode(head)?;
        Expect::behind(&self.behind).check(&head)?;
        Ok(head)
    }

    fn at_fault(&self, fault: FrameFault) -> StreamError {
        let index = self.behind.index.next();
        StreamError::Entry { index, fault }
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::{Compression, EntryHeader, EntryKind, Offset, Term};
    use proptest::prelude::*;

    use super::*;

    const LOG_ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

    fn entry(index: u64, base: u64, body: &[u8]) -> Entry {
        Entry {
            term: Term(3),
            index: Index(index),
            header: EntryHeader {
                kind: EntryKind::Transactions,
                compression: Compression::None,
                raw_len: body.len() as u32,
                base_offset: Offset(base),
                record_count: 2,
                transaction_count: 1,
                timestamp_ms: 0x0102_0304,
            },
            body: Bytes::copy_from_slice(body),
        }
    }

    fn behind() -> Place {
        Place {
            index: Index(8),
            term: Term(2),
            end: Position(40),
            checksum: 0xa1b2_c3d4,
        }
    }

    fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<Item>, Decoder), StreamError> {
        let mut decoder = Decoder::new(LOG_ID, behind());
        let mut items = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(item) = decoder.next(&mut piece)? {
                items.push(item);
            }
            assert!(piece.is_empty());
        }
        Ok((items, decoder))
    }

    fn whole(bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<Item>) {
        let mut bytes = encode_start(LOG_ID, Index(8)).to_vec();
        let mut items = Vec::new();
        let (mut checksum, mut base) = (0xa1b2_c3d4, 40);
        for (number, body) in bodies.iter().enumerate() {
            let entry = entry(9 + number as u64, base, body);
            base += 2;
            checksum = encode_entry(&entry, checksum, &mut bytes);
            items.push(Item::Entry(entry));
            let pulse = Pulse {
                age_ms: 0x0302,
                applied: Index(100 + number as u64),
                position: Position(base),
            };
            bytes.extend_from_slice(&encode_pulse(pulse));
            items.push(Item::Pulse(pulse));
        }
        (bytes, items)
    }

    #[test]
    fn a_stream_has_these_bytes() {
        let sealed = |bytes: &[u8]| [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();
        let mut expected = sealed(
            &[
                &b"OLRS\x01\0\0\0"[..],
                &LOG_ID.to_le_bytes(),
                &8u64.to_le_bytes(),
            ]
            .concat(),
        );
        let mut frame = Vec::new();
        let salt = crate::frame::Salt::of(LOG_ID);
        let sent = entry(9, 40, b"body!");
        crate::frame::encode(&sent, 0xa1b2_c3d4, Index(7), salt, &mut frame);
        expected.extend_from_slice(&frame[..72]);
        expected.extend_from_slice(b"body!");
        let pulse = [
            &b"OLRP\x02\x03\0\0"[..],
            &100u64.to_le_bytes(),
            &42u64.to_le_bytes(),
        ];
        expected.extend(sealed(&pulse.concat()));
        let (found, items) = whole(&[b"body!".to_vec()]);
        assert_eq!(found, expected);
        assert_eq!(decode(&found, 7).unwrap().0, items);
    }

    #[test]
    fn every_flipped_bit_is_noticed_before_anything_wrong_is_answered() {
        let (bytes, items) = whole(&[b"one".to_vec(), b"two".to_vec()]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new(LOG_ID, behind());
            let (mut piece, mut found) = (&damaged[..], Vec::new());
            let error = loop {
                match decoder.next(&mut piece) {
                    Ok(Some(item)) => found.push(item),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert!(error.is_some(), "bit {bit}");
            assert_eq!(found, items[..found.len()], "bit {bit}");
        }
    }

    #[test]
    fn what_does_not_continue_the_chain_is_refused() {
        let start = encode_start(LOG_ID, Index(8));
        let refused = |entry: &Entry, previous| {
            let mut bytes = start.to_vec();
            encode_entry(entry, previous, &mut bytes);
            match decode(&bytes, 1000).map(|(items, _)| items) {
                Err(StreamError::Entry { index, fault }) => {
                    assert_eq!(index, Index(9));
                    fault
                }
                other => panic!("{other:?}"),
            }
        };
        let right = entry(9, 40, b"x");
        let mut old = right.clone();
        old.term = Term(1);
        let faults = [
            refused(&entry(10, 40, b"x"), 0xa1b2_c3d4),
            refused(&entry(9, 41, b"x"), 0xa1b2_c3d4),
            refused(&right, 0xa1b2_c3d5),
            refused(&old, 0xa1b2_c3d4),
        ];
        assert!(matches!(
            faults,
            [
                FrameFault::Index { .. },
                FrameFault::Offset { .. },
                FrameFault::Chain { .. },
                FrameFault::Term { .. }
            ]
        ));
        let elsewhere = encode_start(LOG_ID + 1, Index(8));
        assert!(matches!(
            decode(&elsewhere, 9),
            Err(StreamError::OtherLog { .. })
        ));
        let later = encode_start(LOG_ID, Index(9));
        assert!(matches!(
            decode(&later, 9),
            Err(StreamError::OtherPlace { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_whatever_the_pieces(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
            piece in 1usize..500,
        ) {
            let (bytes, items) = whole(&bodies);
            let (found, decoder) = decode(&bytes, piece).unwrap();
            prop_assert_eq!(&found, &items);
            prop_assert_eq!(decoder.place().index, Index(8 + bodies.len() as u64));
            prop_assert!(decoder.held.len() < MAGIC_BYTES);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..100,
        ) {
            let start = encode_start(LOG_ID, Index(8));
            let _ = decode(&bytes, piece);
            let _ = decode(&[&start[..], &bytes].concat(), piece);
        }
    }
}
