//! The kinds of store and where they are.

use std::fmt;
use std::path::PathBuf;

use serde::ser::SerializeMap;

use super::object::Object;
use super::{ColumnType, DefinitionError, unknown};

/// The most partitions of a sink in a Redis Cluster.
pub const PARTITIONS_MAX: u64 = 4096;
/// The schema of PostgreSQL in which tables are made when a definition names none.
pub const SCHEMA: &str = "public";
/// The most bytes of an address.
const URL_BYTES_MAX: usize = 2048;

/// The kinds of store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// A SQLite database.
    Sqlite {
        /// Its file. A relative path starts at the working directory of the process.
        path: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(PostgresTarget),
    /// A MariaDB or MySQL database.
    Mysql(MysqlTarget),
    /// A Redis server or cluster.
    Redis(RedisTarget),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchTarget),
}

/// Where a PostgreSQL database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTarget {
    /// `postgres://user:password@host:port/database`.
    pub url: Url,
    /// The schema of the tables.
    pub schema: String,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a MariaDB or MySQL database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlTarget {
    /// `mysql://user:password@host:port/database`.
    pub url: Url,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTarget {
    /// `redis://user:password@host:port/number`, or `rediss://…` with TLS.
    pub url: Url,
    /// Given for a cluster: into how many groups keys are spread.
    pub partitions: Option<u16>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where an Elasticsearch or OpenSearch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticsearchTarget {
    /// `http://user:password@host:port`, or `https://…`.
    pub url: Url,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// An address with a password in it, perhaps as `${NAME}`: the value of an environment variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address as it was written, `${…}` included. Holds a password; see [`Url::shown`].
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// The address with every `${NAME}` replaced by that environment variable.
    pub fn resolve(&self) -> Result<String, DefinitionError> {
        resolve(&self.0, |name| std::env::var(name).ok())
            .map_err(|what| DefinitionError::new("url", what))
    }

    /// The address without its password and without secrets behind `?`.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.0)
    }
}

impl From<&str> for Url {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

fn resolve(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside
            .find('}')
            .ok_or_else(|| "a '${' has no '}' behind it".to_owned())?;
        let name = &inside[..end];
        let found = value(name).ok_or_else(|| {
            format!("the environment variable '{name}' is not set where onelog runs")
        })?;
        out.push_str(&found);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whatever stands between the colon of the user and the last '@' may be a password; of the
/// parameters only the names are shown. In doubt too much is hidden.
fn shown(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (before, rest) = match text[start..].rfind('@') {
        Some(at) => (Some(&text[start..start + at]), &text[start + at..]),
        None => (None, &text[start..]),
    };
    let mut out = text[..start].to_owned();
    match before {
        Some(user) if user.contains(['?', '/']) && !user.contains(':') => out.push_str("***"),
        Some(user) => match user.split_once(':') {
            Some((name, _)) => {
                out.push_str(name);
                out.push_str(":***");
            }
            None => out.push_str(user),
        },
        None => {}
    }
    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    out.push_str(address);
    if let Some(query) = query {
        let parts: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) if is_plain_parameter(name) => format!("{name}={value}"),
                Some((name, _)) => format!("{name}=***"),
                None => "***".to_owned(),
            })
            .collect();
        out.push('?');
        out.push_str(&parts.join("&"));
    }
    out
}

/// Parameters that are known to hold no secret.
fn is_plain_parameter(name: &str) -> bool {
    [
        "sslmode",
        "application_name",
        "connect_timeout",
        "target_session_attrs",
    ]
    .contains(&name)
}

