//! Keys of Redis back as rows.
//!
//! Reading back never fails: what other clients have written becomes cells that equal no cell of
//! the log.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onelog_mapping::{
    Cell, ColumnPlan, ColumnType, MappingPlan, Row, numeric, parse_date, parse_timestamp,
    parse_uuid,
};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::encode::RowForm;

/// The value of a key in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Text(Vec<u8>),
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// Of a type that the mapping does not make.
    Foreign,
}

/// The row that a key holds. Rows that onelog did not write (not `is_ours`) need not say their own
/// key again.
pub(crate) fn read(
    mapping: &MappingPlan,
    form: RowForm,
    key: &[u8],
    content: &Content,
    is_ours: bool,
    row: &mut Row,
) {
    read_key(mapping, key, row);
    let key_cell = std::mem::take(&mut row.cells[mapping.key]);
    let fault = match (form, content) {
        (RowForm::Document { at }, Content::Text(bytes)) => {
            row.cells[at] = whole(mapping.columns[at].kind, bytes);
            None
        }
        (RowForm::Object, Content::Text(bytes)) => read_object(mapping, bytes, row),
        (RowForm::Hash, Content::Fields(fields)) => read_fields(mapping, fields, row),
        _ => Some("the key is of another type".to_owned()),
    };
    // What the row says about its own key must be true as well; then the true key takes its place
    // unless the difference would be lost.
    let says = std::mem::replace(&mut row.cells[mapping.key], key_cell);
    let lies = !matches!(form, RowForm::Document { .. })
        && fault.is_none()
        && (is_ours || says != Cell::Null)
        && !says.is_same(&row.cells[mapping.key]);
    let fault = fault.or_else(|| lies.then(|| "its own key in it is wrong".to_owned()));
    if let Some(fault) = fault {
        mark(mapping, fault, row);
    }
}

/// The row of a key in another partition than its own, where no client looks for it.
pub(crate) fn read_misplaced(mapping: &MappingPlan, key: &[u8], row: &mut Row) {
    read_key(mapping, key, row);
    mark(mapping, "the key is in another partition".to_owned(), row);
}

/// The row of a key without what it holds.
pub(crate) fn read_key(mapping: &MappingPlan, key: &[u8], row: &mut Row) {
    row.cells.fill(Cell::Null);
    row.cells.resize(mapping.columns.len(), Cell::Null);
    let cell = &mut row.cells[mapping.key];
    if mapping.project_key(key, cell).is_err() {
        cell.set_blob(key);
    }
}

/// Makes the row differ from every row of the log.
fn mark(mapping: &MappingPlan, fault: String, row: &mut Row) {
    let mut others = (0..mapping.columns.len()).filter(|n| *n != mapping.key);
    // A cell of a type that the column does not have equals none of the log's.
    match others.next_back() {
        Some(at) => {
            row.cells[at] = match mapping.columns[at].kind {
                ColumnType::List(_) => Cell::Text(fault),
                _ => Cell::List(vec![Cell::Text(fault)]),
            }
        }
        None => {
            let shown = row.cells[mapping.key].show_key();
            row.cells[mapping.key] = Cell::Text(format!("{shown}: {fault}"));
        }
    }
}

fn whole(kind: ColumnType, bytes: &[u8]) -> Cell {
    match (kind, std::str::from_utf8(bytes)) {
        (ColumnType::Blob, _) | (_, Err(_)) => Cell::Blob(bytes.to_vec()),
        (ColumnType::Json, Ok(text)) if text.trim_ascii() == "null" => Cell::Null,
        (ColumnType::Json, Ok(text)) => Cell::Json(text.to_owned()),
        (_, Ok(text)) => Cell::Text(text.to_owned()),
    }
}

/// The fields of an object in their order, each as it is written.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut out = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    out.push((name, map.next_value()?));
                }
                Ok(Fields(out))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads an object; the answer is what cannot be said in cells.
