//! The tables, statements and triggers of a mapping, as SQL text; whose a table is, and whether it
//! still has its shape.
//!
//! With a full-text index a table gets the column `_row`, because the index refers to rows by a
//! number that must survive `VACUUM`. The index is external-content: it holds no second copy of the
//! text. Triggers keep it in step in the same statement, for changes by hand as well.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::classify;
use onelog_mapping::{ColumnType, MappingPlan};
use onelog_store::StoreError;

/// The statements of one mapping.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) upsert: String,
    pub(super) load: String,
    pub(super) delete: String,
}

impl Statements {
    pub(super) fn new(mapping: &MappingPlan) -> Self {
        let insert = |table: &str| {
            let marks: Vec<String> = (1..=mapping.columns.len())
                .map(|n| format!("?{n}"))
                .collect();
            format!(
                "INSERT INTO {} ({}) VALUES ({})",
                quote(table),
                list(mapping.column_names()),
                marks.join(", ")
            )
        };
        let key = quote(&mapping.columns[mapping.key].name);
        let sets: Vec<String> = mapping
            .columns
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != mapping.key)
            .map(|(_, column)| format!("{0} = excluded.{0}", quote(&column.name)))
            .collect();
        let action = if sets.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", sets.join(", "))
        };
        Self {
            upsert: format!("{} ON CONFLICT ({key}) DO {action}", insert(&mapping.into)),
            load: insert(&staging_name(mapping)),
            delete: format!("DELETE FROM {} WHERE {key} = ?1", quote(&mapping.into)),
        }
    }
}

/// An identifier, safe whatever it contains.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

pub(super) fn staging_name(mapping: &MappingPlan) -> String {
    format!("onelog_new_{}", mapping.into)
}

pub(super) fn index_name(mapping: &MappingPlan) -> String {
    format!("{}_fts", mapping.into)
}

const fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text
        | ColumnType::Json
        | ColumnType::Numeric
        | ColumnType::Timestamp
        | ColumnType::Date
        | ColumnType::Uuid
        | ColumnType::List(_) => "TEXT",
        ColumnType::Integer | ColumnType::Boolean => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Blob => "BLOB",
    }
}

pub(super) fn create_table(mapping: &MappingPlan, name: &str) -> String {
    let mut columns = Vec::with_capacity(mapping.columns.len() + 1);
    let indexed = !mapping.full_text.is_empty();
    if indexed {
        columns.push("_row INTEGER PRIMARY KEY NOT NULL".to_owned());
    }
    for (n, column) in mapping.columns.iter().enumerate() {
        let role = match (n == mapping.key, indexed) {
            (true, false) => " PRIMARY KEY NOT NULL",
            (true, true) => " NOT NULL UNIQUE",
            (false, _) => "",
        };
        columns.push(format!(
            "{} {}{role}",
            quote(&column.name),
            sql_type(column.kind)
        ));
    }
    format!(
        "CREATE TABLE {} ({}) STRICT",
        quote(name),
        columns.join(", ")
    )
}

/// The columns of the index: the key, which is stored and not searched, and the searched ones.
fn index_columns(mapping: &MappingPlan, prefix: &str) -> String {
    let names = std::iter::once(mapping.key)
        .filter(|key| !mapping.full_text.contains(key))
        .chain(mapping.full_text.iter().copied());
    let quoted = names.map(|n| format!("{prefix}{}", quote(&mapping.columns[n].name)));
    quoted.collect::<Vec<_>>().join(", ")
}

