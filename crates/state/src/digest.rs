//! A digest of every row, kept in step by checkpoints, so that replicas can compare what they hold
//! without reading it: each row is hashed with keyed BLAKE3, the hashes are added up in four lanes
//! of 64 bits. Adding and taking away commute, so it does not matter when checkpoints were made.
//!
//! ```text
//! row    := BLAKE3, keyed with KEY, of: length u32 LE of table and key | table u32 BE | key
//!                                     | version u64 LE | value
//! digest := the hashes as [u64 LE; 4], each lane added modulo 2^64
//! ```
//! The key is the same everywhere and no secret: what is found is faults, not forgeries.

use std::fmt;

use redb::ReadableTable;

use crate::tree::Applied;

pub(crate) const DIGEST_BYTES: usize = 32;
const KEY: [u8; 32] = *b"onelog: digest of a state's rows";

/// The digest of a set of rows. That of no rows is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    pub(crate) fn add(&mut self, other: Self) {
        for (lane, part) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(part);
        }
    }

    pub(crate) fn take_away(&mut self, other: Self) {
        for (lane, part) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(part);
        }
    }

    /// The lanes, each little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; DIGEST_BYTES] {
        let mut out = [0; DIGEST_BYTES];
        for (bytes, lane) in out.as_chunks_mut().0.iter_mut().zip(self.0) {
            *bytes = lane.to_le_bytes();
        }
        out
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; DIGEST_BYTES]) -> Self {
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(bytes.as_chunks().0) {
            *lane = u64::from_le_bytes(*bytes);
        }
        Self(lanes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of a checkpoint's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// The place of the checkpoint.
    pub applied: Applied,
    pub digest: Digest,
}

/// Hashes rows as the B-tree holds them.
#[derive(Debug, Default)]
pub(crate) struct RowHasher {
    buffer: Vec<u8>,
}

impl RowHasher {
    /// The digest of one row: its table and key, its version and value, both as they are stored.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Digest {
        self.buffer.clear();
        // No stored key is nearly as long as would fit.
        self.buffer
            .extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        Digest::from_bytes(blake3::keyed_hash(&KEY, &self.buffer).as_bytes())
    }
}

/// The digest of a tree that is being changed. One that is not known stays so.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) digest: Option<Digest>,
    hasher: RowHasher,
}

impl Running {
    pub(crate) fn new(digest: Option<Digest>) -> Self {
        Self {
            digest,
            hasher: RowHasher::default(),
        }
    }

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.add(self.hasher.row(key, value));
        }
    }

    pub(crate) fn take_away(&mut self, key: &[u8], value: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.take_away(self.hasher.row(key, value));
        }
    }
}

/// The digest of every row that there is.
pub(crate) fn scan_digest(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Digest, redb::Error> {
    let mut hasher = RowHasher::default();
    let mut digest = Digest::default();
    for row in rows.range::<&[u8]>(..)? {
        let (key, value) = row?;
        digest.add(hasher.row(key.value(), value.value()));
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(&[u8], &[u8])]) -> Digest {
        let mut hasher = RowHasher::default();
        let mut digest = Digest::default();
        for (key, value) in rows {
            digest.add(hasher.row(key, value));
        }
        digest
    }

    #[test]
    fn a_digest_has_these_bytes() {
        assert_eq!(of(&[]).to_bytes(), [0; DIGEST_BYTES]);
        let rows: [(&[u8], &[u8]); 2] = [
            (b"\0\0\x04\0a", b"\x01\0\0\0\0\0\0\0one"),
            (b"\0\0\x04\0b", b"\x02\0\0\0\0\0\0\0"),
        ];
        assert_eq!(
            of(&rows).to_string(),
            "7d622c6a0af4b536055c365e3c4f195f165bf491205364b8300641ddc3946475"
        );
        assert_eq!(Digest::from_bytes(&of(&rows).to_bytes()), of(&rows));
    }

    #[test]
    fn the_order_does_not_matter_but_every_part_of_a_row_does() {
        let whole = of(&[(b"aaaab", b"x"), (b"aaaac", b"y")]);
        assert_eq!(of(&[(b"aaaac", b"y"), (b"aaaab", b"x")]), whole);
        assert_ne!(of(&[(b"aaaab", b"y"), (b"aaaac", b"x")]), whole);
        assert_ne!(of(&[(b"aaaa", b"bx"), (b"aaaac", b"y")]), whole);
        let mut less = whole;
        less.take_away(of(&[(b"aaaac", b"y")]));
        assert_eq!(less, of(&[(b"aaaab", b"x")]));
    }
}
