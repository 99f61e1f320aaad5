//! Cells as values of SQLite.

use onelog_mapping::{Cell, date_text, timestamp_text, uuid_text};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// A cell as a parameter of a statement.
pub(crate) struct Bound<'c>(pub(crate) &'c Cell);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = |text: String| Ok(ToSqlOutput::Owned(text.into()));
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Boolean(value) => ValueRef::Integer(i64::from(*value)),
            Cell::Text(text) | Cell::Json(text) | Cell::Numeric(text) => {
                ValueRef::Text(text.as_bytes())
            }
            Cell::Blob(bytes) => ValueRef::Blob(bytes),
            Cell::Timestamp(micros) => return text(timestamp_text(*micros)),
            Cell::Date(days) => return text(date_text(*days)),
            Cell::Uuid(bytes) => return text(uuid_text(bytes)),
            Cell::List(_) => return text(self.0.show().to_string()),
        }))
    }
}
