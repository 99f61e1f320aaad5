//! The one list of everything that can be set for `onelog serve`; what makes it one of several is in
//! `cluster.rs`. The file, the environment, the flags, their help and `onelog.example.toml` all come
//! from it.

use std::path::PathBuf;

use onelog_command::units::{parse_size, parse_time_ms, size};
use onelog_sinks::SINKS_MEMORY_BYTES_MIN;

use super::cluster::CLUSTER_KEYS;
#[cfg(feature = "kafka")]
use super::kafka::KAFKA_KEYS;
use super::settings::{
    Settings, parse_compression, parse_follow, parse_listen, parse_log_format, parse_log_level,
};

/// One thing that can be set.
pub struct Key {
    /// The section of the file that it is in; none for those at its top.
    pub section: &'static str,
    pub name: &'static str,
    /// Its flag, without the leading hyphens.
    pub flag: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// The name of the value in the help.
    pub value_name: &'static str,
    /// The default, as it is written in TOML.
    pub default: &'static str,
    pub help: &'static str,
    /// Reads a value into the settings.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.path())
    }
}

impl Key {
    /// How an error names it.
    pub fn path(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// Whether it is a list: of texts in the file, with commas between them elsewhere.
    pub fn is_list(&self) -> bool {
        self.default.starts_with('[')
    }

    /// Whether the flag may be given without a value.
    pub fn is_switch(&self) -> bool {
        matches!(self.default, "true" | "false")
    }
}

macro_rules! key {
    ($name:literal, $flag:literal, $env:literal, $value:literal, $default:literal, $help:literal,
     |$settings:ident, $text:ident| $set:expr) => {
        Key {
            section: "",
            name: $name,
            flag: $flag,
            env: $env,
            value_name: $value,
            default: $default,
            help: $help,
            set: |$settings, $text| {
                $set;
                Ok(())
            },
        }
    };
}

#[cfg(not(feature = "kafka"))]
const KAFKA_KEYS: &[Key] = &[];

/// All keys: those at the top of the file, then those of its sections.
pub fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(CLUSTER_KEYS).chain(KAFKA_KEYS)
}

