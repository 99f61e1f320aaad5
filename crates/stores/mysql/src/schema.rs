//! The tables that onelog makes: their SQL, whose they are, and whether they still have their shape.
//!
//! Whose a table is stands in its comment, which moves with it when it is renamed.

use mysql_async::{Params, Value};

use super::connection::{Flavour, Link};
use super::existing;
use super::names::{NAME_CHARS_MAX, literal, quote};
use super::rows::{DECIMAL_DIGITS, DECIMAL_SCALE, Decimal, KEY_BYTES_MAX, KEY_CHARS_MAX};
use onelog_mapping::{ColumnType, EXISTING, MappingPlan};
use onelog_store::StoreError;

const LOOKING: &str = "looking at the tables of";
const MADE_FOR: &str = "onelog: sink ";
const GENERATION: &str = ", generation ";
const RELEASED: &str = "onelog: no sink";

/// The comment of a sink's table.
pub(super) fn comment(sink: &str, generation: u64) -> String {
    format!("{MADE_FOR}{sink}{GENERATION}{generation}")
}

/// The comment of a table whose sink was removed.
pub(super) fn released_comment(generation: u64) -> String {
    format!("{RELEASED}{GENERATION}{generation}")
}

/// Whose a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Not made by onelog: a table, a view …
    Foreign(String),
    /// A removed sink's, made by its rebuild of this number.
    Nobody(u64),
    /// A sink's, made by its rebuild of this number.
    Sink(String, u64),
}

/// A table as it stands.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) kind: String,
    pub(super) engine: String,
    pub(super) owner: Owner,
}

/// A column as it stands.
#[derive(Clone, Debug)]
pub(super) struct FoundColumn {
    pub(super) name: String,
    /// The bare type, for example `decimal`.
    pub(super) data_type: String,
    /// The whole type, for example `decimal(10,2) unsigned`.
    pub(super) column_type: String,
    pub(super) nullable: bool,
    pub(super) collation: Option<String>,
    pub(super) decimal: Decimal,
    pub(super) fraction_digits: u64,
    pub(super) has_default: bool,
    pub(super) extra: String,
}

/// What writing into a table needs to know of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) decimals: Vec<Decimal>,
    /// Another unique index than the key's: a row can stand in the way of another one.
    pub(super) second_unique: bool,
    /// Whether a row can be deleted and inserted again without loss: there are no columns that the
    /// mapping does not fill, and no other table refers to it.
    pub(super) renewable: bool,
}

/// The type of a column that onelog makes, as the server spells it.
fn column_type(mapping: &MappingPlan, n: usize) -> String {
    let is_key = n == mapping.key;
    match mapping.columns[n].kind {
        ColumnType::Text if is_key => format!("varchar({KEY_CHARS_MAX})"),
        ColumnType::Blob if is_key => format!("varbinary({KEY_BYTES_MAX})"),
        ColumnType::Text | ColumnType::Json | ColumnType::List(_) => "longtext".into(),
        ColumnType::Integer => "bigint".into(),
        ColumnType::Real => "double".into(),
        ColumnType::Boolean => "tinyint(1)".into(),
        ColumnType::Blob => "longblob".into(),
        ColumnType::Numeric => format!("decimal({DECIMAL_DIGITS},{DECIMAL_SCALE})"),
        ColumnType::Timestamp => "datetime(6)".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Uuid => "binary(16)".into(),
    }
}

fn is_text(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Text | ColumnType::Json)
}

/// The statement that makes a mapping's table under some name.
pub(super) fn create_table(
    flavour: Flavour,
    mapping: &MappingPlan,
    name: &str,
    comment: &str,
) -> String {
    let mut lines: Vec<String> = mapping
        .columns
        .iter()
        .enumerate()
        .map(|(n, column)| {
            let exact = match is_text(column.kind) {
                true => format!(
                    " CHARACTER SET utf8mb4 COLLATE {}",
                    flavour.exact_collation()
                ),
                false => String::new(),
            };
            let null = if n == mapping.key { "NOT NULL" } else { "NULL" };
            format!(
                "{} {}{exact} {null}",
                quote(&column.name),
                column_type(mapping, n)
            )
        })
        .collect();
    let key = quote(&mapping.columns[mapping.key].name);
    lines.push(format!("PRIMARY KEY ({key})"));
    format!(
        "CREATE TABLE {} ({}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COMMENT={}",
        quote(name),
        lines.join(", "),
        literal(comment)
    )
}

/// Looks a name up; `None` when nothing has it.
pub(super) fn find(link: &mut Link, name: &str) -> Result<Option<Found>, StoreError> {
    let rows = link.rows(
        LOOKING,
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COMMENT FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        Params::Positional(vec![Value::from(name)]),
    )?;
    let folds = link.folds_names();
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
                owner: owner_of(&kind, &text(3)),
                kind,
                engine: text(2),
            }));
        }
    }
    Ok(None)
}

fn owner_of(kind: &str, comment: &str) -> Owner {
    if kind != "table" {
        return Owner::Foreign(kind.to_owned());
    }
    let made = comment
        .rsplit_once(GENERATION)
        .and_then(|(whose, number)| Some((whose, number.parse().ok()?)));
    match made {
        Some((RELEASED, generation)) => Owner::Nobody(generation),
        Some((whose, generation)) if whose.starts_with(MADE_FOR) => {
            Owner::Sink(whose[MADE_FOR.len()..].to_owned(), generation)
        }
        _ => Owner::Foreign(kind.to_owned()),
    }
}

