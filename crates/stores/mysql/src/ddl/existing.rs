//! The tables that are there: what they are like, whether a sink may have their names, and whether
//! they still have the shape of their mapping.

use mysql_async::{Params, Value};
use onelog_mapping::{EXISTING, MappingPlan};
use onelog_store::{Remedy, StoreError, TABLE_RENEWED};

use super::user_table::{check_existing, delete_triggers};
use super::{column_type, is_text, shape};
use crate::bookkeeping::{Mark, OWNERS, name_owner, not_owner, read_record};
use crate::connection::Connection;
use crate::encode::Decimal;
use crate::error::{NO_COLUMN, NO_TABLE};
use crate::names::{NAME_CHARS_MAX, Names, quote};

pub(crate) const LOOKING: &str = "looking at the tables of";

#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) kind: String,
    pub(crate) engine: String,
    /// `None`: onelog did not make it.
    pub(crate) mark: Option<Mark>,
}

/// As MariaDB calls a table that keeps its former rows.
const VERSIONED: &str = "system versioned";

impl Found {
    pub(crate) fn is_table(&self) -> bool {
        self.kind == "table"
    }

    pub(crate) fn is_versioned(&self) -> bool {
        self.kind == VERSIONED
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.engine.eq_ignore_ascii_case("InnoDB")
    }
}

/// What makes a plain table of one with system versioning.
pub(crate) fn end_versioning(table: &str) -> String {
    format!(
        "ALTER TABLE {} DROP SYSTEM VERSIONING, which also deletes the former rows that it keeps",
        quote(table)
    )
}

#[derive(Clone, Debug)]
pub(crate) struct FoundColumn {
    pub(crate) name: String,
    /// The bare type, for example `decimal`.
    pub(crate) data_type: String,
    /// The whole type, for example `decimal(10,2) unsigned`.
    pub(crate) column_type: String,
    pub(crate) nullable: bool,
    pub(crate) collation: Option<String>,
    pub(crate) decimal: Decimal,
    pub(crate) fraction_digits: u64,
    pub(crate) has_default: bool,
    pub(crate) extra: String,
}

impl FoundColumn {
    /// A collation's name begins with that of its character set.
    pub(crate) fn character_set(&self) -> Option<&str> {
        self.collation.as_deref()?.split('_').next()
    }
}

/// What writing into a table needs to know of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TargetTable {
    /// The definition that the rest was read of.
    pub(crate) definition: String,
    pub(crate) decimals: Vec<Decimal>,
    /// Another unique index than the key's: a row can conflict with another one.
    pub(crate) second_unique: bool,
    /// Whether a row can be deleted and inserted again without loss: there are no columns that the
    /// mapping does not fill, no other table refers to it, and no trigger runs for deleted rows.
    pub(crate) renewable: bool,
    /// See [`record_columns`]. `None`: rows are loaded without their records.
    pub(crate) record_columns: Option<[String; 2]>,
}

