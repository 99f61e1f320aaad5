//! SQLite as a store: one file, one writing connection per sink, one transaction per batch.
//!
//! Write-ahead mode lets readers work on undisturbed. `synchronous=NORMAL` keeps the file
//! consistent through any crash and may lose the newest transactions in a power failure; rows and
//! position are lost together, so the log fills the gap and nothing is wrong in between.
//!
//! Bookkeeping in the file, shared by all sinks that write into it:
//! - `onelog_position`: sink, the log's id, position (NULL until backfilled), epoch, plan;
//! - `onelog_tables`: which tables onelog made, and for which sink (NULL: its sink was removed);
//! - `onelog_new_…`: the tables of a rebuild under way.

mod bookkeeping;
mod connection;
mod ddl;
mod decode;
mod encode;
mod error;
mod full_text;
mod kind;
mod reader;
mod rebuild;
mod renewed;
mod store;
mod write;

pub use self::kind::{KIND, SqliteKind, SqliteTarget};
pub use self::store::SqliteStore;
