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

use std::collections::HashSet;
use std::path::PathBuf;

use onelog_record::{FieldPath, nearest_name};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

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
}

/// The kinds of store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// A SQLite database.
    Sqlite {
        /// Its file. A relative path starts at the working directory of the process.
        path: PathBuf,
    },
}

impl SinkKind {
    /// The word in a definition's `kind`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
        }
    }
}

/// How one table's records become rows of one table of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The table of the log.
    pub table: String,
    /// The table of the store.
    pub into: String,
    /// The columns in their order. Empty: the key and the whole value.
    pub columns: Columns,
    /// The columns that a full-text index covers.
    pub full_text: Vec<String>,
}

/// Columns by name, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns(pub Vec<(String, Column)>);

/// Where a column's cells come from, and what they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Where from.
    pub from: Source,
    /// What it holds.
    pub kind: ColumnType,
}

/// Where a cell comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// `$key`: the record's key.
    Key,
    /// `$value`: the record's value, byte for byte.
    Value,
    /// `$version`: the offset of the record that wrote the row.
    Version,
    /// A field of the JSON document: a JSON Pointer, or the bare name of a field at the top.
    Field(FieldPath),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text. A number or a boolean becomes its JSON text, so 1 and "1" look alike.
    Text,
    /// A whole number of 64 bits, signed.
    Integer,
    /// A floating-point number of 64 bits. Whole numbers beyond 2^53 lose digits.
    Real,
    /// true or false.
    Boolean,
    /// Any JSON value, as compact text.
    Json,
    /// Bytes; only from `$key` and `$value`.
    Blob,
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

impl ColumnType {
    const ALL: [(&'static str, Self); 6] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("real", Self::Real),
        ("boolean", Self::Boolean),
        ("json", Self::Json),
        ("blob", Self::Blob),
    ];

    /// The word in a definition.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Blob => "blob",
        }
    }
}

impl Source {
    /// The text in a definition.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Key => "$key",
            Self::Value => "$value",
            Self::Version => "$version",
            Self::Field(path) => path.as_str(),
        }
    }
}

impl SinkDefinition {
    /// Reads a definition.
    pub fn from_json(value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new("", value)?;
        object.only(&["name", "kind", "path", "mappings", "paused"])?;
        let name = object.text("name")?;
        check_sink_name(name)?;
        let kind = match object.text("kind")? {
            "sqlite" => {
                let path = object.text("path")?;
                if path.is_empty() || path.contains('\0') {
                    return Err(DefinitionError::new("path", "a file's path is needed"));
                }
                SinkKind::Sqlite {
                    path: PathBuf::from(path),
                }
            }
            other => {
                return Err(DefinitionError::new(
                    "kind",
                    unknown("kind of store", other, ["sqlite"]),
                ));
            }
        };
        let mappings = mappings(&object)?;
        let paused = match object.fields.get("paused") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| {
                DefinitionError::new("paused", format!("expected true or false, found {value}"))
            })?,
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            mappings,
            paused,
        })
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

