//! The idempotency window: which transactions were accepted under which id.
//!
//! Bounded by count; the oldest in log order are forgotten first. Every transaction of the log has
//! an id, and transactions stand side by side in the log, so the window knows exactly the ids of
//! the log from `floor` on.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use onelog_record::{Offset, Position, TxnId};

const FINGERPRINT_BITS: u32 = 48;
const RECORDS_SATURATED: u64 = 0xffff;
/// Slots are named by 32-bit numbers that wrap around.
const IDS_MAX: usize = 1 << 31;

/// A transaction that the log has, as its id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub id: TxnId,
    /// The fingerprint of its request. The low 48 bits are kept.
    pub fingerprint: u64,
    /// The position right behind it.
    pub position: Position,
    /// How many records it has.
    pub records: u32,
}

impl Remembered {
    /// The offset of its first record.
    pub fn first_offset(&self) -> Offset {
        Offset(self.position.0.saturating_sub(u64::from(self.records)))
    }
}

/// 32 bytes: fingerprint (48 bits) and record count (16 bits, saturated) share the last word.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: TxnId,
    end: Position,
    packed: u64,
}

/// The remembered ids.
#[derive(Debug)]
pub struct IdWindow {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u32,
    numbers: HashTable<u32>,
    hasher: RandomState,
    /// Record counts that do not fit a slot.
    large: HashMap<TxnId, u32, RandomState>,
    floor: Position,
    ids_max: usize,
}

impl IdWindow {
    /// A window of the ids that a state at `position` remembers, in any order. Nothing is known of
    /// transactions before the oldest of them; without any, of those before `position`.
    pub fn new(ids_max: usize, position: Position, ids: impl Iterator<Item = Remembered>) -> Self {
        let mut ids: Vec<Remembered> = ids.collect();
        if !ids.is_sorted_by_key(|known| known.position) {
            ids.sort_by_key(|known| known.position);
        }
        let floor = ids
            .first()
            .map_or(position, |known| Position(known.first_offset().0));
        let mut window = Self {
            slots: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            hasher: RandomState::default(),
            large: HashMap::default(),
            floor,
            ids_max: ids_max.clamp(1, IDS_MAX),
        };
        for known in ids {
            window.insert(known);
        }
        window
    }

    /// Transactions below this position may be forgotten.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// The transaction with this id, if it is remembered.
    pub fn get(&self, id: TxnId) -> Option<Remembered> {
        let number = self
            .numbers
            .find(self.hash(id), |number| self.slot(*number).id == id)?;
        Some(self.unpack(self.slot(*number)))
    }

    /// Whether a remembered transaction had this fingerprint.
    pub fn same_request(known: &Remembered, fingerprint: u64) -> bool {
        let mask = (1 << FINGERPRINT_BITS) - 1;
        known.fingerprint & mask == fingerprint & mask
    }

    /// Remembers a transaction, behind all others in the log.
    pub fn insert(&mut self, known: Remembered) {
        if self.slots.len() >= self.ids_max {
            self.forget_oldest();
        }
        let records = u64::from(known.records).min(RECORDS_SATURATED);
        if records == RECORDS_SATURATED {
            self.large.insert(known.id, known.records);
        }
        let number = self.first.wrapping_add(self.slots.len() as u32);
        let (first, hasher) = (self.first, &self.hasher);
        // An id that is still here from an older use gives way to the newer one.
        let hash = hasher.hash_one(known.id.0);
        if let Ok(entry) = self.numbers.find_entry(hash, |number| {
            self.slots[number.wrapping_sub(first) as usize].id == known.id
        }) {
            entry.remove();
        }
        self.slots.push_back(Slot {
            id: known.id,
            end: known.position,
            packed: known.fingerprint << (64 - FINGERPRINT_BITS) | records,
        });
        let slots = &self.slots;
        self.numbers.insert_unique(hash, number, |number| {
            hasher.hash_one(slots[number.wrapping_sub(first) as usize].id.0)
        });
    }

    /// Forgets every transaction that reaches above `position`.
    pub fn truncate(&mut self, position: Position) {
        while let Some(last) = self.slots.back()
            && last.end > position
        {
            let number = self.first.wrapping_add(self.slots.len() as u32 - 1);
            self.unlink(last.id, number);
            self.slots.pop_back();
        }
        self.floor = self.floor.min(position);
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.slots.front().copied() else {
            return;
        };
        self.unlink(oldest.id, self.first);
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        self.floor = oldest.end;
    }

