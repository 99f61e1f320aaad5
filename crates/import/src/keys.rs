//! Whether each key of the log is the key of one row of the store's table alone. A record is one row:
//! of several with one key all but the last would be lost without a trace.
//!
//! A unique index does not answer that: three spellings of one UUID are three texts. So all keys are
//! looked at before the first record is written, as fingerprints, in one snapshot and in bounded
//! memory: where there are more than fit, they are looked at in as many ranges as it takes.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::{Plan, Row, show_key};
use onelog_store::{StoreError, StoreReader};
use serde_json::Value;

/// How many fingerprints of 16 bytes are held at once: a scan of the table looks at about as many
/// rows.
pub const FINGERPRINTS_MAX: usize = 8 << 20;
/// The mapping that [`with_keys`] adds.
const KEYS: usize = 1;

/// The plan of one mapping, and another one of its key alone.
pub fn with_keys(mut plan: Plan) -> Plan {
    let mut keys = plan.mappings[0].clone();
    keys.columns = vec![keys.columns.swap_remove(keys.key)];
    keys.key = 0;
    keys.full_text.clear();
    plan.mappings.push(keys);
    plan
}

/// A key that several rows have, as it is shown. Rows without a key are not looked at.
pub fn shared(
    reader: &mut dyn StoreReader,
    plan: &Arc<Plan>,
    held_max: usize,
) -> Result<Option<Value>, StoreError> {
    let mapping = &plan.mappings[KEYS];
    let mut range = Range::new(held_max);
    let twice = loop {
        reader.scan_keys(KEYS, &mut |row: &Row| match mapping
            .key_of_row(row)
            .map(|key| fingerprint(&key))
        {
            Some(print) => range.add(print),
            None => ControlFlow::Continue(()),
        })?;
        match range.end() {
            End::Twice(print) => break print,
            End::Last => return Ok(None),
            End::More => {}
        }
    };
    let mut found = None;
    reader.scan_keys(KEYS, &mut |row: &Row| {
        let key = mapping.key_of_row(row);
        match key.filter(|key| fingerprint(key) == twice) {
            Some(key) => {
                found = Some(show_key(&key));
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        }
    })?;
    Ok(found)
}

fn fingerprint(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// The fingerprints that are looked at in one scan.
struct Range {
    first: u128,
    last: u128,
    held: Vec<u128>,
    held_max: usize,
    twice: Option<u128>,
}

enum End {
    /// There are fingerprints behind the range: the next scan looks at them.
    More,
    Last,
    Twice(u128),
}

impl Range {
    fn new(held_max: usize) -> Self {
        Self {
            first: 0,
            last: u128::MAX,
            held: Vec::new(),
            held_max: held_max.max(2),
            twice: None,
        }
    }

    fn add(&mut self, print: u128) -> ControlFlow<()> {
        if self.held.len() == self.held_max {
            if self.compare() {
                return ControlFlow::Break(());
            }
            // What is in the upper half waits for a later scan.
            self.held.truncate(self.held_max / 2);
            self.last = self.held.last().copied().unwrap_or(self.last);
        }
        if (self.first..=self.last).contains(&print) {
            self.held.push(print);
        }
        ControlFlow::Continue(())
    }

    /// Sorts what is held. Whether two of it are the same.
    fn compare(&mut self) -> bool {
        self.held.sort_unstable();
        let twice = self.held.windows(2).find(|two| two[0] == two[1]);
        self.twice = twice.map(|two| two[0]);
        self.twice.is_some()
    }

    /// What the scan has found; without two of a kind the next range begins.
    fn end(&mut self) -> End {
        self.compare();
        self.held.clear();
        if let Some(print) = self.twice {
            return End::Twice(print);
        }
        let Some(next) = self.last.checked_add(1) else {
            return End::Last;
        };
        self.first = next;
        self.last = u128::MAX;
        End::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fingerprint that is found twice, and in how many scans.
    fn scanned(prints: &[u128], held_max: usize) -> (Option<u128>, usize) {
        let mut range = Range::new(held_max);
        for scan in 1.. {
            let _ = prints.iter().try_for_each(|print| range.add(*print));
            assert!(range.held.len() <= held_max);
            match range.end() {
                End::More => {}
                End::Last => return (None, scan),
                End::Twice(print) => return (Some(print), scan),
            }
        }
        unreachable!()
    }

    #[test]
    fn two_rows_of_one_key_are_found_however_few_fit() {
        let prints: Vec<u128> = (0..500_u64)
            .map(|n| fingerprint(&n.to_be_bytes()))
            .collect();
        for held_max in [2, 3, 10, 499, 500, 1000] {
            assert_eq!(scanned(&prints, held_max).0, None, "{held_max}");
            for (one, other) in [(0, 499), (7, 8), (250, 0)] {
                let mut twice = prints.clone();
                twice.insert(other, prints[one]);
                assert_eq!(scanned(&twice, held_max).0, Some(prints[one]), "{held_max}");
            }
        }
        // About as many scans as it takes at least, and one where all fit.
        assert!(scanned(&prints, 50).1 <= 30);
        assert_eq!(scanned(&prints, 500).1, 1);
        assert_eq!(scanned(&[0, u128::MAX, 1], 2).0, None);
        assert_eq!(scanned(&[u128::MAX, 0, u128::MAX], 2).0, Some(u128::MAX));
        assert_eq!(scanned(&[], 2), (None, 1));
    }
}