impl SinkKind {
    /// The words of all kinds.
    pub const NAMES: [&'static str; 5] = ["sqlite", "postgres", "mysql", "redis", "elasticsearch"];

    /// The word in a definition's `kind`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::Redis(_) => "redis",
            Self::Elasticsearch(_) => "elasticsearch",
        }
    }

    /// Where the store is, without secrets.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite { path } => path.display().to_string(),
            Self::Postgres(target) => format!("{} schema {}", target.url.shown(), target.schema),
            Self::Mysql(target) => target.url.shown(),
            Self::Redis(target) => target.url.shown(),
            Self::Elasticsearch(target) => target.url.shown(),
        }
    }

    /// Whether the store keeps a document under a key rather than columns in a row.
    #[must_use]
    pub const fn keeps_documents(&self) -> bool {
        matches!(self, Self::Redis(_) | Self::Elasticsearch(_))
    }

    /// Whether it is a database with tables of columns.
    #[must_use]
    pub const fn keeps_tables(&self) -> bool {
        matches!(
            self,
            Self::Sqlite { .. } | Self::Postgres(_) | Self::Mysql(_)
        )
    }

    /// Whether the store has this type of column.
    #[must_use]
    pub fn supports(&self, kind: ColumnType) -> bool {
        match self {
            Self::Sqlite { .. } => crate::sqlite::supports(kind),
            Self::Postgres(_) => crate::postgres::supports(kind),
            Self::Mysql(_) => crate::mysql::supports(kind),
            Self::Redis(_) => crate::redis::supports(kind),
            Self::Elasticsearch(_) => crate::elasticsearch::supports(kind),
        }
    }

    /// The fields of a definition that belong to this kind.
    pub(super) fn fields(kind: &str) -> &'static [&'static str] {
        match kind {
            "sqlite" => &["path"],
            "postgres" => &["url", "schema", "ca_file"],
            "redis" => &["url", "partitions", "ca_file"],
            "mysql" | "elasticsearch" => &["url", "ca_file"],
            _ => &[],
        }
    }

    pub(super) fn from_object(object: &Object<'_>) -> Result<Self, DefinitionError> {
        let file = |field| {
            object
                .optional_text(field)
                .map(|path| path.map(PathBuf::from))
        };
        let kind = object.text("kind")?;
        Ok(match kind {
            "sqlite" => {
                let path = object.text("path")?;
                if path.is_empty() || path.contains('\0') {
                    return Err(DefinitionError::new("path", "a file's path is needed"));
                }
                Self::Sqlite {
                    path: PathBuf::from(path),
                }
            }
            "postgres" => Self::Postgres(PostgresTarget {
                url: url(object, &["postgres", "postgresql"])?,
                schema: object.optional_text("schema")?.unwrap_or(SCHEMA).to_owned(),
                ca_file: file("ca_file")?,
            }),
            "mysql" => Self::Mysql(MysqlTarget {
                url: url(object, &["mysql", "mariadb"])?,
                ca_file: file("ca_file")?,
            }),
            "redis" => Self::Redis(RedisTarget {
                url: url(object, &["redis", "rediss"])?,
                partitions: object
                    .optional_count("partitions", PARTITIONS_MAX)?
                    .map(|count| count as u16),
                ca_file: file("ca_file")?,
            }),
            "elasticsearch" => Self::Elasticsearch(ElasticsearchTarget {
                url: url(object, &["http", "https"])?,
                ca_file: file("ca_file")?,
            }),
            other => {
                return Err(DefinitionError::new(
                    "kind",
                    unknown("kind of store", other, Self::NAMES),
                ));
            }
        })
    }

    /// Writes the fields of this kind.
    pub(super) fn write<M: SerializeMap>(
        &self,
        map: &mut M,
        secrets: bool,
    ) -> Result<(), M::Error> {
        let written = |url: &Url| match secrets {
            true => url.0.clone(),
            false => url.shown(),
        };
        let ca_file = match self {
            Self::Sqlite { path } => {
                map.serialize_entry("path", path)?;
                &None
            }
            Self::Postgres(target) => {
                map.serialize_entry("url", &written(&target.url))?;
                if target.schema != SCHEMA {
                    map.serialize_entry("schema", &target.schema)?;
                }
                &target.ca_file
            }
            Self::Mysql(target) => {
                map.serialize_entry("url", &written(&target.url))?;
                &target.ca_file
            }
            Self::Redis(target) => {
                map.serialize_entry("url", &written(&target.url))?;
                if let Some(partitions) = target.partitions {
                    map.serialize_entry("partitions", &partitions)?;
                }
                &target.ca_file
            }
            Self::Elasticsearch(target) => {
                map.serialize_entry("url", &written(&target.url))?;
                &target.ca_file
            }
        };
        match ca_file {
            Some(path) => map.serialize_entry("ca_file", path),
            None => Ok(()),
        }
    }
}

