//! A filter in front of a memtable: most keys that are read are not in it, and a search in the
//! memtable costs as much as one in the B-tree.
//!
//! One 64-bit word per key with four bits set: one cache miss per question. It may say "perhaps"
//! for a key that is not there, never "no" for one that is, provided the answer is used for a
//! position that was published (with release order) after the key was added.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;
use onelog_record::TableId;

const BITS_PER_KEY: usize = 16;
const WORDS_MIN: usize = 16;

#[derive(Debug)]
pub(crate) struct KeyFilter {
    words: Box<[AtomicU64]>,
}

/// Where a key's bits are, in filters of any size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(table: TableId, key: &[u8]) -> Self {
        let mut hasher = FixedState::with_seed(u64::from(table.0)).build_hasher();
        hasher.write(key);
        Self(hasher.finish())
    }

    const fn bits(self) -> u64 {
        let hash = self.0;
        1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63) | 1 << (hash >> 18 & 63)
    }
}

impl KeyFilter {
    /// A filter for about `keys` keys; with more it says "perhaps" more often.
    pub(crate) fn new(keys: usize) -> Self {
        let words = (keys * BITS_PER_KEY / 64)
            .max(WORDS_MIN)
            .next_power_of_two();
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn word(&self, hash: KeyHash) -> &AtomicU64 {
        let at = (hash.0 >> 32) as usize & (self.words.len() - 1);
        &self.words[at]
    }

    /// Adds a key. Called by one thread.
    pub(crate) fn add(&self, hash: KeyHash) {
        let word = self.word(hash);
        let now = word.load(Ordering::Relaxed);
        let with = now | hash.bits();
        if with != now {
            word.store(with, Ordering::Relaxed);
        }
    }

    /// Whether the key may have been added.
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        let bits = hash.bits();
        self.word(hash).load(Ordering::Relaxed) & bits == bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_added_is_never_denied_and_others_mostly_are() {
        let filter = KeyFilter::new(10_000);
        let hash = |n: u32| KeyHash::of(TableId(n & 3), &n.to_be_bytes());
        for n in 0..10_000 {
            filter.add(hash(n));
        }
        assert!((0..10_000).all(|n| filter.may_contain(hash(n))));
        let wrong = (10_000..110_000)
            .filter(|n| filter.may_contain(hash(*n)))
            .count();
        assert!(wrong < 5_000, "{wrong} of 100000 were not denied");
    }
}