/// Checks the name of a table or a column in a store: any text that can be quoted.
fn check_identifier(place: &str, name: &str) -> Result<(), DefinitionError> {
    let what = if name.is_empty() {
        "a name is needed".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!(
            "the name has {} bytes, the limit is {NAME_BYTES_MAX}",
            name.len()
        )
    } else if name.chars().any(char::is_control) {
        "the name contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(DefinitionError::new(place, what))
}

fn mappings(object: &Object<'_>) -> Result<Vec<Mapping>, DefinitionError> {
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
        let mapping = Mapping::from_json(&format!("mappings[{n}]"), value)?;
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

impl Mapping {
    fn from_json(place: &str, value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new(place, value)?;
        object.only(&["table", "into", "columns", "full_text"])?;
        let into = object.text("into")?;
        let into_place = object.place("into");
        check_identifier(&into_place, into)?;
        let lower = into.to_ascii_lowercase();
        for reserved in ["sqlite_", "onelog_"] {
            if lower.starts_with(reserved) {
                return Err(DefinitionError::new(
                    into_place,
                    format!("names that start with '{reserved}' are reserved"),
                ));
            }
        }
        let columns = match object.fields.get("columns") {
            None => Columns::default(),
            Some(value) => Columns::from_json(&object.place("columns"), value)?,
        };
        let full_text = match object.fields.get("full_text") {
            None => Vec::new(),
            Some(_) => full_text(&object)?,
        };
        Ok(Self {
            table: object.text("table")?.to_owned(),
            into: into.to_owned(),
            columns,
            full_text,
        })
    }
}

fn full_text(object: &Object<'_>) -> Result<Vec<String>, DefinitionError> {
    let mut names: Vec<String> = Vec::new();
    for (n, value) in object.array("full_text")?.iter().enumerate() {
        let place = format!("{}[{n}]", object.place("full_text"));
        let Some(name) = value.as_str() else {
            return Err(DefinitionError::new(
                place,
                format!("expected the name of a column, found {value}"),
            ));
        };
        if names.iter().any(|known| known == name) {
            return Err(DefinitionError::new(
                place,
                format!("the column '{name}' stands here twice"),
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

impl Columns {
    fn from_json(place: &str, value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new(place, value)?;
        let count = object.fields.len();
        if count == 0 || count > COLUMNS_MAX {
            return Err(DefinitionError::new(
                place,
                format!(
                    "a mapping has 1 to {COLUMNS_MAX} columns, this one has {count}; leave 'columns' out for the key and the whole value"
                ),
            ));
        }
        let mut columns = Vec::with_capacity(count);
        let mut taken = HashSet::new();
        for (name, value) in object.fields {
            let place = object.place(name);
            check_identifier(&place, name)?;
            if !taken.insert(name.to_ascii_lowercase()) {
                return Err(DefinitionError::new(
                    place,
                    "another column has this name; names of columns are compared without regard to case",
                ));
            }
            columns.push((name.clone(), Column::from_json(&place, value)?));
        }
        Ok(Self(columns))
    }
}

impl Column {
    fn from_json(place: &str, value: &Value) -> Result<Self, DefinitionError> {
        let object = Object::new(place, value)?;
        object.only(&["from", "type"])?;
        let from =
            match object.text("from")? {
                "$key" => Source::Key,
                "$value" => Source::Value,
                "$version" => Source::Version,
                other if other.starts_with('$') => {
                    return Err(DefinitionError::new(
                        object.place("from"),
                        format!(
                            "{}; a field whose own name starts with '$' is written as '/{other}'",
                            unknown("source", other, ["$key", "$value", "$version"])
                        ),
                    ));
                }
                path => Source::Field(FieldPath::parse(path).map_err(|error| {
                    DefinitionError::new(object.place("from"), error.to_string())
                })?),
            };
        let name = object.text("type")?;
        let kind = ColumnType::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                DefinitionError::new(
                    object.place("type"),
                    unknown("type", name, ColumnType::ALL.map(|(known, _)| known)),
                )
            })?;
        Ok(Self { from, kind })
    }
}

/// An object of the definition with its place.
struct Object<'v> {
    at: String,
    fields: &'v Map<String, Value>,
}

impl<'v> Object<'v> {
    fn new(place: &str, value: &'v Value) -> Result<Self, DefinitionError> {
        match value.as_object() {
            Some(fields) => Ok(Self {
                at: place.to_owned(),
                fields,
            }),
            None => Err(DefinitionError::new(
                if place.is_empty() {
                    "the definition"
                } else {
                    place
                },
                "expected a JSON object",
            )),
        }
    }

    fn place(&self, field: &str) -> String {
        if self.at.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.at)
        }
    }

    fn only(&self, known: &[&'static str]) -> Result<(), DefinitionError> {
        match self
            .fields
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(DefinitionError::new(
                self.place(name),
                unknown("field", name, known.iter().copied()),
            )),
        }
    }

    fn required(&self, field: &str) -> Result<&'v Value, DefinitionError> {
        self.fields
            .get(field)
            .ok_or_else(|| DefinitionError::new(self.place(field), "this field is missing"))
    }

    fn text(&self, field: &str) -> Result<&'v str, DefinitionError> {
        let value = self.required(field)?;
        value.as_str().ok_or_else(|| {
            DefinitionError::new(self.place(field), format!("expected a text, found {value}"))
        })
    }

    fn array(&self, field: &str) -> Result<&'v [Value], DefinitionError> {
        let value = self.required(field)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| {
            DefinitionError::new(self.place(field), format!("expected a list, found {value}"))
        })
    }
}

impl Serialize for SinkDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("kind", self.kind.name())?;
        match &self.kind {
            SinkKind::Sqlite { path } => map.serialize_entry("path", path)?,
        }
        map.serialize_entry("mappings", &self.mappings)?;
        if self.paused {
            map.serialize_entry("paused", &true)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for SinkDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::from_json(&value).map_err(D::Error::custom)
    }
}

impl Serialize for Mapping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("table", &self.table)?;
        map.serialize_entry("into", &self.into)?;
        if !self.columns.0.is_empty() {
            map.serialize_entry("columns", &self.columns)?;
        }
        if !self.full_text.is_empty() {
            map.serialize_entry("full_text", &self.full_text)?;
        }
        map.end()
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, column)| (name, column)))
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("from", self.from.as_str())?;
        map.serialize_entry("type", &self.kind)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
