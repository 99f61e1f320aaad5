//! Rows as documents.
//!
//! ```text
//! {"_onelog": {"offset": 7}, "id": "a", "total": 1}             a row with columns
//! {"_onelog": {"offset": 7}, …the log's document… }             a document
//! {"_onelog": {"offset": 7, "value": …}}                        a document that is no object
//! {"_onelog": {"offset": 7, "deleted": true, "at": millis}}     a row that was deleted
//! ```
//! The key is the document's `_id`: text as it is, whole numbers and UUIDs as text, bytes as base64
//! for URLs without padding.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use onelog_mapping::{Cell, MappingPlan, Row, RowFault, date_text, timestamp_text, uuid_text};
use onelog_store::Change;

/// The most bytes of an `_id`.
const ID_BYTES_MAX: usize = 512;

/// How a document's version is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The record's offset + 1: whatever is newer in the store stays.
    OfRecord,
    /// Above the version that was found, because another client wrote to this document.
    Above(u64),
    New,
}

fn id(mapping: &MappingPlan, key: &Cell) -> Result<String, RowFault> {
    let id = match key {
        Cell::Text(text) => text.clone(),
        Cell::Integer(number) => number.to_string(),
        Cell::Uuid(bytes) => uuid_text(bytes),
        Cell::Blob(bytes) => URL_SAFE_NO_PAD.encode(bytes),
        _ => String::new(),
    };
    let fault = |what: String| {
        Err(RowFault {
            column: mapping.columns[mapping.key].name.clone(),
            what,
        })
    };
    match id.len() {
        0 => fault("the key is empty, and no document can have an empty '_id'".into()),
        1..=ID_BYTES_MAX => Ok(id),
        bytes => fault(format!(
            "the key makes an '_id' of {bytes} bytes; the store takes {ID_BYTES_MAX}"
        )),
    }
}

/// The `_id` of a change's document. A document that no key of the log can make has an `_id` all the
/// same, by which it can be deleted.
pub(crate) fn id_of(
    mapping: &MappingPlan,
    change: &Change,
    cell: &mut Cell,
) -> Result<String, RowFault> {
    let made = mapping
        .project_key(&change.key, cell)
        .and_then(|()| id(mapping, cell));
    match (made, &change.value, std::str::from_utf8(&change.key)) {
        (Err(_), None, Ok(text)) if (1..=ID_BYTES_MAX).contains(&text.len()) => Ok(text.to_owned()),
        (made, _, _) => made,
    }
}

/// Where rows are turned into the lines of a bulk request.
pub(crate) struct Encoder<'p> {
    pub(crate) mapping: &'p MappingPlan,
    /// The alias to write to.
    pub(crate) target: &'p str,
    /// When the request is made, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Encoder<'_> {
    /// Appends the two lines of a change.
    pub(crate) fn encode(
        &self,
        change: &Change,
        version: Version,
        row: &mut Row,
        out: &mut Vec<u8>,
    ) -> Result<(), RowFault> {
        row.resize(self.mapping.columns.len());
        let key = self.mapping.key;
        let id = match &change.value {
            Some(value) => {
                self.mapping
                    .project(&change.key, change.offset, value, row)?;
                id(self.mapping, &row.cells[key])?
            }
            None => id_of(self.mapping, change, &mut row.cells[key])?,
        };
        self.action(&id, change, version, out);
        match change.value {
            Some(_) => self.source(change.offset.get(), &row.cells, out),
            None => {
                own(change.offset.get(), out);
                out.extend_from_slice(b",\"deleted\":true,\"at\":");
                number(self.now_ms, out);
                out.extend_from_slice(b"}}");
            }
        }
        out.push(b'\n');
        Ok(())
    }

    fn action(&self, id: &str, change: &Change, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(match version {
            Version::New => b"{\"create\":{\"_index\":",
            _ => b"{\"index\":{\"_index\":",
        });
        text(self.target, out);
        out.extend_from_slice(b",\"_id\":");
        text(id, out);
        let version = match version {
            Version::New => None,
            Version::OfRecord => Some(change.offset.get() + 1),
            Version::Above(found) => Some((found + 1).max(change.offset.get() + 1)),
        };
        if let Some(version) = version {
            out.extend_from_slice(b",\"version_type\":\"external\",\"version\":");
            number(version, out);
        }
        out.extend_from_slice(b"}}\n");
    }

    fn source(&self, offset: u64, cells: &[Cell], out: &mut Vec<u8>) {
        own(offset, out);
        if !self.mapping.is_document {
            out.push(b'}');
            for (column, cell) in self.mapping.columns.iter().zip(cells) {
                out.push(b',');
                text(&column.name, out);
                out.push(b':');
                write_cell(cell, out);
            }
            out.push(b'}');
            return;
        }
        let document = &cells[1 - self.mapping.key];
        let inside = match document {
            Cell::Json(json) => json.trim().strip_prefix('{'),
            _ => None,
        };
        match inside {
            Some(rest) => {
                out.push(b'}');
                if !rest.trim_start().starts_with('}') {
                    out.push(b',');
                }
                one_line(rest, out);
            }
            None => {
                out.extend_from_slice(b",\"value\":");
                write_cell(document, out);
                out.extend_from_slice(b"}}");
            }
        }
    }
}

/// The beginning of a document: onelog's own field, left open.
fn own(offset: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"_onelog\":{\"offset\":");
    number(offset, out);
}

fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory cannot fail, and every text is JSON.
    let _ = serde_json::to_writer(out, text);
}

/// JSON on one line: line breaks are only between its parts.
fn one_line(json: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn write_cell(cell: &Cell, out: &mut Vec<u8>) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Cell::Real(real) => {
            // Cells hold no NaN and no infinity, the only numbers that JSON has not.
            let _ = serde_json::to_writer(out, real);
        }
        Cell::Boolean(true) => out.extend_from_slice(b"true"),
        Cell::Boolean(false) => out.extend_from_slice(b"false"),
        Cell::Text(value) | Cell::Numeric(value) => text(value, out),
        Cell::Json(json) => one_line(json, out),
        Cell::Blob(bytes) => text(&STANDARD.encode(bytes), out),
        Cell::Timestamp(micros) => text(&timestamp_text(*micros), out),
        Cell::Date(days) => text(&date_text(*days), out),
        Cell::Uuid(bytes) => text(&uuid_text(bytes), out),
        Cell::List(cells) => {
            out.push(b'[');
            for (n, cell) in cells.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_cell(cell, out);
            }
            out.push(b']');
        }
    }
}
