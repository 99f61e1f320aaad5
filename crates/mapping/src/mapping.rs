//! One mapping of a definition: a table of the log, and what becomes of its records in a store.

use std::collections::HashSet;

use onelog_record::FieldPath;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::object::Object;
use crate::rules::FULL_TEXT;
use crate::{
    ADOPT, COLUMNS_MAX, ColumnType, DefinitionError, EXISTING, MappingOptions, MappingRules,
    NAME_BYTES_MAX, unknown,
};

/// How one table's records become rows of one table of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    pub table: String,
    pub into: String,
    /// The columns in their order. Empty: the key and the whole value.
    pub columns: Columns,
    /// The columns that a full-text index covers.
    pub full_text: Vec<String>,
    /// A jq program that says whether a record makes a row.
    pub filter: Option<String>,
    /// A jq program that makes another document of the record's, or none.
    pub transform: Option<String>,
    /// The fields that are kept of the document, by their new names. Empty: all.
    pub fields: Vec<(String, FieldPath)>,
    /// How the row's key is made of the record's key.
    pub key: Option<KeyTemplate>,
    /// What concerns some kinds of store only.
    pub options: MappingOptions,
}

/// A key made of the record's key: the text before and behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTemplate {
    pub prefix: String,
    pub suffix: String,
}

/// Columns by name, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns(pub Vec<(String, Column)>);

/// Where a column's cells come from, and what they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub from: Source,
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

impl KeyTemplate {
    const WORD: &'static str = "{$key}";
    const BYTES_MAX: usize = 512;

    /// A template must name the record's key once: everything else of a record is unknown when it
    /// is deleted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, suffix) = text.split_once(Self::WORD).ok_or_else(|| {
            format!(
                "a key is made of the record's key: write '{}' in its place, for example \"order:{}\"; fields of the document cannot be used, because a deletion has no document",
                Self::WORD,
                Self::WORD
            )
        })?;
        if suffix.contains(Self::WORD) {
            return Err(format!("'{}' occurs here twice", Self::WORD));
        }
        if text.len() > Self::BYTES_MAX {
            return Err(format!(
                "a key's template has at most {} bytes",
                Self::BYTES_MAX
            ));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
        })
    }

    /// Whether the key is the record's key as it is.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.prefix.is_empty() && self.suffix.is_empty()
    }

    pub fn render(&self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(self.suffix.as_bytes());
    }

    /// The record's key that a row's key was made of.
    #[must_use]
    pub fn strip<'k>(&self, rendered: &'k [u8]) -> Option<&'k [u8]> {
        rendered
            .strip_prefix(self.prefix.as_bytes())?
            .strip_suffix(self.suffix.as_bytes())
    }
}

impl std::fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.prefix, Self::WORD, self.suffix)
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

