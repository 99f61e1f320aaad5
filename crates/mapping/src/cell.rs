//! Cells: the values of a row, and the one encoding in which both sides of a comparison are hashed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onelog_record::JsonText;
use serde_json::{Map, Value, json};

use crate::canonical::{encode_json, without_zeros};
use crate::moment::{date_text, timestamp_text, uuid_text};

/// How many bytes of a long text a report of differences shows.
const SHOWN_BYTES_MAX: usize = 1024;

/// One value of a row. Texts and bytes own buffers that are used again from row to row.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    #[default]
    Null,
    Integer(i64),
    /// A number. A mapping makes neither NaN nor −0 of a record; a store may hold both.
    Real(f64),
    Boolean(bool),
    Text(String),
    /// A JSON value as text.
    Json(String),
    Blob(Vec<u8>),
    /// A decimal number: an optional '-', digits, an optional fraction. A mapping makes it without
    /// needless zeros; what is read of a store may end in them, and is the same number.
    Numeric(String),
    /// A moment: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// A day: days since 1970-01-01.
    Date(i32),
    Uuid([u8; 16]),
    /// Values of one type, and `Null` among them.
    List(Vec<Cell>),
}

/// The cells of one row in the order of the mapping's columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub cells: Vec<Cell>,
    pub(crate) seen: Vec<bool>,
}

impl Row {
    /// A row of empty cells.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self {
            cells: vec![Cell::Null; columns],
            seen: vec![false; columns],
        }
    }

    /// Makes room for this many cells.
    pub fn resize(&mut self, columns: usize) {
        self.cells.resize(columns, Cell::Null);
        self.seen.resize(columns, false);
    }
}

impl Cell {
    pub fn set_text(&mut self, text: &str) {
        match self {
            Self::Text(old) => {
                old.clear();
                old.push_str(text);
            }
            _ => *self = Self::Text(text.to_owned()),
        }
    }

    pub fn set_json(&mut self, text: &str) {
        match self {
            Self::Json(old) => {
                old.clear();
                old.push_str(text);
            }
            _ => *self = Self::Json(text.to_owned()),
        }
    }

    pub fn set_blob(&mut self, bytes: &[u8]) {
        match self {
            Self::Blob(old) => {
                old.clear();
                old.extend_from_slice(bytes);
            }
            _ => *self = Self::Blob(bytes.to_vec()),
        }
    }

    /// Becomes this number; −0 becomes 0, because stores do not keep them apart.
    pub fn set_real(&mut self, number: f64) {
        *self = Self::Real(if number == 0.0 { 0.0 } else { number });
    }

