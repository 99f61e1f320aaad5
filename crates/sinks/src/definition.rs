//! The definition of a sink, as it stands in a request and in a record of `onelog.sinks`.
//!
//! ```json
//! {"name": "search", "kind": "sqlite", "path": "search.db", "mappings": [
//!   {"table": "shop.orders", "into": "orders",
//!    "columns": {"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "real"}},
//!    "full_text": ["note"]}]}
//! ```
//! Parsing checks everything that can be checked without the log's tables; [`crate::Plan`] checks
//! the rest. Every error names its place.

mod kind;
mod mapping;
mod object;
mod types;
mod units;

use std::collections::HashSet;

use onelog_record::nearest_name;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use self::kind::{
    ElasticsearchTarget, MysqlTarget, PARTITIONS_MAX, PostgresTarget, RedisTarget, SinkKind, Url,
};
pub use self::mapping::{
    Column, Columns, KeyTemplate, Mapping, MappingOptions, RedisShape, Source,
};
pub(crate) use self::object::Object;
pub use self::types::{ColumnType, Element};
use self::units::{parse_bytes, parse_seconds, show_bytes, show_seconds};
use crate::strict_json::StrictValue;

/// The most bytes of the name of a sink, a table in a store or a column.
pub const NAME_BYTES_MAX: usize = 128;
/// The most mappings of one sink.
pub const MAPPINGS_MAX: usize = 256;
/// The most columns of one mapping.
pub const COLUMNS_MAX: usize = 256;

/// A store that follows the log, and what it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkDefinition {
    /// Its name, unique in this log.
    pub name: String,
    /// Which store, and where it is.
    pub kind: SinkKind,
    /// Which tables it follows, and how their records become rows.
    pub mappings: Vec<Mapping>,
    /// Whether it has been told to stand still.
    pub paused: bool,
    /// What happens when the store refuses a record.
    pub on_refused: OnRefused,
    /// How often the store is compared with the log, in seconds.
    pub verify_every_seconds: Option<u64>,
    /// How much of the log is kept for this sink when it stands still or is slow. `None`: as much as
    /// it needs.
    pub keep_log_bytes_max: Option<u64>,
}

/// What happens when the store refuses a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefused {
    /// The sink stops until somebody mends the cause.
    #[default]
    Stop,
    /// The record, and every later one of its key, is set aside; the others go on.
    Park,
}

/// A definition that cannot be: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct DefinitionError {
    /// The place in the definition, for example `mappings[0].columns.total.type`.
    pub place: String,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl DefinitionError {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}

/// "unknown …; did you mean …?"
pub(crate) fn unknown<'n>(
    what: &str,
    wanted: &str,
    known: impl IntoIterator<Item = &'n str> + Clone,
) -> String {
    match nearest_name(wanted, known.clone()) {
        Some(name) => format!("unknown {what} '{wanted}'; did you mean '{name}'?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            format!("unknown {what} '{wanted}'; known are: {}", known.join(", "))
        }
    }
}

impl SinkDefinition {
    /// Reads a definition.
    pub fn from_json(value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new("", value)?;
        let own = [
            "name",
            "kind",
            "mappings",
            "paused",
            "on_refused",
            "verify_every",
            "keep_log",
        ];
        let kind = SinkKind::from_object(&object);
        let of_kind = match object.fields.get("kind").and_then(Value::as_str) {
            Some(kind) => SinkKind::fields(kind),
            None => &[],
        };
        if kind.is_ok() || !of_kind.is_empty() {
            object.only(&[&own[..], of_kind].concat())?;
        }
        let name = object.text("name")?;
        check_sink_name(name)?;
        let kind = kind?;
        let on_refused = match object.optional_text("on_refused")? {
            None | Some("stop") => OnRefused::Stop,
            Some("park") => OnRefused::Park,
            Some(other) => {
                return Err(DefinitionError::new(
                    "on_refused",
                    unknown("policy", other, ["stop", "park"]),
                ));
            }
        };
        let fault = |place: &'static str| move |what: String| DefinitionError::new(place, what);
        let verify_every_seconds = object
            .optional_text("verify_every")?
            .map(parse_seconds)
            .transpose()
            .map_err(fault("verify_every"))?;
        let keep_log_bytes_max = object
            .optional_text("keep_log")?
            .map(parse_bytes)
            .transpose()
            .map_err(fault("keep_log"))?;
        Ok(Self {
            name: name.to_owned(),
            mappings: mappings(&object, &kind)?,
            kind,
            paused: object.boolean("paused")?,
            on_refused,
            verify_every_seconds,
            keep_log_bytes_max,
        })
    }