/// The index and its three triggers, by name.
pub(super) fn index_objects(mapping: &MappingPlan) -> Vec<(String, String)> {
    if mapping.full_text.is_empty() {
        return Vec::new();
    }
    let table = quote(&mapping.into);
    let name = index_name(mapping);
    let index = quote(&name);
    let columns = index_columns(mapping, "");
    let key = quote(&mapping.columns[mapping.key].name);
    let declared = if mapping.full_text.contains(&mapping.key) {
        columns.clone()
    } else {
        columns.replacen(&key, &format!("{key} UNINDEXED"), 1)
    };
    let insert = format!(
        "INSERT INTO {index} (rowid, {columns}) VALUES (new._row, {});",
        index_columns(mapping, "new.")
    );
    let delete = format!(
        "INSERT INTO {index} ({index}, rowid, {columns}) VALUES ('delete', old._row, {});",
        index_columns(mapping, "old.")
    );
    let changed: Vec<String> = std::iter::once(mapping.key)
        .chain(mapping.full_text.iter().copied())
        .map(|n| quote(&mapping.columns[n].name))
        .map(|column| format!("old.{column} IS NOT new.{column}"))
        .collect();
    let trigger = |event: &str, when: &str, body: &str| {
        let name = format!("{name}_{}", event.to_ascii_lowercase());
        let sql = format!(
            "CREATE TRIGGER {} AFTER {event} ON {table}{when} BEGIN {body} END",
            quote(&name)
        );
        (name, sql)
    };
    vec![
        (
            name.clone(),
            format!(
                "CREATE VIRTUAL TABLE {index} USING fts5({declared}, content={table}, content_rowid=_row)"
            ),
        ),
        trigger("INSERT", "", &insert),
        trigger("DELETE", "", &delete),
        trigger(
            "UPDATE",
            &format!(" WHEN old._row IS NOT new._row OR {}", changed.join(" OR ")),
            &format!("{delete} {insert}"),
        ),
    ]
}

/// Puts a filled staging table in the place of the table, and makes its index.
pub(super) fn swap(
    transaction: &Transaction<'_>,
    sink: &str,
    mapping: &MappingPlan,
) -> rusqlite::Result<()> {
    let mut sql = format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {}; ALTER TABLE {} RENAME TO {};",
        quote(&index_name(mapping)),
        quote(&mapping.into),
        quote(&staging_name(mapping)),
        quote(&mapping.into)
    );
    let objects = index_objects(mapping);
    for (_, create) in &objects {
        sql.push_str(create);
        sql.push(';');
    }
    let mut owned = vec![mapping.into.clone()];
    if !objects.is_empty() {
        let index = quote(&index_name(mapping));
        sql.push_str(&format!(
            "INSERT INTO {index} ({index}) VALUES ('rebuild');"
        ));
        owned.push(index_name(mapping));
    } else {
        transaction.execute(
            "DELETE FROM onelog_tables WHERE name = ?1",
            params![index_name(mapping)],
        )?;
    }
    transaction.execute_batch(&sql)?;
    for name in owned {
        transaction.execute(
            "INSERT INTO onelog_tables (name, sink) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET sink = excluded.sink",
            params![name, sink],
        )?;
    }
    Ok(())
}

/// Refuses names that a rebuild may not replace: whatever onelog did not make, or made for another
/// sink. An empty table of exactly the right shape may be replaced.
pub(super) fn check_owner(
    connection: &Connection,
    path: &Path,
    sink: &str,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let failed = |error| classify("looking at the tables of", path, error);
    for name in [mapping.into.clone(), index_name(mapping)] {
        let is_index = name != mapping.into;
        let owner = owner(connection, &name).map_err(failed)?;
        let taken = |what: String| {
            Err(StoreError::NotOwner {
                into: name.clone(),
                what,
            })
        };
        match (kind_of(connection, &name).map_err(failed)?, owner) {
            (None, _) | (Some(_), Some(None)) => {}
            (Some(_), Some(Some(owner))) if owner == sink => {}
            (Some(_), Some(Some(owner))) => {
                return taken(format!(
                    "it belongs to the sink '{owner}'; choose another name for 'into'"
                ));
            }
            // Without a search index of ours the name is not touched.
            (Some(_), None) if is_index && mapping.full_text.is_empty() => {}
            (Some(kind), None) if kind != "table" || is_index => {
                return taken(format!(
                    "a {kind} of this name is there that onelog did not make; choose another name for 'into'"
                ));
            }
            (Some(_), None) => {
                let misfits = misfits(connection, mapping).map_err(failed)?;
                let empty: bool = connection
                    .query_row(
                        &format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(&name)),
                        [],
                        |r| r.get(0),
                    )
                    .map_err(failed)?;
                if !misfits.is_empty() || !empty {
                    let mut why = misfits;
                    if !empty {
                        why.insert(0, "it has rows".into());
                    }
                    return taken(format!(
                        "a table of this name is there that onelog did not make ({}); choose another name for 'into', or drop the table",
                        why.join("; ")
                    ));
                }
            }
        }
    }
    Ok(())
}

