//! The stores that follow the log, and their common runner.
//!
//! A [`SinkDefinition`] says which tables a store follows and how records become rows; checked
//! against the log's tables it is a [`Plan`]. A [`Store`] keeps the rows and, in the same atomic
//! step, the position they stand for. [`conformance`] holds what every store must pass.

mod batch;
mod cell;
#[cfg(any(test, feature = "failpoints"))]
pub mod conformance;
mod definition;
mod digest;
mod error;
mod extract;
pub mod failpoint;
mod fill;
mod metrics;
mod plan;
mod progress;
mod runner;
mod sinks;
mod sqlite;
mod store;
mod strict_json;
mod verify;

pub use batch::{Batch, Change};
pub use cell::{Cell, Row, show_key};
pub use definition::{
    COLUMNS_MAX, Column, ColumnType, Columns, DefinitionError, MAPPINGS_MAX, Mapping,
    NAME_BYTES_MAX, SinkDefinition, SinkKind, Source,
};
pub use error::{SinkError, SinkFault, SinksError};
pub use plan::{ColumnPlan, KEY_COLUMN, MappingPlan, Plan, RowFault, Tables};
pub use progress::{SinkState, SinkStatus};
pub use sinks::{SINKS_MAX, Sinks};
pub use sqlite::SqliteStore;
pub use store::{
    Cause, EachRow, IndexCheck, Refused, Store, StoreError, StorePosition, StoreReader,
};
pub use verify::{
    DIFFERENCES_MAX, Difference, EachEntry, IndexVerification, LogSide, TableVerification,
    Verification, VerifyError, verify,
};