    /// Appends the canonical encoding: a tag, and for texts and bytes the length, so that no two
    /// rows share an encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut long = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Null => out.push(0),
            Self::Integer(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Real(number) => {
                out.push(2);
                // Stores do not keep −0 and 0 apart.
                let number = if *number == 0.0 { 0.0 } else { *number };
                out.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            Self::Boolean(value) => out.extend_from_slice(&[3, u8::from(*value)]),
            Self::Text(text) => long(4, text.as_bytes()),
            Self::Json(text) => {
                out.push(5);
                if !encode_json(text, out) {
                    out.push(0xff);
                    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
            Self::Blob(bytes) => long(6, bytes),
            Self::Numeric(text) => long(7, without_zeros(text).as_bytes()),
            Self::Timestamp(micros) => {
                out.push(8);
                out.extend_from_slice(&micros.to_le_bytes());
            }
            Self::Date(days) => {
                out.push(9);
                out.extend_from_slice(&days.to_le_bytes());
            }
            Self::Uuid(bytes) => {
                out.push(10);
                out.extend_from_slice(bytes);
            }
            Self::List(cells) => {
                out.push(11);
                out.extend_from_slice(&(cells.len() as u64).to_le_bytes());
                cells.iter().for_each(|cell| cell.encode(out));
            }
        }
    }

    /// Whether both have the same canonical encoding: JSON texts may be written differently.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        self.encode(&mut mine);
        other.encode(&mut theirs);
        mine == theirs
    }

    /// As JSON, for people: long texts are cut, bytes are `{"base64": …}`, numbers have all their
    /// digits.
    #[must_use]
    pub fn show(&self) -> JsonText {
        let value = match self {
            Self::Null => Value::Null,
            Self::Integer(number) => json!(number),
            Self::Real(number) => json!(number),
            Self::Boolean(value) => json!(value),
            Self::Text(text) => Value::String(cut(text)),
            Self::Json(text) if text.len() <= SHOWN_BYTES_MAX => match JsonText::of_any_range(text)
            {
                Ok(json) => return json,
                Err(_) => Value::String(text.clone()),
            },
            Self::Json(text) => Value::String(cut(text)),
            Self::Blob(bytes) => show_bytes(bytes),
            Self::Numeric(text) => Value::String(cut(text)),
            Self::Timestamp(micros) => Value::String(timestamp_text(*micros)),
            Self::Date(days) => Value::String(date_text(*days)),
            Self::Uuid(bytes) => Value::String(uuid_text(bytes)),
            Self::List(cells) => return JsonText::array(cells.iter().map(Self::show)),
        };
        value.into()
    }

    /// As [`show`](Self::show), for a cell of a key, which holds no JSON.
    #[must_use]
    pub fn show_key(&self) -> Value {
        Value::from(&self.show().json())
    }
}

fn cut(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!(
        "{}… ({} bytes, BLAKE3 {}…)",
        &text[..end],
        text.len(),
        &hash[..16]
    )
}

fn show_bytes(bytes: &[u8]) -> Value {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let mut object = Map::new();
    object.insert("base64".into(), STANDARD.encode(shown).into());
    if shown.len() < bytes.len() {
        object.insert("bytes".into(), bytes.len().into());
    }
    Value::Object(object)
}

/// A key for people: its text, or `{"base64": …}` where it is not UTF-8.
#[must_use]
pub fn show_key(key: &[u8]) -> Value {
    match std::str::from_utf8(key) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => show_bytes(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_differ_are_encoded_differently() {
        let text = |t: &str| Cell::Text(t.into());
        let rows = [
            vec![text("a"), text("b")],
            vec![text("ab"), text("")],
            vec![Cell::Json("a".into()), text("b")],
            vec![Cell::Null, Cell::Integer(1)],
            vec![Cell::Integer(1), Cell::Null],
            vec![Cell::Real(1.0), Cell::Null],
            vec![Cell::Boolean(true), Cell::Null],
            vec![Cell::Blob(b"a".to_vec()), text("b")],
        ];
        let encoded: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| {
                let mut out = Vec::new();
                row.iter().for_each(|cell| cell.encode(&mut out));
                out
            })
            .collect();
        for (n, one) in encoded.iter().enumerate() {
            for other in &encoded[n + 1..] {
                assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn long_values_are_cut_when_shown_and_still_differ() {
        let long = |last: char| {
            let mut text = "ü".repeat(2000);
            text.push(last);
            Cell::Text(text).show_key()
        };
        assert_ne!(long('a'), long('b'));
        assert!(long('a').as_str().unwrap().len() < 1200);
        assert_eq!(show_key(&[0xff, 0]), json!({"base64": "/wA="}));
    }

    #[test]
    fn numbers_are_shown_with_all_their_digits() {
        let json = Cell::Json("{\"wei\": 10000000000000000000000001,\n\"n\": [1.10, 1E+2]}".into());
        let shown = r#"{"wei":10000000000000000000000001,"n":[1.10,1E+2]}"#;
        assert_eq!(json.show().as_str(), shown);
        // A program can make a number beyond the range of floats.
        let long = Cell::Json("{\"n\": [1e400, -2E+999]}".into());
        assert_eq!(long.show().as_str(), r#"{"n":[1e400,-2E+999]}"#);
        assert_eq!(
            serde_json::to_string(&long.show()).unwrap(),
            r#"{"n":[1e400,-2E+999]}"#
        );
        let list = Cell::List(vec![json, Cell::Null, Cell::Integer(7)]);
        assert_eq!(list.show().as_str(), format!("[{shown},null,7]"));
    }

    #[test]
    fn minus_zero_is_zero() {
        let mut cell = Cell::Null;
        cell.set_real(-0.0);
        let Cell::Real(number) = cell else { panic!() };
        assert!(number.is_sign_positive());
        // One that a store has is the same cell.
        let encoded = |cell: &Cell| {
            let mut out = Vec::new();
            cell.encode(&mut out);
            out
        };
        assert_eq!(encoded(&Cell::Real(-0.0)), encoded(&cell));
    }

    #[test]
    fn a_number_with_zeros_at_its_end_is_the_same_cell() {
        let number = |text: &str| Cell::Numeric(text.to_owned());
        assert!(number("1.10").is_same(&number("1.1")));
        assert!(number("0.00").is_same(&number("0")));
        assert!(!number("10").is_same(&number("1")));
        assert!(!number("1.01").is_same(&number("1.1")));
    }
}
