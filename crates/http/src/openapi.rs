//! The OpenAPI document. The types here describe what the other modules read and write by hand.

#![allow(dead_code)]

use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::routes::{backup, keys, list, log, sinks, system, tables, transactions};

/// The document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "onelog",
        description = "A transactional log: write once, in order; every datastore follows. Bytes that are not UTF-8 travel as {\"base64\": \"...\"} in JSON, and in base64 with encoding=base64 in URLs."
    ),
    paths(
        transactions::commit,
        keys::get,
        list::list,
        log::read,
        tables::create,
        tables::list,
        tables::get,
        tables::delete,
        sinks::create,
        sinks::list,
        sinks::get,
        sinks::delete,
        sinks::pause,
        sinks::resume,
        sinks::verify,
        sinks::rebuild,
        sinks::wait,
        sinks::replace,
        sinks::try_out,
        sinks::parked,
        sinks::replay,
        backup::make,
        system::status,
        system::healthz,
        system::readyz,
        system::metrics,
        system::openapi,
    )
)]
struct Document;

/// Where a backup goes.
#[derive(ToSchema)]
pub(crate) struct Backup {
    /// An empty or new folder on the server's machine, as an absolute path.
    into: String,
}

/// A backup that was made.
#[derive(ToSchema)]
pub(crate) struct BackupMade {
    /// The folder.
    into: String,
    /// It has every transaction below this position and none above.
    position: u64,
}

/// Where to read.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadAt {
    /// Reads exactly at this position.
    at: Option<u64>,
    /// Waits until the node has reached this position, then reads the newest state.
    after: Option<u64>,
    /// How long `after` waits: 5000 unless given, at most 60000.
    timeout_ms: Option<u64>,
}

/// A string (UTF-8), or any bytes as `{"base64": "..."}`.
#[derive(serde::Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BytesJson {
    Text(String),
    Base64(Base64),
}

/// Bytes in base64, of the standard or the URL-safe alphabet.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct Base64 {
    base64: String,
}

/// One transaction.
#[derive(ToSchema)]
pub(crate) struct Transaction {
    /// 32 hexadecimal digits, with or without the hyphens of a UUID. A retry must carry the same one.
    id: Option<String>,
    /// The position that all reads were made at; needed with `reads`.
    read_position: Option<u64>,
    /// What was read: if any of it was written since, the answer is a conflict.
    reads: Option<Vec<Read>>,
    /// Conditions at the commit point.
    guards: Option<Vec<Guard>>,
    /// The writes, in order.
    writes: Option<Vec<Write>>,
    /// Sinks whose stores shall show the transaction before the answer comes.
    wait_for: Option<Vec<String>>,
    /// How long is waited for them: 5000 unless given, at most 60000.
    wait_timeout_ms: Option<u64>,
}

/// One key (`key`), the keys that start with `prefix`, or those from `from` up to but without `to`.
#[derive(ToSchema)]
pub(crate) struct Read {
    table: String,
    key: Option<BytesJson>,
    prefix: Option<BytesJson>,
    from: Option<BytesJson>,
    to: Option<BytesJson>,
}

/// Exactly one of `exists`, `absent`, `version`, or `field` with one comparison.
#[derive(ToSchema)]
pub(crate) struct Guard {
    table: String,
    key: BytesJson,
    /// true: the key is there.
    exists: Option<bool>,
    /// true: the key is not there.
    absent: Option<bool>,
    /// The offset of the record that last wrote the key.
    version: Option<u64>,
    /// A JSON Pointer, or the name of a field at the top.
    field: Option<String>,
    eq: Option<Value>,
    ne: Option<Value>,
    lt: Option<Value>,
    le: Option<Value>,
    gt: Option<Value>,
    ge: Option<Value>,
}

/// What a write does.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Op {
    Put,
    Delete,
    Add,
    Min,
    Max,
    Append,
}

/// One write. `put` and `append` take `value`; `add`, `min` and `max` take `by`.
#[derive(ToSchema)]
pub(crate) struct Write {
    op: Op,
    table: String,
    key: BytesJson,
    /// Any JSON in a table of JSON, kept byte for byte; a string or `{"base64": "..."}` in a table of bytes.
    value: Option<Value>,
    /// The field that `add`, `min`, `max` and `append` change; the whole value unless given.
    field: Option<String>,
    /// A number.
    by: Option<f64>,
    /// Names and values for the readers of the log.
    headers: Option<Value>,
}

/// The transaction is in the log.
#[derive(ToSchema)]
pub(crate) struct Committed {
    id: String,
    /// The position right behind it: whoever reads at or after it sees the transaction.
    position: u64,
    /// The offsets of the writes, in their order.
    offsets: Vec<u64>,
    /// true: an earlier request under the same id did it.
    repeated: Option<bool>,
    /// With `wait_for`, for each sink: `reached`, `position`, and where it was not reached `reason`.
    waited: Option<Value>,
}