/// The names of tables that begin so.
pub(super) fn names_with_prefix(link: &mut Link, prefix: &str) -> Result<Vec<String>, StoreError> {
    let rows = link.rows(
        LOOKING,
        "SELECT TABLE_NAME FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND LEFT(TABLE_NAME, ?) = ?",
        Params::Positional(vec![
            Value::from(prefix.chars().count()),
            Value::from(prefix),
        ]),
    )?;
    Ok(rows.iter().filter_map(|row| row.get(0)).collect())
}

/// Refuses names that a rebuild may not replace, and tables to be fitted that do not fit.
pub(super) fn check_target(
    link: &mut Link,
    sink: &str,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    if mapping.options.flag(EXISTING) {
        return existing::check(link, mapping);
    }
    let into = &mapping.into;
    for name in mapping.column_names().chain([into.as_str()]) {
        if name.chars().count() > NAME_CHARS_MAX || name.ends_with(' ') {
            return Err(StoreError::SchemaMismatch {
                into: into.clone(),
                what: format!(
                    "the name '{name}' is not possible: names have at most {NAME_CHARS_MAX} characters here and do not end with a blank; change the definition"
                ),
            });
        }
    }
    if let Some(dependent) = dependents(link, into)?.first() {
        return Err(StoreError::SchemaMismatch {
            into: into.clone(),
            what: format!(
                "the foreign key {dependent} refers to it and would be carried away with the rows that a rebuild replaces; drop that key, or make the table yours and set 'existing'"
            ),
        });
    }
    let taken = |what: String| {
        Err(StoreError::NotOwner {
            into: into.clone(),
            what,
        })
    };
    match find(link, into)?.map(|found| found.owner) {
        None | Some(Owner::Nobody(_)) => Ok(()),
        Some(Owner::Sink(owner, _)) if owner == sink => Ok(()),
        Some(Owner::Sink(owner, _)) => taken(format!(
            "it belongs to the sink '{owner}'; choose another name for 'into'"
        )),
        Some(Owner::Foreign(kind)) => taken(format!(
            "a {kind} of this name is there that onelog did not make; choose another name for 'into', drop the {kind}, or set 'existing' to fill it as it is"
        )),
    }
}

/// The foreign keys of other tables that refer to a table, by name.
fn dependents(link: &mut Link, table: &str) -> Result<Vec<String>, StoreError> {
    let rows = link.rows(
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
pub(super) fn check_shape(link: &mut Link, mapping: &MappingPlan) -> Result<(), StoreError> {
    if mapping.options.flag(EXISTING) {
        return existing::check(link, mapping);
    }
    let wrong = match find(link, &mapping.into)? {
        None => vec!["it is not there".to_owned()],
        Some(found) if found.kind != "table" => vec![format!("a {} has its name", found.kind)],
        Some(found) => misfits(link, mapping, &found)?,
    };
    if wrong.is_empty() {
        return Ok(());
    }
    Err(StoreError::SchemaMismatch {
        into: mapping.into.clone(),
        what: wrong.join("; "),
    })
}

/// What of a table's shape differs from the mapping's, in words.
pub(super) fn misfits(
    link: &mut Link,
    mapping: &MappingPlan,
    found: &Found,
) -> Result<Vec<String>, StoreError> {
    let mut columns = columns(link, &mapping.into)?;
    let collation = link.flavour().exact_collation();
    let mut wrong = Vec::new();
    if !found.engine.eq_ignore_ascii_case("InnoDB") {
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
    if !unique_indexes(link, &mapping.into)?
        .iter()
        .any(|index| index.name == "PRIMARY" && index.covers_exactly(key))
    {
        wrong.push(format!("the column '{key}' is not its primary key"));
    }
    Ok(wrong)
}

/// MariaDB tells a width of whole numbers that means nothing.
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
pub(super) fn columns(link: &mut Link, table: &str) -> Result<Vec<FoundColumn>, StoreError> {
    let rows = link.rows(
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

/// A unique index: its columns, and whether it takes them whole.
#[derive(Clone, Debug, Default)]
pub(super) struct UniqueIndex {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    pub(super) whole: bool,
}

impl UniqueIndex {
    /// Whether it makes this column alone unique.
    pub(super) fn covers_exactly(&self, column: &str) -> bool {
        self.whole
            && matches!(&self.columns[..], [one] if one.to_lowercase() == column.to_lowercase())
    }
}

/// The unique indexes of a table, its primary key among them.
pub(super) fn unique_indexes(link: &mut Link, table: &str) -> Result<Vec<UniqueIndex>, StoreError> {
    let rows = link.rows(
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
pub(super) fn facts(link: &mut Link, mapping: &MappingPlan) -> Result<Facts, StoreError> {
    let found = columns(link, &mapping.into)?;
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
    let others = unique_indexes(link, &mapping.into)?
        .into_iter()
        .filter(|index| !index.covers_exactly(key));
    Ok(Facts {
        decimals,
        second_unique: others.count() > 0,
        renewable: found.len() <= mapping.columns.len()
            && dependents(link, &mapping.into)?.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_tells_whose_a_table_is() {
        let ours = comment("a-sink.2", 17);
        assert_eq!(owner_of("table", &ours), Owner::Sink("a-sink.2".into(), 17));
        assert_eq!(owner_of("table", &released_comment(3)), Owner::Nobody(3));
        for (kind, text) in [("table", ""), ("view", ours.as_str()), ("table", "orders")] {
            assert_eq!(owner_of(kind, text), Owner::Foreign(kind.into()));
        }
        assert_eq!(without_width("bigint(20) unsigned"), "bigint unsigned");
        assert_eq!(without_width("bigint"), "bigint");
        assert_eq!(without_width("tinyint(1)"), "tinyint(1)");
    }
}
