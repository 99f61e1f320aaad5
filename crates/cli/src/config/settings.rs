//! What a running server is set up with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use onelog::Options;
use onelog_client::Url;
use onelog_http::HttpOptions;
use onelog_record::Compression;
use onelog_sinks::SINKS_MEMORY_BYTES;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::cluster::ClusterSettings;
use super::declared::Declarations;
#[cfg(feature = "kafka")]
use super::kafka::KafkaSettings;

/// The default folder of the server's data.
pub const DEFAULT_FOLDER: &str = "onelog-data";
/// The default address that the server listens on.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7070";

/// The settings of `onelog serve`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: Options,
    /// The address that HTTP listens on, `host:port`.
    pub listen: String,
    pub http: HttpOptions,
    /// The address of the server that this one follows as a read replica.
    pub follow: Option<String>,
    /// What makes the node one of several.
    pub cluster: ClusterSettings,
    /// The door for Kafka clients.
    #[cfg(feature = "kafka")]
    pub kafka: KafkaSettings,
    /// What all sinks together may hold of the log, unpacked.
    pub sinks_memory_bytes: u64,
    /// What the server logs, as directives of the tracing filter.
    pub log_level: String,
    pub log_format: LogFormat,
    /// The tables and sinks that are made when they are not there.
    pub declared: Declarations,
}

/// How the server writes its own log to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people to read.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: Options::new(PathBuf::from(DEFAULT_FOLDER)),
            listen: DEFAULT_LISTEN.to_owned(),
            http: HttpOptions::default(),
            follow: None,
            cluster: ClusterSettings::default(),
            #[cfg(feature = "kafka")]
            kafka: KafkaSettings::default(),
            sinks_memory_bytes: SINKS_MEMORY_BYTES,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            declared: Declarations::default(),
        }
    }
}

impl Settings {
    /// Checks what a single value cannot show.
    pub fn check(&self) -> Result<(), String> {
        let node = &self.node;
        if node.memtable_bytes_max < node.memtable_bytes {
            return Err(format!(
                "memtable_bytes_max ({}) must be at least memtable_bytes ({})",
                node.memtable_bytes_max, node.memtable_bytes
            ));
        }
        let declared = &self.declared;
        if self.follow.is_some() && !(declared.tables.is_empty() && declared.sinks.is_empty()) {
            return Err(
                "a read replica (follow) makes no tables and runs no sinks: declare them where the log is written"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Reads the address of a server that is to be followed.
pub fn parse_follow(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) => Ok(Some(url.base().to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a compression by its name.
pub fn parse_compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "lz4" => Ok(Compression::Lz4),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(format!("'{text}' is not one of none, lz4, zstd")),
    }
}

/// Reads a log format by its name.
pub fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("'{text}' is not one of text, json")),
    }
}

/// Reads an address, which must have a port.
pub fn parse_listen(text: &str) -> Result<String, String> {
    let has_port = SocketAddr::from_str(text).is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok()
        });
    if has_port {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{text}' is not an address: expected host:port, such as {DEFAULT_LISTEN}"
    ))
}

/// Reads the filter of the server's own log. A directive without `=` must be a level: the library
/// takes any other text for the name of a module, so that a misspelled level would silence the rest.
pub fn parse_log_level(text: &str) -> Result<String, String> {
    let level = |directive: &str| !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
    let known = |directive: &str| directive.contains('=') || level(directive);
    if text.split(',').all(known) && text.parse::<Targets>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{text}' is not a log level: expected error, warn, info, debug or trace, or directives such as info,onelog_http=debug"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_log_level_is_refused_instead_of_silencing_the_log() {
        for good in ["info", "WARN", "off", "info,onelog_http=debug"] {
            assert_eq!(parse_log_level(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "infoo",
            "warn onelog",
            "info,onelog_http",
            "onelog=loud",
        ] {
            let refused = parse_log_level(bad).unwrap_err();
            assert!(
                refused.contains(&format!("'{bad}' is not a log level")),
                "{refused}"
            );
        }
    }
}