fn owner(connection: &Connection, name: &str) -> rusqlite::Result<Option<Option<String>>> {
    connection
        .query_row(
            "SELECT sink FROM onelog_tables WHERE name = ?1",
            params![name],
            |row| row.get(0),
        )
        .optional()
}

fn kind_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT type FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
            params![name],
            |row| row.get(0),
        )
        .optional()
}

/// Whether the table and its index still are what this mapping makes.
pub(super) fn check_shape(
    connection: &Connection,
    path: &Path,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let failed = |error| classify("looking at the tables of", path, error);
    let mut what = match kind_of(connection, &mapping.into)
        .map_err(failed)?
        .as_deref()
    {
        Some("table") => misfits(connection, mapping).map_err(failed)?,
        Some(other) => vec![format!("a {other} has its name")],
        None => vec!["it is not there".to_owned()],
    };
    for (name, sql) in index_objects(mapping) {
        let found: Option<String> = connection
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = ?1",
                params![name],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        match found {
            Some(found) if found == sql => {}
            Some(_) => what.push(format!("'{name}' of its full-text index was changed")),
            None => what.push(format!("'{name}' of its full-text index is not there")),
        }
    }
    if what.is_empty() {
        return Ok(());
    }
    Err(StoreError::SchemaMismatch {
        into: mapping.into.clone(),
        what: what.join("; "),
    })
}

#[derive(Debug, PartialEq)]
struct Shape {
    kind: String,
    not_null: bool,
    key: bool,
}

/// What of the table's columns differs from the mapping's, in words.
fn misfits(connection: &Connection, mapping: &MappingPlan) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let mut found: Vec<(String, Shape)> = statement
        .query_map(params![mapping.into], |row| {
            let shape = Shape {
                kind: row.get(1)?,
                not_null: row.get(2)?,
                key: row.get::<_, i64>(3)? == 1,
            };
            Ok((row.get(0)?, shape))
        })?
        .collect::<Result<_, _>>()?;
    let mut wrong = Vec::new();
    for (name, shape) in expected(mapping) {
        let at = found
            .iter()
            .position(|(n, _)| n.eq_ignore_ascii_case(&name));
        match at.map(|at| found.remove(at).1) {
            None => wrong.push(format!("the column '{name}' is missing")),
            Some(is) if is != shape => wrong.push(format!(
                "the column '{name}' is {}, and should be {}",
                is.words(),
                shape.words()
            )),
            Some(_) => {}
        }
    }
    for (name, _) in found {
        wrong.push(format!("the column '{name}' is not in the mapping"));
    }
    let strict: Option<bool> = connection
        .query_row(
            "SELECT strict FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE",
            params![mapping.into],
            |row| row.get(0),
        )
        .optional()?;
    if strict == Some(false) {
        wrong.push("the table is not STRICT".into());
    }
    Ok(wrong)
}

impl Shape {
    fn words(&self) -> String {
        let null = if self.not_null { " NOT NULL" } else { "" };
        let key = if self.key { " PRIMARY KEY" } else { "" };
        format!("{}{key}{null}", self.kind)
    }
}

fn expected(mapping: &MappingPlan) -> Vec<(String, Shape)> {
    let indexed = !mapping.full_text.is_empty();
    let shape = |kind: &str, not_null, key| Shape {
        kind: kind.to_owned(),
        not_null,
        key,
    };
    let mut out = Vec::new();
    if indexed {
        out.push(("_row".to_owned(), shape("INTEGER", true, true)));
    }
    for (n, column) in mapping.columns.iter().enumerate() {
        let is_key = n == mapping.key;
        let shape = shape(sql_type(column.kind), is_key, is_key && !indexed);
        out.push((column.name.clone(), shape));
    }
    out
}