    /// The record of `onelog.sinks`: as [`Serialize`], but with the address as it was written,
    /// password and all.
    #[must_use]
    pub fn to_stored(&self) -> Value {
        let written = self.write(serde_json::value::Serializer, true);
        // Texts, numbers, booleans and lists of them are always JSON.
        written.unwrap_or(Value::Null)
    }

    fn write<S: Serializer>(&self, serializer: S, secrets: bool) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("kind", self.kind.name())?;
        self.kind.write(&mut map, secrets)?;
        map.serialize_entry("mappings", &self.mappings)?;
        if self.paused {
            map.serialize_entry("paused", &true)?;
        }
        if self.on_refused == OnRefused::Park {
            map.serialize_entry("on_refused", "park")?;
        }
        if let Some(seconds) = self.verify_every_seconds {
            map.serialize_entry("verify_every", &show_seconds(seconds))?;
        }
        if let Some(bytes) = self.keep_log_bytes_max {
            map.serialize_entry("keep_log", &show_bytes(bytes))?;
        }
        map.end()
    }

    /// Reads a definition from its text, in which no field may stand twice.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DefinitionError> {
        let StrictValue(value) = serde_json::from_slice(bytes)
            .map_err(|error| DefinitionError::new("the definition", error.to_string()))?;
        Self::from_json(&value)
    }
}

fn check_sink_name(name: &str) -> Result<(), DefinitionError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(DefinitionError::new(
            "name",
            format!(
                "a sink's name has 1 to {NAME_BYTES_MAX} bytes, this one has {}",
                name.len()
            ),
        ));
    }
    match name.chars().find(|c| !good(*c)) {
        None => Ok(()),
        Some(character) => Err(DefinitionError::new(
            "name",
            format!("contains {character:?}; allowed are letters, digits, '_', '-' and '.'"),
        )),
    }
}

fn mappings(object: &Object<'_>, kind: &SinkKind) -> Result<Vec<Mapping>, DefinitionError> {
    let list = object.array("mappings")?;
    if list.is_empty() || list.len() > MAPPINGS_MAX {
        return Err(DefinitionError::new(
            "mappings",
            format!(
                "a sink has 1 to {MAPPINGS_MAX} mappings, this one has {}",
                list.len()
            ),
        ));
    }
    let mut out = Vec::with_capacity(list.len());
    let mut taken = HashSet::new();
    for (n, value) in list.iter().enumerate() {
        let mapping = Mapping::from_json(&format!("mappings[{n}]"), value, kind)?;
        for name in names_made(&mapping) {
            if !taken.insert(name.to_ascii_lowercase()) {
                return Err(DefinitionError::new(
                    format!("mappings[{n}].into"),
                    format!(
                        "the name '{name}' is used by another mapping of this sink; names of tables are compared without regard to case"
                    ),
                ));
            }
        }
        out.push(mapping);
    }
    Ok(out)
}

/// Every table that a mapping makes in a store, an index's inner tables included.
fn names_made(mapping: &Mapping) -> Vec<String> {
    let mut names = vec![mapping.into.clone()];
    if !mapping.full_text.is_empty() {
        for suffix in ["", "_data", "_idx", "_docsize", "_config", "_content"] {
            names.push(format!("{}_fts{suffix}", mapping.into));
        }
    }
    names
}

/// Without secrets; see [`SinkDefinition::to_stored`].
impl Serialize for SinkDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(serializer, false)
    }
}

impl<'de> Deserialize<'de> for SinkDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::from_json(&value).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