fn url(object: &Object<'_>, schemes: &[&'static str]) -> Result<Url, DefinitionError> {
    let text = object.text("url")?;
    let fault = |what: String| Err(DefinitionError::new(object.place("url"), what));
    if text.len() > URL_BYTES_MAX || text.chars().any(char::is_control) {
        return fault(format!(
            "an address has at most {URL_BYTES_MAX} bytes and no control characters"
        ));
    }
    let scheme = text.split("://").next().unwrap_or("");
    if !text.contains("://") || !schemes.contains(&scheme) {
        return fault(format!(
            "an address that starts with {} is needed",
            schemes
                .iter()
                .map(|scheme| format!("'{scheme}://'"))
                .collect::<Vec<_>>()
                .join(" or ")
        ));
    }
    Ok(Url(text.to_owned()))
}

impl SinkKind {
    /// The kind of store that an address leads to, with no further options.
    pub fn of_url(text: &str) -> Result<Self, DefinitionError> {
        let scheme = text.split("://").next().unwrap_or("");
        let kind = match scheme {
            "postgres" | "postgresql" => "postgres",
            "mysql" | "mariadb" => "mysql",
            "redis" | "rediss" => "redis",
            "http" | "https" => "elasticsearch",
            "sqlite" => "sqlite",
            _ => {
                return Err(DefinitionError::new(
                    "the address",
                    "it must start with postgres://, mysql://, redis://, rediss://, http://, https:// or sqlite://",
                ));
            }
        };
        let (field, place) = match kind {
            "sqlite" => ("path", text.strip_prefix("sqlite://").unwrap_or(text)),
            _ => ("url", text),
        };
        let value = serde_json::json!({"kind": kind, field: place});
        Self::from_object(&Object::new("", &value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_ever_shown() {
        for (url, expected) in [
            (
                "postgres://me:pa@ss/w:rd@host:1/db",
                "postgres://me:***@host:1/db",
            ),
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("redis://:secret@host", "redis://:***@host"),
            ("http://host:9200", "http://host:9200"),
            (
                "http://host/a?api_key=x&sslmode=require&y",
                "http://host/a?api_key=***&sslmode=require&***",
            ),
            ("mysql://u:${PW}@h/d", "mysql://u:***@h/d"),
            ("mysql://u:a?b=c@h/d", "mysql://u:***@h/d"),
            ("http://h/?token=a@b", "http://***@b"),
        ] {
            let url = Url(url.to_owned());
            assert_eq!(url.shown(), expected);
            assert_eq!(format!("{url:?} {url}"), format!("{expected} {expected}"));
        }
    }

    #[test]
    fn environment_variables_stand_for_secrets() {
        let value = |name: &str| (name == "PW").then(|| "s3".to_owned());
        assert_eq!(resolve("a:${PW}@${PW}/", value).unwrap(), "a:s3@s3/");
        assert!(resolve("a:${NO}@", value).unwrap_err().contains("'NO'"));
        assert!(resolve("a:${PW", value).is_err());
    }

    #[test]
    fn an_address_tells_its_kind() {
        assert_eq!(SinkKind::of_url("rediss://h").unwrap().name(), "redis");
        assert_eq!(SinkKind::of_url("sqlite://a.db").unwrap().place(), "a.db");
        assert!(SinkKind::of_url("ftp://h").is_err());
    }
}
