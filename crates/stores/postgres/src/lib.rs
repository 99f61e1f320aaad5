//! PostgreSQL as a store: one writing connection per sink, one transaction per batch.
//!
//! A batch is sent without waiting for answers in between: the position's UPDATE, then the deletes
//! and upserts of every mapping, each as one statement over arrays. When all have succeeded the
//! transaction is committed. `synchronous_commit` is off: a crash of the server can lose the newest
//! transactions, rows and position together, and the log fills the gap.
//!
//! Bookkeeping in the schema, shared by all sinks that write into it:
//! - `onelog_position`: sink, the log's id, position (NULL until backfilled), epoch, a hash of the plan;
//! - `onelog_tables`: which tables onelog writes, for which sink (NULL: its sink was removed), and
//!   whether it made them;
//! - `onelog_new_…`: the tables of a rebuild under way.
//!
//! Every step that changes something locks the position's row, so a takeover waits for the
//! transaction of its predecessor to end, and then fences it.

mod bookkeeping;
mod connection;
mod ddl;
mod decode;
mod encode;
mod error;
mod hosts;
mod jsonb;
mod kind;
mod numeric;
mod reader;
mod rebuild;
mod store;
mod write;

pub use self::kind::{KIND, PostgresKind, PostgresTarget};
pub use self::store::PostgresStore;
