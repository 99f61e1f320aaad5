//! What a table's columns were when onelog backfilled it, and whether its definition is still the
//! one that the statements of a batch were made for.
//!
//! A column that is changed under a running sink may round values or take two keys for one, and no
//! error says so. Two things are looked at:
//! - the *definition*, as the server writes it. It is read before the table is looked at and again
//!   inside each transaction, behind its writes: their lock of the table's metadata keeps every
//!   change of it out from then until the commit;
//! - for tables with `existing`, which may have narrower columns, the *shape*: the types of the mapped
//!   columns at the end of the last backfill. It is in `onelog_tables`, so that a change is noticed
//!   over reconnects and restarts as well. The other tables have one possible shape.
//!
//! A column that was seen with another type is known until the next backfill, also where it has its
//! type back: see [`onelog_store::Narrowed`].

use mysql_async::Params;
use onelog_mapping::{ColumnPlan, EXISTING, MappingPlan};
use onelog_store::{Narrowed, Remedy, Shape, StoreError};

use super::column_type;
use super::existing::{self, FoundColumn};
use crate::bookkeeping;
use crate::connection::Connection;
use crate::error::NO_TABLE;
use crate::names::quote;

const LOOKING: &str = "looking at the tables of";

/// A table's definition as text, without what writing rows changes in it, and when it was made or
/// altered last. Empty: it is not there.
pub(crate) fn definition(connection: &mut Connection, table: &str) -> Result<String, StoreError> {
    let sql = format!("SHOW CREATE TABLE {}", quote(table));
    let rows = match connection.fetch(&sql, Params::Empty) {
        Err(fault) if fault.code() == Some(NO_TABLE) => return Ok(String::new()),
        other => other.map_err(|fault| connection.store_error(LOOKING, fault))?,
    };
    let text: Option<String> = rows.first().and_then(|row| row.get(1));
    let sql = "SELECT CAST(CREATE_TIME AS CHAR) FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    let rows = connection.rows(LOOKING, sql, Params::Positional(vec![table.into()]))?;
    let made: Option<String> = rows.first().and_then(|row| row.get(0)).flatten();
    Ok(format!(
        "{} made {}",
        without_counter(&text.unwrap_or_default()),
        made.unwrap_or_default()
    ))
}

fn without_counter(definition: &str) -> String {
    const COUNTER: &str = " AUTO_INCREMENT=";
    match definition.rsplit_once(COUNTER) {
        Some((head, tail)) => {
            format!(
                "{head}{}",
                tail.trim_start_matches(|c: char| c.is_ascii_digit())
            )
        }
        None => definition.to_owned(),
    }
}

/// A definition was changed while rows were written, which are taken back.
pub(crate) fn redefined(connection: &Connection, into: &str) -> StoreError {
    connection.unavailable(
        "writing rows to",
        &format!(
            "the definition of the table '{into}' was changed meanwhile; nothing was written, and it is looked at again"
        ),
    )
}

/// The types of a mapping's columns, with the character sets of texts.
fn shape(
    connection: &mut Connection,
    mapping: &MappingPlan,
    table: &str,
) -> Result<Shape, StoreError> {
    let found = existing::columns(connection, table)?;
    let shown = |column: &FoundColumn| match column.character_set() {
        Some(set) => format!("{} {set}", column.column_type),
        None => column.column_type.clone(),
    };
    let of = |name: &str| {
        found
            .iter()
            .find(|c| c.name.to_lowercase() == name.to_lowercase())
    };
    Ok(mapping
        .column_names()
        .filter_map(|name| Some((name.to_owned(), shown(of(name)?))))
        .collect())
}

/// Records how a table is that was just backfilled from a table like it, in the transaction that
/// backfilled it. Where it is another one by now, rows may have been changed on the way.
pub(crate) fn record_backfilled(
    connection: &mut Connection,
    mapping: &MappingPlan,
    staged: &str,
) -> Result<(), StoreError> {
    let is = shape(connection, mapping, &mapping.into)?;
    if is != shape(connection, mapping, staged)? {
        return Err(redefined(connection, &mapping.into));
    }
    match mapping.options.flag(EXISTING) {
        true => record(connection, mapping, &is),
        false => Ok(()),
    }
}

fn record(
    connection: &mut Connection,
    mapping: &MappingPlan,
    shape: &Shape,
) -> Result<(), StoreError> {
    let text = serde_json::json!(shape).to_string();
    bookkeeping::record_shape(connection, &mapping.into, &text)
        .map_err(|fault| connection.store_error("recording the shape of a table in", fault))
}

/// What the columns of a table were when onelog backfilled it, and are.
pub(crate) struct Backfilled {
    was: Option<Shape>,
    is: Shape,
}

impl Backfilled {
    /// Looks at a table, and notes what may have changed its values.
    pub(crate) fn look(
        connection: &mut Connection,
        mapping: &MappingPlan,
        narrowed: &mut Narrowed,
    ) -> Result<Self, StoreError> {
        let was = match mapping.options.flag(EXISTING) {
            true => bookkeeping::recorded_shape(connection, &mapping.into)
                .map_err(|fault| connection.store_error(LOOKING, fault))?
                .map(|known| serde_json::from_str(&known).unwrap_or_default()),
            false => Some(exact_shape(mapping)),
        };
        let is = shape(connection, mapping, &mapping.into)?;
        // News are seen by what is kept of them.
        let _ = was
            .as_ref()
            .is_some_and(|was| narrowed.note(was, &is, keeps_values));
        Ok(Self { was, is })
    }

