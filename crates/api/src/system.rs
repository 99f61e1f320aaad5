//! How the server is, and backups.

use std::path::PathBuf;

use onelog_record::Position;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Cluster, Sink};

/// Whether the node serves requests, and why not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(
    json!({"status": "ok"}),
    json!({"status": "failed", "failure": "the disk is full"}),
    json!({"status": "no_leader", "failure": "no leader of the cluster is known: a majority of its voters must run and be connected"})
))]
pub struct Health<'h> {
    /// `ok`, `ready`, `failed`; in a cluster also `no_leader`, `not_member`, `starting`,
    /// `disk_full`, `not_following`, `removed`.
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<&'h str>,
}

/// Positions, limits and members of the node that answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "version": "0.1.0", "log_id": "000102030405060708090a0b0c0d0e0f", "position": 7,
    "log_start": 0, "readable_from": 0, "log_ahead_ms": 0, "uptime_s": 60,
    "memtable_bytes": 512, "checkpoint_running": false, "tables": 1, "slowest_follower": null,
    "disk": {"free_bytes": 21_474_836_480u64, "needed_bytes": 67_108_864, "read_only": false},
    "failure": null,
    "limits": {"transaction_bytes_max": 8_388_608, "records_max": 10_000, "key_bytes_max": 4096,
        "value_bytes_max": 1_048_576, "table_name_bytes_max": 128, "headers_max": 16,
        "http_body_bytes_max": 16_777_216, "memtable_bytes_max": 268_435_456,
        "queue_requests_max": 10_000, "queue_bytes_max": 67_108_864, "ids_max": 1_000_000,
        "snapshot_age_ms_max": 60_000},
    "sinks": [],
    "http": {"create_tables": false, "connections_max": 1024, "request_timeout_ms": 30_000,
        "header_timeout_ms": 10_000, "body_timeout_ms": 30_000, "bodies_bytes_max": 134_217_728,
        "wait_timeout_ms_max": 60_000, "list_limit_max": 10_000, "list_bytes_max": 8_388_608,
        "log_streams_max": 256, "blocking_calls_max": 16, "verifications_max": 2}
})))]
pub struct Status {
    version: &'static str,
    log_id: String,
    /// The applied position.
    #[schema(value_type = u64)]
    position: Position,
    /// The oldest position in the log.
    #[schema(value_type = u64)]
    log_start: Position,
    /// The oldest position that reads can be made at.
    #[schema(value_type = u64)]
    readable_from: Position,
    /// By how many milliseconds the log's last timestamp is ahead of this node's clock; 0 where it is
    /// behind.
    log_ahead_ms: u64,
    uptime_s: u64,
    memtable_bytes: usize,
    checkpoint_running: bool,
    /// How many tables there are.
    tables: usize,
    /// The follower that holds the log's retention back.
    #[schema(required)]
    slowest_follower: Option<SlowestFollower>,
    /// How much room the disk has, where that is known.
    #[schema(required)]
    disk: Option<DiskStatus>,
    /// Why the node stopped by itself, if it did.
    #[schema(required)]
    failure: Option<String>,
    /// The cluster as this node sees it; absent where it is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    /// How following another server goes on; absent unless this is a read replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_replica: Option<ReadReplica>,
    limits: Limits,
    sinks: Vec<Sink>,
    http: HttpLimits,
}

/// A server that follows another one and answers reads. Sinks do not run on it.
#[derive(Debug, Serialize, ToSchema)]
struct ReadReplica {
    /// The address of the server that it follows.
    source: String,
    /// `starting`, `following`, `source_away`, `source_behind`, `restarting_from_state`, `other_log` or
    /// `other_history`.
    #[schema(example = "following")]
    state: &'static str,
    /// Since when, in seconds.
    since_s: u64,
    /// Why, where it does not follow.
    #[schema(required)]
    why: Option<String>,
    /// Where the source was when it was heard of last.
    #[schema(required, value_type = Option<u64>)]
    source_position: Option<Position>,
    /// How many milliseconds ago the server that writes the log was heard of, through all read replicas
    /// between; `null` before the first time.
    #[schema(required, example = 420)]
    heard_ms: Option<u64>,
    /// How many rows of a checkpoint are here, while one is taken in.
    #[schema(required)]
    rows: Option<u64>,
    /// How often state and log were replaced by a checkpoint of the source, since the start.
    restarts: u64,
    /// How often a connection was ended because what came was damaged, since the start.
    damaged: u64,
}

