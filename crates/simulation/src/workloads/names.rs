//! User names: many claim few names at once, and no two users ever have the same one.

use std::collections::HashMap;

use bytes::Bytes;
use onelog_record::{FieldPath, KeyRange, Operation, TableDefinition, TableId, Write};
use rand::Rng;
use serde_json::{Value, json};

use super::{Act, Random, Reads, Workload, point, put, table, whole, write};
use crate::history::Seen;

const USERS: u32 = 16;
const NAMES: u32 = 10;

/// Users with a unique name each.
#[derive(Debug)]
pub struct Names {
    pub table: TableId,
}

impl Names {
    fn key(user: u32) -> Bytes {
        format!("user-{user:02}").into()
    }
}

impl Workload for Names {
    fn tables(&self) -> Vec<TableDefinition> {
        let mut table = table(self.table, "people.users");
        table.unique = FieldPath::parse("/name").into_iter().collect();
        vec![table]
    }

    fn initial(&self) -> Vec<Write> {
        Vec::new()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        (seen.points.is_empty() && random.random_ratio(1, 3)).then(|| Reads {
            points: vec![point(self.table, Self::key(random.random_range(0..USERS)))],
            ranges: Vec::new(),
        })
    }

    fn act(&self, seen: &Seen, random: &mut Random) -> Act {
        let user = match seen.points.first() {
            Some(read) => read.key.clone(),
            None => Self::key(random.random_range(0..USERS)),
        };
        let claim = json!({"name": format!("name-{}", random.random_range(0..NAMES))});
        let operation = if random.random_ratio(1, 4) {
            write(self.table, user, Operation::Delete)
        } else {
            put(self.table, user, &claim)
        };
        Act {
            writes: vec![operation],
            guards: Vec::new(),
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(self.table)]
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        let mut owners: HashMap<String, &Bytes> = HashMap::new();
        for (key, found) in &seen.ranges[0].rows {
            let user: Value =
                serde_json::from_slice(&found.value).map_err(|error| error.to_string())?;
            if let Some(other) = owners.insert(user["name"].to_string(), key) {
                return Err(format!(
                    "{key:?} and {other:?} have the name {}",
                    user["name"]
                ));
            }
        }
        Ok(())
    }
}
