//! The last write of each recently written key, for fast point checks.
//!
//! Invariant: every write at or above `floor` is known here. Keys are remembered by a keyed hash of
//! 64 bits: two keys with the same one can add a false conflict, never hide a true one.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use onelog_record::{Offset, Position, TableId};

use crate::planted::{self, Bug};

/// The keyed hash: seeded anew in each process, so that no client can choose keys that collide.
#[derive(Debug, Default)]
pub struct Fingerprints {
    seed: RandomState,
}

impl Fingerprints {
    /// The fingerprint of a key of a table.
    pub fn of(&self, table: TableId, key: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u32(table.0);
        hasher.write(key);
        hasher.finish()
    }
}

#[derive(Clone, Copy, Debug)]
struct LastWrite {
    fingerprint: u64,
    offset: Offset,
}

/// A bounded window of writes.
#[derive(Debug)]
pub struct WriteWindow {
    last: HashTable<LastWrite>,
    order: VecDeque<LastWrite>,
    floor: Position,
    writes_max: usize,
}

impl WriteWindow {
    /// A window that knows nothing below `floor`.
    pub fn new(writes_max: usize, floor: Position) -> Self {
        Self {
            last: HashTable::new(),
            order: VecDeque::new(),
            floor,
            writes_max: writes_max.max(1),
        }
    }

    /// Whether every write at or after `position` is known.
    pub fn covers(&self, position: Position) -> bool {
        position >= self.floor
    }

    /// The last write in the window of the key with this fingerprint.
    pub fn last_write(&self, fingerprint: u64) -> Option<Offset> {
        self.last
            .find(fingerprint, |found| found.fingerprint == fingerprint)
            .map(|found| found.offset)
    }

    /// Remembers a write. Offsets only grow.
    pub fn insert(&mut self, fingerprint: u64, offset: Offset) {
        let write = LastWrite {
            fingerprint,
            offset,
        };
        match self.last.entry(
            fingerprint,
            |found| found.fingerprint == fingerprint,
            |found| found.fingerprint,
        ) {
            Entry::Occupied(mut entry) => *entry.get_mut() = write,
            Entry::Vacant(entry) => {
                entry.insert(write);
            }
        }
        self.order.push_back(write);
        if self.order.len() > self.writes_max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        let newest_of_its_key = |found: &LastWrite| {
            found.fingerprint == oldest.fingerprint && found.offset == oldest.offset
        };
        if let Ok(entry) = self.last.find_entry(oldest.fingerprint, newest_of_its_key) {
            entry.remove();
        }
        self.floor = if planted::is(Bug::OffByOneFloor) {
            Position(oldest.offset.0)
        } else {
            oldest.offset.after()
        };
    }

    /// Forgets everything: what lies below `floor` is in the state.
    pub fn clear(&mut self, floor: Position) {
        self.last.clear();
        self.order.clear();
        self.floor = floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_forgets_its_oldest_write_and_raises_its_floor() {
        let mut window = WriteWindow::new(2, Position(10));
        assert!(window.covers(Position(10)));
        assert!(!window.covers(Position(9)));

        window.insert(1, Offset(10));
        window.insert(2, Offset(11));
        window.insert(3, Offset(12));

        assert_eq!(window.last_write(1), None);
        assert_eq!(window.last_write(2), Some(Offset(11)));
        assert!(!window.covers(Position(10)), "the write at 10 is forgotten");
        assert!(window.covers(Position(11)));
    }

    #[test]
    fn a_key_that_was_written_again_outlives_its_first_write() {
        let mut window = WriteWindow::new(2, Position(0));
        window.insert(1, Offset(0));
        window.insert(1, Offset(1));
        window.insert(2, Offset(2));
        assert_eq!(window.last_write(1), Some(Offset(1)));
        window.insert(2, Offset(3));
        assert_eq!(window.last_write(1), None);
        assert_eq!(window.last_write(2), Some(Offset(3)));
    }
}
