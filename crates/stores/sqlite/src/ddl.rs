//! The tables, indexes and triggers of a mapping, as SQL text.
//!
//! With a full-text index a table gets the column `_row`, because the index refers to rows by a
//! number that must survive `VACUUM`. The index is external-content: it holds no second copy of the
//! text. Triggers keep it in step in the same statement, for changes by hand as well.

pub(crate) mod existing;
pub(crate) mod lost;

use onelog_mapping::{ColumnType, MappingPlan};

/// An identifier, safe whatever it contains.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

pub(crate) fn staging_name(mapping: &MappingPlan) -> String {
    format!("onelog_new_{}", mapping.into)
}

pub(crate) fn index_name(mapping: &MappingPlan) -> String {
    format!("{}_fts", mapping.into)
}

pub(crate) const fn sql_type(kind: ColumnType) -> &'static str {
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

pub(crate) fn create_table(mapping: &MappingPlan, name: &str) -> String {
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
pub(crate) fn index_objects(mapping: &MappingPlan) -> Vec<(String, String)> {
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
