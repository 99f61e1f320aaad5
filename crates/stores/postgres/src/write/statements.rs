//! The statements that write rows, as SQL text.

use onelog_mapping::{ColumnType, MappingPlan};

use crate::ddl::existing::TargetTable;
use crate::ddl::{list, quote, table};
use crate::encode::{sql_type, type_of};

/// The columns of a mapping, for SELECT, as the mapped table takes them.
pub(crate) fn casts(
    mapping: &MappingPlan,
    target: &TargetTable,
    source: impl Fn(usize) -> String,
) -> String {
    let parts: Vec<String> = (0..mapping.columns.len())
        .map(|n| match &target.columns[n].cast {
            Some(cast) => format!("({})::{cast}", source(n)),
            None => source(n),
        })
        .collect();
    parts.join(", ")
}

pub(crate) fn on_conflict(mapping: &MappingPlan) -> String {
    let key = quote(&mapping.columns[mapping.key].name);
    let sets: Vec<String> = other_columns(mapping)
        .map(|name| format!("{0} = excluded.{0}", quote(name)))
        .collect();
    if sets.is_empty() {
        format!("ON CONFLICT ({key}) DO NOTHING")
    } else {
        format!("ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(", "))
    }
}

pub(crate) fn other_columns(mapping: &MappingPlan) -> impl Iterator<Item = &str> {
    let columns = mapping.columns.iter().enumerate();
    columns
        .filter(|(n, _)| *n != mapping.key)
        .map(|(_, column)| column.name.as_str())
}

/// One array per column in, one row per element written.
pub(crate) fn upsert(schema: &str, mapping: &MappingPlan, target: &TargetTable) -> String {
    let arrays: Vec<String> = mapping
        .columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!("${}::{}[]", n + 1, type_of(column.kind).name()))
        .collect();
    let names: Vec<String> = (0..mapping.columns.len())
        .map(|n| format!("c{n}"))
        .collect();
    let source = |n: usize| match mapping.columns[n].kind {
        kind @ ColumnType::List(_) => format!("c{n}::{}", sql_type(kind)),
        _ => format!("c{n}"),
    };
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS u({}) {}",
        table(schema, &mapping.into),
        list(mapping.column_names()),
        casts(mapping, target, source),
        arrays.join(", "),
        names.join(", "),
        on_conflict(mapping)
    )
}

/// An array of keys in.
pub(crate) fn delete(schema: &str, mapping: &MappingPlan) -> String {
    let key = &mapping.columns[mapping.key];
    format!(
        "DELETE FROM {} WHERE {} = ANY($1::{}[])",
        table(schema, &mapping.into),
        quote(&key.name),
        type_of(key.kind).name()
    )
}

/// An array of keys in, whose rows let go of what these columns hold.
pub(crate) fn empty(schema: &str, mapping: &MappingPlan, columns: &[String]) -> String {
    let key = &mapping.columns[mapping.key];
    let sets: Vec<String> = columns
        .iter()
        .map(|column| format!("{} = NULL", quote(column)))
        .collect();
    format!(
        "UPDATE {} SET {} WHERE {} = ANY($1::{}[])",
        table(schema, &mapping.into),
        sets.join(", "),
        quote(&key.name),
        type_of(key.kind).name()
    )
}
