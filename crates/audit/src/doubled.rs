//! Keys that one side has more than once. Where both sides have the same rows for such a key, their
//! digests are equal, and nothing else would show it.
//!
//! Of up to [`KEYS_MAX`] keys all are looked at; of more, those whose hash is below a bound, which is
//! halved whenever there are too many. So either all rows of a key are looked at or none.

use std::collections::{BTreeSet, HashSet};

use onelog_store::digest::HashedRow;

/// Hashes of keys that are held at once.
pub(super) const KEYS_MAX: usize = 1_000_000;

pub(super) struct Doubled {
    keys_max: usize,
    seen: HashSet<u64>,
    bound: u64,
    buckets: BTreeSet<usize>,
}

impl Doubled {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            keys_max,
            seen: HashSet::new(),
            bound: u64::MAX,
            buckets: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, row: &HashedRow) {
        let [low, high] = [row.key as u64, (row.key >> 64) as u64];
        let hash = low ^ high;
        if hash > self.bound {
            return;
        }
        if !self.seen.insert(hash) {
            self.buckets.insert(row.bucket);
        }
        if self.seen.len() > self.keys_max {
            self.bound /= 2;
            self.seen.retain(|hash| *hash <= self.bound);
        }
    }

    /// The buckets in which there are such keys.
    pub(super) fn into_buckets(self) -> BTreeSet<usize> {
        self.buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 10_000;

    /// Adds each key once and the odd ones a second time, long after the first.
    fn found(keys_max: usize) -> BTreeSet<usize> {
        let mut doubled = Doubled::new(keys_max);
        let odd = (0..KEYS).filter(|n| n % 2 == 1);
        for n in (0..KEYS).chain(odd) {
            doubled.add(&HashedRow {
                key: u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                bucket: n as usize,
                lanes: [n; 4],
            });
        }
        assert!(doubled.seen.len() <= keys_max);
        doubled.into_buckets()
    }

    #[test]
    fn every_doubled_key_is_found_where_all_are_held() {
        let found = found(KEYS as usize);
        assert_eq!(found.len() as u64, KEYS / 2);
        assert!(found.iter().all(|n| n % 2 == 1));
    }

    #[test]
    fn of_more_keys_a_part_is_looked_at_whole() {
        let found = found(1_000);
        assert!(found.len() > 100, "{}", found.len());
        assert!(found.iter().all(|n| n % 2 == 1));
    }
}
