//! A digest of every row, kept in step by checkpoints, so that replicas can compare what they hold
//! without reading it: each row is hashed with XXH3 of 128 bits, the hashes are added up in two lanes
//! of 64 bits. Adding and taking away commute, so it does not matter when checkpoints were made.
//!
//! ```text
//! row    := XXH3-128 of: length u32 LE of table and key | table u32 BE | key | version u64 LE | value
//! digest := the lower and the upper half, u64 LE each, each added modulo 2^64
//! ```
//! What is found is faults, not forgeries. A cryptographic hash would make a checkpoint of small rows
//! take a quarter more of a processor's time.

use std::fmt;

use redb::ReadableTable;
use twox_hash::{XxHash3_128, xxhash3_128};

use crate::tree::Applied;

pub(crate) const DIGEST_BYTES: usize = 16;

/// The digest of a set of rows. That of no rows is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u64; 2]);

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
        let mut lanes = [0; 2];
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
        Digest::from_bytes(&XxHash3_128::oneshot(&self.buffer).to_le_bytes())
    }
}

/// Hashes the remembered ids, piece by piece.
#[derive(Default)]
pub(crate) struct IdsHasher(xxhash3_128::Hasher);

impl IdsHasher {
    pub(crate) fn add(&mut self, packed: &[u8]) {
        self.0.write(packed);
    }

    pub(crate) fn finish(&self) -> u128 {
        self.0.finish_128()
    }
}

impl fmt::Debug for IdsHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdsHasher").field(&self.finish()).finish()
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
    use std::sync::Arc;

    use onelog_log::SimulatedDisk;
    use onelog_record::{Entry, EntryHeader, EntryKind, Index, Offset, Term};

    use super::*;
    use crate::meta::{META, forget_digest};
    use crate::options::StateOptions;
    use crate::state::State;
    use crate::tree::ROWS;

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
        // The hash is the standard's: this is its value of nothing.
        let nothing = XxHash3_128::oneshot(b"");
        assert_eq!(nothing, 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        let rows: [(&[u8], &[u8]); 2] = [
            (b"\0\0\x04\0a", b"\x01\0\0\0\0\0\0\0one"),
            (b"\0\0\x04\0b", b"\x02\0\0\0\0\0\0\0"),
        ];
        assert_eq!(of(&rows).to_string(), "34a7d04a8037a1f3529a35c05e6c2eb9");
        assert_eq!(Digest::from_bytes(&of(&rows).to_bytes()), of(&rows));
    }

    #[test]
    fn a_file_without_a_digest_gets_one_with_its_next_checkpoint() {
        // Given a file with rows that was made before there were digests,
        let disk = SimulatedDisk::new(1);
        let open = || State::open(Arc::new(disk.clone()), StateOptions::default());
        let (state, _) = open().unwrap();
        let transaction = state.shared.tree().begin_write().unwrap();
        let rows: [(&[u8], &[u8]); 2] = [(b"0000a", b"versionsx"), (b"0000b", b"versionsy")];
        for (key, value) in rows {
            let mut table = transaction.open_table(ROWS).unwrap();
            table.insert(key, value).unwrap();
        }
        forget_digest(&mut transaction.open_table(META).unwrap());
        transaction.commit().unwrap();
        drop(state);
        let (state, _) = open().unwrap();
        assert_eq!(state.digest(), None);
        // when it is sent, then its digest is read from the rows,
        assert_eq!(state.export().unwrap().head(0).digest, of(&rows));
        // and the next checkpoint keeps it.
        let entry = Entry {
            term: Term(1),
            index: Index(1),
            header: EntryHeader::empty(EntryKind::NoOp, Offset(0)),
            body: bytes::Bytes::new(),
        };
        state.apply(&entry).unwrap();
        let report = state.freeze().unwrap().run().unwrap();
        assert_eq!(report.digest.digest, of(&rows));
        drop(state);
        assert_eq!(open().unwrap().0.digest(), Some(report.digest));
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
