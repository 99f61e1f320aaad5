//! The names and tables of a sink as SQL text.

pub(crate) mod backfill;
pub(crate) mod existing;
pub(crate) mod lossless;
pub(crate) mod lost;
pub(crate) mod shape;
mod unique;

use onelog_mapping::{ColumnType, MappingPlan};

use crate::encode::sql_type;

/// Longer names are cut by PostgreSQL silently.
pub(crate) const IDENTIFIER_BYTES_MAX: usize = 63;
const STAGING_PREFIX: &str = "onelog_new_";

/// An identifier, safe whatever it contains.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

/// A table's name with its schema.
pub(crate) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// The table that a rebuild of this sink loads. The hash keeps long names distinct, and the tables of
/// two sinks that want the same name: which of them gets it is decided when the first one is done.
pub(crate) fn staging_name(sink: &str, mapping: &MappingPlan) -> String {
    let into = &mapping.into;
    let hash = blake3::hash(format!("{sink}\0{into}").as_bytes()).to_hex();
    let room = IDENTIFIER_BYTES_MAX - STAGING_PREFIX.len();
    let end = into.floor_char_boundary(room - 17);
    format!("{STAGING_PREFIX}{}_{}", &into[..end], &hash[..16])
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

/// Keys below this length fit into a page of any index.
const SHORT_KEY_BYTES: usize = 2000;

/// The columns of a staging table that say which record of the log a row is of. No mapping has columns
/// of these names.
pub(crate) fn record_columns(mapping: &MappingPlan) -> [String; 2] {
    ["onelog_key", "onelog_offset"].map(|name| {
        let mut name = name.to_owned();
        while mapping.column_names().any(|column| column == name) {
            name.push('_');
        }
        name
    })
}

/// The index of a staging table on keys that may be too long for one.
pub(crate) fn long_keys_name(sink: &str, mapping: &MappingPlan) -> String {
    staging_name(sink, mapping).replacen(STAGING_PREFIX, "onelog_key_", 1)
}

/// A new table without its primary key, which is quicker made when the rows are in. Only keys that
/// may be too long for it are in an index from the beginning: then the row is refused by name.
pub(crate) fn create_staging(
    schema: &str,
    sink: &str,
    mapping: &MappingPlan,
    merged_later: bool,
) -> String {
    let mut columns: Vec<String> = (0..mapping.columns.len())
        .map(|n| column(mapping, n))
        .collect();
    // What is thrown away after a merge need not survive a crash.
    let mut kind = "";
    if merged_later {
        kind = "UNLOGGED ";
        let [key, offset] = record_columns(mapping);
        columns.push(format!("{} bytea", quote(&key)));
        columns.push(format!("{} bigint", quote(&offset)));
    }
    let name = table(schema, &staging_name(sink, mapping));
    let mut sql = format!(
        "DROP TABLE IF EXISTS {name}; CREATE {kind}TABLE {name} ({})",
        columns.join(", ")
    );
    let key = &mapping.columns[mapping.key];
    if matches!(key.kind, ColumnType::Text | ColumnType::Blob) {
        let (index, key) = (quote(&long_keys_name(sink, mapping)), quote(&key.name));
        sql.push_str(&format!(
            "; CREATE INDEX {index} ON {name} ({key}) WHERE octet_length({key}) > {SHORT_KEY_BYTES}"
        ));
    }
    sql
}
