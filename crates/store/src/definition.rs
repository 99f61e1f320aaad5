//! The definition of a sink, as it is in a request and in a record of `onelog.sinks`.
//!
//! ```json
//! {"name": "search", "kind": "sqlite", "path": "search.db", "mappings": [
//!   {"table": "shop.orders", "into": "orders",
//!    "columns": {"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "real"}},
//!    "full_text": ["note"]}]}
//! ```
//! Parsing checks everything that can be checked without the log's tables; a [`Plan`] checks
//! the rest. Every error names its place.

mod units;

use std::sync::Arc;

use onelog_mapping::{
    DefinitionError, Mapping, MappingRules, NAME_BYTES_MAX, Object, Plan, Tables, unknown,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use self::units::{parse_bytes, parse_seconds, show_bytes, show_seconds};
use crate::kind::{Kinds, Target};
use crate::strict_json::StrictValue;

/// The least and the usual bound of [`SinkDefinition::batch_bytes_max`].
pub const BATCH_BYTES_MIN: u64 = 64 << 10;
pub const BATCH_BYTES_DEFAULT: u64 = 8 << 20;
/// The most mappings of one sink.
pub const MAPPINGS_MAX: usize = 256;

/// A store that follows the log, and what it gets.
#[derive(Clone, Debug)]
pub struct SinkDefinition {
    /// Its name, unique in this log.
    pub name: String,
    /// Which store, and where it is.
    pub target: Arc<dyn Target>,
    /// Which tables it follows, and how their records become rows.
    pub mappings: Vec<Mapping>,
    /// Whether it is paused until it is resumed.
    pub paused: bool,
    /// What happens when the store refuses a record.
    pub on_refused: OnRefused,
    /// How often the store is compared with the log, in seconds.
    pub verify_every_seconds: Option<u64>,
    /// How much of the log is kept for this sink when it is paused, stopped or slow. `None`: as much as
    /// it needs.
    pub keep_log_bytes_max: Option<u64>,
    /// How many bytes of the log, unpacked, one batch may have. `None`: [`BATCH_BYTES_DEFAULT`]. A larger
    /// entry of the log is a batch alone.
    pub batch_bytes_max: Option<u64>,
    /// How many rows of a table a backfill may delete without being asked to. `None`: what is usual.
    pub max_deletes: Option<u64>,
    /// The id of another log, whose sink of this name in the store may be taken, once.
    pub take_from_log: Option<String>,
    /// On which node of a cluster it runs, as long as that is there. `None`: on the leader.
    pub run_on: Option<u64>,
}

/// What happens when the store refuses a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefused {
    /// The sink stops until the cause is mended and it is resumed.
    #[default]
    Stop,
    /// The record, and every later one of its key, is parked; the others go on.
    Park,
}

impl SinkDefinition {
    /// Reads a definition of one of these kinds of store.
    pub fn from_json(kinds: Kinds, value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new("", value)?;
        let own = [
            "name",
            "kind",
            "mappings",
            "paused",
            "on_refused",
            "verify_every",
            "keep_log",
            "batch_bytes",
            "max_deletes",
            "take_from_log",
            "run_on",
        ];
        let kind = kinds.of(&object);
        if let Ok(kind) = kind {
            let of_kind = kind.fields().iter().map(|rule| rule.name);
            object.only(&own.into_iter().chain(of_kind).collect::<Vec<_>>())?;
        }
        let name = object.text("name")?;
        check_sink_name(name)?;
        let kind = kind?;
        let target = kind.target(&object)?;
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
        let batch_bytes_max = object
            .optional_text("batch_bytes")?
            .map(parse_batch_bytes)
            .transpose()
            .map_err(fault("batch_bytes"))?;
        Ok(Self {
            name: name.to_owned(),
            mappings: mappings(&object, kind.rules(), kinds)?,
            target,
            paused: object.boolean("paused")?,
            on_refused,
            verify_every_seconds,
            keep_log_bytes_max,
            batch_bytes_max,
            max_deletes: object.optional_count("max_deletes", i64::MAX as u64)?,
            take_from_log: object.optional_text("take_from_log")?.map(str::to_owned),
            run_on: object.optional_count("run_on", i64::MAX as u64)?,
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
        map.serialize_entry("kind", self.target.kind().name())?;
        for (name, value) in self.target.fields(secrets) {
            map.serialize_entry(&name, &value)?;
        }
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
        if let Some(bytes) = self.batch_bytes_max {
            map.serialize_entry("batch_bytes", &show_bytes(bytes))?;
        }
        if let Some(max) = self.max_deletes {
            map.serialize_entry("max_deletes", &max)?;
        }
        if let Some(log) = &self.take_from_log {
            map.serialize_entry("take_from_log", log)?;
        }
        if let Some(node) = self.run_on {
            map.serialize_entry("run_on", &node)?;
        }
        map.end()
    }

    /// Reads a definition from its text, in which no field may stand twice.
    pub fn from_slice(kinds: Kinds, bytes: &[u8]) -> Result<Self, DefinitionError> {
        let StrictValue(value) = serde_json::from_slice(bytes)
            .map_err(|error| DefinitionError::new("the definition", error.to_string()))?;
        Self::from_json(kinds, &value)
    }

    /// Checks the mappings against the tables of the log.
    pub fn plan<T: Tables + ?Sized>(&self, tables: &T) -> Result<Plan, DefinitionError> {
        Plan::new(self.target.kind().rules(), &self.mappings, tables)
    }
}

fn parse_batch_bytes(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if bytes < BATCH_BYTES_MIN => Err(format!(
            "at least {} are needed, found \"{text}\"",
            show_bytes(BATCH_BYTES_MIN)
        )),
        bytes => Ok(bytes),
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

fn mappings(
    object: &Object<'_>,
    rules: &MappingRules,
    kinds: Kinds,
) -> Result<Vec<Mapping>, DefinitionError> {
    let all: Vec<&MappingRules> = kinds.iter().map(|kind| kind.rules()).collect();
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
    let mut taken: Vec<String> = Vec::new();
    for (n, value) in list.iter().enumerate() {
        let mapping = Mapping::from_json(&format!("mappings[{n}]"), value, rules, &all)?;
        for name in names_made(&mapping) {
            let known = taken.iter().find(|known| rules.is_same_table(known, &name));
            if let Some(known) = known {
                return Err(DefinitionError::new(
                    format!("mappings[{n}].into"),
                    format!(
                        "the name '{known}' is used by another mapping of this sink{}",
                        match rules.folds_names {
                            true => "; names of tables are compared without regard to case",
                            false => "",
                        }
                    ),
                ));
            }
            taken.push(name);
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

/// As texts, because the order of columns and fields counts.
impl PartialEq for SinkDefinition {
    fn eq(&self, other: &Self) -> bool {
        let texts = [self, other].map(|definition| definition.to_stored().to_string());
        texts[0] == texts[1]
    }
}

/// Without secrets; see [`SinkDefinition::to_stored`].
impl Serialize for SinkDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(serializer, false)
    }
}
