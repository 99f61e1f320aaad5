//! Two sides, neither of which is right: by digests first, then the rows of unequal buckets as
//! hashes, then the listed ones in full. Memory is bounded as in [`onelog_store::verify()`].

use std::collections::HashMap;

use super::doubled::{Doubled, KEYS_MAX};
use super::side::{Side, SideFault};
use super::{DIFFERENCES_HELD_MAX, DifferenceKind};
use onelog_mapping::Row;
use onelog_store::digest::{BUCKETS, HashedRow, RowHasher, TableDigest, groups};

/// About how many rows of unequal buckets are held at once.
const ROWS_PER_PASS: u64 = 400_000;
/// How often both sides are scanned to count differences, at most.
const PASSES_MAX: usize = 16;

/// What both sides have under one key.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    left: Half,
    right: Half,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    rows: u32,
    lanes: [u64; 4],
}

impl Half {
    fn add(&mut self, row: &HashedRow) {
        self.rows = self.rows.saturating_add(1);
        for (lane, part) in self.lanes.iter_mut().zip(row.lanes) {
            *lane = lane.wrapping_add(part);
        }
    }
}

impl Pair {
    fn difference(&self) -> Option<Difference> {
        let Self { left, right } = self;
        let kind = match (left.rows, right.rows) {
            (0, 0) => return None,
            (1, 1) if left.lanes == right.lanes => return None,
            (1, 1) => DifferenceKind::Different,
            (1, 0) => DifferenceKind::MissingRight,
            (0, 1) => DifferenceKind::MissingLeft,
            _ => DifferenceKind::KeyTwice,
        };
        Some(Difference {
            kind,
            rows_left: left.rows,
            rows_right: right.rows,
        })
    }
}

/// How the sides differ under one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    pub(super) kind: DifferenceKind,
    pub(super) rows_left: u32,
    pub(super) rows_right: u32,
}

/// Keys that differ, by the hash of the key.
pub(super) type Differing = HashMap<u128, Difference>;

pub(super) struct Found {
    pub(super) rows_left: u64,
    pub(super) rows_right: u64,
    pub(super) differing: Differing,
    /// Whether `differing` has all of them.
    pub(super) counted_all: bool,
}

/// A row in full on both sides.
pub(super) type Full = (Option<Row>, Option<Row>);

/// Compares with one secret, so that keys found once can be looked for again.
pub(super) struct Comparison {
    hasher: RowHasher,
}

impl Comparison {
    pub(super) fn new() -> Self {
        Self {
            hasher: RowHasher::default(),
        }
    }

    /// Finds every key on which the sides differ.
    pub(super) fn run(&mut self, left: &mut Side, right: &mut Side) -> Result<Found, SideFault> {
        let (mut ours, mut theirs) = (TableDigest::default(), TableDigest::default());
        let mut doubled = Doubled::new(KEYS_MAX);
        self.scan(left, &mut |_, row| {
            ours.add(row);
            doubled.add(row);
        })?;
        self.scan(right, &mut |_, row| theirs.add(row))?;
        let doubled = doubled.into_buckets();
        let unequal: Vec<usize> = (0..BUCKETS)
            .filter(|n| ours.0[*n] != theirs.0[*n] || doubled.contains(n))
            .collect();
        let mut found = Found {
            rows_left: ours.rows(),
            rows_right: theirs.rows(),
            differing: Differing::new(),
            counted_all: true,
        };
        let mut passes = groups(&unequal, &ours, &theirs, ROWS_PER_PASS);
        if passes.len() > PASSES_MAX {
            passes.truncate(PASSES_MAX);
            found.counted_all = false;
        }
        for buckets in &passes {
            let pairs = self.pairs(left, right, |row| buckets[row.bucket])?;
            for (key, pair) in pairs {
                let Some(difference) = pair.difference() else {
                    continue;
                };
                if found.differing.len() >= DIFFERENCES_HELD_MAX {
                    found.counted_all = false;
                    return Ok(found);
                }
                found.differing.insert(key, difference);
            }
        }
        Ok(found)
    }

    /// Looks at these keys once more; those that still differ.
    pub(super) fn again(
        &mut self,
        left: &mut Side,
        right: &mut Side,
        keys: &Differing,
    ) -> Result<Differing, SideFault> {
        let pairs = self.pairs(left, right, |row| keys.contains_key(&row.key))?;
        let differing = pairs
            .into_iter()
            .filter_map(|(key, pair)| Some((key, pair.difference()?)));
        Ok(differing.collect())
    }

    /// The rows of these keys in full. Of a key that occurs twice, the last one.
    pub(super) fn rows(
        &mut self,
        left: &mut Side,
        right: &mut Side,
        keys: &[u128],
    ) -> Result<HashMap<u128, Full>, SideFault> {
        let mut out: HashMap<u128, Full> = keys.iter().map(|key| (*key, Full::default())).collect();
        if out.is_empty() {
            return Ok(out);
        }
        self.scan(left, &mut |row, hashed| {
            if let Some(full) = out.get_mut(&hashed.key) {
                full.0 = Some(row.clone());
            }
        })?;
        self.scan(right, &mut |row, hashed| {
            if let Some(full) = out.get_mut(&hashed.key) {
                full.1 = Some(row.clone());
            }
        })?;
        Ok(out)
    }

    fn pairs(
        &mut self,
        left: &mut Side,
        right: &mut Side,
        wanted: impl Fn(&HashedRow) -> bool,
    ) -> Result<HashMap<u128, Pair>, SideFault> {
        let mut pairs: HashMap<u128, Pair> = HashMap::new();
        self.scan(left, &mut |_, row| {
            if wanted(row) {
                pairs.entry(row.key).or_default().left.add(row);
            }
        })?;
        self.scan(right, &mut |_, row| {
            if wanted(row) {
                pairs.entry(row.key).or_default().right.add(row);
            }
        })?;
        Ok(pairs)
    }

    fn scan(
        &mut self,
        side: &mut Side,
        each: &mut dyn FnMut(&Row, &HashedRow),
    ) -> Result<(), SideFault> {
        let hasher = &mut self.hasher;
        side.scan(&mut |row| {
            let hashed = hasher.row(row, 0);
            each(row, &hashed);
        })
    }
}
