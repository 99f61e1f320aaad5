//! Rows as Redis keeps them.
//!
//! As a string: the document itself, or a JSON object with one field a column. As a hash: one field
//! a column; a column without a value has no field. The key's column always has a value, so every
//! row is there.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onelog_mapping::{
    Cell, ColumnPlan, MappingPlan, Row, Source, date_text, timestamp_text, uuid_text,
};

use crate::kind::{AS, HASH};

/// The form of a mapping's rows in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowForm {
    /// The document itself, which is the column `at`.
    Document {
        at: usize,
    },
    Object,
    Hash,
}

impl RowForm {
    pub(crate) fn of(mapping: &MappingPlan) -> Self {
        if mapping.options.choice(AS) == Some(HASH) {
            return Self::Hash;
        }
        let document = mapping.columns.iter().position(|c| c.from == Source::Value);
        match (mapping.is_document, document) {
            (true, Some(at)) => Self::Document { at },
            _ => Self::Object,
        }
    }

    /// The command that reads such a row.
    pub(crate) const fn reading(self) -> &'static [u8] {
        match self {
            Self::Hash => b"HGETALL",
            Self::Document { .. } | Self::Object => b"GET",
        }
    }
}

pub(crate) fn write_text(form: RowForm, columns: &[ColumnPlan], row: &Row, out: &mut Vec<u8>) {
    if let RowForm::Document { at } = form {
        match &row.cells[at] {
            Cell::Blob(bytes) => out.extend_from_slice(bytes),
            Cell::Json(text) | Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
            cell => write_json(cell, out),
        }
        return;
    }
    out.push(b'{');
    for (n, (column, cell)) in columns.iter().zip(&row.cells).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_quoted(&column.name, out);
        out.push(b':');
        write_json(cell, out);
    }
    out.push(b'}');
}

fn write_quoted(text: &str, out: &mut Vec<u8>) {
    // A text always is JSON, and writing into a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// A cell as JSON. Decimal numbers are texts, because most readers of JSON would round them.
fn write_json(cell: &Cell, out: &mut Vec<u8>) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Integer(_) | Cell::Real(_) | Cell::Boolean(_) | Cell::Json(_) => {
            write_plain(cell, out);
        }
        Cell::Text(text) | Cell::Numeric(text) => write_quoted(text, out),
        Cell::Blob(bytes) => write_quoted(&STANDARD.encode(bytes), out),
        Cell::Timestamp(micros) => write_quoted(&timestamp_text(*micros), out),
        Cell::Date(days) => write_quoted(&date_text(*days), out),
        Cell::Uuid(bytes) => write_quoted(&uuid_text(bytes), out),
        Cell::List(cells) => {
            out.push(b'[');
            for (n, cell) in cells.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_json(cell, out);
            }
            out.push(b']');
        }
    }
}

/// A cell as the field of a hash.
pub(crate) fn write_plain(cell: &Cell, out: &mut Vec<u8>) {
    // Writing into a vector cannot fail.
    let _ = match cell {
        Cell::Null => Ok(()),
        Cell::Integer(number) => write!(out, "{number}"),
        // The shortest text that is read as the same number; valid in JSON.
        Cell::Real(number) => write!(out, "{number:?}"),
        Cell::Boolean(value) => write!(out, "{value}"),
        Cell::Text(text) | Cell::Json(text) | Cell::Numeric(text) => out.write_all(text.as_bytes()),
        Cell::Blob(bytes) => out.write_all(bytes),
        Cell::Timestamp(micros) => out.write_all(timestamp_text(*micros).as_bytes()),
        Cell::Date(days) => out.write_all(date_text(*days).as_bytes()),
        Cell::Uuid(bytes) => out.write_all(uuid_text(bytes).as_bytes()),
        Cell::List(_) => {
            write_json(cell, out);
            Ok(())
        }
    };
}