    fn unlink(&mut self, id: TxnId, number: u32) {
        let hash = self.hash(id);
        if let Ok(entry) = self.numbers.find_entry(hash, |found| *found == number) {
            entry.remove();
            self.large.remove(&id);
        }
    }

    fn hash(&self, id: TxnId) -> u64 {
        self.hasher.hash_one(id.0)
    }

    fn slot(&self, number: u32) -> &Slot {
        &self.slots[number.wrapping_sub(self.first) as usize]
    }

    fn unpack(&self, slot: &Slot) -> Remembered {
        let records = match slot.packed & RECORDS_SATURATED {
            RECORDS_SATURATED => self.large.get(&slot.id).copied().unwrap_or(u32::MAX),
            fits => fits as u32,
        };
        Remembered {
            id: slot.id,
            fingerprint: slot.packed >> (64 - FINGERPRINT_BITS),
            position: slot.end,
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u128, end: u64, records: u32) -> Remembered {
        Remembered {
            id: TxnId(id),
            fingerprint: 0xabcd_0000_0000_0000 | id as u64,
            position: Position(end),
            records,
        }
    }

    #[test]
    fn an_id_takes_32_bytes() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn the_oldest_id_is_forgotten_first_and_the_floor_says_so() {
        let mut window = IdWindow::new(2, Position(0), std::iter::empty());
        window.insert(known(1, 3, 3));
        window.insert(known(2, 5, 2));
        assert_eq!(window.floor(), Position(0));
        window.insert(known(3, 6, 1));
        assert_eq!(window.get(TxnId(1)), None);
        assert_eq!(window.floor(), Position(3));
        let second = window.get(TxnId(2)).unwrap();
        assert_eq!((second.position, second.records), (Position(5), 2));
        assert!(IdWindow::same_request(&second, known(2, 0, 0).fingerprint));
        assert!(!IdWindow::same_request(&second, 3));
    }

    #[test]
    fn a_state_whose_oldest_id_begins_the_log_has_forgotten_none() {
        let ids = [known(2, 5, 2), known(1, 3, 3)];
        assert_eq!(
            IdWindow::new(9, Position(5), ids.into_iter()).floor(),
            Position(0)
        );
        let ids = [known(2, 5, 2)];
        assert_eq!(
            IdWindow::new(9, Position(5), ids.into_iter()).floor(),
            Position(3)
        );
        assert_eq!(
            IdWindow::new(9, Position(5), std::iter::empty()).floor(),
            Position(5)
        );
        let ids = [known(1, 3, 3), known(2, 5, 2)];
        let cut = IdWindow::new(1, Position(5), ids.into_iter());
        assert_eq!(cut.floor(), Position(3));
        assert!(cut.get(TxnId(1)).is_none() && cut.get(TxnId(2)).is_some());
    }

    #[test]
    fn record_counts_that_do_not_fit_a_slot_are_kept_beside_it() {
        let mut window = IdWindow::new(2, Position(0), std::iter::empty());
        window.insert(known(1, 70_000, 70_000));
        window.insert(known(2, 135_535, 65_535));
        assert_eq!(window.get(TxnId(1)).unwrap().records, 70_000);
        assert_eq!(window.get(TxnId(2)).unwrap().records, 65_535);
        window.insert(known(3, 135_536, 1));
        assert_eq!(window.large.len(), 1);
        window.truncate(Position(1));
        assert!(window.large.is_empty() && window.numbers.is_empty());
    }

    #[test]
    fn what_a_lost_term_accepted_is_forgotten_from_the_end() {
        let mut window = IdWindow::new(9, Position(0), std::iter::empty());
        window.insert(known(1, 3, 3));
        window.insert(known(2, 5, 2));
        window.truncate(Position(3));
        assert!(window.get(TxnId(1)).is_some());
        assert!(window.get(TxnId(2)).is_none());
        assert_eq!(window.floor(), Position(0));
        window.insert(known(2, 4, 1));
        assert_eq!(window.get(TxnId(2)).unwrap().position, Position(4));
    }

    #[test]
    fn slot_numbers_may_wrap_around() {
        let mut window = IdWindow::new(3, Position(0), std::iter::empty());
        window.first = u32::MAX - 1;
        for n in 1..=10 {
            window.insert(known(n, n as u64, 1));
        }
        for n in 8..=10 {
            assert_eq!(window.get(TxnId(n)).unwrap().position, Position(n as u64));
        }
        assert!(window.get(TxnId(7)).is_none());
        assert_eq!(window.numbers.len(), 3);
    }
}
