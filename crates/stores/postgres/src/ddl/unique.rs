//! Which columns of a table are unique by themselves, and why an index does not make one so.

use tokio_postgres::Row;

use super::quote;

/// How many indexes that do not count are named.
const SHOWN_MAX: usize = 10;

/// The columns of each unique index, its name, and why it does not make that column unique alone, in
/// each row and at once; nothing where it does.
pub(super) const UNIQUE: &str = "
SELECT a.attname::text, c.relname::text, concat_ws(' and ',
  CASE WHEN NOT i.indisvalid THEN 'is not valid' END,
  CASE WHEN NOT i.indimmediate THEN 'is DEFERRABLE' END,
  CASE WHEN i.indpred IS NOT NULL
    THEN format('holds only WHERE %s', pg_get_expr(i.indpred, i.indrelid)) END,
  CASE WHEN i.indexprs IS NOT NULL THEN 'is of an expression' END,
  CASE WHEN i.indnkeyatts > 1 THEN 'has other columns as well' END)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0 AND NOT a.attisdropped
  AND (a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
    OR i.indexprs IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
        AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
WHERE i.indrelid = $1 AND i.indisunique ORDER BY 2";

/// A column of a unique index.
#[derive(Debug)]
pub(super) struct Unique {
    column: String,
    index: String,
    /// Why the index does not make it unique; empty where it does.
    why: String,
}

impl From<&Row> for Unique {
    fn from(row: &Row) -> Self {
        Self {
            column: row.get(0),
            index: row.get(1),
            why: row.get(2),
        }
    }
}

/// Why the column of a key is not unique, of a table with these indexes. `None`: it is.
pub(super) fn key_fault(indexes: &[Unique], into: &str, key: &str) -> Option<String> {
    let of_key = || indexes.iter().filter(|index| index.column == key);
    if of_key().any(|index| index.why.is_empty()) {
        return None;
    }
    let all: Vec<String> = of_key()
        .take(SHOWN_MAX)
        .map(|index| format!("the index '{}' {}", index.index, index.why))
        .collect();
    let why = match all.is_empty() {
        true => String::new(),
        false => format!(" that holds for each row at once: {}", all.join(", ")),
    };
    Some(format!(
        "the column '{key}' has no primary key or unique index of its own{why}; CREATE UNIQUE INDEX ON {} ({}) makes one",
        quote(into),
        quote(key)
    ))
}
