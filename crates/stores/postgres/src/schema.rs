//! The tables and statements of a sink as SQL text.

use super::encode::{sql_type, type_of};
use super::fit::Fit;
use onelog_mapping::{ColumnType, MappingPlan};

/// Longer names are cut by PostgreSQL without a word.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 63;
const STAGING_PREFIX: &str = "onelog_new_";

/// What every sink in a schema shares. The position's row is rewritten with every batch: free room
/// in its page lets that happen in place.
pub(super) const POSITIONS: &str = "onelog_position";
pub(super) const OWNERS: &str = "onelog_tables";

/// An identifier, safe whatever it contains.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

/// A table's name with its schema.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

pub(super) fn bookkeeping(schema: &str) -> String {
    let (positions, owners) = (table(schema, POSITIONS), table(schema, OWNERS));
    format!(
        "CREATE TABLE IF NOT EXISTS {positions} (
           sink text PRIMARY KEY, log_id text NOT NULL, position bigint,
           epoch bigint NOT NULL, plan text NOT NULL) WITH (fillfactor = 10);
         CREATE TABLE IF NOT EXISTS {owners} (name text PRIMARY KEY, sink text);
         ALTER TABLE {owners} ADD COLUMN IF NOT EXISTS made boolean NOT NULL DEFAULT true"
    )
}

/// The table that a rebuild fills. Long names are cut and told apart by a hash.
pub(super) fn staging_name(mapping: &MappingPlan) -> String {
    let room = IDENTIFIER_BYTES_MAX - STAGING_PREFIX.len();
    if mapping.into.len() <= room {
        return format!("{STAGING_PREFIX}{}", mapping.into);
    }
    let hash = blake3::hash(mapping.into.as_bytes()).to_hex();
    let end = mapping.into.floor_char_boundary(room - 17);
    format!("{STAGING_PREFIX}{}_{}", &mapping.into[..end], &hash[..16])
}

/// Texts that are keys are ordered by their bytes, as the log orders them: faster to compare, and
/// each load adds to the end of the index.
fn column(mapping: &MappingPlan, n: usize) -> String {
    let plan = &mapping.columns[n];
    let role = match (n == mapping.key, plan.kind) {
        (true, ColumnType::Text) => " COLLATE \"C\" NOT NULL",
        (true, _) => " NOT NULL",
        (false, _) => "",
    };
    format!("{} {}{role}", quote(&plan.name), sql_type(plan.kind))
}

/// A new table without its primary key, which is quicker made when the rows are in.
pub(super) fn create_staging(schema: &str, mapping: &MappingPlan, merged_later: bool) -> String {
    let columns: Vec<String> = (0..mapping.columns.len())
        .map(|n| column(mapping, n))
        .collect();
    // What is thrown away after a merge need not survive a crash.
    let kind = if merged_later { "UNLOGGED " } else { "" };
    let name = table(schema, &staging_name(mapping));
    format!(
        "DROP TABLE IF EXISTS {name}; CREATE {kind}TABLE {name} ({})",
        columns.join(", ")
    )
}

/// The columns of a mapping, for SELECT, as the mapped table takes them.
fn casts(mapping: &MappingPlan, fit: &Fit, source: impl Fn(usize) -> String) -> String {
    let parts: Vec<String> = (0..mapping.columns.len())
        .map(|n| match &fit.columns[n].cast {
            Some(cast) => format!("({})::{cast}", source(n)),
            None => source(n),
        })
        .collect();
    parts.join(", ")
}

fn on_conflict(mapping: &MappingPlan) -> String {
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

fn other_columns(mapping: &MappingPlan) -> impl Iterator<Item = &str> {
    let columns = mapping.columns.iter().enumerate();
    columns
        .filter(|(n, _)| *n != mapping.key)
        .map(|(_, column)| column.name.as_str())
}

/// One array per column in, one row per element written.
pub(super) fn upsert(schema: &str, mapping: &MappingPlan, fit: &Fit) -> String {
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
        casts(mapping, fit, source),
        arrays.join(", "),
        names.join(", "),
        on_conflict(mapping)
    )
}

/// An array of keys in.
pub(super) fn delete(schema: &str, mapping: &MappingPlan) -> String {
    let key = &mapping.columns[mapping.key];
    format!(
        "DELETE FROM {} WHERE {} = ANY($1::{}[])",
        table(schema, &mapping.into),
        quote(&key.name),
        type_of(key.kind).name()
    )
}

pub(super) fn copy_in(schema: &str, mapping: &MappingPlan) -> String {
    format!(
        "COPY {} ({}) FROM STDIN (FORMAT binary)",
        table(schema, &staging_name(mapping)),
        list(mapping.column_names())
    )
}

/// Every column cast to onelog's own type, so that the bytes are known whatever the column is.
pub(super) fn copy_out(schema: &str, mapping: &MappingPlan) -> String {
    let columns: Vec<String> = mapping
        .columns
        .iter()
        .map(|column| {
            let name = quote(&column.name);
            match column.kind {
                ColumnType::Json => format!("{name}::text"),
                kind => format!("{name}::{}", sql_type(kind)),
            }
        })
        .collect();
    format!(
        "COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        table(schema, &mapping.into)
    )
}

/// The statements that make a table equal to its staging table, row by row that differs.
pub(super) struct Merge {
    /// Rows whose key the staging table has not.
    pub(super) delete: String,
    /// Rows that differ or whose key it has not: for when unique columns stand in the way.
    pub(super) delete_different: String,
    pub(super) upsert: String,
}

impl Merge {
    pub(super) fn new(schema: &str, mapping: &MappingPlan, fit: &Fit) -> Self {
        let into = table(schema, &mapping.into);
        let staging = table(schema, &staging_name(mapping));
        let key = &mapping.columns[mapping.key];
        let key_name = quote(&key.name);
        let collate = match key.kind {
            ColumnType::Text => " COLLATE \"C\"",
            _ => "",
        };
        let same_key = format!("s.{key_name}{collate} = t.{key_name}");
        let comparable = |prefix: &str, n: usize| {
            let name = format!("{prefix}{}", quote(&mapping.columns[n].name));
            match mapping.columns[n].kind {
                // A json column has no equality; bytes decide for texts whatever their collation.
                ColumnType::Json => format!("{name}::jsonb"),
                ColumnType::Text => format!("{name}::text COLLATE \"C\""),
                _ => name,
            }
        };
        let row = |prefix: &str| {
            let parts: Vec<String> = (0..mapping.columns.len())
                .map(|n| comparable(prefix, n))
                .collect();
            format!("ROW({})", parts.join(", "))
        };
        let conflict = on_conflict(mapping);
        let unchanged = if other_columns(mapping).next().is_none() {
            String::new()
        } else {
            format!(" WHERE {} IS DISTINCT FROM {}", row("t."), row("excluded."))
        };
        Self {
            delete: format!(
                "DELETE FROM {into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key})"
            ),
            delete_different: format!(
                "DELETE FROM {into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key}
                   AND {} IS NOT DISTINCT FROM {})",
                row("s."),
                row("t.")
            ),
            upsert: format!(
                "INSERT INTO {into} AS t ({}) SELECT {} FROM {staging} {conflict}{unchanged}",
                list(mapping.column_names()),
                casts(mapping, fit, |n| quote(&mapping.columns[n].name)),
            ),
        }
    }
}
