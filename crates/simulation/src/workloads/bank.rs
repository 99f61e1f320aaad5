//! Bank transfers: no money appears or vanishes, no account goes below zero.

use bytes::Bytes;
use onelog_record::{
    Compare, FieldPath, Guard, KeyRange, Operation, Predicate, TableDefinition, TableId, Write,
};
use rand::Rng;
use serde_json::json;

use super::{Act, Random, Reads, Workload, number, point, put, table, whole, write};
use crate::history::Seen;

const ACCOUNTS: u32 = 12;
const BALANCE: i64 = 100;

/// Accounts with a balance each.
#[derive(Debug)]
pub struct Bank {
    pub table: TableId,
}

fn key(account: u32) -> Bytes {
    format!("account-{account:02}").into()
}

impl Bank {
    /// Reads both balances and puts the new ones.
    fn by_images(&self, seen: &Seen, amount: i64) -> Vec<Write> {
        let balances: Vec<i64> = seen
            .points
            .iter()
            .filter_map(|point| number(&point.found.as_ref()?.value, "balance"))
            .collect();
        let [from, to] = balances[..] else {
            return Vec::new();
        };
        if from < amount {
            return Vec::new();
        }
        let image = |at: usize, balance: i64| {
            put(
                self.table,
                seen.points[at].key.clone(),
                &json!({"balance": balance}),
            )
        };
        vec![image(0, from - amount), image(1, to + amount)]
    }

    /// Reads nothing: a guard keeps the balance from going below zero.
    fn by_guard(&self, random: &mut Random, amount: i64) -> Act {
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let Ok(path) = FieldPath::parse("balance") else {
            return Act::default();
        };
        let add = |account: u32, by: i64| {
            let operation = Operation::Add(path.clone(), by.into());
            write(self.table, key(account), operation)
        };
        Act {
            writes: vec![add(from, -amount), add(to, amount)],
            guards: vec![Guard {
                table: self.table,
                key: key(from),
                predicate: Predicate::Field {
                    path: path.clone(),
                    compare: Compare::Ge,
                    value: json!(amount).into(),
                },
            }],
        }
    }
}

impl Workload for Bank {
    fn tables(&self) -> Vec<TableDefinition> {
        vec![table(self.table, "bank.accounts")]
    }

    fn initial(&self) -> Vec<Write> {
        (0..ACCOUNTS)
            .map(|account| put(self.table, key(account), &json!({"balance": BALANCE})))
            .collect()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        if !seen.points.is_empty() || random.random_ratio(1, 4) {
            return None;
        }
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        Some(Reads {
            points: vec![point(self.table, key(from)), point(self.table, key(to))],
            ranges: Vec::new(),
        })
    }

    fn act(&self, seen: &Seen, random: &mut Random) -> Act {
        let amount = random.random_range(1..=40);
        if seen.points.is_empty() {
            return self.by_guard(random, amount);
        }
        Act {
            writes: self.by_images(seen, amount),
            guards: Vec::new(),
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        vec![whole(self.table)]
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        let rows = &seen.ranges[0].rows;
        let balances: Vec<i64> = rows
            .iter()
            .filter_map(|(_, found)| number(&found.value, "balance"))
            .collect();
        let sum: i64 = balances.iter().sum();
        let wanted = i64::from(ACCOUNTS) * BALANCE;
        if sum != wanted || balances.iter().any(|balance| *balance < 0) {
            return Err(format!(
                "the balances {balances:?} sum up to {sum}, not {wanted}, or one is negative"
            ));
        }
        Ok(())
    }
}
