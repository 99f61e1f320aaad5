//! The types of columns.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::unknown;

/// What a column holds. Every store has a table of the types it takes and how it keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Text. A number or a boolean becomes its JSON text, so 1 and "1" look alike.
    Text,
    /// A whole number of 64 bits, signed.
    Integer,
    /// A floating-point number of 64 bits. Whole numbers beyond 2^53 lose digits.
    Real,
    Boolean,
    /// A JSON value as text.
    Json,
    /// Bytes; only from `$key` and `$value`.
    Blob,
    /// A decimal number, exact: from a number or a text that holds one.
    Numeric,
    /// A moment, to the microsecond: from a text with an offset, as RFC 3339 has it. What is finer
    /// is cut off.
    Timestamp,
    /// A day of the calendar: from a text `YYYY-MM-DD`.
    Date,
    Uuid,
    /// A list of values of one type, null among them.
    List(Element),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// See [`ColumnType::Text`]; likewise the others.
    Text,
    Integer,
    Real,
    Boolean,
    Numeric,
    Timestamp,
    Date,
    Uuid,
}

impl Element {
    #[must_use]
    pub const fn kind(self) -> ColumnType {
        match self {
            Self::Text => ColumnType::Text,
            Self::Integer => ColumnType::Integer,
            Self::Real => ColumnType::Real,
            Self::Boolean => ColumnType::Boolean,
            Self::Numeric => ColumnType::Numeric,
            Self::Timestamp => ColumnType::Timestamp,
            Self::Date => ColumnType::Date,
            Self::Uuid => ColumnType::Uuid,
        }
    }
}

impl ColumnType {
    /// Every type with its name, the lists last.
    pub const ALL: [(&'static str, Self); 18] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("real", Self::Real),
        ("boolean", Self::Boolean),
        ("json", Self::Json),
        ("blob", Self::Blob),
        ("numeric", Self::Numeric),
        ("timestamp", Self::Timestamp),
        ("date", Self::Date),
        ("uuid", Self::Uuid),
        ("text[]", Self::List(Element::Text)),
        ("integer[]", Self::List(Element::Integer)),
        ("real[]", Self::List(Element::Real)),
        ("boolean[]", Self::List(Element::Boolean)),
        ("numeric[]", Self::List(Element::Numeric)),
        ("timestamp[]", Self::List(Element::Timestamp)),
        ("date[]", Self::List(Element::Date)),
        ("uuid[]", Self::List(Element::Uuid)),
    ];

    /// Names that other databases use.
    const ALIASES: [(&'static str, &'static str); 8] = [
        ("bigint", "integer"),
        ("double", "real"),
        ("float", "real"),
        ("jsonb", "json"),
        ("bytea", "blob"),
        ("bytes", "blob"),
        ("decimal", "numeric"),
        ("timestamptz", "timestamp"),
    ];

    /// The name in a definition.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.map_or("unknown", |(name, _)| name)
    }

    /// The type of a name or an alias; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (bare, list) = match text.strip_suffix("[]") {
            Some(bare) => (bare, "[]"),
            None => (text, ""),
        };
        let alias = Self::ALIASES.iter().find(|(alias, _)| *alias == bare);
        let name = format!("{}{list}", alias.map_or(bare, |(_, name)| name));
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = Self::ALL.map(|(known, _)| known);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| unknown("type", text, names))
    }
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