/// Every key at the top of the file, in the order of the example.
pub const KEYS: &[Key] = &[
    key!(
        "folder",
        "folder",
        "ONELOG_FOLDER",
        "DIR",
        "\"onelog-data\"",
        "Where log and state live; made when missing, used by one server at a time",
        |s, t| s.node.folder = folder(t)?
    ),
    key!(
        "listen",
        "listen",
        "ONELOG_LISTEN",
        "ADDRESS",
        "\"127.0.0.1:7070\"",
        "The address and port of the HTTP API; port 0 takes a free one",
        |s, t| s.listen = parse_listen(t)?
    ),
    key!(
        "follow",
        "follow",
        "ONELOG_FOLLOW",
        "URL",
        "\"\"",
        "The server that this one follows as a read replica, http://HOST:PORT; empty: none",
        |s, t| s.follow = parse_follow(t)?
    ),
    key!(
        "create_tables",
        "create-tables",
        "ONELOG_CREATE_TABLES",
        "BOOL",
        "false",
        "Whether a write to an unknown table makes it (keyed, JSON); otherwise it is refused",
        |s, t| s.http.create_tables = boolean(t)?
    ),
    key!(
        "segment_bytes",
        "segment-bytes",
        "ONELOG_SEGMENT_BYTES",
        "SIZE",
        "\"64MiB\"",
        "The size of one file of the log",
        |s, t| s.node.segment_bytes = parse_size(t)?
    ),
    key!(
        "compression",
        "compression",
        "ONELOG_COMPRESSION",
        "NAME",
        "\"none\"",
        "How the log's entries are stored: none, lz4 or zstd",
        |s, t| s.node.compression = parse_compression(t)?
    ),
    key!(
        "flushes_in_flight",
        "flushes-in-flight",
        "ONELOG_FLUSHES_IN_FLIGHT",
        "COUNT",
        "4",
        "How many groups of commits are flushed to the disk at the same time, 1 to 4",
        |s, t| s.node.flushes_in_flight = count(t, 1, 4)?
    ),
    key!(
        "retain_bytes",
        "retain-bytes",
        "ONELOG_RETAIN_BYTES",
        "SIZE",
        "\"unlimited\"",
        "The log is cut from its start when it is larger than this, or \"unlimited\"",
        |s, t| s.node.retain_bytes = unless_unlimited(t, parse_size)?
    ),
    key!(
        "retain_ms",
        "retain-ms",
        "ONELOG_RETAIN_MS",
        "TIME",
        "\"unlimited\"",
        "What is older than this is cut from the log's start, or \"unlimited\"",
        |s, t| s.node.retain_ms = unless_unlimited(t, parse_time_ms)?
    ),
    key!(
        "retain_past_followers",
        "retain-past-followers",
        "ONELOG_RETAIN_PAST_FOLLOWERS",
        "BOOL",
        "false",
        "Whether the log may be cut although a sink still needs it (the sink then starts again)",
        |s, t| s.node.retain_past_followers = boolean(t)?
    ),
    key!(
        "memtable_bytes",
        "memtable-bytes",
        "ONELOG_MEMTABLE_BYTES",
        "SIZE",
        "\"96MiB\"",
        "A checkpoint is made when this many bytes of changes are held in memory",
        |s, t| s.node.memtable_bytes = memory(t)?
    ),
    key!(
        "memtable_bytes_max",
        "memtable-bytes-max",
        "ONELOG_MEMTABLE_BYTES_MAX",
        "SIZE",
        "\"256MiB\"",
        "Commits wait, and are then refused, when changes in memory would grow beyond this",
        |s, t| s.node.memtable_bytes_max = memory(t)?
    ),
    key!(
        "cache_bytes",
        "cache-bytes",
        "ONELOG_CACHE_BYTES",
        "SIZE",
        "\"256MiB\"",
        "The page cache of the B-tree on the disk",
        |s, t| s.node.cache_bytes = memory(t)?
    ),
    key!(
        "checkpoint_interval_ms",
        "checkpoint-interval-ms",
        "ONELOG_CHECKPOINT_INTERVAL_MS",
        "TIME",
        "\"30s\"",
        "A checkpoint is made at least this often while something changes",
        |s, t| s.node.checkpoint_interval_ms = parse_time_ms(t)?
    ),
    key!(
        "snapshot_age_ms_max",
        "snapshot-age-ms-max",
        "ONELOG_SNAPSHOT_AGE_MS_MAX",
        "TIME",
        "\"60s\"",
        "How long an old position stays readable after a checkpoint, where no second one comes first",
        |s, t| s.node.snapshot_age_ms_max = parse_time_ms(t)?
    ),
    key!(
        "disk_reserve_bytes",
        "disk-reserve-bytes",
        "ONELOG_DISK_RESERVE_BYTES",
        "SIZE",
        "\"64MiB\"",
        "With less room on the disk nothing is written, and reads go on, until there is more",
        |s, t| s.node.disk_reserve_bytes = parse_size(t)?
    ),
    key!(
        "disk_warning_bytes",
        "disk-warning-bytes",
        "ONELOG_DISK_WARNING_BYTES",
        "SIZE",
        "\"1GiB\"",
        "With less room on the disk the server logs a warning",
        |s, t| s.node.disk_warning_bytes = parse_size(t)?
    ),
    key!(
        "queue_requests_max",
        "queue-requests-max",
        "ONELOG_QUEUE_REQUESTS_MAX",
        "COUNT",
        "8192",
        "How many commits may wait to be decided; more are refused as overloaded",
        |s, t| s.node.queue_requests_max = count(t, 1, 1 << 24)?
    ),
    key!(
        "queue_bytes_max",
        "queue-bytes-max",
        "ONELOG_QUEUE_BYTES_MAX",
        "SIZE",
        "\"64MiB\"",
        "How many bytes of commits may wait to be decided",
        |s, t| s.node.queue_bytes_max = memory(t)?
    ),
    key!(
        "ids_max",
        "ids-max",
        "ONELOG_IDS_MAX",
        "COUNT",
        "1000000",
        "How many transaction ids are remembered, so that a retry is never done twice",
        |s, t| s.node.ids_max = count(t, 1, 1 << 31)?
    ),
    key!(
        "window_writes_max",
        "window-writes-max",
        "ONELOG_WINDOW_WRITES_MAX",
        "COUNT",
        "65536",
        "How many recent writes are held in memory for finding conflicts",
        |s, t| s.node.window_writes_max = count(t, 1, 1 << 31)?
    ),
    key!(
        "max_connections",
        "max-connections",
        "ONELOG_MAX_CONNECTIONS",
        "COUNT",
        "1024",
        "How many HTTP connections may be open; one more is refused",
        |s, t| s.http.max_connections = count(t, 1, 1 << 16)?
    ),
    key!(
        "request_timeout_ms",
        "request-timeout-ms",
        "ONELOG_REQUEST_TIMEOUT_MS",
        "TIME",
        "\"30s\"",
        "How long a request may take, without the waits that it names",
        |s, t| s.http.request_timeout_ms = positive_ms(t)?
    ),
    key!(
        "header_timeout_ms",
        "header-timeout-ms",
        "ONELOG_HEADER_TIMEOUT_MS",
        "TIME",
        "\"10s\"",
        "How long a client may take to send the head of a request",
        |s, t| s.http.header_timeout_ms = positive_ms(t)?
    ),
    key!(
        "body_timeout_ms",
        "body-timeout-ms",
        "ONELOG_BODY_TIMEOUT_MS",
        "TIME",
        "\"30s\"",
        "How long a client may take to send the body of a request",
        |s, t| s.http.body_timeout_ms = positive_ms(t)?
    ),
    key!(
        "log_streams_max",
        "log-streams-max",
        "ONELOG_LOG_STREAMS_MAX",
        "COUNT",
        "256",
        "How many readers of the log may be connected",
        |s, t| s.http.log_streams_max = count(t, 1, 1 << 16)?
    ),
    key!(
        "heartbeat_ms",
        "heartbeat-ms",
        "ONELOG_HEARTBEAT_MS",
        "TIME",
        "\"10s\"",
        "How often a silent event stream shows that it lives",
        |s, t| s.http.heartbeat_ms = positive_ms(t)?
    ),
    key!(
        "sinks_memory_bytes",
        "sinks-memory-bytes",
        "ONELOG_SINKS_MEMORY_BYTES",
        "SIZE",
        "\"256MiB\"",
        "How much of the log, unpacked, all sinks together may hold for their stores",
        |s, t| s.sinks_memory_bytes = sinks_memory(t)?
    ),
    key!(
        "log_level",
        "log-level",
        "ONELOG_LOG_LEVEL",
        "LEVEL",
        "\"info\"",
        "What the server reports on standard error: error, warn, info, debug, trace, or tracing directives",
        |s, t| s.log_level = parse_log_level(t)?
    ),
    key!(
        "log_format",
        "log-format",
        "ONELOG_LOG_FORMAT",
        "FORMAT",
        "\"text\"",
        "How it reports: text or json",
        |s, t| s.log_format = parse_log_format(t)?
    ),
];

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a folder needs a name".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub fn boolean(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is neither true nor false"))
}

fn positive_ms(text: &str) -> Result<u64, String> {
    match parse_time_ms(text)? {
        0 => Err("the time must be more than nothing".to_owned()),
        ms => Ok(ms),
    }
}

fn memory(text: &str) -> Result<usize, String> {
    usize::try_from(parse_size(text)?).map_err(|_| format!("'{text}' does not fit this machine"))
}

fn sinks_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes < SINKS_MEMORY_BYTES_MIN => Err(format!(
            "'{text}' is too little: the sinks need {} at least",
            size(SINKS_MEMORY_BYTES_MIN)
        )),
        bytes => Ok(bytes),
    }
}

pub fn count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!(
            "'{text}' is not a whole number from {min} to {max}"
        )),
    }
}

fn unless_unlimited(
    text: &str,
    parse: fn(&str) -> Result<u64, String>,
) -> Result<Option<u64>, String> {
    if text == "unlimited" {
        return Ok(None);
    }
    parse(text)
        .map(Some)
        .map_err(|message| format!("{message}, or unlimited"))
}
