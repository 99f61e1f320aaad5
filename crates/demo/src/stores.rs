//! The two stores of the demonstration: a SQLite database, and a full-text index in another file.
//! The same code writes them whether the clients do it themselves or a follower does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use crate::error::DemoError;

/// How long one writer of a SQLite file waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a store says of each key.
pub type Contents = BTreeMap<String, String>;

/// A SQLite error as this command tells it.
pub fn sqlite_failed(path: &Path) -> impl Fn(rusqlite::Error) -> DemoError {
    move |error| DemoError::Failed(format!("the database {}: {error}", path.display()))
}

/// Opens a database as a service would: a journal that lets readers read, one writer at a time.
pub fn open(path: &Path, tables: &str) -> Result<Connection, DemoError> {
    let failed = sqlite_failed(path);
    let connection = Connection::open(path).map_err(&failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&failed)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
        .and_then(|()| connection.execute_batch(tables))
        .map_err(&failed)?;
    Ok(connection)
}

/// The tables of the database.
pub const DATABASE: &str =
    "CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID";

/// The tables of the search index: the index, the place of each key in it, and, for a follower,
/// how far it is. The position is moved in the same transaction as the data.
pub const SEARCH: &str = "
CREATE TABLE IF NOT EXISTS places (id TEXT PRIMARY KEY, place INTEGER NOT NULL UNIQUE);
CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5(id UNINDEXED, text);
CREATE TABLE IF NOT EXISTS follower (only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
    position INTEGER NOT NULL, applied INTEGER NOT NULL)";

/// Writes one key of the database.
pub fn put_item(connection: &Connection, id: &str, text: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO items (id, text) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET text = excluded.text")?
        .execute(params![id, text])?;
    Ok(())
}

/// Writes one key of the search index, within a transaction: the old text goes, the new one comes.
pub fn index_item(transaction: &Transaction<'_>, id: &str, text: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO places (id, place) VALUES (?1, 1 + (SELECT coalesce(max(place), 0) FROM places)) ON CONFLICT (id) DO NOTHING")?
        .execute([id])?;
    let place: i64 = transaction
        .prepare_cached("SELECT place FROM places WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO search (rowid, id, text) VALUES (?1, ?2, ?3)")?
        .execute(params![place, id, text])?;
    Ok(())
}

/// Takes one key out of the search index.
pub fn unindex_item(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM search WHERE rowid = (SELECT place FROM places WHERE id = ?1)",
        )?
        .execute([id])?;
    Ok(())
}

/// Reads every key of a store.
pub fn contents(path: &Path, table: &str) -> Result<Contents, DemoError> {
    let failed = sqlite_failed(path);
    let connection = Connection::open(path).map_err(&failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&failed)?;
    let read = || -> rusqlite::Result<Contents> {
        let mut statement = connection.prepare(&format!("SELECT id, text FROM {table}"))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    read().map_err(&failed)
}

/// On how many keys two stores do not say the same.
pub fn differing(one: &Contents, other: &Contents) -> u64 {
    let keys = one
        .keys()
        .chain(other.keys().filter(|id| !one.contains_key(*id)));
    keys.filter(|id| one.get(*id) != other.get(*id)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents_of(pairs: &[(&str, &str)]) -> Contents {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn differences_are_counted_on_both_sides() {
        let one = contents_of(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let other = contents_of(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(differing(&one, &other), 3);
        assert_eq!(differing(&one, &one), 0);
    }

    #[test]
    fn the_index_holds_the_last_text_of_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("search.db");
        let mut connection = open(&path, SEARCH).unwrap();
        let transaction = connection.transaction().unwrap();
        for (id, text) in [("a", "old text"), ("b", "other"), ("a", "new text")] {
            index_item(&transaction, id, text).unwrap();
        }
        index_item(&transaction, "c", "gone").unwrap();
        unindex_item(&transaction, "c").unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            contents(&path, "search").unwrap(),
            contents_of(&[("a", "new text"), ("b", "other")])
        );
        let found: i64 = connection
            .query_row(
                "SELECT count(*) FROM search WHERE search MATCH 'old'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(found, 0);
    }
}
