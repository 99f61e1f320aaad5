//! Part 1: two clients write to two stores themselves, as applications do.

use std::path::Path;

use rusqlite::Connection;

use crate::clients::{self, CLIENTS, Delays, Writes};
use crate::error::DemoError;
use crate::stores::{self, DATABASE, SEARCH, sqlite_failed};

/// A client with a connection to each store.
struct Client {
    database: Connection,
    search: Connection,
}

impl Writes for Client {
    fn stores(&self) -> usize {
        2
    }

    fn write(&mut self, store: usize, key: &str, text: &str) -> Result<(), DemoError> {
        if store == 0 {
            return stores::put_item(&self.database, key, text)
                .map_err(sqlite_failed(Path::new("items.db")));
        }
        let mut index = || -> rusqlite::Result<()> {
            let behavior = rusqlite::TransactionBehavior::Immediate;
            let transaction = self.search.transaction_with_behavior(behavior)?;
            stores::index_item(&transaction, key, text)?;
            transaction.commit()
        };
        index().map_err(sqlite_failed(Path::new("search.db")))
    }
}

/// Runs the clients; answers on how many keys the stores differ when all have finished.
pub fn run(folder: &Path, delays: &Delays) -> Result<u64, DemoError> {
    let (database, search) = (folder.join("items.db"), folder.join("search.db"));
    let mut clients: Vec<Box<dyn Writes>> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Box::new(Client {
            database: stores::open(&database, DATABASE)?,
            search: stores::open(&search, SEARCH)?,
        }));
    }
    clients::run(clients, delays, None)?;
    Ok(stores::differing(
        &stores::contents(&database, "items")?,
        &stores::contents(&search, "search")?,
    ))
}