impl Mapping {
    /// Reads a mapping for a kind of store that takes `rules`; `all` are the rules of every kind, so
    /// that a field of another kind can be named as such.
    pub fn from_json(
        place: &str,
        value: &Value,
        rules: &MappingRules,
        all: &[&'static MappingRules],
    ) -> Result<Self, DefinitionError> {
        let object = Object::new(place, value)?;
        let mut known = COMMON_FIELDS.to_vec();
        known.extend(
            all.iter()
                .flat_map(|rules| rules.fields().map(|rule| rule.name)),
        );
        object.only(&known)?;
        only_of_kind(&object, rules, all)?;
        let into = object.text("into")?;
        let into_place = object.place("into");
        check_identifier(&into_place, into)?;
        let lower = into.to_ascii_lowercase();
        if lower.starts_with(RESERVED) && !lower.starts_with(DEMO) {
            return Err(DefinitionError::new(
                into_place,
                format!("names that start with '{RESERVED}' are reserved"),
            ));
        }
        let columns = match object.fields.get("columns") {
            None => Columns::default(),
            Some(value) => Columns::from_json(&object.place("columns"), value)?,
        };
        let full_text = match object.fields.get(FULL_TEXT) {
            None => Vec::new(),
            Some(_) => full_text(&object)?,
        };
        let fields = match object.fields.get("fields") {
            None => Vec::new(),
            Some(value) => chosen_fields(&object.place("fields"), value)?,
        };
        Ok(Self {
            table: object.text("table")?.to_owned(),
            into: into.to_owned(),
            columns,
            full_text,
            filter: object.optional_text("where")?.map(str::to_owned),
            transform: object.optional_text("transform")?.map(str::to_owned),
            fields,
            key: object
                .optional_text("key")?
                .map(KeyTemplate::parse)
                .transpose()
                .map_err(|what| DefinitionError::new(object.place("key"), what))?,
            options: MappingOptions::read(
                &object,
                rules.options.iter().map(|rule| rule.name),
                rules,
            )?,
        })
    }
}

/// What `onelog demo` makes in a user's stores is recognised by its name.
const DEMO: &str = "onelog_demo_";
/// What begins so is onelog's own, in every store.
const RESERVED: &str = "onelog_";

/// The fields that a mapping can have in every kind of store.
const COMMON_FIELDS: [&str; 7] = [
    "table",
    "into",
    "columns",
    "where",
    "transform",
    "fields",
    "key",
];

fn only_of_kind(
    object: &Object<'_>,
    rules: &MappingRules,
    all: &[&'static MappingRules],
) -> Result<(), DefinitionError> {
    let takes = |rules: &MappingRules, field: &str| rules.fields().any(|own| own.name == field);
    let foreign = object
        .fields
        .keys()
        .find(|field| !COMMON_FIELDS.contains(&field.as_str()) && !takes(rules, field));
    let Some(field) = foreign else {
        return Ok(());
    };
    let owners: Vec<&str> = all
        .iter()
        .filter(|rules| takes(rules, field))
        .map(|rules| rules.kind)
        .collect();
    let remedy = match field.as_str() {
        EXISTING | ADOPT => {
            "; its tables are made by onelog: leave the field out, and choose an 'into' that nothing in the store has"
        }
        _ => "",
    };
    Err(DefinitionError::new(
        object.place(field),
        format!(
            "'{field}' belongs to sinks of the kind {}, this one is of the kind {}{remedy}",
            owners.join(" and "),
            rules.kind
        ),
    ))
}

/// `["a", "b"]`, or `{"new name": "/path"}`.
fn chosen_fields(place: &str, value: &Value) -> Result<Vec<(String, FieldPath)>, DefinitionError> {
    let path = |place: String, text: &str| {
        FieldPath::parse(text).map_err(|error| DefinitionError::new(place, error.to_string()))
    };
    let mut out = Vec::new();
    match value {
        Value::Array(names) => {
            for (n, name) in names.iter().enumerate() {
                let place = format!("{place}[{n}]");
                let Some(name) = name.as_str() else {
                    return Err(DefinitionError::new(
                        place,
                        format!("expected the name of a field, found {name}"),
                    ));
                };
                if out.iter().any(|(known, _)| known == name) {
                    return Err(DefinitionError::new(place, "this field occurs here twice"));
                }
                if name.starts_with('/') {
                    return Err(DefinitionError::new(
                        place,
                        "a path needs a new name: write an object, {\"new name\": \"/path\"}",
                    ));
                }
                out.push((name.to_owned(), path(place, name)?));
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place}.{name}");
                let Some(text) = value.as_str() else {
                    return Err(DefinitionError::new(
                        place,
                        format!("expected a field's path, found {value}"),
                    ));
                };
                out.push((name.clone(), path(place, text)?));
            }
        }
        other => {
            return Err(DefinitionError::new(
                place,
                format!(
                    "expected a list of names, or an object of new names and paths, found {other}"
                ),
            ));
        }
    }
    if out.is_empty() || out.len() > COLUMNS_MAX {
        return Err(DefinitionError::new(
            place,
            format!(
                "1 to {COLUMNS_MAX} fields can be chosen, these are {}",
                out.len()
            ),
        ));
    }
    Ok(out)
}

fn full_text(object: &Object<'_>) -> Result<Vec<String>, DefinitionError> {
    let mut names: Vec<String> = Vec::new();
    for (n, value) in object.array(FULL_TEXT)?.iter().enumerate() {
        let place = format!("{}[{n}]", object.place(FULL_TEXT));
        let Some(name) = value.as_str() else {
            return Err(DefinitionError::new(
                place,
                format!("expected the name of a column, found {value}"),
            ));
        };
        if names.iter().any(|known| known == name) {
            return Err(DefinitionError::new(
                place,
                format!("the column '{name}' occurs here twice"),
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
        let kind = ColumnType::parse(object.text("type")?)
            .map_err(|what| DefinitionError::new(object.place("type"), what))?;
        Ok(Self { from, kind })
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
            map.serialize_entry(FULL_TEXT, &self.full_text)?;
        }
        if let Some(program) = &self.filter {
            map.serialize_entry("where", program)?;
        }
        if let Some(program) = &self.transform {
            map.serialize_entry("transform", program)?;
        }
        if !self.fields.is_empty() {
            map.serialize_entry("fields", &Fields(&self.fields))?;
        }
        if let Some(key) = &self.key {
            map.serialize_entry("key", &key.to_string())?;
        }
        for (name, value) in self.options.as_map() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

struct Fields<'a>(&'a [(String, FieldPath)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, path)| (name, path.as_str())))
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