impl From<onelog::FollowStatus> for ReadReplica {
    fn from(status: onelog::FollowStatus) -> Self {
        let onelog::FollowStatus {
            source,
            state,
            since_s,
            why,
            source_position,
            heard_ms,
            rows,
            restarts,
            damaged,
        } = status;
        Self {
            source,
            state: state.name(),
            since_s,
            why,
            source_position,
            heard_ms,
            rows,
            restarts,
            damaged,
        }
    }
}

/// Where a server is, for its read replicas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"position": 7})))]
pub struct ReplicaPosition {
    #[schema(value_type = u64)]
    pub position: Position,
}

/// The follower that is furthest behind.
#[derive(Debug, Serialize, ToSchema)]
struct SlowestFollower {
    name: String,
    #[schema(value_type = u64)]
    position: Position,
}

/// How much room the disk has.
#[derive(Debug, Serialize, ToSchema)]
struct DiskStatus {
    free_bytes: u64,
    /// With less nothing is written (`disk_full`).
    needed_bytes: u64,
    /// Whether nothing is written until there is more room. Reads go on.
    read_only: bool,
}

/// The limits in force.
#[derive(Debug, Serialize, ToSchema)]
struct Limits {
    transaction_bytes_max: usize,
    records_max: usize,
    key_bytes_max: usize,
    value_bytes_max: usize,
    table_name_bytes_max: usize,
    headers_max: usize,
    http_body_bytes_max: usize,
    memtable_bytes_max: usize,
    queue_requests_max: usize,
    queue_bytes_max: usize,
    ids_max: usize,
    snapshot_age_ms_max: u64,
}

/// The limits of the HTTP door in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct HttpLimits {
    pub create_tables: bool,
    pub connections_max: usize,
    pub request_timeout_ms: u64,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub bodies_bytes_max: usize,
    pub wait_timeout_ms_max: u64,
    pub list_limit_max: usize,
    pub list_bytes_max: usize,
    pub log_streams_max: usize,
    pub blocking_calls_max: usize,
    pub verifications_max: usize,
}

/// Where a backup goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"into": "/var/backups/onelog/monday"})))]
pub struct Backup {
    /// An empty or new folder on the server's machine, as an absolute path.
    #[schema(value_type = String)]
    pub into: PathBuf,
}

/// A backup that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"into": "/var/backups/onelog/monday", "position": 7})))]
pub struct BackupMade {
    /// The folder, on the node's machine, that the backup is in.
    #[schema(value_type = String)]
    pub into: PathBuf,
    /// It has every transaction below this position and none above.
    #[schema(value_type = u64)]
    pub position: Position,
}

impl Status {
    pub fn new(node: onelog::Status, sinks: Vec<Sink>, http: HttpLimits) -> Self {
        let onelog::Status {
            version,
            log_id,
            position,
            log_start,
            readable_from,
            log_ahead_ms,
            uptime_s,
            memtable_bytes,
            checkpoint_running,
            tables,
            slowest_follower,
            disk,
            failure,
            cluster,
            read_replica,
            limits,
        } = node;
        Self {
            version,
            log_id,
            position,
            log_start,
            readable_from,
            log_ahead_ms,
            uptime_s,
            memtable_bytes,
            checkpoint_running,
            tables,
            slowest_follower: slowest_follower.map(|follower| SlowestFollower {
                name: follower.name,
                position: follower.position,
            }),
            disk: disk.map(|disk| DiskStatus {
                free_bytes: disk.free_bytes,
                needed_bytes: disk.needed_bytes,
                read_only: disk.read_only,
            }),
            failure,
            cluster: cluster.map(Cluster::from),
            read_replica: read_replica.map(ReadReplica::from),
            limits: limits.into(),
            sinks,
            http,
        }
    }
}

impl From<onelog::Limits> for Limits {
    fn from(limits: onelog::Limits) -> Self {
        let onelog::Limits {
            transaction_bytes_max,
            records_max,
            key_bytes_max,
            value_bytes_max,
            table_name_bytes_max,
            headers_max,
            http_body_bytes_max,
            memtable_bytes_max,
            queue_requests_max,
            queue_bytes_max,
            ids_max,
            snapshot_age_ms_max,
        } = limits;
        Self {
            transaction_bytes_max,
            records_max,
            key_bytes_max,
            value_bytes_max,
            table_name_bytes_max,
            headers_max,
            http_body_bytes_max,
            memtable_bytes_max,
            queue_requests_max,
            queue_bytes_max,
            ids_max,
            snapshot_age_ms_max,
        }
    }
}
