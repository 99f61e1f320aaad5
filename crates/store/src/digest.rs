//! Digests of sets of rows that can be added up in any order: each row is hashed with keyed BLAKE3,
//! the hashes are added in four lanes of 64 bits, per bucket of keys.
//!
//! The hashing key is made anew for every comparison, so that no client can prepare rows whose sums
//! agree. The row's key is part of its hash: no row can stand for another.

use onelog_mapping::{Cell, Row};

/// Into how many buckets keys are spread.
pub const BUCKETS: usize = 1024;

/// The digest of the rows of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    lanes: [u64; 4],
}

impl Digest {
    fn add(&mut self, hash: &[u64; 4]) {
        self.rows += 1;
        for (lane, part) in self.lanes.iter_mut().zip(hash) {
            *lane = lane.wrapping_add(*part);
        }
    }
}

/// The digest of all rows of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDigest(pub Vec<Digest>);

impl Default for TableDigest {
    fn default() -> Self {
        Self(vec![Digest::default(); BUCKETS])
    }
}

impl TableDigest {
    pub fn add(&mut self, row: &HashedRow) {
        self.0[row.bucket].add(&row.lanes);
    }

    pub fn rows(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.rows).sum()
    }
}

/// What is left of a row: its bucket, its key's hash, its own hash.
#[derive(Clone, Copy, Debug)]
pub struct HashedRow {
    pub bucket: usize,
    pub key: u128,
    pub lanes: [u64; 4],
}

/// Hashes rows with one secret key.
#[derive(Debug)]
pub struct RowHasher {
    secret: [u8; 32],
    buffer: Vec<u8>,
}

impl Default for RowHasher {
    fn default() -> Self {
        Self {
            secret: rand::random(),
            buffer: Vec::new(),
        }
    }
}

impl RowHasher {
    /// Another one with the same secret, for another thread.
    pub fn twin(&self) -> Self {
        Self {
            secret: self.secret,
            buffer: Vec::new(),
        }
    }

    fn digest(&self) -> [u64; 4] {
        let hash = blake3::keyed_hash(&self.secret, &self.buffer);
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *lane = u64::from_le_bytes(word);
        }
        lanes
    }

    /// The hash of a row's key alone.
    pub fn key(&mut self, key: &Cell) -> u128 {
        self.buffer.clear();
        key.encode(&mut self.buffer);
        let [low, high, ..] = self.digest();
        u128::from(high) << 64 | u128::from(low)
    }

    pub fn row(&mut self, row: &Row, key: usize) -> HashedRow {
        let key_hash = self.key(&row.cells[key]);
        // The buffer holds the key; the other cells follow it in the order of the columns.
        for (n, cell) in row.cells.iter().enumerate() {
            if n != key {
                cell.encode(&mut self.buffer);
            }
        }
        // A row of a key alone would have its key's hash.
        self.buffer.push(0xff);
        HashedRow {
            bucket: (key_hash % BUCKETS as u128) as usize,
            key: key_hash,
            lanes: self.digest(),
        }
    }
}

/// Unequal buckets in groups of about `rows_max` rows.
pub fn groups(
    unequal: &[usize],
    left: &TableDigest,
    right: &TableDigest,
    rows_max: u64,
) -> Vec<Vec<bool>> {
    let mut groups: Vec<Vec<bool>> = Vec::new();
    let mut rows = u64::MAX;
    for bucket in unequal {
        let more = left.0[*bucket].rows.max(right.0[*bucket].rows);
        rows = rows.saturating_add(more);
        if rows > rows_max {
            groups.push(vec![false; BUCKETS]);
            rows = more;
        }
        if let Some(last) = groups.last_mut() {
            last[*bucket] = true;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: i64, text: &str) -> Row {
        let mut row = Row::new(2);
        row.cells = vec![Cell::Integer(key), Cell::Text(text.into())];
        row
    }

    fn digest(hasher: &mut RowHasher, rows: &[Row]) -> TableDigest {
        let mut out = TableDigest::default();
        for row in rows {
            let hashed = hasher.row(row, 0);
            out.add(&hashed);
        }
        out
    }

    #[test]
    fn the_order_of_rows_does_not_matter_but_everything_else_does() {
        let mut hasher = RowHasher::default();
        let rows: Vec<Row> = (0..500).map(|n| row(n, &n.to_string())).collect();
        let whole = digest(&mut hasher, &rows);
        let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
        assert_eq!(digest(&mut hasher, &reversed), whole);
        let mut swapped = rows.clone();
        swapped[1].cells[1] = Cell::Text("2".into());
        swapped[2].cells[1] = Cell::Text("1".into());
        assert_ne!(digest(&mut hasher, &swapped), whole);
        let mut doubled = rows.clone();
        doubled.push(rows[0].clone());
        doubled.push(rows[0].clone());
        assert_ne!(digest(&mut hasher, &doubled), whole);
        assert_ne!(digest(&mut hasher, &rows[1..]), whole);
    }

    #[test]
    fn the_secret_is_new_each_time() {
        let rows = [row(1, "a")];
        let one = digest(&mut RowHasher::default(), &rows);
        assert_ne!(one, digest(&mut RowHasher::default(), &rows));
    }
}
