//! Two services' tables in one transaction, inside a Rust program:
//!
//! ```sh
//! cargo run -p onelog --example embedded -- data
//! ```

use std::error::Error;
use std::path::Path;

use onelog::{NewTable, Node, Options, TransactError};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or("data".to_owned());
    println!("{}", order_apples(folder.as_ref())?);
    Ok(())
}

pub fn order_apples(folder: &Path) -> Result<String, Box<dyn Error>> {
    let node = Node::open(Options::new(folder))?;
    node.create_table_blocking(NewTable::keyed("shop.orders"))?;
    node.create_table_blocking(NewTable::keyed("shop.stock"))?;
    node.transact(|tx| tx.put_json("shop.stock", "apple", &json!({"count": 3})))?;

    // Tried again after conflicts, with jitter, until a deadline.
    let order = node.transact(|tx| {
        let stock = tx.get_json("shop.stock", "apple")?;
        let count = stock.map_or(0, |stock| stock["count"].as_i64().unwrap_or(0));
        if count < 2 {
            return Err(TransactError::abort("not enough apples"));
        }
        tx.put_json("shop.stock", "apple", &json!({"count": count - 2}))?;
        tx.put_json(
            "shop.orders",
            "order-1",
            &json!({"item": "apple", "count": 2}),
        )
    })?;

    // A read at or after the answered position sees the transaction.
    let tx = node.begin();
    assert!(tx.position() >= order.position);
    let left = tx.get_json("shop.stock", "apple")?;
    node.stop()?;
    Ok(format!("left in stock: {}", left.unwrap_or_default()))
}
