//! Tables that come and go while others write into them: definitions are records like all else, and
//! a request is decided by the tables at its place in the log.

use std::collections::HashSet;

use bytes::Bytes;
use onelog_record::{
    Compare, FieldPath, Guard, KeyRange, Operation, Predicate, TABLE_TABLES, TableDefinition,
    TableId, USER_TABLES_FROM, Write,
};
use rand::Rng;
use serde_json::json;

use super::{Act, Random, Reads, Workload, put, table, whole, write};
use crate::history::Seen;

const NAMES: [&str; 3] = ["passing.a", "passing.b", "passing.c"];
const KEYS: u32 = 6;
/// Of a hundred transactions: those that define a table, and those that drop one.
const DEFINE_PERCENT: u32 = 20;
const DROP_PERCENT: u32 = 15;
/// Of a hundred writes of rows: those into a table that is gone, or not there yet.
const GONE_PERCENT: u32 = 12;
const EARLY_PERCENT: u32 = 8;
/// Of a hundred drops: those that guard nothing, and of these the ones that were prepared so long ago
/// that their table is gone.
const UNGUARDED_PERCENT: u32 = 40;
const LATE_PERCENT: u32 = 60;

/// Tables of a few names, defined, written to and dropped.
#[derive(Debug)]
pub struct Tables;

/// The definitions that were read, deleted tables included.
fn definitions(seen: &Seen) -> Vec<(Bytes, TableDefinition)> {
    let rows = seen.ranges.first().into_iter().flat_map(|read| &read.rows);
    rows.filter_map(|(key, found)| {
        let definition = serde_json::from_slice(&found.value).ok()?;
        Some((key.clone(), definition))
    })
    .collect()
}

fn is_passing(definition: &TableDefinition) -> bool {
    NAMES.contains(&definition.name.as_str())
}

fn next_id(definitions: &[(Bytes, TableDefinition)]) -> TableId {
    let used = definitions.iter().map(|(_, definition)| definition.id.0);
    TableId(used.max().map_or(USER_TABLES_FROM.0, |last| last + 1))
}

fn pick<'d>(from: &[&'d TableDefinition], random: &mut Random) -> Option<&'d TableDefinition> {
    (!from.is_empty()).then(|| from[random.random_range(0..from.len())])
}

fn define(definitions: &[(Bytes, TableDefinition)], name: &str) -> Act {
    let definition = table(next_id(definitions), name);
    Act {
        guards: Vec::new(),
        writes: vec![put(TABLE_TABLES, name.to_owned(), &json!(definition))],
    }
}

fn drop_table(definition: &TableDefinition, is_guarded: bool) -> Act {
    let mut dropped = definition.clone();
    dropped.dropped = true;
    let guards = FieldPath::parse("/id").into_iter().map(|path| Guard {
        table: TABLE_TABLES,
        key: definition.name.clone().into(),
        predicate: Predicate::Field {
            path,
            compare: Compare::Eq,
            value: json!(definition.id).into(),
        },
    });
    Act {
        guards: guards.filter(|_| is_guarded).collect(),
        writes: vec![
            write(TABLE_TABLES, definition.name.clone(), Operation::Delete),
            put(TABLE_TABLES, format!("#{}", definition.id), &json!(dropped)),
        ],
    }
}

fn write_row(table: TableId, random: &mut Random) -> Write {
    let key = format!("row-{}", random.random_range(0..KEYS));
    match random.random_range(0..4) {
        0 => write(table, key, Operation::Delete),
        _ => put(table, key, &json!({"n": random.random_range(0..1_000)})),
    }
}

impl Workload for Tables {
    fn tables(&self) -> Vec<TableDefinition> {
        Vec::new()
    }

    fn initial(&self) -> Vec<Write> {
        Vec::new()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        let range = match seen.ranges.len() {
            0 => whole(TABLE_TABLES),
            1 if random.random_ratio(1, 2) => {
                let definitions = definitions(seen);
                let live: Vec<_> = definitions
                    .iter()
                    .map(|(_, definition)| definition)
                    .filter(|definition| is_passing(definition) && !definition.dropped)
                    .collect();
                whole(pick(&live, random)?.id)
            }
            _ => return None,
        };
        Some(Reads {
            points: Vec::new(),
            ranges: vec![range],
        })
    }

    fn act(&self, seen: &Seen, random: &mut Random) -> Act {
        let all = definitions(seen);
        let passing = all.iter().map(|(_, d)| d).filter(|d| is_passing(d));
        let (gone, live): (Vec<_>, Vec<_>) = passing.partition(|definition| definition.dropped);
        let percent = random.random_range(0..100);
        if percent < DEFINE_PERCENT || live.is_empty() {
            let free = NAMES
                .iter()
                .find(|name| live.iter().all(|definition| definition.name != **name));
            return free.map_or_else(Act::default, |name| define(&all, name));
        }
        if percent < DEFINE_PERCENT + DROP_PERCENT {
            let is_guarded = !random.random_ratio(UNGUARDED_PERCENT, 100);
            let is_late = !is_guarded && random.random_ratio(LATE_PERCENT, 100);
            let meant = pick(if is_late { &gone } else { &live }, random);
            return meant.map_or_else(Act::default, |table| drop_table(table, is_guarded));
        }
        let id = match random.random_range(0..100) {
            at if at < GONE_PERCENT => pick(&gone, random).map(|definition| definition.id),
            at if at < GONE_PERCENT + EARLY_PERCENT => Some(next_id(&all)),
            _ => None,
        };
        let id = id.or_else(|| pick(&live, random).map(|definition| definition.id));
        Act {
            guards: Vec::new(),
            writes: id.map(|id| write_row(id, random)).into_iter().collect(),
        }
    }

    /// Rows are written blindly, so that the table may be gone when they are decided; so are drops.
    fn declares(&self, act: &Act) -> bool {
        let mut definitions = act
            .writes
            .iter()
            .filter(|write| write.table == TABLE_TABLES);
        definitions.next().is_some() && definitions.next().is_none()
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(TABLE_TABLES)]
    }

    /// No number is given out twice, and a name is kept under itself, a deleted table under its number.
    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        let mut ids = HashSet::new();
        for (key, definition) in definitions(seen) {
            let expected = if definition.dropped {
                format!("#{}", definition.id)
            } else {
                definition.name.clone()
            };
            if key != expected.as_bytes() {
                return Err(format!("{definition:?} is kept under {key:?}"));
            }
            if !ids.insert(definition.id) {
                return Err(format!("two tables have the number {}", definition.id));
            }
        }
        Ok(())
    }
}
