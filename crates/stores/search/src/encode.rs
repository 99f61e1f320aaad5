//! Rows as documents, and back.
//!
//! ```text
//! {"_onelog": {"offset": 7}, "id": "a", "total": 1}             a row with columns
//! {"_onelog": {"offset": 7}, …the log's document… }             a document
//! {"_onelog": {"offset": 7, "value": …}}                        a document that is no object
//! {"_onelog": {"offset": 7, "deleted": true, "at": millis}}     a row that was deleted
//! ```
//! The key is the document's `_id`: text as it is, whole numbers and UUIDs as text, bytes as base64
//! for URLs without padding.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::OWN;
use onelog_mapping::{
    Cell, ColumnType, Element, MappingPlan, Row, RowFault, date_text, numeric, parse_date,
    parse_timestamp, parse_uuid, timestamp_text, uuid_text,
};
use onelog_store::Change;

/// The most bytes of an `_id`.
const ID_BYTES_MAX: usize = 512;

/// How a document's version is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The record's offset + 1: whatever is newer in the store stays.
    OfRecord,
    /// Above the version that was found, because somebody else wrote to this document.
    Above(u64),
    /// There is no document.
    New,
}

/// The `_id` of a key's cell.
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
pub(super) fn id_of(
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

/// The key's cell of an `_id`; an `_id` that no key makes stays a text.
fn key_cell(kind: ColumnType, id: &str, cell: &mut Cell) {
    match kind {
        ColumnType::Integer => {
            let number = id.parse::<i64>().ok().filter(|n| n.to_string() == id);
            match number {
                Some(number) => *cell = Cell::Integer(number),
                None => cell.set_text(id),
            }
        }
        ColumnType::Uuid => match parse_uuid(id).filter(|uuid| uuid_text(uuid) == id) {
            Some(uuid) => *cell = Cell::Uuid(uuid),
            None => cell.set_text(id),
        },
        ColumnType::Blob => match URL_SAFE_NO_PAD.decode(id) {
            Ok(bytes) => cell.set_blob(&bytes),
            Err(_) => cell.set_text(id),
        },
        _ => cell.set_text(id),
    }
}

/// Where rows are turned into the lines of a bulk request.
pub(super) struct Encoder<'p> {
    pub(super) mapping: &'p MappingPlan,
    /// The name to write to.
    pub(super) target: &'p str,
    /// When the request is made, in milliseconds since 1970.
    pub(super) now_ms: u64,
}

impl Encoder<'_> {
    /// Appends the two lines of a change.
    pub(super) fn encode(
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

/// JSON on one line: line breaks can only stand between its parts.
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

/// Turns documents into rows.
pub(super) struct Decoder<'p> {
    mapping: &'p MappingPlan,
    columns: HashMap<&'p str, usize>,
}

/// What a document says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyField {
    /// Nothing, though there is a column for it.
    Absent,
    /// The same as its `_id`; or there is no field for it, as in whole documents.
    Same,
    /// Something else than its `_id`.
    Other,
}

impl<'p> Decoder<'p> {
    pub(super) fn new(mapping: &'p MappingPlan) -> Self {
        let names = mapping.columns.iter().enumerate();
        Self {
            mapping,
            columns: names.map(|(n, column)| (column.name.as_str(), n)).collect(),
        }
    }

    /// Writes every cell of `row`; the key's is made of the `_id`. A field that no column has the
    /// name of is passed over.
    pub(super) fn decode(
        &self,
        id: &str,
        source: &RawValue,
        row: &mut Row,
    ) -> serde_json::Result<KeyField> {
        row.resize(self.mapping.columns.len());
        row.cells.iter_mut().for_each(|cell| *cell = Cell::Null);
        let key = self.mapping.key;
        if self.mapping.is_document {
            self.document(source, &mut row.cells[1 - key])?;
            key_cell(self.mapping.columns[key].kind, id, &mut row.cells[key]);
            return Ok(KeyField::Same);
        }
        let mut has_key = false;
        each_field(source.get(), |name, raw| {
            if let Some(n) = self.columns.get(name) {
                has_key |= *n == key;
                read_cell(self.mapping.columns[*n].kind, raw, &mut row.cells[*n]);
            }
        })?;
        let stored = std::mem::take(&mut row.cells[key]);
        key_cell(self.mapping.columns[key].kind, id, &mut row.cells[key]);
        Ok(match has_key {
            false => KeyField::Absent,
            true if stored == row.cells[key] => KeyField::Same,
            true => KeyField::Other,
        })
    }

