//! The tables that onelog makes, as SQL text.

pub(crate) mod existing;
pub(crate) mod foreign;
pub(crate) mod hidden;
pub(crate) mod lost;
pub(crate) mod shape;
pub(crate) mod user_table;

use onelog_mapping::{ColumnType, MappingPlan};

use crate::connection::Flavour;
use crate::encode::{DECIMAL_DIGITS, DECIMAL_SCALE, KEY_BYTES_MAX, KEY_CHARS_MAX};
use crate::names::{literal, quote};

/// The type of a column that onelog makes, as the server spells it.
pub(crate) fn column_type(mapping: &MappingPlan, n: usize) -> String {
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

pub(crate) fn is_text(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Text | ColumnType::Json)
}

/// The statement that makes a mapping's table under some name.
pub(crate) fn create_table(
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
