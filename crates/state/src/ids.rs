//! The remembered ids of committed transactions, as they are stored: packed in chunks, because a
//! row of the B-tree per transaction would cost as much as the transaction's own rows.

use onelog_record::{Offset, Position, TxnId};

/// How many ids one chunk holds at most.
pub(crate) const CHUNK_IDS: usize = 512;
/// How many bytes an id takes, packed.
pub(crate) const ID_BYTES: usize = 36;

/// A committed transaction, as far as a retry of it needs to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedId {
    /// The position right behind the transaction.
    pub position: Position,
    pub id: TxnId,
    /// The fingerprint of its request.
    pub fingerprint: u64,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// How many records it has.
    pub records: u32,
}

/// Packs ids: `id [16] | fingerprint u64 | first_offset u64 | records u32`, little-endian, the id
/// big-endian.
pub(crate) fn encode_chunk<'i>(ids: impl Iterator<Item = &'i RememberedId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHUNK_IDS * ID_BYTES);
    for id in ids {
        out.extend_from_slice(&id.id.to_bytes());
        out.extend_from_slice(&id.fingerprint.to_le_bytes());
        out.extend_from_slice(&id.first_offset.0.to_le_bytes());
        out.extend_from_slice(&id.records.to_le_bytes());
    }
    out
}

/// How many ids a chunk holds; `None` when its length fits no number of them.
pub(crate) fn chunk_len(bytes: &[u8]) -> Option<u64> {
    bytes
        .len()
        .is_multiple_of(ID_BYTES)
        .then_some((bytes.len() / ID_BYTES) as u64)
}

pub(crate) fn decode_chunk(bytes: &[u8]) -> impl Iterator<Item = RememberedId> {
    let (chunks, _) = bytes.as_chunks::<ID_BYTES>();
    chunks.iter().map(|chunk| {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&chunk[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut id = [0; 16];
        id.copy_from_slice(&chunk[..16]);
        let mut records = [0; 4];
        records.copy_from_slice(&chunk[32..]);
        let (first_offset, records) = (long(24), u32::from_le_bytes(records));
        RememberedId {
            position: Position(first_offset.saturating_add(u64::from(records))),
            id: TxnId::from_bytes(id),
            fingerprint: long(16),
            first_offset: Offset(first_offset),
            records,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_these_bytes_and_is_read_back() {
        let ids = [
            RememberedId {
                position: Position(12),
                id: TxnId(1),
                fingerprint: 2,
                first_offset: Offset(9),
                records: 3,
            },
            RememberedId {
                position: Position(12),
                id: TxnId(7),
                fingerprint: 0,
                first_offset: Offset(12),
                records: 0,
            },
        ];
        let bytes = encode_chunk(ids.iter());
        let first = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0,
            0, 0, 0, 3, 0, 0, 0,
        ];
        assert_eq!(bytes[..36], first);
        assert_eq!(chunk_len(&bytes), Some(2));
        assert_eq!(chunk_len(&bytes[1..]), None);
        assert_eq!(decode_chunk(&bytes).collect::<Vec<_>>(), ids);
    }
}
