//! The head of a transfer: what its stream will hold.
//!
//! ```text
//!  0 magic u32 "OLSH" | 4 format u8 = 1 | 5 flags u8: bit 0 members are known | 6 zero [2]
//!  8 position u64 | 16 index u64 | 24 term u64 | 32 timestamp_ms u64
//! 40 checksum u32: frame_crc of the entry at index | 44 members_len u32
//! 48 rows u64 | 56 ids u64
//! 64 digest of the rows [16] | 80 XXH3-128 of the ids, as they are stored, oldest first [16]
//! 96 members [members_len] | CRC-32C of all before, u32
//! ```

use bytes::Bytes;
use onelog_record::{Index, Position, Term};

use super::Malformed;
use crate::digest::Digest;
use crate::tree::Applied;

const MAGIC: &[u8] = b"OLSH";
const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 96;
const CRC_BYTES: usize = 4;
const HAS_MEMBERS: u8 = 1;
const MEMBERS_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a head.
pub const HEAD_BYTES_MAX: usize = FIXED_BYTES + MEMBERS_BYTES_MAX + CRC_BYTES;

/// What a transfer will bring. Two nodes with the same checkpoint have the same head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The place of the checkpoint.
    pub applied: Applied,
    /// The chain checksum of the entry there (`frame_crc`): the next one follows it.
    pub checksum: u32,
    /// The members there, as they were set.
    pub members: Option<Bytes>,
    /// How many rows there are.
    pub rows: u64,
    /// How many remembered ids there are.
    pub ids: u64,
    pub digest: Digest,
    /// XXH3-128 of the remembered ids as they are stored, oldest first.
    pub ids_digest: u128,
}

/// Little-endian numbers in bytes whose length was checked.
pub(crate) trait WordsAt {
    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N];

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes_at(at))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes_at(at))
    }
}

impl WordsAt for [u8] {
    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self[at..at + N]);
        out
    }
}

/// Takes magic, format and checksum off; answers the bytes in between, the magic included.
pub(super) fn unseal<'b>(
    bytes: &'b [u8],
    magic: &[u8],
    known: u8,
    fixed_bytes: usize,
) -> Result<&'b [u8], Malformed> {
    if !bytes.starts_with(magic) || bytes.len() <= magic.len() {
        return Err(Malformed::Bytes("they do not begin as they should"));
    }
    let format = bytes[magic.len()];
    if format > known {
        return Err(Malformed::Newer { format, known });
    }
    if bytes.len() < fixed_bytes + CRC_BYTES {
        return Err(Malformed::Bytes("they are cut off"));
    }
    let (checked, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
    if crc32c::crc32c(checked) != crc.u32_at(0) {
        return Err(Malformed::Bytes("their checksum is wrong"));
    }
    if format != known {
        return Err(Malformed::Bytes("they have no format that there is"));
    }
    Ok(checked)
}

/// Puts the checksum behind the bytes.
pub(super) fn seal(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

impl Head {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let members = self.members.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(FIXED_BYTES + members.len() + CRC_BYTES);
        out.extend_from_slice(MAGIC);
        let flags = if self.members.is_some() {
            HAS_MEMBERS
        } else {
            0
        };
        out.extend_from_slice(&[FORMAT, flags, 0, 0]);
        let applied = &self.applied;
        for number in [
            applied.position.0,
            applied.index.0,
            applied.term.0,
            applied.timestamp_ms,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.checksum.to_le_bytes());
        out.extend_from_slice(&(members.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.ids.to_le_bytes());
        out.extend_from_slice(&self.digest.to_bytes());
        out.extend_from_slice(&self.ids_digest.to_le_bytes());
        out.extend_from_slice(members);
        seal(&mut out);
        out
    }

    /// Reads [`encode`](Self::encode).
    ///
    /// # Errors
    /// When the bytes are damaged, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Malformed::Bytes("they are longer than a head can be"));
        }
        let head = unseal(bytes, MAGIC, FORMAT, FIXED_BYTES)?;
        let flags = head[5];
        let members = &head[FIXED_BYTES..];
        let is_whole = flags & !HAS_MEMBERS == 0
            && head[6..8] == [0, 0]
            && members.len() == head.u32_at(44) as usize
            && (flags == HAS_MEMBERS || members.is_empty());
        if !is_whole {
            return Err(Malformed::Bytes("their fields contradict each other"));
        }
        Ok(Self {
            applied: Applied {
                position: Position(head.u64_at(8)),
                index: Index(head.u64_at(16)),
                term: Term(head.u64_at(24)),
                timestamp_ms: head.u64_at(32),
            },
            checksum: head.u32_at(40),
            members: (flags == HAS_MEMBERS).then(|| Bytes::copy_from_slice(members)),
            rows: head.u64_at(48),
            ids: head.u64_at(56),
            digest: Digest::from_bytes(&head.bytes_at(64)),
            ids_digest: u128::from_le_bytes(head.bytes_at(80)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_these_bytes_and_is_read_back() {
        let head = Head {
            applied: Applied {
                position: Position(1),
                index: Index(2),
                term: Term(3),
                timestamp_ms: 4,
            },
            checksum: 0x0506_0708,
            members: Some(Bytes::from_static(b"AB")),
            rows: 9,
            ids: 10,
            digest: Digest::from_bytes(&[11; 16]),
            ids_digest: u128::from_le_bytes([12; 16]),
        };
        let mut expected = b"OLSH\x01\x01\0\0".to_vec();
        for number in 1..=4_u64 {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[8, 7, 6, 5, 2, 0, 0, 0]);
        expected.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[[11; 16], [12; 16]].concat());
        expected.extend_from_slice(b"AB");
        expected.extend_from_slice(&crc32c::crc32c(&expected.clone()).to_le_bytes());
        let bytes = head.encode();
        assert_eq!(bytes, expected);
        assert_eq!(Head::decode(&bytes), Ok(head.clone()));
        let without = Head {
            members: None,
            ..head
        };
        assert_eq!(Head::decode(&without.encode()), Ok(without));
        // Then no other bytes pass.
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Head::decode(&other).is_err(), "byte {at}");
            assert!(Head::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut newer = bytes;
        newer[4] = 2;
        let newer = Head::decode(&newer);
        assert_eq!(
            newer,
            Err(Malformed::Newer {
                format: 2,
                known: 1
            })
        );
    }
}
