//! The stores that follow the log, and their common runner.
//!
//! A [`SinkDefinition`] says which tables a store follows and how records become rows; checked
//! against the log's tables it is a [`Plan`]. A [`Store`] keeps the rows and, in the same atomic
//! step, the position they stand for. [`conformance`] holds what every store must pass.

mod apart;
mod asks;
pub mod audit;
mod batch;
mod canonical;
mod cell;
mod comparing;
#[cfg(any(test, feature = "failpoints"))]
pub mod conformance;
mod definition;
mod digest;
mod elasticsearch;
mod error;
mod extract;
pub mod failpoint;
mod fill;
pub mod jq;
mod keep;
mod metrics;
mod moment;
mod mysql;
mod parking;
mod plan;
mod postgres;
mod progress;
mod redis;
mod runner;
mod schedule;
mod shape;
mod sinks;
mod sqlite;
mod store;
mod stores;
mod strict_json;
mod tls;
mod trial;
mod verify;
mod waiting;

pub use asks::{Replay, Replayed};
pub use batch::{Batch, Change};
pub use cell::{
    Cell, Row, date_text, numeric, parse_date, parse_timestamp, parse_uuid, show_key,
    timestamp_text, uuid_text,
};
pub use definition::{
    COLUMNS_MAX, Column, ColumnType, Columns, DefinitionError, ElasticsearchTarget, Element,
    KeyTemplate, MAPPINGS_MAX, Mapping, MappingOptions, MysqlTarget, NAME_BYTES_MAX, OnRefused,
    PARTITIONS_MAX, PostgresTarget, RedisShape, RedisTarget, SinkDefinition, SinkKind, Source, Url,
};
pub use elasticsearch::{ElasticsearchStore, http_tls, split_address};
pub use error::{SinkError, SinkFault, SinksError};
pub use mysql::MysqlStore;
pub use parking::{PARKED_MAX, Parked};
pub use plan::{ColumnPlan, KEY_COLUMN, MappingPlan, Plan, RowFault, Tables};
pub use progress::{SinkState, SinkStatus, VerificationSummary};
pub use redis::RedisStore;
pub use sinks::{SINKS_MAX, Sinks};
pub use sqlite::SqliteStore;
pub use store::{
    Cause, EachRow, IndexCheck, Refused, Store, StoreError, StorePosition, StoreReader,
};
pub use stores::{open_reader, open_store};
pub use tls::{Trust, choose_cryptography, tls_config};
pub use trial::{TRIAL_ROWS_MAX, Trial, TrialMapping, TrialRefused, TrialRow};
pub use verify::{
    DIFFERENCES_MAX, Difference, EachEntry, IndexVerification, LogSide, TableVerification,
    Verification, VerifyError, verify,
};
pub use waiting::{SubmitError, Waited};
