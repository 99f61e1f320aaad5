//! Sinks: how they are, what they parked, what a definition would write.

use onelog_record::{JsonText, Offset, Position};
use onelog_sinks::{Parked, SinkDefinition, SinkFault, SinkState, SinkStatus, VerificationSummary};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::sink_left::{LostWithTable, Remains};
use super::{Bytes, NewSink};
use onelog_request::WireBytes;

/// How far a sink has followed the log, and what holds it up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "name": "search", "kind": "sqlite", "state": "running", "position": 7, "lag_records": 0,
    "lag_seconds": 0.0, "records_per_second": 12.5, "last_error": null, "parked": 0,
    "held_log_bytes": 0, "left_behind": false, "last_verification": null,
    "definition": {"name": "search", "kind": "sqlite", "path": "/var/lib/onelog/search.db",
        "mappings": [{"table": "shop.orders", "into": "orders"}]}
})))]
pub struct Sink {
    name: String,
    /// The kind of store, as `kind` of the definition names it.
    kind: &'static str,
    state: State,
    /// The number of the node of a cluster on which it runs; left out by a node that is alone, or where
    /// it runs on none now.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_on: Option<u64>,
    /// The node of the cluster that it waits for, because the store is on that node's machine; left out
    /// where it waits for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<u64>,
    /// The store shows everything below it; null until the store is backfilled.
    #[schema(value_type = Option<u64>, required)]
    position: Option<Position>,
    /// How many records of the log are still to be written.
    #[schema(required)]
    lag_records: Option<u64>,
    /// For how long the oldest of them has been waiting.
    #[schema(required)]
    lag_seconds: Option<f64>,
    /// Averaged over some seconds.
    records_per_second: f64,
    /// What went wrong last, and whether it is over; null once the sink has been resumed.
    #[schema(required)]
    last_error: Option<Fault>,
    /// How many keys are parked.
    parked: u64,
    /// Bytes of log behind the sink.
    held_log_bytes: u64,
    /// Whether the log behind the sink is no longer kept for it.
    left_behind: bool,
    /// The last comparison with the log.
    #[schema(required)]
    last_verification: Option<LastVerification>,
    /// Where the server's configuration declares it; the next start gives it that definition again.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<String>,
    /// What stays of the sink in the store that it wrote before, which cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    remains: Option<Remains>,
    /// What the backfill by another definition drops with the tables that it replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<LostWithTable>,
    /// Without the address's password.
    #[schema(value_type = NewSink)]
    definition: SinkDefinition,
}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"sink": "search", "forgotten": true})))]
pub struct SinkForgotten<'s> {
    pub sink: &'s str,
    /// Not so where the store has nothing of the sink.
    pub forgotten: bool,
}

/// What a sink is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SinkState)]
enum State {
    /// It is connecting to its store.
    Starting,
    /// Its store is being backfilled, because it was empty or too far behind the log.
    Bootstrapping,
    /// Its store is being backfilled on request.
    Rebuilding,
    /// It follows the log.
    Running,
    /// Something failed; it will try again by itself.
    Waiting,
    /// It was paused by a request and follows again when it is resumed.
    Paused,
    /// Something failed that must be mended from outside; then resume or rebuild it.
    Stopped,
    /// Another node of the cluster runs it, which knows the rest.
    Elsewhere,
}

/// What went wrong, and with which record.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fault {
    /// The store's own message included.
    what: String,
    /// What kind of fault of the store it is, where it is one: `not_writable` while the store answers
    /// and takes no writes, as during a failover; `no_access` while it knows no such user, password,
    /// database or schema; `unavailable`, `position_mismatch`, and those that stop a sink: `refused`,
    /// `fenced`, `other_log`, `schema_mismatch`, `not_owner`, `broken`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    key: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    offset: Option<Offset>,
    /// Milliseconds since 1970.
    at_ms: u64,
    /// Since when the sink follows again; null: it does not.
    #[schema(required)]
    over_at_ms: Option<u64>,
}

/// What the last comparison found.
#[derive(Debug, Serialize, ToSchema)]
struct LastVerification {
    /// Both sides were compared at this position.
    #[schema(value_type = u64)]
    position: Position,
    /// When it ended, in milliseconds since 1970.
    at_ms: u64,
    took_ms: u64,
    /// Whether every table was equal.
    equal: bool,
    differences_total: u64,
    /// How many rows were written again.
    repaired: u64,
    /// Whether `verify_every` caused it.
    scheduled: bool,
}

/// All sinks in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"sinks": []})))]
pub struct Sinks {
    pub sinks: Vec<Sink>,
}

/// A sink that was deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"sink": "search", "deleted": true})))]
pub struct SinkDeleted<'s> {
    pub sink: &'s str,
    pub deleted: bool,
    /// Where the server's configuration declares it; the next start makes it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<&'s str>,
    /// What stays of it in its store, which cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remains: Option<Remains>,
}

