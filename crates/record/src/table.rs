//! Tables: their names, their kinds, their definitions (which are records of `onelog.tables`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FieldPath, TABLE_NAME_BYTES_MAX, TableId};

/// Definitions of tables: name → definition.
pub const TABLE_TABLES: TableId = TableId(1);
/// Definitions of sinks: name → definition.
pub const TABLE_SINKS: TableId = TableId(2);
/// The rows behind unique fields: table, field and value → key.
pub const TABLE_UNIQUE: TableId = TableId(3);
/// Settings of the whole log.
pub const TABLE_SETTINGS: TableId = TableId(4);
/// Records that a sink's store refused: sink, table of the store and key → what was refused, and why.
pub const TABLE_PARKED: TableId = TableId(5);
/// The nodes of the cluster: number in decimal → where it is reached, or that it was removed.
pub const TABLE_NODES: TableId = TableId(6);
/// How far the sinks of a cluster are, as the log knows it.
pub const TABLE_SINK_POSITIONS: TableId = TableId(7);
/// The system tables by name.
pub const SYSTEM_TABLES: [(TableId, &str); 7] = [
    (TABLE_TABLES, "onelog.tables"),
    (TABLE_SINKS, "onelog.sinks"),
    (TABLE_UNIQUE, "onelog.unique"),
    (TABLE_SETTINGS, "onelog.settings"),
    (TABLE_PARKED, "onelog.parked"),
    (TABLE_NODES, "onelog.nodes"),
    (TABLE_SINK_POSITIONS, "onelog.sink_positions"),
];
/// How the keys of `onelog.unique` begin that belong to a table.
#[must_use]
pub const fn unique_rows_of(table: TableId) -> [u8; 4] {
    table.0.to_be_bytes()
}

/// The first number of a user's table.
pub const USER_TABLES_FROM: TableId = TableId(1024);

/// Whether the state keeps the latest value of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// The state keeps the latest value of each key.
    Keyed,
    /// Events only: no state.
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    Json,
    Bytes,
}

/// The definition of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDefinition {
    pub id: TableId,
    pub name: String,
    pub kind: TableKind,
    pub value: ValueKind,
    /// The JSON Schema that each value must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Fields whose values may occur only once in the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<FieldPath>,
    /// Set once the table has been deleted: its number still names its old records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

/// A text that is no name of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableNameError {
    #[error("a table needs a name, for example 'shop.orders'")]
    Empty,
    /// Over `TABLE_NAME_BYTES_MAX`.
    #[error("the table's name has {0} bytes, the limit is {TABLE_NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A character that is not allowed.
    #[error(
        "the table's name '{name}' contains '{character}'; allowed are letters, digits, '_', '-' and, between words, '.'"
    )]
    Character {
        name: String,
        /// The first character that is not allowed there.
        character: char,
    },
    #[error("names that start with 'onelog.' belong to onelog itself: '{0}'")]
    Reserved(String),
}

/// Checks the name of a user's table: parts of letters, digits, `_` and `-`, joined by dots,
/// `service.table` by convention.
pub fn check_table_name(name: &str) -> Result<(), TableNameError> {
    if name.is_empty() {
        return Err(TableNameError::Empty);
    }
    if name.len() > TABLE_NAME_BYTES_MAX {
        return Err(TableNameError::TooLong(name.len()));
    }
    let mut word_open = false;
    for character in name.chars() {
        let letter = character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        let joint = character == '.' && word_open;
        if !(letter || joint) {
            return Err(TableNameError::Character {
                name: name.to_owned(),
                character,
            });
        }
        word_open = letter;
    }
    if !word_open {
        return Err(TableNameError::Character {
            name: name.to_owned(),
            character: '.',
        });
    }
    if name == "onelog" || name.starts_with("onelog.") {
        return Err(TableNameError::Reserved(name.to_owned()));
    }
    Ok(())
}

/// The longest mistyped name for which a known one is looked for.
const WANTED_BYTES_MAX: usize = 4 * TABLE_NAME_BYTES_MAX;

/// The known name that is nearest to a mistyped one, if one is near enough to be meant.
#[must_use]
pub fn nearest_name<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Looking for it costs the product of both lengths.
    if wanted.len() > WANTED_BYTES_MAX {
        return None;
    }
    let tolerance = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| *distance <= tolerance || ends_alike(wanted, name))
        .min_by_key(|(distance, name)| (*distance, *name))
        .map(|(_, name)| name)
}

fn ends_alike(wanted: &str, name: &str) -> bool {
    let last = |text: &str| text.rsplit('.').next().map(str::to_owned);
    !wanted.is_empty() && last(wanted) == last(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["orders", "shop.orders", "a-b.c_d.e9"] {
            assert_eq!(check_table_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a/b",
            "ü",
            "onelog.tables",
            "onelog",
        ] {
            assert!(check_table_name(bad).is_err(), "{bad}");
        }
        assert!(check_table_name(&"x".repeat(TABLE_NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_nearest_name_is_found_when_it_is_near() {
        let known = ["shop.orders", "shop.stock", "bank.accounts"];
        assert_eq!(nearest_name("shop.order", known), Some("shop.orders"));
        assert_eq!(nearest_name("orders", known), Some("shop.orders"));
        assert_eq!(nearest_name("zebra", known), None);
        let long = "x".repeat(WANTED_BYTES_MAX);
        assert_eq!(nearest_name(&format!("{long}.orders"), known), None);
    }

    #[test]
    fn a_definition_is_stored_as_this_text() {
        let definition = TableDefinition {
            id: TableId(1024),
            name: "shop.orders".into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: vec![FieldPath::parse("/email").unwrap()],
            dropped: false,
        };
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(
            text,
            r#"{"id":1024,"name":"shop.orders","kind":"keyed","value":"json","unique":["/email"]}"#
        );
        assert_eq!(
            serde_json::from_str::<TableDefinition>(&text).unwrap(),
            definition
        );
    }
}
