//! Documents back as rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use onelog_mapping::{
    Cell, ColumnType, Element, MappingPlan, Row, numeric, parse_date, parse_timestamp, parse_uuid,
    timestamp_text, uuid_text,
};
use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ddl::OWN;

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

/// Turns documents into rows.
pub(crate) struct Decoder<'p> {
    mapping: &'p MappingPlan,
    columns: HashMap<&'p str, usize>,
}

/// What a document says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyField {
    /// Nothing, though there is a column for it.
    Absent,
    /// The same as its `_id`; or there is no field for it, as in whole documents.
    Same,
    /// Something else than its `_id`.
    Other,
}

impl<'p> Decoder<'p> {
    pub(crate) fn new(mapping: &'p MappingPlan) -> Self {
        let names = mapping.columns.iter().enumerate();
        Self {
            mapping,
            columns: names.map(|(n, column)| (column.name.as_str(), n)).collect(),
        }
    }

    /// Writes every cell of `row`; the key's is made of the `_id`. A field that no column has the
    /// name of is passed over.
    pub(crate) fn decode(
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

    /// The same for an index that is not onelog's: the key's field has the key where there is
    /// one.
    pub(crate) fn decode_foreign(
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

/// A stored value as the cell that it was, or as what others made of it.
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
