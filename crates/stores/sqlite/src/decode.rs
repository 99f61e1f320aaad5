//! Values of SQLite as cells.

use onelog_mapping::{Cell, ColumnType, numeric, parse_date, parse_timestamp, parse_uuid};
use rusqlite::types::ValueRef;

/// A stored value as the cell that it was, or as what another client made of it.
pub(crate) fn read_cell(kind: ColumnType, value: ValueRef<'_>, cell: &mut Cell) {
    match (kind, value) {
        (_, ValueRef::Null) => *cell = Cell::Null,
        (ColumnType::Boolean, ValueRef::Integer(number @ (0 | 1))) => {
            *cell = Cell::Boolean(number == 1);
        }
        (_, ValueRef::Integer(number)) => *cell = Cell::Integer(number),
        (_, ValueRef::Real(number)) => *cell = Cell::Real(number),
        (_, ValueRef::Blob(bytes)) => cell.set_blob(bytes),
        (kind, ValueRef::Text(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => read_text(kind, text, cell),
            Err(_) => cell.set_blob(bytes),
        },
    }
}

fn read_text(kind: ColumnType, text: &str, cell: &mut Cell) {
    let parsed = match kind {
        ColumnType::Json => return cell.set_json(text),
        ColumnType::Numeric => numeric(text).filter(|same| same == text).map(Cell::Numeric),
        ColumnType::Timestamp => parse_timestamp(text).map(Cell::Timestamp),
        ColumnType::Date => parse_date(text).map(Cell::Date),
        ColumnType::Uuid => parse_uuid(text).map(Cell::Uuid),
        _ => None,
    };
    match parsed {
        Some(parsed) => *cell = parsed,
        None => cell.set_text(text),
    }
}
