//! What users have added to a table that onelog made, whose place another one takes with each backfill.

use std::path::Path;

use onelog_mapping::MappingPlan;
use onelog_store::StoreError;
use rusqlite::{Connection, OptionalExtension, params};

use super::index_name;
use crate::connection::open_to_read;
use crate::error::classify;

/// How the definition of a table that is not virtual begins.
const TABLE: &str = "CREATE TABLE";

/// What a backfill by this mapping drops beside what onelog made.
pub(crate) fn lost(path: &Path, mapping: &MappingPlan) -> Result<Vec<String>, StoreError> {
    let connection = open_to_read(path)?;
    added(&connection, mapping).map_err(|error| classify("looking at the tables of", path, error))
}

fn added(connection: &Connection, mapping: &MappingPlan) -> rusqlite::Result<Vec<String>> {
    let Some(definition) = definition(connection, &mapping.into)? else {
        return Ok(Vec::new());
    };
    let mut lost = Vec::new();
    let is_table = |text: &String| text.starts_with(TABLE);
    if let Some(definition) = definition.filter(is_table) {
        let made = columns_of(&definition, &mapping.into)?;
        let is_made = |name: &str| {
            let made = made.iter().map(String::as_str);
            made.chain(mapping.column_names())
                .any(|made| made.eq_ignore_ascii_case(name))
        };
        let columns = columns(connection, &mapping.into)?;
        let columns = columns.iter().filter(|name| !is_made(name));
        lost.extend(columns.map(|name| format!("the column '{name}'")));
    }
    // Those of the full-text index are onelog's own, also where the mapping has it no longer.
    let mut statement = connection.prepare(
        "SELECT type, name FROM sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE
           AND type IN ('index', 'trigger') AND sql IS NOT NULL
           AND name NOT IN (?2 || '_insert', ?2 || '_update', ?2 || '_delete') ORDER BY 1, 2",
    )?;
    let found = statement.query_map(params![mapping.into, index_name(mapping)], |row| {
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(format!("the {kind} '{name}'"))
    })?;
    for added in found {
        lost.push(added?);
    }
    Ok(lost)
}

/// The columns of the table that onelog made under a name that what is there now does not have: it was
/// dropped or renamed, or they were.
pub(crate) fn taken_away(connection: &Connection, into: &str) -> rusqlite::Result<Vec<String>> {
    let made = match definition(connection, into)?.flatten() {
        Some(definition) if definition.starts_with(TABLE) => columns_of(&definition, into)?,
        _ => return Ok(Vec::new()),
    };
    let is = columns(connection, into)?;
    if is.is_empty() {
        // There is no table.
        return Ok(Vec::new());
    }
    let is_gone = |name: &String| !is.iter().any(|is| is.eq_ignore_ascii_case(name));
    Ok(made.into_iter().filter(is_gone).collect())
}

/// How onelog made a table, where that is recorded; the outer `None`: it did not.
fn definition(connection: &Connection, into: &str) -> rusqlite::Result<Option<Option<String>>> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('onelog_tables') WHERE name = 'definition')";
    if !connection.query_row(sql, [], |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let sql = "SELECT definition FROM onelog_tables WHERE name = ?1";
    connection
        .query_row(sql, [into], |row| row.get(0))
        .optional()
}

/// The columns of a table by its definition.
fn columns_of(definition: &str, into: &str) -> rusqlite::Result<Vec<String>> {
    let made = Connection::open_in_memory()?;
    made.execute(definition, [])?;
    columns(&made, into)
}

fn columns(connection: &Connection, into: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1)")?;
    statement.query_map([into], |row| row.get(0))?.collect()
}