/// What a definition would write.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"position": 7, "mappings": [{
    "table": "shop.orders", "into": "orders", "looked_at": 2, "left_out": 0,
    "rows": [{"key": "o-1", "version": 5, "columns": {"id": "o-1", "total": 12.0}}],
    "refused": [{"key": "o-2", "version": 6, "what": "/total: a text, not a number"}]
}]})))]
pub struct DryRun {
    /// The log's state was read at this position.
    #[schema(value_type = u64)]
    position: Position,
    mappings: Vec<DryRunMapping>,
}

/// What a mapping would write.
#[derive(Debug, Serialize, ToSchema)]
struct DryRunMapping {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    /// How many records were read.
    looked_at: u64,
    /// How many of them `where` or `transform` leave out.
    left_out: u64,
    /// Whether the time was over before there were as many rows as requested.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    ended_early: bool,
    /// What the table in the store has; missing where the definition does not say where the store is.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<DryRunStore>,
    /// The first rows that the store would get.
    rows: Vec<DryRunRow>,
    /// The first records that do not fit.
    refused: Vec<DryRunRefused>,
}

/// The rows that are in the store, and what a backfill would do to them.
#[derive(Debug, Serialize, ToSchema)]
struct DryRunStore {
    rows: u64,
    /// How many of them a backfill would delete, because the log does not have them.
    deletes: u64,
    /// How many it would change, of a table that was there before the sink (`existing`).
    changes: u64,
    /// Whether those are so many that the sink would stop until that is allowed.
    is_too_much: bool,
    /// What the sink would say where it stopped, then or because it cannot take the table as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    /// What users have added to the table (columns, indexes, triggers) and a backfill would drop with
    /// it, because a new table takes its place: the first 20, and how many more there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    lost: Vec<String>,
    /// Not so where the table has more rows than are counted: 1,000,000.
    counted_all: bool,
    /// Why they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl From<onelog_sinks::DryRunStore> for DryRunStore {
    fn from(store: onelog_sinks::DryRunStore) -> Self {
        let onelog_sinks::DryRunStore {
            rows,
            deletes,
            changes,
            is_too_much,
            stop,
            lost,
            counted_all,
            why,
        } = store;
        Self {
            rows,
            deletes,
            changes,
            is_too_much,
            stop,
            lost,
            counted_all,
            why,
        }
    }
}

/// A row that would be written.
#[derive(Debug, Serialize, ToSchema)]
struct DryRunRow {
    /// The key in the store.
    key: Value,
    /// The offset of the record.
    #[schema(value_type = u64)]
    version: Offset,
    /// The cells by column.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    columns: Option<JsonText>,
    /// The document, where the store keeps one whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    document: Option<JsonText>,
}

/// A record that does not fit.
#[derive(Debug, Serialize, ToSchema)]
struct DryRunRefused {
    /// The key in the log.
    #[schema(value_type = Bytes)]
    key: Value,
    /// The offset of the record.
    #[schema(value_type = u64)]
    version: Offset,
    /// Why it does not fit.
    what: String,
}

/// The parked keys of a sink.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"sink": "search", "total": 1, "parked": [{
    "table": "shop.orders", "into": "orders", "key": "o-2", "first_offset": 6,
    "newest_offset": 8, "what": "/total: a text, not a number", "at_ms": 1_790_000_000_000_u64
}]})))]
pub struct ParkedKeys<'s> {
    pub sink: &'s str,
    /// How many there are; the list may be shorter.
    pub total: usize,
    pub parked: Vec<ParkedKey>,
}

/// A key whose record the store refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedKey {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    #[schema(value_type = Bytes)]
    key: Value,
    /// The record that was refused first.
    #[schema(value_type = u64)]
    first_offset: Offset,
    /// The record that holds the newest image; null when the key was deleted since.
    #[schema(value_type = Option<u64>, required)]
    newest_offset: Option<Offset>,
    /// The store's message.
    what: String,
    /// When it was refused, in milliseconds since 1970.
    at_ms: u64,
}

/// Which parked keys are replayed; all unless given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({}), json!({"keys": [{"into": "orders", "key": "o-2"}]})))]
pub struct ReplayKeys {
    pub keys: Option<Vec<ReplayKey>>,
}

/// A parked key that is written again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with 'into' and 'key'")]
pub struct ReplayKey {
    /// The table of the store.
    pub into: String,
    #[schema(value_type = Bytes)]
    pub key: WireBytes,
}

/// What became of a replay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"sink": "search", "position": 9, "replayed": 1, "remaining": [],
    "not_parked": []})))]
pub struct Replayed {
    sink: String,
    /// The store has the newest images of the replayed keys at this position.
    #[schema(value_type = u64)]
    position: Position,
    replayed: u64,
    /// What the store still refuses.
    remaining: Vec<ParkedKey>,
    /// Keys of the request that are not parked.
    not_parked: Vec<NotParked>,
}