/// What is wrong. More fields depend on `error`.
#[derive(ToSchema)]
pub(crate) struct Error {
    /// A stable code.
    error: String,
    /// What is wrong, where, and what to do.
    message: String,
    /// The place in the request.
    r#where: Option<String>,
    table: Option<String>,
    nearest: Option<String>,
    key: Option<BytesJson>,
    version: Option<u64>,
    /// The position to read at for the next try.
    retry_at: Option<u64>,
    /// The oldest position that would do.
    floor: Option<u64>,
    log_start: Option<u64>,
    latest: Option<u64>,
    position: Option<u64>,
    /// The number of the guard that does not hold.
    guard: Option<u64>,
    /// The value that it met.
    met: Option<Value>,
    limit: Option<String>,
    max: Option<u64>,
    is: Option<u64>,
    unit: Option<String>,
    retry_after_ms: Option<u64>,
}

/// A page of a table.
#[derive(ToSchema)]
pub(crate) struct Page {
    position: u64,
    rows: Vec<Row>,
    /// The next page's `from`, or its `to` with `reverse`; null on the last page.
    next: Option<BytesJson>,
}

/// A key with its value.
#[derive(ToSchema)]
pub(crate) struct Row {
    key: BytesJson,
    /// The offset of the record that wrote it.
    version: u64,
    value: Value,
}

/// One line of the log.
#[derive(ToSchema)]
pub(crate) struct LogRecord {
    offset: u64,
    /// The position right behind the record's transaction.
    position: u64,
    /// The transaction.
    id: String,
    table: String,
    op: RecordOp,
    key: BytesJson,
    /// Absent for a delete.
    value: Option<Value>,
    headers: Option<Value>,
    timestamp_ms: u64,
}

/// What a record does.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RecordOp {
    Put,
    Delete,
    Event,
}

/// The data of one event.
#[derive(ToSchema)]
pub(crate) struct LogTransaction {
    /// The position right behind it; also the event's id.
    position: u64,
    id: String,
    timestamp_ms: u64,
    records: Vec<EventRecord>,
}

/// A record of an event.
#[derive(ToSchema)]
pub(crate) struct EventRecord {
    offset: u64,
    table: String,
    op: RecordOp,
    key: BytesJson,
    value: Option<Value>,
    headers: Option<Value>,
}

/// `keyed`: the state keeps the latest value of each key. `stream`: events only.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum TableKind {
    Keyed,
    Stream,
}

/// What values are.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ValueKind {
    Json,
    Bytes,
}

/// A table to make.
#[derive(ToSchema)]
pub(crate) struct NewTable {
    /// `service.table` by convention.
    name: String,
    kind: Option<TableKind>,
    value: Option<ValueKind>,
    /// A JSON Schema that each value must satisfy.
    schema: Option<Value>,
    /// Fields whose values may occur only once in the table.
    unique: Option<Vec<String>>,
}

/// A table.
#[derive(ToSchema)]
pub(crate) struct Table {
    /// Its number in the log.
    id: u32,
    name: String,
    kind: TableKind,
    value: ValueKind,
    schema: Option<Value>,
    unique: Option<Vec<String>>,
    position: u64,
}

/// All tables.
#[derive(ToSchema)]
pub(crate) struct Tables {
    position: u64,
    tables: Vec<Table>,
}

/// A table that was deleted.
#[derive(ToSchema)]
pub(crate) struct Dropped {
    table: String,
    position: u64,
}

/// A store that shall follow the log.
#[derive(ToSchema)]
pub(crate) struct NewSink {
    name: String,
    /// `sqlite`, `postgres`, `mysql`, `redis` or `elasticsearch`.
    kind: String,
    /// The database's file (`sqlite`).
    path: Option<String>,
    /// Where the store is (all other kinds); `${NAME}` stands for an environment variable.
    url: Option<String>,
    /// The schema of the tables (`postgres`); `public` unless given.
    schema: Option<String>,
    /// Given for a cluster: into how many groups keys are spread (`redis`).
    partitions: Option<u64>,
    /// Certificates that are trusted instead of the system's.
    ca_file: Option<String>,
    mappings: Vec<Mapping>,
    paused: Option<bool>,
    /// What happens when the store refuses a record: `stop` (unless given) or `park`.
    on_refused: Option<String>,
    /// How often the store is compared with the log, for example `1h`.
    verify_every: Option<String>,
    /// How much log is kept for the sink at most, for example `10GiB`.
    keep_log: Option<String>,
}

/// How a table's records become rows.
#[derive(ToSchema)]
pub(crate) struct Mapping {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    /// Columns by name: `{"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "real"}}`.
    columns: Option<Value>,
    /// Columns with a full-text index.
    full_text: Option<Vec<String>>,
    /// A jq program: whether a record makes a row.
    r#where: Option<String>,
    /// A jq program that makes another document of the record's.
    transform: Option<String>,
    /// The fields that are kept: a list of names, or an object of new names and paths.
    fields: Option<Value>,
    /// The row's key, made of the record's: `order:{$key}`.
    key: Option<String>,
    /// The table is there already and is fitted (`postgres`, `mysql`).
    existing: Option<bool>,
    /// `string` or `hash` (`redis`).
    r#as: Option<String>,
    /// For how long a row lives (`redis`).
    ttl_seconds: Option<u64>,
    /// The index's settings (`elasticsearch`).
    settings: Option<Value>,
}