    /// Fails where values may have changed since onelog backfilled the table. A shape of an
    /// existing table that has only grown since is recorded, and so is the first one.
    pub(crate) fn check(
        &self,
        connection: &mut Connection,
        mapping: &MappingPlan,
        narrowed: &Narrowed,
    ) -> Result<(), StoreError> {
        if !narrowed.is_empty() {
            return Err(StoreError::mismatch(
                mapping,
                narrowed.say(&self.is).join("; "),
                Remedy::Said,
            ));
        }
        match &self.was {
            Some(was) if mapping.options.flag(EXISTING) && *was != self.is => {
                record(connection, mapping, &self.is)
            }
            _ => Ok(()),
        }
    }
}

/// The shape of a table that onelog makes.
fn exact_shape(mapping: &MappingPlan) -> Shape {
    let column = |(n, column): (usize, &ColumnPlan)| {
        let exact = column_type(mapping, n);
        let shown = match exact.starts_with("varchar") || exact == "longtext" {
            true => format!("{exact} utf8mb4"),
            false => exact,
        };
        (column.name.clone(), shown)
    };
    mapping.columns.iter().enumerate().map(column).collect()
}

/// A type in its parts: `decimal(10,2) unsigned`, `varchar(3) utf8mb4`.
struct Parts<'t> {
    name: &'t str,
    numbers: Vec<u64>,
    unsigned: bool,
    rest: &'t str,
}

fn parts(text: &str) -> Parts<'_> {
    let end = text.find(['(', ' ']).unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    let (inside, behind) = match behind.strip_prefix('(').and_then(|b| b.split_once(')')) {
        Some((inside, behind)) => (inside, behind),
        None => ("", behind),
    };
    let rest = behind.trim_start();
    let unsigned = rest.strip_prefix("unsigned");
    Parts {
        name,
        numbers: inside.split(',').filter_map(|n| n.parse().ok()).collect(),
        unsigned: unsigned.is_some(),
        rest: unsigned.unwrap_or(rest).trim_start(),
    }
}

/// Whether every value of a column's old type is the same value in the new one.
fn keeps_values(was: &str, is: &str) -> bool {
    const INTEGERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];
    const TEXTS: [&str; 4] = ["tinytext", "text", "mediumtext", "longtext"];
    const BYTES: [&str; 4] = ["tinyblob", "blob", "mediumblob", "longblob"];
    if was == is {
        return true;
    }
    let (was, is) = (parts(was), parts(is));
    let rank = |of: &[&str], name: &str| of.iter().position(|known| *known == name);
    if let (Some(from), Some(to)) = (rank(&INTEGERS, was.name), rank(&INTEGERS, is.name)) {
        return match (was.unsigned, is.unsigned) {
            (true, false) => from < to,
            (was, is) => was == is && from <= to,
        };
    }
    let first = |parts: &Parts<'_>| parts.numbers.first().copied().unwrap_or(0);
    let is_larger = |limited: &str, unlimited: &[&str]| {
        match (was.name == limited, is.name == limited) {
            (true, true) => first(&was) <= first(&is),
            // The longest of these has 65,535 bytes.
            (true, false) => rank(unlimited, is.name).is_some_and(|rank| rank > 0),
            (false, true) => false,
            (false, false) => matches!(
                (rank(unlimited, was.name), rank(unlimited, is.name)),
                (Some(from), Some(to)) if from <= to
            ),
        }
    };
    if is_larger("varchar", &TEXTS) {
        return was.rest == is.rest || is.rest == "utf8mb4";
    }
    if is_larger("varbinary", &BYTES) {
        return true;
    }
    match (was.name, is.name, &was.numbers[..], &is.numbers[..]) {
        ("decimal", "decimal", [all, behind], [new_all, new_behind]) => {
            behind <= new_behind
                && all.saturating_sub(*behind) <= new_all.saturating_sub(*new_behind)
                && (was.unsigned || !is.unsigned)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wider_column_is_known_to_keep_its_values() {
        for (was, is) in [
            ("int(11)", "bigint(20)"),
            ("int(11)", "int(10)"),
            ("int(10) unsigned", "bigint(20)"),
            ("varchar(3) latin1", "varchar(4) utf8mb4"),
            ("varchar(300) utf8mb4", "text utf8mb4"),
            ("text utf8mb4", "longtext utf8mb4"),
            ("varbinary(9)", "blob"),
            ("decimal(8,2)", "decimal(10,3)"),
            ("decimal(8,2) unsigned", "decimal(8,2)"),
        ] {
            assert!(keeps_values(was, is), "{was} {is}");
        }
        for (was, is) in [
            ("bigint(20)", "int(11)"),
            ("int(11)", "bigint(20) unsigned"),
            ("bigint(20) unsigned", "bigint(20)"),
            ("varchar(4) utf8mb4", "varchar(3) utf8mb4"),
            ("varchar(4) utf8mb4", "varchar(4) latin1"),
            ("varchar(300) utf8mb4", "tinytext utf8mb4"),
            ("longtext utf8mb4", "varchar(9) utf8mb4"),
            ("decimal(8,2)", "decimal(8,3)"),
            ("decimal(10,2)", "decimal(9,2)"),
            ("decimal(8,2)", "decimal(8,2) unsigned"),
            ("datetime(6)", "timestamp(6)"),
        ] {
            assert!(!keeps_values(was, is), "{was} {is}");
        }
    }

    #[test]
    fn the_counter_of_a_table_is_no_part_of_its_definition() {
        assert_eq!(
            without_counter("CREATE TABLE `t` (…) ENGINE=InnoDB AUTO_INCREMENT=17 COMMENT='x'"),
            "CREATE TABLE `t` (…) ENGINE=InnoDB COMMENT='x'"
        );
        assert_eq!(without_counter("CREATE TABLE `t`"), "CREATE TABLE `t`");
    }
}