/// Looks a name up; `None` when nothing has it.
pub(crate) fn find_table(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<Found>, StoreError> {
    let rows = connection.rows(
        LOOKING,
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COMMENT FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        Params::Positional(vec![Value::from(name)]),
    )?;
    let folds = connection.folds_names();
    for row in rows {
        let text = |n| {
            row.get::<Option<String>, _>(n)
                .flatten()
                .unwrap_or_default()
        };
        let found = text(0);
        if found == name || (folds && found.to_lowercase() == name.to_lowercase()) {
            let kind = match text(1).as_str() {
                "BASE TABLE" => "table".to_owned(),
                other => other.to_lowercase(),
            };
            return Ok(Some(Found {
                mark: Mark::read(&text(3)).filter(|_| kind == "table" || kind == VERSIONED),
                kind,
                engine: text(2),
            }));
        }
    }
    Ok(None)
}

/// Refuses names that a rebuild may not replace, and existing tables that do not fit.
pub(crate) fn check_target(
    connection: &mut Connection,
    sink: &str,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let into = &mapping.into;
    let found = find_table(connection, into)?;
    let named =
        name_owner(connection, into, "").map_err(|fault| connection.store_error(LOOKING, fault))?;
    if let Some(owner) = named.as_ref().filter(|owner| owner.sink != sink) {
        return Err(not_owner(into, &owner.sink));
    }
    let mark = found.as_ref().and_then(|found| found.mark.as_ref());
    let is_of_name = mark.and_then(|mark| mark.names(connection, into));
    if let Some(mark) = mark
        && is_of_name != Some(false)
        && mark.sink != sink
        && has_made(connection, mark)?
    {
        return Err(not_owner(into, &mark.sink));
    }
    if mapping.options.flag(EXISTING) {
        return check_existing(connection, mapping);
    }
    for name in mapping.column_names().chain([into.as_str()]) {
        if name.chars().count() > NAME_CHARS_MAX || name.ends_with(' ') {
            let what = format!(
                "the name '{name}' is not possible: names have at most {NAME_CHARS_MAX} characters here and do not end with a blank; change the definition"
            );
            return Err(StoreError::mismatch(mapping, what, Remedy::Said));
        }
    }
    if let Some(dependent) = dependents(connection, into)?.first() {
        let what = format!(
            "the foreign key {dependent} refers to it and would be carried away with the rows that a rebuild replaces; drop that key, or make the table yours and set 'existing'"
        );
        return Err(StoreError::mismatch(mapping, what, Remedy::Said));
    }
    // Where an earlier version did not write the name down, the bookkeeping knows it.
    let is_ours = || named.is_some_and(|owner| owner.made) && mark.is_some_and(|m| m.sink == sink);
    let what = match &found {
        Some(found) if !is_of_name.unwrap_or_else(is_ours) => not_made(found, into),
        Some(found) if found.is_versioned() => format!(
            "it has system versioning, and its backfill would drop the former rows that it keeps; first {}",
            end_versioning(into)
        ),
        _ => return Ok(()),
    };
    Err(StoreError::NotOwner {
        into: into.clone(),
        owner: None,
        what,
    })
}

fn not_made(found: &Found, into: &str) -> String {
    let why = match found.mark {
        Some(_) => " (its comment is of another name, or of an earlier version: it may be a copy)",
        None => "",
    };
    let kind = match found.is_versioned() {
        true => "table with system versioning",
        false => &found.kind,
    };
    let backfill = match found {
        found if found.is_versioned() => format!(
            "drop the table, or set 'existing' to backfill it as it is, after {}",
            end_versioning(into)
        ),
        found if !found.is_table() => format!("or drop the {kind}"),
        found if !found.is_transactional() => format!(
            "drop the table, or set 'existing' to backfill it as it is, after ALTER TABLE {} ENGINE=InnoDB",
            quote(into)
        ),
        _ => "drop the table, or set 'existing' to backfill it as it is".to_owned(),
    };
    format!(
        "a {kind} of this name is there that onelog did not make{why}; choose another name for 'into', {backfill}"
    )
}

/// Whether the sink of a mark, whose name is nobody's by the bookkeeping, has made tables of its
/// generation: not so by its record where it was removed, nor where it was removed and taken over
/// again since.
fn has_made(connection: &mut Connection, mark: &Mark) -> Result<bool, StoreError> {
    let table = Names::new(&mark.sink).position();
    let found = read_record(connection, &table, &mark.sink, "");
    let found = found.map_err(|fault| connection.store_error(LOOKING, fault))?;
    if found.is_none_or(|found| found.generation < mark.generation) {
        return Ok(false);
    }
    // A sink that has the names of what it makes written down has given up the others.
    let names = connection.fetch(
        &format!("SELECT 1 FROM {OWNERS} WHERE sink = ? AND made LIMIT 1"),
        Params::Positional(vec![Value::from(&mark.sink)]),
    );
    match names {
        Ok(names) => Ok(names.is_empty()),
        // Written by an earlier version.
        Err(fault) if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) => Ok(true),
        Err(fault) => Err(connection.store_error(LOOKING, fault)),
    }
}

/// The foreign keys of other tables that refer to a table, by name.
fn dependents(connection: &mut Connection, table: &str) -> Result<Vec<String>, StoreError> {
    let rows = connection.rows(
        LOOKING,
        "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
         WHERE UNIQUE_CONSTRAINT_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME = ?",
        Params::Positional(vec![Value::from(table)]),
    )?;
    let name = |row: &mysql_async::Row| {
        let text = |n| {
            row.get::<Option<String>, _>(n)
                .flatten()
                .unwrap_or_default()
        };
        format!("'{}' of the table '{}'", text(1), text(0))
    };
    Ok(rows.iter().map(name).collect())
}

