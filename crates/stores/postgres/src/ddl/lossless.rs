//! As what the columns of a table are read, so that no cast changes what they hold.

use onelog_mapping::{ColumnType, MappingPlan};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Fault;

const COLUMN_TYPES: &str = "
SELECT a.attname::text, coalesce(b.typname, t.typname)::text
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";

/// The columns of a table or a view with the bare names of their types.
pub(crate) async fn column_types(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Vec<(String, String)>, Fault> {
    let of_relation = &[
        (&schema as &(dyn ToSql + Sync), Type::TEXT),
        (&name as &(dyn ToSql + Sync), Type::TEXT),
    ];
    let rows = client.query_typed(COLUMN_TYPES, of_relation).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// As what the columns are read: as the mapping has them, but for those that the cast would round or
/// read something into. They are read as they are, and differ from what the mapping makes where
/// they are something else.
pub(crate) fn lossless(mapping: &MappingPlan, types: &[(String, String)]) -> Vec<ColumnType> {
    use ColumnType::{Boolean, Date, Integer, Numeric, Real, Text, Timestamp, Uuid};
    let columns = mapping.columns.iter().map(|column| {
        let found = types.iter().find(|(name, _)| *name == column.name);
        match (column.kind, found.map_or("", |(_, found)| found.as_str())) {
            (Integer | Real, "numeric") => Numeric,
            (Integer | Numeric, "float4" | "float8") => Real,
            (Real, "int8") | (Boolean, "int4") => Integer,
            (Date, "timestamp" | "timestamptz") => Timestamp,
            (
                Integer | Real | Boolean | Numeric | Timestamp | Date | Uuid,
                "text" | "varchar" | "bpchar",
            ) => Text,
            (kind, _) => kind,
        }
    });
    columns.collect()
}
