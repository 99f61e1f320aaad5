//! As what the columns of a table are read, so that no cast changes what they hold, and no text of a
//! value is taken for another value.

use onelog_mapping::{ColumnType, Element, MappingPlan};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::ddl::quote;
use crate::encode::sql_type;
use crate::error::Fault;

/// The columns with the bare names of their types, below all domains, and of the elements of lists.
const COLUMN_TYPES: &str = "
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), b.typname::text,
  CASE WHEN e.typtype = 'e' THEN 'text' ELSE e.typname::text END
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  WITH RECURSIVE under(oid) AS (SELECT a.atttypid UNION ALL
    SELECT t.typbasetype FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype = 'd')
  SELECT t.typname, t.typelem, t.typcategory FROM under u
  JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype <> 'd') b
LEFT JOIN LATERAL (
  WITH RECURSIVE under(oid) AS (SELECT b.typelem UNION ALL
    SELECT t.typbasetype FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype = 'd')
  SELECT t.typname, t.typtype FROM under u
  JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype <> 'd') e
  ON b.typcategory = 'A' AND left(b.typname, 1) = '_'
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

/// A column of a table or a view.
pub(crate) struct FoundColumn {
    pub(crate) name: String,
    /// As PostgreSQL writes its type.
    shown: String,
    /// The bare name of the type.
    type_name: String,
    /// The same of a list's elements.
    element: Option<String>,
}

/// The columns of a table or a view.
pub(crate) async fn column_types(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Vec<FoundColumn>, Fault> {
    let of_relation = &[
        (&schema as &(dyn ToSql + Sync), Type::TEXT),
        (&name as &(dyn ToSql + Sync), Type::TEXT),
    ];
    let rows = client.query_typed(COLUMN_TYPES, of_relation).await?;
    let found = rows.iter().map(|row| FoundColumn {
        name: row.get(0),
        shown: row.get(1),
        type_name: row.get(2),
        element: row.get(3),
    });
    Ok(found.collect())
}

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadAs {
    pub(crate) kind: ColumnType,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Cast,
    /// A list as a list of JSON.
    JsonList {
        /// Whether its numbers may be none, as `NaN`.
        has_special_numbers: bool,
    },
}

impl ReadAs {
    pub(crate) const fn of(kind: ColumnType) -> Self {
        let how = How::Cast;
        Self { kind, how }
    }

    /// The column cast to a type of onelog, so that the bytes are known whatever the column is.
    pub(crate) fn expression(self, name: &str) -> String {
        let name = quote(name);
        match (self.how, self.kind) {
            (How::Cast, ColumnType::Json) => format!("{name}::text"),
            (How::Cast, kind) => format!("{name}::{}", sql_type(kind)),
            (
                How::JsonList {
                    has_special_numbers,
                },
                _,
            ) => {
                // Such a list stays a text, which is no JSON.
                let special = match has_special_numbers {
                    true => format!(" OR {name}::text ~ 'NaN|Infinity'"),
                    false => String::new(),
                };
                format!(
                    "CASE WHEN left({name}::text, 1) = '['{special} THEN {name}::text ELSE to_json({name})::text END"
                )
            }
        }
    }
}

/// As what the columns are read: as the mapping has them, but for those that the cast would round or
/// read something into. They are read as they are, and differ from what the mapping makes where
/// they are something else. The error lists the columns that have no such form.
pub(crate) fn lossless(
    mapping: &MappingPlan,
    types: &[FoundColumn],
) -> Result<Vec<ReadAs>, Vec<String>> {
    let mut wrong = Vec::new();
    let mut columns = Vec::with_capacity(mapping.columns.len());
    for column in &mapping.columns {
        let found = types.iter().find(|found| found.name == column.name);
        let read = match found {
            None => Some(ReadAs::of(column.kind)),
            Some(found) => match &found.element {
                Some(element) => list(column.kind, element),
                None => single(column.kind, &found.type_name).map(ReadAs::of),
            },
        };
        columns.extend(read);
        if let (None, Some(found)) = (read, found) {
            wrong.push(format!(
                "the column '{}' is {}, and {} in the mapping, which would make another value of its text; map it as its own type or as text, or leave it out",
                column.name,
                found.shown,
                column.kind.name()
            ));
        }
    }
    match wrong.is_empty() {
        true => Ok(columns),
        false => Err(wrong),
    }
}

/// As what a column that is no list is read. `None`: it has no such form.
fn single(kind: ColumnType, found: &str) -> Option<ColumnType> {
    use ColumnType::{
        Blob, Boolean, Date, Integer, Json, List, Numeric, Real, Text, Timestamp, Uuid,
    };
    Some(match (kind, found) {
        (Integer | Real, "numeric") => Numeric,
        (Integer | Numeric, "float4" | "float8") => Real,
        (Real, "int8") | (Boolean, "int4") => Integer,
        (Date, "timestamp" | "timestamptz") => Timestamp,
        (Text, "bytea") => Blob,
        (
            Integer | Real | Boolean | Numeric | Timestamp | Date | Uuid | List(_),
            "text" | "varchar" | "bpchar" | "bit" | "varbit",
        ) => Text,
        (Json, found) if !is_json(found) && !is_text(found) => return None,
        (kind, _) => kind,
    })
}

/// As what a list is read.
fn list(kind: ColumnType, found: &str) -> Option<ReadAs> {
    match kind {
        ColumnType::List(element) => {
            let element = element_of(single(element.kind(), found)?)?;
            Some(ReadAs::of(ColumnType::List(element)))
        }
        ColumnType::Json if !is_json(found) && !is_text(found) && found != "uuid" => None,
        // A text of it would look like one that was always a text.
        ColumnType::Json | ColumnType::Text => Some(ReadAs {
            kind: ColumnType::Json,
            how: How::JsonList {
                has_special_numbers: matches!(found, "numeric" | "float4" | "float8"),
            },
        }),
        kind => Some(ReadAs::of(kind)),
    }
}

/// Whether the text of each value is JSON of the same meaning, or refused as none.
fn is_json(found: &str) -> bool {
    matches!(
        found,
        "json"
            | "jsonb"
            | "bool"
            | "int2"
            | "int4"
            | "int8"
            | "oid"
            | "numeric"
            | "float4"
            | "float8"
    )
}

fn is_text(found: &str) -> bool {
    matches!(found, "text" | "varchar" | "bpchar" | "citext" | "name")
}

fn element_of(kind: ColumnType) -> Option<Element> {
    let lists = ColumnType::ALL.iter().map(|(_, kind)| *kind);
    lists
        .filter_map(|list| match list {
            ColumnType::List(element) => Some(element),
            _ => None,
        })
        .find(|element| element.kind() == kind)
}
