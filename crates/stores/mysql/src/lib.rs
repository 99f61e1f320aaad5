//! MariaDB and MySQL as a store: one connection per sink, one InnoDB transaction per batch.
//!
//! Bookkeeping in the database, all of it named `onelog_…` (see `names`):
//! - `onelog_position_…`: one table per sink with one row: the log's id, the position (NULL until
//!   backfilled), the epoch and its owner's mark, the plan, the generation of the tables. A table of
//!   its own, because a rebuild swaps it together with the rows' tables; see `rebuild`.
//! - the comment of each table that onelog makes says for which sink;
//! - `onelog_new_…`, `onelog_old_…`, `onelog_pin_…`: tables of a rebuild, and of readers.
//!
//! A row that the server refuses undoes the whole transaction; then the batch is applied again row
//! by row, which names the record, or finds an order in which the rows do not
//! conflict.

mod bookkeeping;
mod connection;
mod ddl;
mod decode;
mod encode;
mod error;
mod kind;
mod names;
mod reader;
mod rebuild;
mod renewed;
mod store;
mod write;

pub use self::kind::{KIND, MysqlKind, MysqlTarget};
pub use self::store::MysqlStore;
