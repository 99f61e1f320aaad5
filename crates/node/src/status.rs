//! How a node is, for people and for dashboards.

use std::sync::atomic::Ordering;

use onelog_record as record;
use onelog_record::Position;
use serde::Serialize;

use crate::cluster::ClusterStatus;
use crate::follow::FollowStatus;
use crate::shared::Shared;

/// The node at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub log_id: String,
    pub position: Position,
    /// The oldest position in the log.
    pub log_start: Position,
    /// The oldest position that reads can be made at.
    pub readable_from: Position,
    /// By how many milliseconds the log's last timestamp is ahead of this node's clock; 0 where it is
    /// behind.
    pub log_ahead_ms: u64,
    /// Seconds since the node was opened.
    pub uptime_s: u64,
    /// Bytes in memtables.
    pub memtable_bytes: usize,
    /// Whether a checkpoint is running.
    pub checkpoint_running: bool,
    /// How many live tables there are.
    pub tables: usize,
    /// The slowest follower, which holds the log's retention back.
    pub slowest_follower: Option<SlowestFollower>,
    /// How much room the disk has, where that is known.
    pub disk: Option<DiskStatus>,
    /// Why the node stopped by itself, if it did.
    pub failure: Option<String>,
    /// The cluster as this node sees it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// How following another server goes on, where this is a read replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_replica: Option<FollowStatus>,
    pub limits: Limits,
}

/// The disk with less room of the two that a node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskStatus {
    pub free_bytes: u64,
    /// With less nothing is written.
    pub needed_bytes: u64,
    /// Whether nothing is written until there is more room. Reads go on.
    pub read_only: bool,
}

/// The follower that is furthest behind.
#[derive(Clone, Debug, Serialize)]
pub struct SlowestFollower {
    pub name: String,
    pub position: Position,
}

/// The limits in force.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// Bytes of a transaction.
    pub transaction_bytes_max: usize,
    pub records_max: usize,
    pub key_bytes_max: usize,
    pub value_bytes_max: usize,
    /// Bytes of a table's name.
    pub table_name_bytes_max: usize,
    pub headers_max: usize,
    /// Bytes of an HTTP body.
    pub http_body_bytes_max: usize,
    /// Bytes of all memtables.
    pub memtable_bytes_max: usize,
    /// Requests that may wait.
    pub queue_requests_max: usize,
    /// Bytes of requests that may wait.
    pub queue_bytes_max: usize,
    /// Transaction ids that are remembered.
    pub ids_max: usize,
    /// How long an old snapshot stays readable by its position.
    pub snapshot_age_ms_max: u64,
}

impl Status {
    pub(crate) fn of(shared: &Shared) -> Self {
        let options = &shared.options;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            log_id: format!("{:032x}", shared.log_id),
            position: shared.applied_position.position(),
            log_start: shared.log_start(),
            readable_from: shared.state.floor(),
            log_ahead_ms: shared.log_ahead_ms.load(Ordering::Relaxed),
            uptime_s: shared.started.elapsed().as_secs(),
            memtable_bytes: shared.state.memory().held_bytes(),
            checkpoint_running: shared.checkpoint_running.load(Ordering::Relaxed),
            tables: shared.catalog().tables().count(),
            slowest_follower: shared
                .followers
                .slowest()
                .map(|(name, position)| SlowestFollower { name, position }),
            disk: shared.space.lock().map(|report| DiskStatus {
                free_bytes: report.free_bytes,
                needed_bytes: report.needed_bytes,
                read_only: report.is_read_only,
            }),
            failure: shared.failure(),
            cluster: shared.cluster.as_ref().map(ClusterStatus::of),
            read_replica: shared.following.as_ref().map(FollowStatus::of),
            limits: Limits {
                transaction_bytes_max: record::TRANSACTION_BYTES_MAX,
                records_max: record::RECORDS_MAX,
                key_bytes_max: record::KEY_BYTES_MAX,
                value_bytes_max: record::VALUE_BYTES_MAX,
                table_name_bytes_max: record::TABLE_NAME_BYTES_MAX,
                headers_max: record::HEADERS_MAX,
                http_body_bytes_max: record::HTTP_BODY_BYTES_MAX,
                memtable_bytes_max: options.memtable_bytes_max,
                queue_requests_max: options.queue_requests_max,
                queue_bytes_max: options.queue_bytes_max,
                ids_max: options.ids_max,
                snapshot_age_ms_max: options.snapshot_age_ms_max,
            },
        }
    }
}
