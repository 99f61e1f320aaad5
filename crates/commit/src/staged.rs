//! The writes of the transaction that is being decided, so that each sees those before it.

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use onelog_record::{Offset, Position, TableId};

/// Up to here comparing fingerprints one by one is faster than an index.
const LINEAR_MAX: usize = 16;

/// A write that was carried out.
#[derive(Clone, Debug)]
pub struct StagedWrite {
    pub table: TableId,
    pub key: Bytes,
    /// The after-image; `None` for a delete.
    pub value: Option<Bytes>,
    pub offset: Offset,
    pub fingerprint: u64,
    /// Where the transaction in flight ends that the after-image was computed from, or zero.
    pub after: Position,
}

/// Writes in order. The memory is used again for the next transaction.
#[derive(Debug, Default)]
pub struct Staged {
    writes: Vec<StagedWrite>,
    /// The last write of each key, once there are more than `LINEAR_MAX`.
    last: HashTable<u32>,
}

impl Staged {
    pub fn clear(&mut self) {
        self.writes.clear();
        self.last.clear();
    }

    pub fn writes(&self) -> &[StagedWrite] {
        &self.writes
    }

    pub fn drain(&mut self) -> std::vec::Drain<'_, StagedWrite> {
        self.last.clear();
        self.writes.drain(..)
    }

    /// The last write of a key.
    pub fn find(&self, table: TableId, key: &[u8], fingerprint: u64) -> Option<&StagedWrite> {
        let same = |write: &StagedWrite| {
            write.fingerprint == fingerprint && write.table == table && write.key == key
        };
        if self.writes.len() <= LINEAR_MAX {
            return self.writes.iter().rfind(|write| same(write));
        }
        self.last
            .find(fingerprint, |n| same(&self.writes[*n as usize]))
            .map(|n| &self.writes[*n as usize])
    }

    pub fn push(&mut self, write: StagedWrite) {
        self.writes.push(write);
        match self.writes.len() {
            len if len <= LINEAR_MAX => {}
            len if len == LINEAR_MAX + 1 => (0..len).for_each(|n| self.index(n)),
            len => self.index(len - 1),
        }
    }

    fn index(&mut self, n: usize) {
        let Self { writes, last } = self;
        let write = &writes[n];
        let same = |other: &u32| {
            let other = &writes[*other as usize];
            other.fingerprint == write.fingerprint
                && other.table == write.table
                && other.key == write.key
        };
        match last.entry(write.fingerprint, same, |other| {
            writes[*other as usize].fingerprint
        }) {
            Entry::Occupied(mut entry) => *entry.get_mut() = n as u32,
            Entry::Vacant(entry) => {
                entry.insert(n as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_is_found_with_and_without_the_index() {
        let mut staged = Staged::default();
        let key = |n: u64| Bytes::from(format!("key {}", n % 11));
        for n in 0..3 * LINEAR_MAX as u64 {
            staged.push(StagedWrite {
                table: TableId(1),
                key: key(n),
                value: None,
                offset: Offset(n),
                fingerprint: n % 11 % 4, // keys share fingerprints
                after: Position::ZERO,
            });
            for back in 0..n.min(11) {
                let wanted = n - back;
                let found = staged.find(TableId(1), &key(wanted), wanted % 11 % 4);
                assert_eq!(found.unwrap().offset, Offset(wanted));
            }
            assert!(staged.find(TableId(2), &key(n), n % 11 % 4).is_none());
        }
        staged.clear();
        assert!(staged.find(TableId(1), &key(0), 0).is_none());
    }
}
