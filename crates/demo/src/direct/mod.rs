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

use onelog_store::Target;

use crate::error::DemoError;
use crate::stores::Contents;

/// What every name that the demonstration makes begins with.
pub const PREFIX: &str = "onelog_demo_";

/// A connection to a store.
pub trait Direct: Send {
    /// Makes a place for keys and texts; refused when something has this name.
    fn create(&mut self, place: &str) -> Result<(), DemoError>;
    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError>;
    /// Reads every key of a place, whether it was written by `put` or by a sink.
    fn contents(&mut self, place: &str) -> Result<Contents, DemoError>;
    /// Every name in the store that has to do with onelog.
    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError>;
    /// Takes away whatever has `run` in its name, and bookkeeping that was not there `before` and
    /// that holds nothing.
    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), DemoError>;
}

/// Connects to the address, and with the text that shows it without secrets.
type Connect = fn(&str, &str) -> Result<Box<dyn Direct>, DemoError>;

/// A kind of store that the demonstration can write into by itself.
#[derive(Debug)]
pub struct StoreClient {
    /// The kind's name, which is also the flag that takes an address.
    pub kind: &'static str,
    pub help: &'static str,
    connect: Connect,
}

pub const STORE_CLIENTS: &[StoreClient] = &[
    #[cfg(feature = "postgres")]
    postgres::CLIENT,
    #[cfg(feature = "mysql")]
    mysql::CLIENT,
    #[cfg(feature = "redis")]
    redis::CLIENT,
    #[cfg(feature = "search")]
    elasticsearch::CLIENT,
];

/// Connects to a store.
pub fn connect(target: &dyn Target) -> Result<Box<dyn Direct>, DemoError> {
    let kind = target.kind().name();
    let Some(client) = STORE_CLIENTS.iter().find(|client| client.kind == kind) else {
        return Err(DemoError::Usage(format!(
            "this program cannot write into a store of the kind {kind} by itself"
        )));
    };
    let Some(address) = target.address() else {
        return Err(DemoError::Usage(format!(
            "{} has no address",
            target.place()
        )));
    };
    let resolved = address
        .resolve()
        .map_err(|error| DemoError::Usage(error.to_string()))?;
    (client.connect)(&resolved, &address.shown())
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
