//! The tables that are there: who owns them, and whether they still have the shape of their mapping.

use std::path::Path;

use onelog_mapping::MappingPlan;
use onelog_store::{Narrowed, Remedy, StoreError};
use rusqlite::{Connection, OptionalExtension, params};

use super::lost::taken_away;
use super::{index_name, index_objects, quote, sql_type};
use crate::bookkeeping::table_owner;
use crate::error::classify;

const TABLE: &str = "a table";
const VIRTUAL_TABLE: &str = "a virtual table";

/// Refuses names that a rebuild may not replace: what onelog did not make, or made for another
/// sink. An empty table of exactly the right shape may be replaced.
pub(crate) fn check_target(
    connection: &Connection,
    path: &Path,
    sink: &str,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let failed = |error| classify("looking at the tables of", path, error);
    for name in [mapping.into.clone(), index_name(mapping)] {
        let is_index = name != mapping.into;
        let owner = table_owner(connection, &name).map_err(failed)?;
        if is_index && owner.is_none() && mapping.full_text.is_empty() {
            // Without a search index of ours the name is not touched.
            continue;
        }
        let Some(kind) = find_table(connection, &name).map_err(failed)? else {
            continue;
        };
        let taken = |what: String| {
            Err(StoreError::NotOwner {
                into: name.clone(),
                owner: None,
                what,
            })
        };
        if is_stranger(&kind, is_index) || is_index && owner.is_none() {
            return taken(format!(
                "{kind} of this name is there that onelog did not make: drop or rename it, or choose another name for 'into'"
            ));
        }
        match owner {
            Some(None) => {}
            Some(Some(owner)) if owner == sink => {
                // None of the index, which is a virtual table.
                let gone = foreign_by(connection, &name).map_err(failed)?;
                if !gone.is_empty() {
                    return taken(format!(
                        "{}; drop or rename what is there, or choose another name for 'into'",
                        not_made(&gone)
                    ));
                }
            }
            Some(Some(owner)) => {
                let fact = format!("it belongs to the sink '{owner}'");
                return Err(StoreError::owned(name, &owner, fact));
            }
            None => {
                let why = why_not_free(connection, mapping).map_err(failed)?;
                if !why.is_empty() {
                    return taken(format!(
                        "a table of this name is there that onelog did not make ({}); choose another name for 'into', or drop the table",
                        why.join("; ")
                    ));
                }
            }
        }
    }
    check_triggers(connection, path, mapping)
}

/// What keeps a table that onelog did not make from being replaced.
fn why_not_free(connection: &Connection, mapping: &MappingPlan) -> rusqlite::Result<Vec<String>> {
    let mut why = mismatches(connection, mapping)?;
    if !is_empty(connection, &mapping.into)? {
        why.insert(0, "it has rows".into());
    }
    Ok(why)
}

/// Whether what has a name is not what onelog makes under it.
fn is_stranger(kind: &str, is_index: bool) -> bool {
    kind != if is_index { VIRTUAL_TABLE } else { TABLE }
}

/// Refuses names of the index's triggers that triggers of other tables have: a table that is renamed
/// takes its own along.
fn check_triggers(
    connection: &Connection,
    path: &Path,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let failed = |error| classify("looking at the triggers of", path, error);
    let mut others = Vec::new();
    for (name, _) in index_objects(mapping).iter().skip(1) {
        let table: Option<String> = connection
            .query_row(
                "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger'
                   AND name = ?1 COLLATE NOCASE AND tbl_name <> ?2 COLLATE NOCASE",
                params![name, mapping.into],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        others.extend(table.map(|table| format!("'{name}' of '{table}'")));
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(StoreError::NotOwner {
        into: index_name(mapping),
        owner: None,
        what: format!(
            "triggers of other tables have the names of its own: drop {}, or choose another name for 'into'",
            others.join(", ")
        ),
    })
}

fn is_empty(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(table));
    connection.query_row(&sql, [], |row| row.get(0))
}

/// The columns whose absence shows that rows under the name of the sink's own table are not onelog's.
fn foreign_by(connection: &Connection, name: &str) -> rusqlite::Result<Vec<String>> {
    let gone = taken_away(connection, name)?;
    match gone.is_empty() || is_empty(connection, name)? {
        true => Ok(Vec::new()),
        false => Ok(gone),
    }
}

fn not_made(gone: &[String]) -> String {
    format!(
        "a table of this name is there that is not the one that onelog made (it has rows, and no column '{}')",
        gone.join("', '")
    )
}

/// What has the name, of what no table can share it with.
pub(crate) fn find_table(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT CASE WHEN type = 'view' THEN 'a view' WHEN type = 'index' THEN 'an index'
           WHEN sql LIKE 'CREATE VIRTUAL TABLE%' THEN '{VIRTUAL_TABLE}' ELSE '{TABLE}' END
         FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view', 'index')"
    );
    connection
        .query_row(&sql, params![name], |row| row.get(0))
        .optional()
}

