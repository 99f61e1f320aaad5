//! The JSON of the API: the types that answers are serialized from and request bodies are read
//! into. The schemas of the OpenAPI document are derived from them, so that the two cannot differ.
//!
//! What the other crates answer is converted field by field: a field that is added there does not
//! compile until it is decided here whether it becomes part of the API.
//!
//! Two requests have parsers of their own, transactions and definitions of sinks. Their types here
//! only describe what those accept; tests compare the fields and send every example.

mod bytes;
mod cluster;
mod error;
mod log;
mod parameters;
mod rows;
mod shape;
mod sink;
mod sink_definition;
mod sink_left;
mod system;
mod table;
mod transaction;
mod verification;

pub use self::bytes::Bytes;
pub use self::cluster::{Cluster, ClusterView, NewLeader, NewMember};
pub use self::error::Error;
pub use self::log::{EventRecord, Headers, LogRecord, LogTransaction};
pub use self::parameters::ReadAt;
pub use self::rows::{Page, Row};
pub use self::shape::{example, fields_of, required_of};
pub use self::sink::{
    DryRun, Fault, ParkedKeys, ReplayKeys, Replayed, Sink, SinkDeleted, SinkForgotten, Sinks,
};
pub use self::sink_definition::{NewSink, add_kinds};
pub use self::system::{Backup, BackupMade, Health, HttpLimits, ReplicaPosition, Status};
pub use self::table::{Dropped, NewTable, TableAt, Tables};
pub use self::transaction::{Committed, Offsets, Transaction, Waited};
pub use self::verification::Verification;