    /// The same for an index that is not onelog's: the key's field tells the key where there is
    /// one.
    pub(super) fn decode_foreign(
        &self,
        id: &str,
        source: &RawValue,
        row: &mut Row,
    ) -> serde_json::Result<()> {
        if self.decode(id, source, row)? != KeyField::Other {
            return Ok(());
        }
        let key = self.mapping.key;
        each_field(source.get(), |name, raw| {
            if self.columns.get(name) == Some(&key) {
                read_cell(self.mapping.columns[key].kind, raw, &mut row.cells[key]);
            }
        })
    }

    fn document(&self, source: &RawValue, cell: &mut Cell) -> serde_json::Result<()> {
        let mut whole = String::with_capacity(source.get().len());
        let mut value = None;
        each_field(source.get(), |name, raw| {
            if name == OWN {
                value = own_value(raw);
                return;
            }
            whole.push(if whole.is_empty() { '{' } else { ',' });
            // A name that was read can be written.
            whole.push_str(&serde_json::to_string(name).unwrap_or_default());
            whole.push(':');
            whole.push_str(raw);
        })?;
        let kind = self.mapping.columns[1 - self.mapping.key].kind;
        match value {
            Some(value) if whole.is_empty() => read_cell(kind, &value, cell),
            _ => {
                whole.push_str(if whole.is_empty() { "{}" } else { "}" });
                cell.set_json(&whole);
            }
        }
        Ok(())
    }
}

/// The field `value` of onelog's own field.
fn own_value(raw: &str) -> Option<String> {
    let mut value = None;
    each_field(raw, |name, raw| {
        if name == "value" {
            value = Some(raw.to_owned());
        }
    })
    .ok()?;
    value
}

/// Calls `each` with every field of a JSON object: its name and its value's text.
fn each_field(object: &str, each: impl FnMut(&str, &str)) -> serde_json::Result<()> {
    struct Fields<F>(F);
    impl<'de, F: FnMut(&str, &str)> Visitor<'de> for Fields<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(Name(name)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                (self.0)(&name, value.get());
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(Fields(each))
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A stored value as the cell that it was, or as what somebody made of it.
fn read_cell(kind: ColumnType, raw: &str, cell: &mut Cell) {
    if kind == ColumnType::Json && raw != "null" {
        return cell.set_json(raw);
    }
    match raw.as_bytes().first() {
        Some(b'"') => match plain_text(raw) {
            Some(text) => read_text(kind, &text, cell),
            None => cell.set_json(raw),
        },
        Some(b'n') => *cell = Cell::Null,
        Some(b't') => *cell = Cell::Boolean(true),
        Some(b'f') => *cell = Cell::Boolean(false),
        Some(b'-' | b'0'..=b'9') => read_number(kind, raw, cell),
        Some(b'[') => match (kind, serde_json::from_str::<Vec<&RawValue>>(raw)) {
            (ColumnType::List(element), Ok(values)) => *cell = read_list(element, &values),
            _ => cell.set_json(raw),
        },
        _ => cell.set_json(raw),
    }
}

fn read_list(element: Element, values: &[&RawValue]) -> Cell {
    let read = |value: &&RawValue| {
        let mut cell = Cell::Null;
        read_cell(element.kind(), value.get(), &mut cell);
        cell
    };
    Cell::List(values.iter().map(read).collect())
}

fn read_number(kind: ColumnType, raw: &str, cell: &mut Cell) {
    let whole = (kind != ColumnType::Real)
        .then(|| raw.parse::<i64>().ok())
        .flatten();
    match (whole, serde_json::from_str::<f64>(raw)) {
        (Some(number), _) => *cell = Cell::Integer(number),
        (None, Ok(real)) => cell.set_real(real),
        (None, Err(_)) => cell.set_json(raw),
    }
}

fn read_text(kind: ColumnType, text: &str, cell: &mut Cell) {
    let read = match kind {
        ColumnType::Numeric => numeric(text)
            .filter(|canonical| canonical == text)
            .map(Cell::Numeric),
        ColumnType::Timestamp => parse_timestamp(text)
            .filter(|micros| timestamp_text(*micros) == text)
            .map(Cell::Timestamp),
        ColumnType::Date => parse_date(text).map(Cell::Date),
        ColumnType::Uuid => parse_uuid(text)
            .filter(|uuid| uuid_text(uuid) == text)
            .map(Cell::Uuid),
        ColumnType::Blob => STANDARD.decode(text).ok().map(Cell::Blob),
        _ => None,
    };
    match read {
        Some(read) => *cell = read,
        None => cell.set_text(text),
    }
}

/// The text of a JSON string, copied only where it has escapes.
fn plain_text(raw: &str) -> Option<Cow<'_, str>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    match inside.contains('\\') {
        false => Some(Cow::Borrowed(inside)),
        true => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}
