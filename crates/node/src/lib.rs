//! onelog is a transactional log: a service writes once, the write is a transaction that is
//! checked, ordered and made durable, and every datastore follows the log in the same order.
//!
//! This crate is the node: the threads and the clock that drive a replica, and the embedded API. Two services'
//! tables in one transaction, where stock may not go below zero:
//!
//! ```
//! use onelog::{NewTable, Node, Options, TransactError};
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! use serde_json::json;
//!
//! let node = Node::open(Options::new(folder))?;
//! node.create_table_blocking(NewTable::keyed("shop.orders"))?;
//! node.create_table_blocking(NewTable::keyed("shop.stock"))?;
//! node.transact(|tx| tx.put_json("shop.stock", "apple", &json!({"count": 3})))?;
//!
//! let order = node.transact(|tx| {
//!     let count = tx.get_json("shop.stock", "apple")?.map_or(0, |stock| stock["count"].as_i64().unwrap_or(0));
//!     if count < 2 {
//!         return Err(TransactError::abort("not enough apples"));
//!     }
//!     tx.put_json("shop.stock", "apple", &json!({"count": count - 2}))?;
//!     tx.put_json("shop.orders", "order-1", &json!({"item": "apple", "count": 2}))
//! })?;
//!
//! // Reading at or after the answered position sees the transaction, here and in every store
//! // that follows.
//! let tx = node.begin();
//! assert!(tx.position() >= order.position);
//! assert_eq!(tx.get_json("shop.stock", "apple")?, Some(json!({"count": 1})));
//! node.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod applied_position;
mod backup;
mod cluster;
mod copy;
mod driver;
mod feed;
mod folder;
mod follow;
mod metrics;
mod node;
mod open;
mod options;
mod panics;
mod queue;
mod reading;
mod shared;
mod space;
mod status;
mod stopping;
mod sync;
mod tables;
mod ticket;
mod transact;
mod worker;

pub use onelog_peers::{Timing, TlsFiles};
pub use onelog_record as record;
pub use onelog_record::{
    CommitRequest, Committed, Compare, Compression, FieldPath, Guard, Index, JsonText, KeyRange,
    NodeId, Offset, Operation, PointRead, Position, Predicate, Record, Refusal, TableDefinition,
    TableId, TableKind, TxnId, ValueKind, Write,
};
pub use onelog_replica::{
    Catalog, CatalogError, Failure, Follower, NewTable, SchemaError, StartError, TableError,
    sink_follower,
};
pub use onelog_state::{ExportError, ReadError, Row, Scan, Snapshot, SnapshotError, Versioned};

pub use crate::applied_position::WaitError;
pub use crate::backup::{BackupError, Survivor, restore_alone};
pub use crate::cluster::{
    AHEAD_TIMEOUT, Answering, CallError, ClusterError, ClusterOptions, ClusterStatus, ClusterWatch,
    ELECTION_MS, ELECTION_MS_MAX, ELECTION_MS_MIN, Join, MemberStatus, MembersChangeError,
    START_TIMEOUT, Subject,
};
pub use crate::copy::{UNFINISHED_LOG, UnfinishedCopy, check_finished, finish_copy};
pub use crate::feed::{FeedError, LogFeed, PinError, PinnedState};
pub use crate::folder::{
    ApartError, FolderError, ForeignFiles, NotApart, check_apart, check_folder, entries,
};
pub use crate::follow::{
    FollowError, FollowState, FollowStatus, PULSE_EVERY, SILENCE_MAX, Source, SourceError,
};
pub use crate::node::{Node, StopError};
pub use crate::open::OpenError;
pub use crate::options::{
    CACHE_BYTES, CHECKPOINT_INTERVAL_MS, DISK_RESERVE_BYTES, DISK_WARNING_BYTES, FLUSHES_IN_FLIGHT,
    IDS_MAX, MEMTABLE_BYTES, MEMTABLE_BYTES_MAX, Options, QUEUE_BYTES_MAX, QUEUE_REQUESTS_MAX,
    QUEUE_WAIT_MS_MAX, SEGMENT_BYTES, SNAPSHOT_AGE_MS_MAX, WINDOW_WRITES_MAX,
};
pub use crate::reading::{LogBatch, LogTransaction, PackedLog, ReadLogError};
pub use crate::status::{DiskStatus, Limits, Status};
pub use crate::tables::DefinedTable;
pub use crate::ticket::Ticket;
pub use crate::transact::{TransactError, TransactOptions, Transacted, Transaction};