/// Whether a mapping's table still is what the mapping makes, or fits it.
pub(crate) fn check_shape(
    connection: &mut Connection,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    if mapping.options.flag(EXISTING) {
        return check_existing(connection, mapping);
    }
    let (wrong, remedy) = match find_table(connection, &mapping.into)? {
        None => (vec!["it is not there".to_owned()], Remedy::Rebuild),
        Some(found) if found.is_versioned() && found.mark.is_some() => {
            let what = format!(
                "it has been given system versioning, which a rebuild does not keep; {}, then run onelog sinks rebuild",
                end_versioning(&mapping.into)
            );
            (vec![what], Remedy::Said)
        }
        Some(found) if !found.is_table() => {
            let kind = match found.is_versioned() {
                true => "table with system versioning",
                false => &found.kind,
            };
            let what =
                format!("a {kind} has its name: drop or rename it, then run onelog sinks rebuild");
            (vec![what], Remedy::Said)
        }
        Some(found) => {
            let wrong = mismatches(connection, mapping, &found)?;
            match found.mark {
                None if !wrong.is_empty() => (vec![TABLE_RENEWED.to_owned()], Remedy::Said),
                _ => (wrong, Remedy::Rebuild),
            }
        }
    };
    if wrong.is_empty() {
        return Ok(());
    }
    Err(StoreError::mismatch(mapping, wrong.join("; "), remedy))
}

/// What of a table's shape differs from the mapping's.
pub(crate) fn mismatches(
    connection: &mut Connection,
    mapping: &MappingPlan,
    found: &Found,
) -> Result<Vec<String>, StoreError> {
    let mut columns = columns(connection, &mapping.into)?;
    let collation = connection.flavour().exact_collation();
    let mut wrong = Vec::new();
    if !found.is_transactional() {
        wrong.push(format!(
            "its storage engine is {}, which cannot undo a failed step; InnoDB is needed",
            found.engine
        ));
    }
    for (n, column) in mapping.columns.iter().enumerate() {
        let name = &column.name;
        let at = columns
            .iter()
            .position(|found| found.name.to_lowercase() == name.to_lowercase());
        let Some(at) = at else {
            wrong.push(format!("the column '{name}' is missing"));
            continue;
        };
        let is = columns.remove(at);
        let expected = column_type(mapping, n);
        let found_type = without_width(&is.column_type);
        if found_type != expected {
            wrong.push(format!(
                "the column '{name}' is {found_type}, and should be {expected}"
            ));
        }
        if is_text(column.kind) && is.collation.as_deref() != Some(collation) {
            wrong.push(format!(
                "the column '{name}' has the collation {}, and should have {collation}",
                is.collation.as_deref().unwrap_or("binary")
            ));
        }
        if is.nullable == (n == mapping.key) {
            let should = if n == mapping.key { "NOT NULL" } else { "NULL" };
            wrong.push(format!("the column '{name}' should be {should}"));
        }
    }
    for column in columns {
        wrong.push(format!(
            "the column '{}' is not in the mapping",
            column.name
        ));
    }
    let key = &mapping.columns[mapping.key].name;
    if !unique_indexes(connection, &mapping.into)?
        .iter()
        .any(|index| index.name == "PRIMARY" && index.covers_exactly(key))
    {
        wrong.push(format!("the column '{key}' is not its primary key"));
    }
    Ok(wrong)
}

/// MariaDB shows a width of whole numbers that means nothing.
fn without_width(column_type: &str) -> String {
    match column_type.split_once('(') {
        Some(("bigint", rest)) => {
            let behind = rest.split_once(')').map_or("", |(_, behind)| behind);
            format!("bigint{behind}")
        }
        _ => column_type.to_owned(),
    }
}

