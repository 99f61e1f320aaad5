//! The supervisor of the stores that follow the log: one thread per sink reads the log and feeds
//! its store.
//!
//! A sink's definition is a record of `onelog.sinks`. [`Sinks`] starts, changes and stops them,
//! compares their stores with the log and answers where each of them is.

mod ahead;
mod backfill;
mod comparing;
mod control;
mod deletions;
mod dry_run;
mod elsewhere;
mod error;
mod feed;
mod floors;
mod handle;
mod history;
mod inbox;
mod lifecycle;
mod memory;
mod metrics;
mod open;
mod overlap;
mod pace;
mod parking;
mod permission;
mod placing;
mod progress;
mod rebuilding;
mod removal;
mod request;
mod retention;
mod rewrite;
mod runner;
mod schedule;
mod session_end;
mod sinks;
mod stored;
mod tables;
mod waiting;

pub use deletions::{DELETES_MAX, DELETES_PERCENT_MAX};
pub use dry_run::{
    DRY_RUN_LOST_MAX, DRY_RUN_ROWS_MAX, DRY_RUN_STORE_ROWS_MAX, DryRun, DryRunMapping,
    DryRunRefused, DryRunRow, DryRunStore, Lost,
};
pub use error::{DeclareError, SinkError, SinkFault, SinksError};
pub use memory::{SINKS_MEMORY_BYTES, SINKS_MEMORY_BYTES_MIN};
pub use onelog_mapping::{FieldRule, FieldValue};
pub use onelog_store::{
    Difference, IndexVerification, Kinds, SinkDefinition, StoreErrorCode, StoreKind,
    TableVerification, Verification,
};
pub use parking::{PARKED_MAX, Parked};
pub use progress::{SinkState, SinkStatus, VerificationSummary};
pub use removal::Remains;
pub use request::{Replay, Replayed};
pub use sinks::{Replaced, SINKS_MAX, Sinks};
pub use tables::DropTableError;
pub use waiting::{SubmitError, Waited};
