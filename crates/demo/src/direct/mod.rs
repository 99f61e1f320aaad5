//! Writing straight into stores, as applications do: one key at a time, a plain upsert, each client
//! with a connection of its own. And looking at what is there, and taking it away again.

#[cfg(feature = "search")]
mod elasticsearch;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

use std::collections::BTreeSet;

use onelog_sinks::SinkKind;

use crate::error::DemoError;
use crate::stores::Contents;

/// What every name that the demonstration makes begins with.
pub const PREFIX: &str = "onelog_demo_";

/// A connection to a store.
pub trait Direct: Send {
    /// Makes a place for keys and texts; refused when something has this name.
    fn create(&mut self, place: &str) -> Result<(), DemoError>;
    /// Writes a key.
    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError>;
    /// Reads every key of a place, whether it was filled by `put` or by a sink.
    fn contents(&mut self, place: &str) -> Result<Contents, DemoError>;
    /// Every name in the store that has to do with onelog.
    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError>;
    /// Takes away whatever has `run` in its name, and bookkeeping that was not there `before` and
    /// that holds nothing.
    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), DemoError>;
}

/// Connects to a store.
pub fn connect(kind: &SinkKind) -> Result<Box<dyn Direct>, DemoError> {
    match kind {
        #[cfg(feature = "postgres")]
        SinkKind::Postgres(target) => open(&target.url, postgres::Postgres::connect),
        #[cfg(feature = "mysql")]
        SinkKind::Mysql(target) => open(&target.url, mysql::Mysql::connect),
        #[cfg(feature = "redis")]
        SinkKind::Redis(target) => open(&target.url, redis::Redis::connect),
        #[cfg(feature = "search")]
        SinkKind::Elasticsearch(target) => open(&target.url, elasticsearch::Elasticsearch::connect),
        SinkKind::Sqlite { .. } => Err(DemoError::Usage(
            "the demonstration brings its own SQLite file".to_owned(),
        )),
        #[cfg(not(all(
            feature = "postgres",
            feature = "mysql",
            feature = "redis",
            feature = "search"
        )))]
        kind => Err(DemoError::Usage(format!(
            "this program was built without {}",
            kind.name()
        ))),
    }
}

/// Connects to the address, and with the text that shows it without secrets.
#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "redis",
    feature = "search"
))]
fn open<D: Direct + 'static>(
    url: &onelog_sinks::Url,
    connect: fn(&str, &str) -> Result<D, DemoError>,
) -> Result<Box<dyn Direct>, DemoError> {
    let address = url
        .resolve()
        .map_err(|error| DemoError::Usage(error.to_string()))?;
    Ok(Box::new(connect(&address, &url.shown())?))
}

/// A runtime for one connection.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn runtime() -> Result<tokio::runtime::Runtime, DemoError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DemoError::Failed(format!("cannot make a runtime: {error}")))
}

#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "redis",
    feature = "search"
))]
fn taken(place: &str, shown: &str) -> DemoError {
    DemoError::Failed(format!(
        "'{place}' is in {shown} already and was not made by this run; nothing was touched"
    ))
}