/// A sink.
#[derive(ToSchema)]
pub(crate) struct Sink {
    name: String,
    kind: String,
    /// starting, bootstrapping, rebuilding, running, waiting, paused or stopped.
    state: String,
    /// The store shows everything below it.
    position: Option<u64>,
    lag_records: Option<u64>,
    lag_seconds: Option<f64>,
    records_per_second: Option<f64>,
    last_error: Option<Value>,
    /// Keys that are set aside.
    parked: u64,
    /// Bytes of log behind it.
    held_log_bytes: u64,
    /// Whether the log behind it is no longer kept for it.
    left_behind: bool,
    /// The last comparison: `position`, `at_ms`, `took_ms`, `equal`, `differences_total`, `repaired`, `scheduled`.
    last_verification: Option<Value>,
    definition: Value,
}

/// What a definition would write.
#[derive(ToSchema)]
pub(crate) struct Trial {
    position: u64,
    mappings: Vec<TrialMapping>,
}

/// What a mapping would write.
#[derive(ToSchema)]
pub(crate) struct TrialMapping {
    table: String,
    into: String,
    looked_at: u64,
    /// Records that `where` or `transform` leave out.
    left_out: u64,
    /// `key`, `version`, and `columns` or `document`.
    rows: Vec<Value>,
    /// `key`, `version`, `what`.
    refused: Vec<Value>,
}

/// The keys that a sink has set aside.
#[derive(ToSchema)]
pub(crate) struct ParkedKeys {
    sink: String,
    total: u64,
    parked: Vec<ParkedKey>,
}

/// A key that is set aside.
#[derive(ToSchema)]
pub(crate) struct ParkedKey {
    table: String,
    /// The table of the store.
    into: String,
    key: BytesJson,
    /// The record that was refused first.
    first_offset: u64,
    /// The record that holds the newest image; null when the key was deleted since.
    newest_offset: Option<u64>,
    /// The store's words.
    what: String,
    at_ms: u64,
}

/// Which parked keys are replayed; all unless given.
#[derive(ToSchema)]
pub(crate) struct ReplayKeys {
    keys: Option<Vec<ReplayKey>>,
}

/// A parked key.
#[derive(ToSchema)]
pub(crate) struct ReplayKey {
    /// The table of the store.
    into: String,
    key: BytesJson,
}

/// What became of a replay.
#[derive(ToSchema)]
pub(crate) struct Replayed {
    sink: String,
    position: u64,
    replayed: u64,
    /// What the store still refuses.
    remaining: Vec<ParkedKey>,
}

/// All sinks.
#[derive(ToSchema)]
pub(crate) struct Sinks {
    sinks: Vec<Sink>,
}

/// A sink that was deleted.
#[derive(ToSchema)]
pub(crate) struct SinkDeleted {
    sink: String,
    deleted: bool,
}

/// Whether a store equals the log at a position.
#[derive(ToSchema)]
pub(crate) struct Verification {
    position: u64,
    /// Whether every table is equal.
    equal: bool,
    took_ms: u64,
    /// With `repair`: rows that were written again.
    repaired: Option<u64>,
    tables: Vec<TableVerification>,
}

/// Whether a table of a store equals the log.
#[derive(ToSchema)]
pub(crate) struct TableVerification {
    table: String,
    /// The table of the store.
    into: String,
    rows: u64,
    store_rows: u64,
    equal: bool,
    differences_total: u64,
    counted_all: bool,
    /// Keys that are set aside and were not compared.
    parked: u64,
    /// With `repair`: rows that were written again.
    repaired: Option<u64>,
    /// With `repair`: rows of the store that no key of the log makes.
    unrepairable: Option<u64>,
    /// What to do about what is left.
    advice: Option<String>,
    /// What is wrong with the full-text index, where there is one.
    full_text: Option<Value>,
    /// The first differing rows.
    differences: Vec<Difference>,
}

/// A row that differs.
#[derive(ToSchema)]
pub(crate) struct Difference {
    key: BytesJson,
    /// The row as the log has it; null when it has none.
    log: Option<Value>,
    /// The row as the store has it; null when it has none.
    store: Option<Value>,
}

/// How the node is.
#[derive(ToSchema)]
pub(crate) struct Health {
    status: String,
    failure: Option<String>,
}

/// The node's state.
#[derive(ToSchema)]
pub(crate) struct Status {
    version: String,
    position: u64,
    log_start: u64,
    uptime_s: u64,
    failure: Option<String>,
    /// The limits in force.
    limits: Value,
    sinks: Vec<Sink>,
    /// The limits of the HTTP door in force.
    http: Value,
}