fn read_object(mapping: &MappingPlan, bytes: &[u8], row: &mut Row) -> Option<String> {
    let fields = match serde_json::from_slice::<Fields<'_>>(bytes) {
        Ok(fields) => fields,
        Err(error) => return Some(format!("it is no JSON object: {error}")),
    };
    for (n, (name, value)) in fields.0.iter().enumerate() {
        // Written by us, fields are in the order of the columns.
        let at = match mapping.columns.get(n) {
            Some(column) if column.name == *name => n,
            _ => match mapping.columns.iter().position(|c| c.name == *name) {
                Some(at) => at,
                None => return Some(format!("the mapping has no field '{name}'")),
            },
        };
        row.cells[at] = read_json(mapping.columns[at].kind, value.get());
    }
    None
}

/// A cell of a JSON value; of another type where the value does not fit.
fn read_json(kind: ColumnType, raw: &str) -> Cell {
    let other = || Cell::Json(raw.to_owned());
    if raw == "null" {
        return Cell::Null;
    }
    let text = || serde_json::from_str::<String>(raw).ok();
    let read = match kind {
        ColumnType::Json => return other(),
        ColumnType::Integer | ColumnType::Real | ColumnType::Boolean => parse(kind, raw),
        ColumnType::Text => text().map(Cell::Text),
        ColumnType::Blob => text()
            .and_then(|text| STANDARD.decode(text).ok())
            .map(Cell::Blob),
        ColumnType::List(element) => {
            serde_json::from_str::<Vec<&RawValue>>(raw)
                .ok()
                .map(|items| {
                    let cells = items
                        .iter()
                        .map(|item| read_json(element.kind(), item.get()));
                    Cell::List(cells.collect())
                })
        }
        kind => text().and_then(|text| parse(kind, &text)),
    };
    read.unwrap_or_else(other)
}

/// Reads a hash; the answer is what cannot be said in cells.
fn read_fields(
    mapping: &MappingPlan,
    fields: &[(Vec<u8>, Vec<u8>)],
    row: &mut Row,
) -> Option<String> {
    for (n, (name, value)) in fields.iter().enumerate() {
        let is = |column: &ColumnPlan| column.name.as_bytes() == name.as_slice();
        let at = match mapping.columns.get(n) {
            Some(column) if is(column) => n,
            _ => match mapping.columns.iter().position(is) {
                Some(at) => at,
                None => {
                    let name = String::from_utf8_lossy(name);
                    return Some(format!("the mapping has no field '{name}'"));
                }
            },
        };
        row.cells[at] = read_plain(mapping.columns[at].kind, value);
    }
    None
}

fn read_plain(kind: ColumnType, bytes: &[u8]) -> Cell {
    let text = match (kind, std::str::from_utf8(bytes)) {
        (ColumnType::Blob, _) | (_, Err(_)) => return Cell::Blob(bytes.to_vec()),
        (_, Ok(text)) => text,
    };
    match kind {
        ColumnType::Text => Cell::Text(text.to_owned()),
        ColumnType::Json => Cell::Json(text.to_owned()),
        ColumnType::List(_) => read_json(kind, text),
        kind => parse(kind, text).unwrap_or_else(|| Cell::Text(text.to_owned())),
    }
}

/// A value of a type that has one text.
fn parse(kind: ColumnType, text: &str) -> Option<Cell> {
    match kind {
        ColumnType::Integer => {
            let number = text.parse::<i64>().ok()?;
            // "007" and "+7" are not what onelog writes.
            (number.to_string() == text).then_some(Cell::Integer(number))
        }
        ColumnType::Real => {
            let number = serde_json::from_str::<f64>(text).ok()?;
            let mut cell = Cell::Null;
            cell.set_real(number);
            Some(cell)
        }
        ColumnType::Boolean => match text {
            "true" => Some(Cell::Boolean(true)),
            "false" => Some(Cell::Boolean(false)),
            _ => None,
        },
        ColumnType::Numeric => numeric(text).map(Cell::Numeric),
        ColumnType::Timestamp => parse_timestamp(text).map(Cell::Timestamp),
        ColumnType::Date => parse_date(text).map(Cell::Date),
        ColumnType::Uuid => parse_uuid(text).map(Cell::Uuid),
        ColumnType::Text | ColumnType::Json | ColumnType::Blob | ColumnType::List(_) => None,
    }
}
