//! Stock that may not go below zero, sold without reading: the guard decides, the event goes to a
//! stream table in the same transaction.

use bytes::Bytes;
use onelog_record::{
    Compare, FieldPath, Guard, KeyRange, Operation, Predicate, TableDefinition, TableId, TableKind,
    Write,
};
use rand::Rng;
use serde_json::json;

use super::{Act, Random, Reads, Workload, number, put, table, whole, write};
use crate::history::Seen;

const ITEMS: u32 = 3;
const START: i64 = 10;
const SHELF: i64 = 20;

/// Items in stock, and a stream of what was sold.
#[derive(Debug)]
pub struct Stock {
    pub table: TableId,
    pub orders: TableId,
}

fn key(item: u32) -> Bytes {
    format!("item-{item}").into()
}

impl Workload for Stock {
    fn tables(&self) -> Vec<TableDefinition> {
        let mut orders = table(self.orders, "shop.sold");
        orders.kind = TableKind::Stream;
        vec![table(self.table, "shop.stock"), orders]
    }

    fn initial(&self) -> Vec<Write> {
        (0..ITEMS)
            .map(|item| put(self.table, key(item), &json!({"count": START})))
            .collect()
    }

    fn reads(&self, _seen: &Seen, _random: &mut Random) -> Option<Reads> {
        None
    }

    fn act(&self, _seen: &Seen, random: &mut Random) -> Act {
        let Ok(count) = FieldPath::parse("/count") else {
            return Act::default();
        };
        let item = key(random.random_range(0..ITEMS));
        let by = random.random_range(1..=6);
        let sells = random.random_ratio(2, 3);
        let (compare, bound, change) = if sells {
            (Compare::Ge, by, -by)
        } else {
            (Compare::Le, SHELF - by, by)
        };
        let guard = Guard {
            table: self.table,
            key: item.clone(),
            predicate: Predicate::Field {
                path: count.clone(),
                compare,
                value: json!(bound).into(),
            },
        };
        let add = Operation::Add(count, change.into());
        let mut writes = vec![write(self.table, item.clone(), add)];
        if sells {
            writes.push(put(self.orders, item, &json!({"sold": by})));
        }
        Act {
            guards: vec![guard],
            writes,
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(self.table)]
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        for (key, found) in &seen.ranges[0].rows {
            let count = number(&found.value, "count");
            if count.is_none_or(|count| !(0..=SHELF).contains(&count)) {
                return Err(format!(
                    "{key:?} has a count of {count:?}, not 0 to {SHELF}"
                ));
            }
        }
        Ok(())
    }
}