/// The columns of a table in their order.
pub(crate) fn columns(
    connection: &mut Connection,
    table: &str,
) -> Result<Vec<FoundColumn>, StoreError> {
    let rows = connection.rows(
        LOOKING,
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME,
           NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, COLUMN_DEFAULT IS NOT NULL, EXTRA
         FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
        Params::Positional(vec![Value::from(table)]),
    )?;
    let read = |row: &mysql_async::Row| {
        let text = |n| row.get::<Option<String>, _>(n).flatten();
        let number = |n| row.get::<Option<u64>, _>(n).flatten().unwrap_or(0);
        FoundColumn {
            name: text(0).unwrap_or_default(),
            data_type: text(1).unwrap_or_default().to_lowercase(),
            column_type: text(2).unwrap_or_default().to_lowercase(),
            nullable: text(3).as_deref() == Some("YES"),
            collation: text(4),
            decimal: Decimal {
                digits: u32::try_from(number(5)).unwrap_or(0),
                scale: u32::try_from(number(6)).unwrap_or(0),
            },
            fraction_digits: number(7),
            has_default: number(8) == 1,
            extra: text(9).unwrap_or_default().to_lowercase(),
        }
    };
    Ok(rows.iter().map(read).collect())
}

/// What the columns of a staged row's record are called beside these: its key, its offset.
pub(crate) fn record_columns(columns: &[FoundColumn]) -> [String; 2] {
    ["onelog_key", "onelog_offset"].map(|name| {
        let mut name = name.to_owned();
        while columns
            .iter()
            .any(|column| column.name.to_lowercase() == name)
        {
            name.push('_');
        }
        name
    })
}

/// A unique index: its columns, and whether it takes them whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) whole: bool,
}

impl UniqueIndex {
    /// Whether it makes this column alone unique.
    pub(crate) fn covers_exactly(&self, column: &str) -> bool {
        self.whole
            && matches!(&self.columns[..], [one] if one.to_lowercase() == column.to_lowercase())
    }
}

/// The unique indexes of a table, its primary key among them.
pub(crate) fn unique_indexes(
    connection: &mut Connection,
    table: &str,
) -> Result<Vec<UniqueIndex>, StoreError> {
    let rows = connection.rows(
        LOOKING,
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART IS NULL FROM information_schema.STATISTICS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND NON_UNIQUE = 0
         ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        Params::Positional(vec![Value::from(table)]),
    )?;
    let mut indexes: Vec<UniqueIndex> = Vec::new();
    for row in rows {
        let text = |n| {
            row.get::<Option<String>, _>(n)
                .flatten()
                .unwrap_or_default()
        };
        let whole = row.get::<Option<u64>, _>(2).flatten() == Some(1);
        match indexes.last_mut().filter(|index| index.name == text(0)) {
            Some(index) => {
                index.columns.push(text(1));
                index.whole &= whole;
            }
            None => indexes.push(UniqueIndex {
                name: text(0),
                columns: vec![text(1)],
                whole,
            }),
        }
    }
    Ok(indexes)
}

/// What writing into a mapping's table needs to know of it.
pub(crate) fn target_table(
    connection: &mut Connection,
    mapping: &MappingPlan,
) -> Result<TargetTable, StoreError> {
    // Read first: what changes behind it is noticed in the transaction that writes.
    let definition = shape::definition(connection, &mapping.into)?;
    let found = columns(connection, &mapping.into)?;
    let of = |name: &str| {
        found
            .iter()
            .find(|column| column.name.to_lowercase() == name.to_lowercase())
    };
    let decimals = mapping
        .column_names()
        .map(|name| match of(name) {
            Some(column) if column.data_type == "decimal" => column.decimal,
            _ => Decimal::default(),
        })
        .collect();
    let key = &mapping.columns[mapping.key].name;
    let others = unique_indexes(connection, &mapping.into)?
        .into_iter()
        .filter(|index| !index.covers_exactly(key));
    Ok(TargetTable {
        record_columns: Some(record_columns(&found)),
        definition,
        decimals,
        second_unique: others.count() > 0,
        renewable: found.len() <= mapping.columns.len()
            && dependents(connection, &mapping.into)?.is_empty()
            && delete_triggers(connection, &mapping.into)?.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_of_whole_numbers_means_nothing() {
        assert_eq!(without_width("bigint(20) unsigned"), "bigint unsigned");
        assert_eq!(without_width("bigint"), "bigint");
        assert_eq!(without_width("tinyint(1)"), "tinyint(1)");
    }
}
