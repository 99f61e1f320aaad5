//! Part 3: two services' tables in one transaction, under contention. Everything is counted from
//! the tables when all buyers have gone.

use std::collections::BTreeMap;
use std::thread;

use onelog::{Compare, FieldPath, Node, Predicate, TransactError};
use rand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::DemoError;
use crate::through::rows;

/// The tables of the two services.
pub const ORDERS: &str = "shop.orders";
pub const STOCK: &str = "shop.stock";

const ITEMS: usize = 10;
const PIECES_EACH: i64 = 30;
const BUYERS: usize = 8;
const ATTEMPTS_EACH: usize = 60;
const PIECES_PER_ORDER_MAX: i64 = 3;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// How many buyers ran at once.
    pub buyers: u64,
    /// How many pieces there were.
    pub pieces: u64,
    /// How many pieces the buyers wanted.
    pub pieces_wanted: u64,
    /// Orders in the table.
    pub orders: u64,
    /// Pieces in these orders.
    pub pieces_sold: u64,
    /// Pieces left in stock.
    pub pieces_left: u64,
    /// Pieces that were sold but were not there.
    pub oversold: u64,
    /// Pieces that were taken from stock without an order, or ordered without being taken.
    pub half_done: u64,
    /// Orders that were answered as committed and are not in the table.
    pub lost: u64,
    /// Buyers turned away because the stock was empty.
    pub turned_away: u64,
    /// Commits refused because another buyer was faster, and tried again.
    pub conflicts: u64,
}

/// What one buyer remembers.
#[derive(Debug, Default)]
struct Bought {
    orders: u64,
    wanted: u64,
    turned_away: u64,
    conflicts: u64,
}

fn failed(error: impl std::fmt::Display) -> DemoError {
    DemoError::Failed(error.to_string())
}

fn item(number: usize) -> String {
    format!("item-{number}")
}

#[allow(clippy::result_large_err)] // the closures' error is the node's
/// Fills the stock, lets the buyers run, counts.
pub fn run(node: &Node) -> Result<Outcome, DemoError> {
    node.transact(|tx| {
        (0..ITEMS).try_for_each(|n| tx.put_json(STOCK, item(n), &json!({"left": PIECES_EACH})))
    })
    .map_err(failed)?;
    let bought: Vec<Bought> = thread::scope(|scope| {
        let buyers: Vec<_> = (0..BUYERS)
            .map(|buyer| scope.spawn(move || shop(node, buyer)))
            .collect();
        let ended = buyers.into_iter().map(|buyer| {
            buyer
                .join()
                .unwrap_or_else(|_| Err(failed("a buyer has ended early")))
        });
        ended.collect::<Result<_, _>>()
    })?;
    count(node, &bought)
}

#[allow(clippy::result_large_err)] // the closure's error is the node's
/// One buyer: reads the stock, and in one transaction takes pieces and writes the order.
fn shop(node: &Node, buyer: usize) -> Result<Bought, DemoError> {
    let left = FieldPath::parse("left").map_err(failed)?;
    let mut bought = Bought::default();
    for attempt in 0..ATTEMPTS_EACH {
        let item = item(rand::rng().random_range(0..ITEMS));
        let pieces = rand::rng().random_range(1..=PIECES_PER_ORDER_MAX);
        bought.wanted += pieces as u64;
        let mut tries = 0;
        let done = node.transact(|tx| {
            tries += 1;
            let stock = tx.get_json(STOCK, &item)?;
            if stock.and_then(|s| s["left"].as_i64()).unwrap_or(0) < pieces {
                return Err(TransactError::abort("sold out"));
            }
            let enough = Predicate::Field {
                path: left.clone(),
                compare: Compare::Ge,
                value: Value::from(pieces).into(),
            };
            tx.guard(STOCK, &item, enough)?;
            tx.add(STOCK, &item, left.clone(), -pieces)?;
            let order = json!({"item": item, "pieces": pieces, "buyer": buyer});
            tx.put_json(ORDERS, format!("{buyer}-{attempt}"), &order)
        });
        bought.conflicts += tries - 1;
        match done {
            Ok(_) => bought.orders += 1,
            Err(TransactError::Aborted(_)) => bought.turned_away += 1,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(bought)
}

/// Counts from the tables, both at the same position.
fn count(node: &Node, bought: &[Bought]) -> Result<Outcome, DemoError> {
    let at = node.position();
    let json = |value: &[u8]| serde_json::from_slice::<Value>(value).map_err(failed);
    let mut sold: BTreeMap<String, i64> = BTreeMap::new();
    let mut outcome = Outcome {
        buyers: BUYERS as u64,
        pieces: ITEMS as u64 * PIECES_EACH as u64,
        ..Outcome::default()
    };
    for (_, value) in rows(node, ORDERS, at)? {
        let order = json(&value)?;
        let pieces = order["pieces"].as_i64().unwrap_or_default();
        let item = order["item"].as_str().unwrap_or_default();
        *sold.entry(item.to_owned()).or_default() += pieces;
        outcome.orders += 1;
        outcome.pieces_sold += pieces.max(0) as u64;
    }
    for (key, value) in rows(node, STOCK, at)? {
        let left = json(&value)?["left"].as_i64().unwrap_or_default();
        let key = String::from_utf8_lossy(&key).into_owned();
        let sold = sold.remove(&key).unwrap_or_default();
        outcome.pieces_left += left.max(0) as u64;
        outcome.oversold += (sold - PIECES_EACH).max(-left).max(0) as u64;
        outcome.half_done += (PIECES_EACH - left - sold).unsigned_abs();
    }
    // Orders of something that is not in stock.
    outcome.half_done += sold
        .values()
        .map(|pieces| pieces.unsigned_abs())
        .sum::<u64>();
    for buyer in bought {
        outcome.pieces_wanted += buyer.wanted;
        outcome.turned_away += buyer.turned_away;
        outcome.conflicts += buyer.conflicts;
    }
    let answered: u64 = bought.iter().map(|buyer| buyer.orders).sum();
    outcome.lost = answered.saturating_sub(outcome.orders);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use onelog::{NewTable, Options};

    use super::*;

    #[test]
    fn what_is_sold_twice_half_done_or_lost_is_counted() {
        // Given two items: of one 31 pieces were ordered and 30 taken, of the other 4 were taken
        // and 1 ordered; and an order of something that was never there.
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Options::new(folder.path())).unwrap();
        for table in [STOCK, ORDERS] {
            node.create_table_blocking(NewTable::keyed(table)).unwrap();
        }
        node.transact(|tx| {
            tx.put_json(STOCK, item(0), &json!({"left": 0}))?;
            tx.put_json(STOCK, item(1), &json!({"left": 26}))?;
            for (key, what, pieces) in [("a", 0, 31), ("b", 1, 1), ("c", 99, 2)] {
                let order = json!({"item": item(what), "pieces": pieces});
                tx.put_json(ORDERS, key, &order)?;
            }
            Ok(())
        })
        .unwrap();
        let bought = Bought {
            orders: 5,
            wanted: 50,
            turned_away: 7,
            conflicts: 3,
        };
        // When it is counted, then every piece and order that should not be so is reported.
        let found = count(&node, &[bought]).unwrap();
        assert_eq!(
            (found.orders, found.pieces_sold, found.pieces_left),
            (3, 34, 26)
        );
        assert_eq!(found.oversold, 1);
        assert_eq!(found.half_done, 1 + 3 + 2);
        assert_eq!(found.lost, 2);
        assert_eq!((found.turned_away, found.conflicts), (7, 3));
        node.stop().unwrap();
    }
}
