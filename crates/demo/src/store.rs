//! `onelog demo-store`: the search index as a process of its own that follows the log over HTTP.
//!
//! It can be killed at any instruction: the position is in its own database and moves in the
//! same transaction as the data, so what was applied is never applied again and nothing is left
//! out. Each position that it reaches is a line on standard output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onelog_client::{Client, ClientError, Event, Events};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::Value;

use crate::error::DemoError;
use crate::stores::{self, SEARCH, sqlite_failed};

/// How long the server may be away before this process gives up.
const SERVER_AWAY_MAX: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the process follows, and where it puts what it read.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    pub url: String,
    /// How long a request may take.
    pub timeout: Duration,
    /// The table to follow.
    pub table: String,
    pub database: PathBuf,
}

/// Follows until the server has been away for a while.
pub fn follow(options: &FollowOptions) -> Result<(), DemoError> {
    let client = Client::new(&options.url, options.timeout)?;
    let mut database = stores::open(&options.database, SEARCH)?;
    let mut seen = Instant::now();
    loop {
        match follow_once(&client, &mut database, options, &mut seen) {
            Ok(()) => {}
            Err(DemoError::Client(error)) if may_pass(&error) => {}
            Err(error) => return Err(error),
        }
        if seen.elapsed() > SERVER_AWAY_MAX {
            return Ok(());
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

fn may_pass(error: &ClientError) -> bool {
    error.is_lost() || error.server().is_some_and(|e| e.status == 503)
}

/// Follows from the position in the database until the stream ends.
fn follow_once(
    client: &Client,
    database: &mut Connection,
    options: &FollowOptions,
    seen: &mut Instant,
) -> Result<(), DemoError> {
    let failed = sqlite_failed(&options.database);
    let position = position(database).map_err(&failed)?;
    let query = [
        (
            "from",
            position.map_or("start".to_owned(), |p| p.to_string()),
        ),
        ("table", options.table.clone()),
    ];
    let headers = [("accept", "text/event-stream".to_owned())];
    let stream = client.stream("/v1/log", &query, &headers)?;
    for event in Events::new(stream) {
        let Ok(event) = event else { return Ok(()) };
        *seen = Instant::now();
        let id = event.id.as_deref().and_then(|id| id.parse().ok());
        let Some(position) = id else {
            return Err(unexpected(client, "an event without a position"));
        };
        apply(client, database, &event, position, &options.database)?;
        // Without a reader the process that started this one is gone.
        writeln!(io::stdout(), "{position}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

fn position(database: &Connection) -> rusqlite::Result<Option<i64>> {
    database
        .query_row("SELECT position FROM follower", [], |row| row.get(0))
        .optional()
}

/// Applies one transaction of the log, and the position behind it, in one transaction of the store.
fn apply(
    client: &Client,
    database: &mut Connection,
    event: &Event,
    position: i64,
    path: &Path,
) -> Result<(), DemoError> {
    let mut changes = Vec::new();
    if !event.data.is_empty() {
        let transaction: Value = serde_json::from_str(&event.data)
            .map_err(|_| unexpected(client, "an event that is not JSON"))?;
        for record in transaction["records"].as_array().into_iter().flatten() {
            let Some(key) = record["key"].as_str() else {
                return Err(unexpected(client, "a record without a key"));
            };
            let text = record["value"]["text"].as_str().map(str::to_owned);
            changes.push((key.to_owned(), text));
        }
    }
    let mut write = || -> rusqlite::Result<()> {
        let store = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (key, text) in &changes {
            match text {
                Some(text) => stores::index_item(&store, key, text)?,
                None => stores::unindex_item(&store, key)?,
            }
        }
        store
            .prepare_cached(
                "INSERT INTO follower (only_row, position, applied) VALUES (0, ?1, ?2)
                 ON CONFLICT (only_row) DO UPDATE SET position = excluded.position, applied = applied + excluded.applied",
            )?
            .execute(params![position, changes.len() as i64])?;
        store.commit()
    };
    write().map_err(sqlite_failed(path))
}

fn unexpected(client: &Client, what: &str) -> DemoError {
    client.unexpected(what.to_owned()).into()
}

/// How many records a follower has applied, counted in the transactions that applied them.
pub fn applied(path: &Path) -> Result<u64, DemoError> {
    let failed = sqlite_failed(path);
    let database = Connection::open(path).map_err(&failed)?;
    database
        .query_row("SELECT applied FROM follower", [], |row| {
            row.get::<_, i64>(0)
        })
        .map(|count| count.max(0) as u64)
        .map_err(failed)
}