/// Whether the table and its index still are what this mapping makes.
pub(crate) fn check_shape(
    connection: &Connection,
    path: &Path,
    mapping: &MappingPlan,
) -> Result<(), StoreError> {
    let failed = |error| classify("looking at the tables of", path, error);
    let table = find_table(connection, &mapping.into).map_err(failed)?;
    let index = match mapping.full_text.is_empty() {
        true => None,
        false => find_table(connection, &index_name(mapping)).map_err(failed)?,
    };
    for (found, is_index) in [(&table, false), (&index, true)] {
        let Some(kind) = found.as_ref().filter(|kind| is_stranger(kind, is_index)) else {
            continue;
        };
        let name = match is_index {
            true => format!("the name of its full-text index, '{}'", index_name(mapping)),
            false => "its name".to_owned(),
        };
        let what = format!("{kind} has {name}: drop or rename it, then run onelog sinks rebuild");
        return Err(StoreError::mismatch(mapping, what, Remedy::Said));
    }
    let mut what = match table {
        Some(_) => mismatches(connection, mapping).map_err(failed)?,
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
    let gone = foreign_by(connection, &mapping.into).map_err(failed)?;
    if !gone.is_empty() {
        let what = format!(
            "{}; drop or rename what is there, then run onelog sinks rebuild",
            not_made(&gone)
        );
        return Err(StoreError::mismatch(mapping, what, Remedy::Said));
    }
    Err(StoreError::mismatch(
        mapping,
        what.join("; "),
        Remedy::Rebuild,
    ))
}

/// Notes the columns that have another type than when onelog backfilled the table. A value of one
/// type is none of another.
pub(crate) fn note_narrowed(
    connection: &Connection,
    mapping: &MappingPlan,
    narrowed: &mut Narrowed,
) -> rusqlite::Result<()> {
    let kinds = |of: Vec<(String, Shape)>| of.into_iter().map(|(name, is)| (name, is.kind));
    let was: onelog_store::Shape = kinds(expected(mapping)).collect();
    let mut is = onelog_store::Shape::new();
    for (name, kind) in kinds(columns(connection, mapping)?) {
        let mapped = was.keys().find(|known| known.eq_ignore_ascii_case(&name));
        if let Some(mapped) = mapped {
            is.insert(mapped.clone(), kind);
        }
    }
    // News are seen by what is kept of them.
    let _ = narrowed.note(&was, &is, |was, is| was == is);
    Ok(())
}

/// What is said of columns that had another type at an earlier look, of a table that fits now.
pub(crate) fn check_narrowed(mapping: &MappingPlan, narrowed: &Narrowed) -> Result<(), StoreError> {
    if narrowed.is_empty() {
        return Ok(());
    }
    let what = narrowed.say(&onelog_store::Shape::new()).join("; ");
    Err(StoreError::mismatch(mapping, what, Remedy::Said))
}

#[derive(Debug, PartialEq)]
struct Shape {
    kind: String,
    not_null: bool,
    key: bool,
}

fn columns(
    connection: &Connection,
    mapping: &MappingPlan,
) -> rusqlite::Result<Vec<(String, Shape)>> {
    let mut statement = connection
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let found = statement.query_map(params![mapping.into], |row| {
        let shape = Shape {
            kind: row.get(1)?,
            not_null: row.get(2)?,
            key: row.get::<_, i64>(3)? == 1,
        };
        Ok((row.get(0)?, shape))
    })?;
    found.collect()
}

/// What of the table's columns differs from the mapping's.
fn mismatches(connection: &Connection, mapping: &MappingPlan) -> rusqlite::Result<Vec<String>> {
    let mut found = columns(connection, mapping)?;
    let mut wrong = Vec::new();
    for (name, shape) in expected(mapping) {
        let at = found
            .iter()
            .position(|(n, _)| n.eq_ignore_ascii_case(&name));
        match at.map(|at| found.remove(at).1) {
            None => wrong.push(format!("the column '{name}' is missing")),
            Some(is) if is != shape => wrong.push(format!(
                "the column '{name}' is {}, and should be {}",
                is.show(),
                shape.show()
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
    wrong.extend(strange_constraints(connection, mapping)?);
    Ok(wrong)
}

/// Keys that differ in the log must differ here, and no constraint may skip or replace rows (`UNIQUE
/// … ON CONFLICT`).
fn strange_constraints(
    connection: &Connection,
    mapping: &MappingPlan,
) -> rusqlite::Result<Vec<String>> {
    let key = &mapping.columns[mapping.key].name;
    let mut statement = connection.prepare(
        "SELECT l.origin, x.name, x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x
         WHERE l.origin IN ('pk', 'u') AND x.key = 1 ORDER BY l.seq, x.seqno",
    )?;
    let found = statement.query_map(params![mapping.into], |row| {
        let (origin, collation): (String, String) = (row.get(0)?, row.get(2)?);
        Ok((origin, row.get::<_, Option<String>>(1)?, collation))
    })?;
    let mut wrong = Vec::new();
    for index in found {
        let (origin, column, collation) = index?;
        let column = column.unwrap_or_default();
        let is_key = column.eq_ignore_ascii_case(key);
        if is_key && !collation.eq_ignore_ascii_case("BINARY") {
            wrong.push(format!(
                "the column '{column}' has the collation {collation}, under which keys that differ in the log are one, and should have BINARY"
            ));
        } else if !is_key && origin == "u" {
            wrong.push(format!(
                "the column '{column}' has a UNIQUE constraint that the mapping does not make"
            ));
        }
    }
    Ok(wrong)
}

impl Shape {
    fn show(&self) -> String {
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
