//! A ring of keys, each naming the next: every transaction follows it three steps and swaps two
//! neighbours. One ring must stay one ring; a lost or half update tears it.

use bytes::Bytes;
use onelog_record::{KeyRange, TableDefinition, TableId, Write};
use rand::Rng;
use serde_json::{Value, json};

use super::{Act, Random, Reads, Workload, point, put, table, whole};
use crate::history::Seen;

const KEYS: u32 = 12;
const STEPS: usize = 4;

#[derive(Debug)]
pub struct Ring {
    pub table: TableId,
}

fn key(n: u32) -> Bytes {
    format!("{:02}", n % KEYS).into()
}

fn next(value: &[u8]) -> Option<Bytes> {
    let value: Value = serde_json::from_slice(value).ok()?;
    Some(Bytes::copy_from_slice(value.as_str()?.as_bytes()))
}

fn name(key: &Bytes) -> Value {
    json!(String::from_utf8_lossy(key))
}

impl Workload for Ring {
    fn tables(&self) -> Vec<TableDefinition> {
        vec![table(self.table, "test.ring")]
    }

    fn initial(&self) -> Vec<Write> {
        (0..KEYS)
            .map(|n| put(self.table, key(n), &name(&key(n + 1))))
            .collect()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        let key = match seen.points.last() {
            None => key(random.random_range(0..KEYS)),
            Some(_) if seen.points.len() >= STEPS => return None,
            Some(last) => next(&last.found.as_ref()?.value)?,
        };
        Some(Reads {
            points: vec![point(self.table, key)],
            ranges: Vec::new(),
        })
    }

    /// a → b → c → d becomes a → c → b → d.
    fn act(&self, seen: &Seen, _random: &mut Random) -> Act {
        let keys: Vec<&Bytes> = seen.points.iter().map(|point| &point.key).collect();
        let [a, b, c, d] = keys[..] else {
            return Act::default();
        };
        Act {
            writes: vec![
                put(self.table, a.clone(), &name(c)),
                put(self.table, c.clone(), &name(b)),
                put(self.table, b.clone(), &name(d)),
            ],
            guards: Vec::new(),
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(self.table)]
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        let rows = &seen.ranges[0].rows;
        let start = key(0);
        let mut at = start.clone();
        for step in 1..=KEYS {
            let found = rows.iter().find(|(key, _)| *key == at);
            at = found
                .and_then(|(_, found)| next(&found.value))
                .ok_or_else(|| format!("the ring ends at {at:?}"))?;
            if (at == start) != (step == KEYS) {
                return Err(format!(
                    "the ring closes after {step} steps of {KEYS}: {rows:?}"
                ));
            }
        }
        Ok(())
    }
}
