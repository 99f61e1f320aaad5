//! Whether a full-text index says what the rows say. SQLite's own check compares an
//! external-content index with its table only under the write lock; here the index is built once
//! more in temporary storage, inside the read transaction, and both are compared word by word.

use std::cmp::Ordering;

use rusqlite::{Connection, OptionalExtension, Rows, params};

use crate::ddl::{index_name, quote};
use onelog_mapping::MappingPlan;
use onelog_store::IndexCheck;

/// One word of the index: the word, the row, the column (by its number in the index), the place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Instance {
    term: Vec<u8>,
    row: i64,
    column: usize,
    place: i64,
}

pub(crate) fn check(
    connection: &Connection,
    mapping: &MappingPlan,
    faults_max: usize,
) -> rusqlite::Result<IndexCheck> {
    let searched: Vec<&str> = mapping
        .full_text
        .iter()
        .map(|n| mapping.columns[*n].name.as_str())
        .collect();
    let columns = searched
        .iter()
        .map(|name| quote(name))
        .collect::<Vec<_>>()
        .join(", ");
    let index = index_name(mapping).replace('\'', "''");
    connection.execute_batch(&format!(
        "DROP TABLE IF EXISTS temp.onelog_is; DROP TABLE IF EXISTS temp.onelog_should;
         DROP TABLE IF EXISTS temp.onelog_check;
         CREATE VIRTUAL TABLE temp.onelog_check USING fts5({columns}, content='');
         INSERT INTO temp.onelog_check (rowid, {columns}) SELECT _row, {columns} FROM main.{table};
         CREATE VIRTUAL TABLE temp.onelog_is USING fts5vocab('main', '{index}', 'instance');
         CREATE VIRTUAL TABLE temp.onelog_should USING fts5vocab('temp', 'onelog_check', 'instance');",
        table = quote(&mapping.into)
    ))?;
    let mut is = connection.prepare("SELECT term, doc, col, offset FROM temp.onelog_is")?;
    let mut should = connection.prepare("SELECT term, doc, col, offset FROM temp.onelog_should")?;
    let mut is = is.query([])?;
    let mut should = should.query([])?;
    let mut out = IndexCheck::default();
    let (mut left, mut right) = (next(&mut is, &searched)?, next(&mut should, &searched)?);
    loop {
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.cmp(right),
        };
        let wrong = match order {
            Ordering::Less => left
                .as_ref()
                .map(|word| (word, "has a word that the row lacks")),
            Ordering::Greater => right
                .as_ref()
                .map(|word| (word, "lacks a word that the row has")),
            Ordering::Equal => None,
        };
        if let Some((word, what)) = wrong {
            out.faults_total += 1;
            if out.faults.len() < faults_max {
                out.faults
                    .push(describe(connection, mapping, &searched, word, what)?);
            }
        }
        if order != Ordering::Greater {
            left = next(&mut is, &searched)?;
        }
        if order != Ordering::Less {
            right = next(&mut should, &searched)?;
        }
    }
    Ok(out)
}

fn next(rows: &mut Rows<'_>, searched: &[&str]) -> rusqlite::Result<Option<Instance>> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let column = row.get_ref(2)?.as_bytes_or_null()?.unwrap_or_default();
    Ok(Some(Instance {
        term: row.get_ref(0)?.as_bytes()?.to_vec(),
        row: row.get(1)?,
        column: searched
            .iter()
            .position(|name| name.as_bytes() == column)
            .unwrap_or(searched.len()),
        place: row.get(3)?,
    }))
}

fn describe(
    connection: &Connection,
    mapping: &MappingPlan,
    searched: &[&str],
    word: &Instance,
    what: &str,
) -> rusqlite::Result<String> {
    let sql = format!(
        "SELECT CAST({} AS TEXT) FROM main.{} WHERE _row = ?1",
        quote(&mapping.columns[mapping.key].name),
        quote(&mapping.into)
    );
    let key: Option<Vec<u8>> = connection
        .query_row(&sql, params![word.row], |row| {
            row.get_ref(0)
                .and_then(|value| Ok(value.as_bytes()?.to_vec()))
        })
        .optional()?;
    let whose = match key {
        Some(key) => format!("key '{}'", String::from_utf8_lossy(&key)),
        None => format!("row {}, which is not there", word.row),
    };
    let column = searched.get(word.column).copied().unwrap_or("?");
    Ok(format!(
        "for {whose}, column '{column}', the index {what}: '{}'",
        String::from_utf8_lossy(&word.term)
    ))
}
