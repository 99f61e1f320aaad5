//! Lists into which each element is written once, mostly without reading: an element that is there
//! twice was applied twice, which retries must never do. From the order of the elements the cycle
//! checker knows the order of the transactions.

use std::collections::HashSet;

use bytes::Bytes;
use onelog_record::{FieldPath, KeyRange, Operation, TableDefinition, TableId, Write};
use rand::Rng;
use serde_json::{Value, json};

use super::{Act, Random, Reads, Workload, point, put, table, whole, write};
use crate::history::Seen;

const LISTS: u32 = 4;
const ELEMENTS_MAX: usize = 24;

#[derive(Debug)]
pub struct Lists {
    pub table: TableId,
}

fn key(list: u32) -> Bytes {
    format!("list-{list}").into()
}

fn elements(document: &[u8]) -> Vec<Value> {
    match serde_json::from_slice(document) {
        Ok(Value::Array(elements)) => elements,
        _ => Vec::new(),
    }
}

impl Workload for Lists {
    fn tables(&self) -> Vec<TableDefinition> {
        vec![table(self.table, "test.lists")]
    }

    fn initial(&self) -> Vec<Write> {
        Vec::new()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        if !seen.points.is_empty() || !seen.ranges.is_empty() {
            return None;
        }
        match random.random_range(0..8) {
            0 | 1 => Some(Reads {
                points: vec![point(self.table, key(random.random_range(0..LISTS)))],
                ranges: Vec::new(),
            }),
            2 => Some(Reads {
                points: Vec::new(),
                ranges: vec![whole(self.table)],
            }),
            _ => None,
        }
    }

    fn act(&self, seen: &Seen, random: &mut Random) -> Act {
        let full = seen.points.iter().find(|point| {
            let found = point.found.as_ref();
            found.is_some_and(|found| elements(&found.value).len() > ELEMENTS_MAX)
        });
        let mark = json!(random.random_range(0..i64::MAX));
        let writes = match full {
            // A new list, so that none grows without end; it is known which one it follows.
            Some(list) => vec![put(self.table, list.key.clone(), &json!([mark]))],
            None => {
                let append = Operation::Append(FieldPath::whole(), mark.into());
                let list = key(random.random_range(0..LISTS));
                vec![write(self.table, list, append)]
            }
        };
        Act {
            writes,
            guards: Vec::new(),
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(self.table)]
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        for (key, found) in &seen.ranges[0].rows {
            let elements = elements(&found.value);
            let different: HashSet<String> = elements.iter().map(Value::to_string).collect();
            if different.len() != elements.len() {
                return Err(format!("list {key:?} has an element twice: {elements:?}"));
            }
        }
        Ok(())
    }
}
