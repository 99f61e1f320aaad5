//! The contract of a store that follows the log.
//!
//! A [`Store`] keeps rows and, in the same atomic step, the position that they belong to. A
//! [`StoreKind`] is everything that the rest of onelog knows of one kind of store; the packages of
//! `crates/stores` have one each. A [`SinkDefinition`] names a store and the mappings that write to it.
//! [`verify()`] compares a store with the log; `conformance` holds what every store must pass.

mod address;
mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod definition;
pub mod digest;
pub mod failpoint;
mod kind;
mod mismatch;
mod refusals;
mod server_address;
mod shape;
mod store;
mod strict_json;
mod tls;
mod verify;
mod witnesses;

pub use self::address::Address;
pub use self::batch::{Batch, Change, RejectedRow, refused_records, refused_rows, rejected_rows};
pub use self::definition::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MIN, MAPPINGS_MAX, OnRefused, SinkDefinition,
};
pub use self::kind::{Kinds, StoreKind, Target};
pub use self::mismatch::Remedy;
pub use self::refusals::{REFUSALS_MAX, Refusals};
pub use self::server_address::{CA_FILE, ServerAddress, URL};
pub use self::shape::{Narrowed, Shape};
pub use self::store::{
    BATCH_TIME, Cause, EachRow, Followed, Guard, IndexCheck, Leftover, LogPlace, Refused, Store,
    StoreError, StoreErrorCode, StorePosition, StoreReader,
};
pub use self::tls::{Trust, choose_cryptography, read_pem, tls_config};
pub use self::verify::{
    Compared, DIFFERENCES_MAX, Difference, EachEntry, IndexVerification, LogSide,
    TableVerification, Task, Verification, VerifyError, verify,
};
pub use self::witnesses::{
    KnownTable, KnownTables, TABLE_RENEWED, WITNESSES_MAX, Witnesses, column_renewed,
};
