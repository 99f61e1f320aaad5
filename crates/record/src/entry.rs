//! An entry: one Raft entry = one frame on disk = one batch of transactions.
//!
//! The *payload* is what Raft carries and what every replica stores alike: a fixed header and the
//! body. The `log` crate puts term, index, checksums and its local part around it.

use bytes::Bytes;

use crate::{BODY_BYTES_MAX, Index, Offset, Position, Term};

/// The bytes of the payload's fixed header.
pub const PAYLOAD_HEADER_BYTES: usize = 32;

/// What an entry holds. Stored; the numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    Transactions = 1,
    /// Nothing: the first entry of a leader's term.
    NoOp = 2,
    /// A change of the cluster's members.
    Membership = 3,
}

/// How an entry's body is stored. Stored; the numbers never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Lz4 = 1,
    Zstd = 2,
}

impl TryFrom<u8> for EntryKind {
    type Error = PayloadError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Transactions),
            2 => Ok(Self::NoOp),
            3 => Ok(Self::Membership),
            _ => Err(PayloadError::Kind(number)),
        }
    }
}

impl TryFrom<u8> for Compression {
    type Error = PayloadError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            _ => Err(PayloadError::Compression(number)),
        }
    }
}

/// The part of an entry's header that every replica shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: EntryKind,
    /// How the body is stored.
    pub compression: Compression,
    /// The body's length before compression, in bytes.
    pub raw_len: u32,
    /// The offset of the first record; of the next one, when there is none.
    pub base_offset: Offset,
    /// How many records the body holds.
    pub record_count: u32,
    /// How many transactions the body holds.
    pub transaction_count: u32,
    /// When the leader sealed the entry, in milliseconds since 1970 by its clock. For people and
    /// for lookups by time; no decision rests on it.
    pub timestamp_ms: u64,
}

/// Bytes that are no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Fewer bytes than the fixed header.
    #[error("the payload has {0} bytes, its header alone has {PAYLOAD_HEADER_BYTES}")]
    Short(usize),
    /// An unknown kind of entry.
    #[error("unknown kind of entry {0}")]
    Kind(u8),
    /// An unknown compression.
    #[error("unknown compression {0}")]
    Compression(u8),
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the payload header are not zero")]
    Reserved,
    /// A length over `BODY_BYTES_MAX`.
    #[error("the body has {0} bytes, the limit is {BODY_BYTES_MAX}")]
    TooLong(usize),
    /// Records behind the last offset that there is.
    #[error("{record_count} records from offset {base_offset} on do not fit 64 bits")]
    Offset {
        /// The offset of the first record.
        base_offset: Offset,
        record_count: u32,
    },
}

impl EntryHeader {
    /// The header of an entry without transactions.
    #[must_use]
    pub const fn empty(kind: EntryKind, base_offset: Offset) -> Self {
        Self {
            kind,
            compression: Compression::None,
            raw_len: 0,
            base_offset,
            record_count: 0,
            transaction_count: 0,
            timestamp_ms: 0,
        }
    }

    /// The position right behind the entry's last record.
    #[must_use]
    pub const fn end(&self) -> Position {
        Position(self.base_offset.0 + self.record_count as u64)
    }

    /// The fixed header as it travels.
    ///
    /// ```text
    ///  0 kind u8 | 1 compression u8 | 2 zero u16 | 4 raw_len u32 | 8 base_offset u64
    /// 16 record_count u32 | 20 transaction_count u32 | 24 timestamp_ms u64
    /// ```
    #[must_use]
    pub fn encode(&self) -> [u8; PAYLOAD_HEADER_BYTES] {
        let mut out = [0; PAYLOAD_HEADER_BYTES];
        out[0] = self.kind as u8;
        out[1] = self.compression as u8;
        out[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.base_offset.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.record_count.to_le_bytes());
        out[20..24].copy_from_slice(&self.transaction_count.to_le_bytes());
        out[24..32].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        out
    }

    /// Reads the fixed header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let Some(head) = bytes.first_chunk::<PAYLOAD_HEADER_BYTES>() else {
            return Err(PayloadError::Short(bytes.len()));
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if head[2] != 0 || head[3] != 0 {
            return Err(PayloadError::Reserved);
        }
        let raw_len = word(4);
        if raw_len as usize > BODY_BYTES_MAX {
            return Err(PayloadError::TooLong(raw_len as usize));
        }
        let (base_offset, record_count) = (Offset(long(8)), word(16));
        if base_offset.0.checked_add(u64::from(record_count)).is_none() {
            return Err(PayloadError::Offset {
                base_offset,
                record_count,
            });
        }
        Ok(Self {
            kind: head[0].try_into()?,
            compression: head[1].try_into()?,
            raw_len,
            base_offset,
            record_count,
            transaction_count: word(20),
            timestamp_ms: long(24),
        })
    }
}

/// An entry with its place in Raft's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The leader's term in which it was proposed.
    pub term: Term,
    pub index: Index,
    pub header: EntryHeader,
    /// The body as stored (compressed, where the header says so).
    pub body: Bytes,
}

impl Entry {
    /// The payload as Raft carries it.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAYLOAD_HEADER_BYTES + self.body.len());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.body);
        out
    }

    /// Takes apart a payload that Raft carried. The body shares its memory.
    pub fn from_payload(term: Term, index: Index, payload: &Bytes) -> Result<Self, PayloadError> {
        let header = EntryHeader::decode(payload)?;
        let body = payload.slice(PAYLOAD_HEADER_BYTES..);
        if body.len() > BODY_BYTES_MAX {
            return Err(PayloadError::TooLong(body.len()));
        }
        Ok(Self {
            term,
            index,
            header,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Transactions,
            compression: Compression::Lz4,
            raw_len: 0x0102,
            base_offset: Offset(0x0304),
            record_count: 5,
            transaction_count: 2,
            timestamp_ms: 0x0607,
        }
    }

    #[test]
    fn the_payload_header_has_these_bytes() {
        let expected = [
            1, 1, 0, 0, 2, 1, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 7, 6, 0, 0, 0,
            0, 0, 0,
        ];
        assert_eq!(header().encode(), expected);
        assert_eq!(EntryHeader::decode(&expected).unwrap(), header());
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        assert_eq!(EntryHeader::decode(&[0; 31]), Err(PayloadError::Short(31)));
        assert_eq!(EntryHeader::decode(&[0; 32]), Err(PayloadError::Kind(0)));
        let mut bytes = header().encode();
        bytes[1] = 9;
        assert_eq!(
            EntryHeader::decode(&bytes),
            Err(PayloadError::Compression(9))
        );
        let mut bytes = header().encode();
        bytes[3] = 1;
        assert_eq!(EntryHeader::decode(&bytes), Err(PayloadError::Reserved));
        let mut bytes = header().encode();
        bytes[7] = 0xff;
        assert!(matches!(
            EntryHeader::decode(&bytes),
            Err(PayloadError::TooLong(_))
        ));
        let mut bytes = header().encode();
        bytes[8..16].fill(0xff);
        assert!(matches!(
            EntryHeader::decode(&bytes),
            Err(PayloadError::Offset { .. })
        ));
    }
}
