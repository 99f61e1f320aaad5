//! Writing straight into stores, as applications do: one key at a time, a plain upsert, each client
//! with a connection of its own. And looking at what is there, and taking it away again.

mod elasticsearch;
mod mysql;
mod postgres;
mod redis;

use std::collections::BTreeSet;

use onelog_sinks::{SinkKind, Url};
use tokio::runtime::{Builder, Runtime};

use super::stores::Contents;
use crate::error::CommandError;

/// What every name that the demonstration makes begins with.
pub const PREFIX: &str = "onelog_demo_";

/// A connection to a store.
pub trait Direct: Send {
    /// Makes a place for keys and texts; refused when something has this name.
    fn create(&mut self, place: &str) -> Result<(), CommandError>;
    /// Writes a key.
    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), CommandError>;
    /// Reads every key of a place, whether it was filled by `put` or by a sink.
    fn contents(&mut self, place: &str) -> Result<Contents, CommandError>;
    /// Every name in the store that has to do with onelog.
    fn traces(&mut self) -> Result<BTreeSet<String>, CommandError>;
    /// Takes away whatever has `run` in its name, and bookkeeping that was not there `before` and
    /// that holds nothing.
    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), CommandError>;
}

/// Connects to a store.
pub fn connect(kind: &SinkKind) -> Result<Box<dyn Direct>, CommandError> {
    let address = |url: &Url| {
        let resolved = url.resolve();
        resolved.map_err(|error| CommandError::Usage(error.to_string()))
    };
    Ok(match kind {
        SinkKind::Postgres(target) => Box::new(postgres::Postgres::connect(
            &address(&target.url)?,
            &target.url.shown(),
        )?),
        SinkKind::Mysql(target) => Box::new(mysql::Mysql::connect(
            &address(&target.url)?,
            &target.url.shown(),
        )?),
        SinkKind::Redis(target) => Box::new(redis::Redis::connect(
            &address(&target.url)?,
            &target.url.shown(),
        )?),
        SinkKind::Elasticsearch(target) => Box::new(elasticsearch::Elasticsearch::connect(
            &address(&target.url)?,
            &target.url.shown(),
        )?),
        SinkKind::Sqlite { .. } => {
            return Err(CommandError::Usage(
                "the demonstration brings its own SQLite file".to_owned(),
            ));
        }
    })
}

/// A runtime for one connection.
fn runtime() -> Result<Runtime, CommandError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::Failed(format!("cannot make a runtime: {error}")))
}

fn taken(place: &str, shown: &str) -> CommandError {
    CommandError::Failed(format!(
        "'{place}' is in {shown} already and was not made by this run; nothing was touched"
    ))
}

/// The text of a key: as it was put, or the field `text` of a document.
fn text_of(value: &str) -> String {
    let document: Option<serde_json::Value> = serde_json::from_str(value).ok();
    let field = document.as_ref().and_then(|d| d["text"].as_str());
    field.unwrap_or(value).to_owned()
}