/// A key of the request that is not parked.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotParked {
    /// The table of the store.
    into: String,
    #[schema(value_type = Bytes)]
    key: Value,
}

impl Sink {
    /// The answer about a sink, and where the server's configuration declares it.
    pub fn new(status: SinkStatus, declared: Option<String>) -> Self {
        let SinkStatus {
            name,
            kind,
            state,
            runs_on,
            waits_for,
            position,
            lag_records,
            lag_seconds,
            records_per_second,
            last_error,
            last_error_over_at_ms,
            parked,
            held_log_bytes,
            left_behind,
            last_verification,
            definition,
        } = status;
        Self {
            declared,
            name,
            kind,
            state: state.into(),
            runs_on,
            waits_for,
            position,
            lag_records,
            lag_seconds,
            records_per_second,
            last_error: last_error.map(|fault| Fault {
                over_at_ms: last_error_over_at_ms,
                ..fault.into()
            }),
            parked,
            held_log_bytes,
            left_behind,
            last_verification: last_verification.map(Into::into),
            remains: None,
            lost: Vec::new(),
            definition,
        }
    }

    /// What has come of another definition.
    pub fn replaced(
        mut self,
        remains: Option<onelog_sinks::Remains>,
        lost: Vec<onelog_sinks::Lost>,
    ) -> Self {
        self.remains = remains.map(Into::into);
        self.lost = lost.into_iter().map(Into::into).collect();
        self
    }
}

impl From<SinkState> for State {
    fn from(state: SinkState) -> Self {
        match state {
            SinkState::Starting => Self::Starting,
            SinkState::Bootstrapping => Self::Bootstrapping,
            SinkState::Rebuilding => Self::Rebuilding,
            SinkState::Running => Self::Running,
            SinkState::Waiting => Self::Waiting,
            SinkState::Paused => Self::Paused,
            SinkState::Stopped => Self::Stopped,
            SinkState::Elsewhere => Self::Elsewhere,
        }
    }
}

impl From<SinkFault> for Fault {
    fn from(fault: SinkFault) -> Self {
        let SinkFault {
            what,
            code,
            table,
            key,
            offset,
            at_ms,
        } = fault;
        Self {
            what,
            code: code.map(onelog_sinks::StoreErrorCode::as_str),
            table,
            key,
            offset,
            at_ms,
            over_at_ms: None,
        }
    }
}

impl From<VerificationSummary> for LastVerification {
    fn from(summary: VerificationSummary) -> Self {
        let VerificationSummary {
            position,
            at_ms,
            took_ms,
            equal,
            differences_total,
            repaired,
            scheduled,
        } = summary;
        Self {
            position,
            at_ms,
            took_ms,
            equal,
            differences_total,
            repaired,
            scheduled,
        }
    }
}

impl From<onelog_sinks::DryRun> for DryRun {
    fn from(dry_run: onelog_sinks::DryRun) -> Self {
        let onelog_sinks::DryRun { position, mappings } = dry_run;
        Self {
            position,
            mappings: mappings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<onelog_sinks::DryRunMapping> for DryRunMapping {
    fn from(mapping: onelog_sinks::DryRunMapping) -> Self {
        let onelog_sinks::DryRunMapping {
            table,
            into,
            looked_at,
            left_out,
            ended_early,
            store,
            rows,
            refused,
        } = mapping;
        let row = |row: onelog_sinks::DryRunRow| DryRunRow {
            key: row.key,
            version: row.version,
            columns: row.columns,
            document: row.document,
        };
        let refusal = |refused: onelog_sinks::DryRunRefused| DryRunRefused {
            key: refused.key,
            version: refused.version,
            what: refused.what,
        };
        Self {
            table,
            into,
            looked_at,
            left_out,
            ended_early,
            store: store.map(Into::into),
            rows: rows.into_iter().map(row).collect(),
            refused: refused.into_iter().map(refusal).collect(),
        }
    }
}

impl From<Parked> for ParkedKey {
    fn from(parked: Parked) -> Self {
        let Parked {
            table,
            into,
            key,
            first_offset,
            newest_offset,
            what,
            at_ms,
            // `key` says the same in JSON.
            key_bytes: _,
        } = parked;
        Self {
            table,
            into,
            key,
            first_offset,
            newest_offset,
            what,
            at_ms,
        }
    }
}

impl From<onelog_sinks::Replayed> for Replayed {
    fn from(replayed: onelog_sinks::Replayed) -> Self {
        let onelog_sinks::Replayed {
            sink,
            position,
            replayed,
            remaining,
            not_parked,
        } = replayed;
        let not_parked = not_parked.into_iter();
        Self {
            sink,
            position,
            replayed,
            remaining: remaining.into_iter().map(Into::into).collect(),
            not_parked: not_parked
                .map(|(into, key)| NotParked { into, key })
                .collect(),
        }
    }
}
