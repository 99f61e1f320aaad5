//! The key of one version in a memtable, and the key of a row in the B-tree.
//!
//! Versions sort by table, then by key as plain bytes, then newest first, so that the first
//! version at or behind a probe `(table, key, position - 1)` is the newest one that a reader at
//! `position` sees. The first bytes of a key stand in the node itself: most comparisons touch no
//! other memory.

use std::cmp::Ordering;

use bytes::Bytes;
use onelog_record::{Offset, TableId};

const WORDS: usize = 4;
/// How many bytes of a key stand in the node itself.
const HEAD_BYTES: usize = WORDS * 8;

/// One version's key. Also the probe of every search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionKey {
    /// The table and the key's first bytes, zero-padded, as numbers that compare like the bytes.
    table: u32,
    len: u32,
    head: [u64; WORDS],
    /// The bytes behind the head; empty for most keys.
    tail: Bytes,
    offset: u64,
}

impl VersionKey {
    /// The version of `key` that the record at `offset` wrote. A long key shares its memory.
    pub(crate) fn of_record(table: TableId, key: &Bytes, offset: Offset) -> Self {
        let tail = if key.len() > HEAD_BYTES {
            key.slice(HEAD_BYTES..)
        } else {
            Bytes::new()
        };
        Self::build(table, key, tail, offset)
    }

    /// A place to search from: before every version of `key` that is newer than `offset`.
    pub(crate) fn probe(table: TableId, key: &[u8], offset: Offset) -> Self {
        let tail = Bytes::copy_from_slice(key.get(HEAD_BYTES..).unwrap_or_default());
        Self::build(table, key, tail, offset)
    }

    /// The place before every version of `key`.
    pub(crate) fn before(table: TableId, key: &[u8]) -> Self {
        Self::probe(table, key, Offset(u64::MAX))
    }

    /// The place before every row of the table behind `table`; `None` when there is none.
    pub(crate) fn end_of(table: TableId) -> Option<Self> {
        let next = table.0.checked_add(1)?;
        Some(Self::before(TableId(next), b""))
    }

    fn build(table: TableId, key: &[u8], tail: Bytes, offset: Offset) -> Self {
        let mut head = [0; WORDS];
        for (word, chunk) in head.iter_mut().zip(key.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(bytes);
        }
        Self {
            table: table.0,
            // No stored key is nearly as long; a probe that is finds nothing.
            len: key.len().min(u32::MAX as usize) as u32,
            head,
            tail,
            offset: offset.0,
        }
    }

    pub(crate) const fn table(&self) -> TableId {
        TableId(self.table)
    }

    pub(crate) const fn offset(&self) -> Offset {
        Offset(self.offset)
    }

    /// The key's first four bytes as a big-endian number; `None` when it has fewer.
    pub(crate) const fn leading_u32(&self) -> Option<u32> {
        if self.len < 4 {
            return None;
        }
        Some((self.head[0] >> 32) as u32)
    }

    /// This key at another version.
    pub(crate) fn at(&self, offset: Offset) -> Self {
        Self {
            offset: offset.0,
            ..self.clone()
        }
    }

    /// Whether both are versions of one key.
    pub(crate) fn is_same_key(&self, other: &Self) -> bool {
        self.compare_key(other) == Ordering::Equal
    }

    /// Orders two keys, whatever their versions.
    pub(crate) fn compare_key(&self, other: &Self) -> Ordering {
        self.table
            .cmp(&other.table)
            .then_with(|| self.head.cmp(&other.head))
            .then_with(|| self.compare_behind_equal_heads(other))
    }

    /// With equal heads, a key that ends inside its head is a prefix of the other one: what
    /// follows it there is zero bytes, real or padded. So the shorter sorts first.
    fn compare_behind_equal_heads(&self, other: &Self) -> Ordering {
        if self.tail.is_empty() || other.tail.is_empty() {
            self.len.cmp(&other.len)
        } else {
            self.tail.cmp(&other.tail)
        }
    }

    /// Appends the key's bytes.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for word in self.head {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.truncate(start + (self.len as usize).min(HEAD_BYTES));
        out.extend_from_slice(&self.tail);
    }

    pub(crate) fn key(&self) -> Bytes {
        let mut out = Vec::with_capacity((self.len as usize).max(HEAD_BYTES));
        self.write_key(&mut out);
        out.into()
    }
}

impl Ord for VersionKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_key(other)
            .then_with(|| other.offset.cmp(&self.offset))
    }
}

impl PartialOrd for VersionKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The bytes of a table's number in front of each key of the B-tree.
pub(crate) const TABLE_PREFIX_BYTES: usize = 4;

const STACK_BYTES: usize = 128;

/// Calls `with` with the B-tree's key of a row: the table's number, big-endian, and the key.
pub(crate) fn with_base_key<R>(table: TableId, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> R {
    let len = TABLE_PREFIX_BYTES + key.len();
    if len <= STACK_BYTES {
        let mut out = [0; STACK_BYTES];
        out[..TABLE_PREFIX_BYTES].copy_from_slice(&table.0.to_be_bytes());
        out[TABLE_PREFIX_BYTES..len].copy_from_slice(key);
        return with(&out[..len]);
    }
    with(&base_key(table, key))
}

/// The B-tree's key of a row.
pub(crate) fn base_key(table: TableId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_PREFIX_BYTES + key.len());
    out.extend_from_slice(&table.0.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Takes apart a key of the B-tree; `None` when it is too short to be one.
pub(crate) fn split_base_key(bytes: &[u8]) -> Option<(TableId, &[u8])> {
    let (table, key) = bytes.split_first_chunk::<TABLE_PREFIX_BYTES>()?;
    Some((TableId(u32::from_be_bytes(*table)), key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys that collide: long common prefixes, zero bytes, lengths around the head's.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(0xff)];
        prop_oneof![
            prop::collection::vec(byte.clone(), 0..4),
            prop::collection::vec(Just(0u8), 28..36),
            (prop::collection::vec(byte, 0..6))
                .prop_map(|end| [vec![7; HEAD_BYTES - 2], end].concat()),
        ]
    }

    proptest! {
        #[test]
        fn versions_sort_by_table_then_key_then_newest_first(
            a in (0u32..3, key(), 0u64..4),
            b in (0u32..3, key(), 0u64..4),
        ) {
            let version = |(table, key, offset): &(u32, Vec<u8>, u64)| {
                VersionKey::of_record(TableId(*table), &Bytes::from(key.clone()), Offset(*offset))
            };
            let probe = VersionKey::probe(TableId(a.0), &a.1, Offset(a.2));
            prop_assert_eq!(&probe, &version(&a));
            prop_assert_eq!(&version(&a).key()[..], &a.1[..]);
            let expected = (a.0, &a.1).cmp(&(b.0, &b.1)).then(b.2.cmp(&a.2));
            prop_assert_eq!(version(&a).cmp(&version(&b)), expected);
        }

        #[test]
        fn rows_sort_by_table_then_key(a in (any::<u32>(), key()), b in (any::<u32>(), key())) {
            let of = |(table, key): &(u32, Vec<u8>)| base_key(TableId(*table), key);
            prop_assert_eq!(of(&a).cmp(&of(&b)), a.cmp(&b));
            let row = of(&a);
            prop_assert_eq!(split_base_key(&row), Some((TableId(a.0), &a.1[..])));
            with_base_key(TableId(a.0), &a.1, |bytes| assert_eq!(bytes, of(&a)));
        }
    }
}
