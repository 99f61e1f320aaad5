//! Batches under way: which keys they write, which are done, and how far everything is done.

use std::collections::{HashSet, VecDeque};

use crate::batch::Batch;

/// A batch on its way to the server.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number in the run, from 0.
    pub number: u64,
    pub batch: Batch,
    /// The log's end before any batch of its reserve was sent.
    pub read_position: u64,
}

/// A batch that was sent, or had nothing to send.
#[derive(Debug)]
struct Place {
    number: u64,
    end: u64,
    last_line: u64,
    records: u64,
    bad_lines: u64,
    keys: Vec<u64>,
    done: bool,
}

/// How far everything is done now, and what was done on the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub end: u64,
    /// Every line up to this one.
    pub last_line: u64,
    /// The records committed since the last time.
    pub records: u64,
    /// The lines passed over since the last time.
    pub bad_lines: u64,
}

/// The batches under way, in the order of the file.
#[derive(Debug, Default)]
pub struct UnderWay {
    places: VecDeque<Place>,
    keys: HashSet<u64>,
}

impl UnderWay {
    /// Whether a batch writes a key that one under way writes too. Keys are distinguished by hash: a
    /// false yes only costs time.
    pub fn collides(&self, batch: &Batch) -> bool {
        batch
            .rows
            .iter()
            .any(|row| self.keys.contains(&hash(&row.key)))
    }

    pub fn add(&mut self, number: u64, batch: &Batch) {
        let mut keys: Vec<u64> = batch.rows.iter().map(|row| hash(&row.key)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.keys.extend(&keys);
        self.places.push_back(Place {
            number,
            end: batch.end,
            last_line: batch.last_line,
            records: batch.rows.len() as u64,
            bad_lines: batch.bad_lines,
            keys,
            done: false,
        });
    }

    /// One record of a batch was refused and is passed over.
    pub fn pass_over(&mut self, number: u64) {
        if let Some(place) = self.places.iter_mut().find(|p| p.number == number) {
            place.records -= 1;
            place.bad_lines += 1;
        }
    }

    /// Marks a batch done. Answers how far everything is done now, if that moved.
    pub fn done(&mut self, number: u64) -> Option<Reached> {
        if let Some(place) = self.places.iter_mut().find(|p| p.number == number) {
            place.done = true;
            for key in place.keys.drain(..) {
                self.keys.remove(&key);
            }
        }
        let mut reached: Option<Reached> = None;
        while self.places.front().is_some_and(|place| place.done)
            && let Some(place) = self.places.pop_front()
        {
            let before = reached.unwrap_or_default();
            reached = Some(Reached {
                end: place.end,
                last_line: place.last_line,
                records: before.records + place.records,
                bad_lines: before.bad_lines + place.bad_lines,
            });
        }
        reached
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(key).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Row;

    fn batch(end: u64, keys: &[&str]) -> Batch {
        let row = |key: &&str| Row {
            line: 1,
            key: key.as_bytes().to_vec(),
            value: b"1".to_vec(),
        };
        Batch {
            start: 0,
            end,
            last_line: end * 10,
            rows: keys.iter().map(row).collect(),
            bad_lines: 1,
        }
    }

    #[test]
    fn everything_is_done_up_to_the_first_batch_that_is_not() {
        let mut under_way = UnderWay::default();
        for n in 0..3 {
            under_way.add(n, &batch(n + 1, &["a"]));
        }
        assert_eq!(under_way.done(1), None);
        under_way.pass_over(0);
        let reached = Reached {
            end: 2,
            last_line: 20,
            records: 1,
            bad_lines: 3,
        };
        assert_eq!(under_way.done(0), Some(reached));
        let reached = Reached {
            end: 3,
            last_line: 30,
            records: 1,
            bad_lines: 1,
        };
        assert_eq!(under_way.done(2), Some(reached));
    }

    #[test]
    fn a_key_under_way_is_waited_for() {
        let mut under_way = UnderWay::default();
        under_way.add(0, &batch(1, &["a", "b", "a"]));
        assert!(under_way.collides(&batch(2, &["c", "b"])));
        assert!(!under_way.collides(&batch(2, &["c"])));
        under_way.done(0);
        assert!(!under_way.collides(&batch(2, &["b"])));
    }
}
