//! One value, two stores, two ways to write it: cells of any type made cells of the type that both
//! sides are compared as. What cannot be made stays what it is, and so differs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onelog_mapping::{
    Cell, ColumnType, date_text, numeric, parse_date, parse_timestamp, parse_uuid, timestamp_text,
    uuid_text,
};

/// The largest whole number up to which every whole number is a `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Makes a cell one of this type, where that loses nothing.
pub(super) fn normalise(kind: ColumnType, cell: &mut Cell) {
    if let (Cell::Json(text), false) = (&*cell, kind == ColumnType::Json) {
        *cell = of_json(kind, text);
    }
    let made = match kind {
        ColumnType::Text => text(cell).map(Cell::Text),
        ColumnType::Integer => integer(cell).map(Cell::Integer),
        ColumnType::Real => real(cell).map(Cell::Real),
        ColumnType::Boolean => boolean(cell).map(Cell::Boolean),
        ColumnType::Json => json(cell).map(Cell::Json),
        ColumnType::Blob => blob(cell),
        ColumnType::Numeric => decimal(cell).map(Cell::Numeric),
        ColumnType::Timestamp => text_of(cell).and_then(parse_timestamp).map(Cell::Timestamp),
        ColumnType::Date => text_of(cell).and_then(parse_date).map(Cell::Date),
        ColumnType::Uuid => uuid(cell),
        ColumnType::List(element) => {
            if let Cell::List(cells) = cell {
                cells
                    .iter_mut()
                    .for_each(|cell| normalise(element.kind(), cell));
            }
            None
        }
    };
    if let Some(made) = made {
        *cell = made;
    }
}

/// The common form of a key: text, or bytes where it is none.
pub(super) fn normalise_key(cell: &mut Cell) {
    normalise(ColumnType::Text, cell);
}

/// A value of a document. Objects, and lists where none is wanted, stay JSON.
fn of_json(kind: ColumnType, text: &str) -> Cell {
    let text = text.trim();
    match (text.as_bytes().first(), kind) {
        (Some(b'n'), _) => Cell::Null,
        (Some(b'"'), ColumnType::Blob) => match bytes_of_json(text) {
            Some(bytes) => Cell::Blob(bytes),
            None => Cell::Json(text.to_owned()),
        },
        (Some(b'"'), _) => match serde_json::from_str::<String>(text) {
            Ok(text) => Cell::Text(text),
            Err(_) => Cell::Json(text.to_owned()),
        },
        (Some(b't' | b'f'), _) => Cell::Boolean(text == "true"),
        (Some(b'-' | b'0'..=b'9'), ColumnType::Text) => Cell::Text(text.to_owned()),
        (Some(b'-' | b'0'..=b'9'), _) => match (text.parse(), numeric(text)) {
            (Ok(number), _) => Cell::Integer(number),
            (Err(_), Some(number)) => Cell::Numeric(number),
            (Err(_), None) => Cell::Json(text.to_owned()),
        },
        (Some(b'['), ColumnType::List(element)) => {
            match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(text) {
                Ok(items) => Cell::List(
                    items
                        .into_iter()
                        .map(|item| of_json(element.kind(), item.get()))
                        .collect(),
                ),
                Err(_) => Cell::Json(text.to_owned()),
            }
        }
        _ => Cell::Json(text.to_owned()),
    }
}

/// Documents hold bytes as base64, as sinks write them there.
fn bytes_of_json(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(serde_json::from_str::<String>(text).ok()?)
        .ok()
}

fn text_of(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Text(text) => Some(text),
        _ => None,
    }
}

fn text(cell: &Cell) -> Option<String> {
    Some(match cell {
        Cell::Integer(number) => number.to_string(),
        // Minus zero is zero.
        Cell::Real(number) => (number + 0.0).to_string(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Numeric(text) => numeric(text)?,
        Cell::Json(text) => text.clone(),
        Cell::Blob(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Cell::Timestamp(micros) => timestamp_text(*micros),
        Cell::Date(days) => date_text(*days),
        Cell::Uuid(bytes) => uuid_text(bytes),
        Cell::Null | Cell::Text(_) | Cell::List(_) => return None,
    })
}

fn integer(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Text(text) | Cell::Numeric(text) => numeric(text)?.parse().ok(),
        Cell::Real(number) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => {
            Some(*number as i64)
        }
        Cell::Boolean(value) => Some(i64::from(*value)),
        _ => None,
    }
}

fn real(cell: &Cell) -> Option<f64> {
    let number: f64 = match cell {
        Cell::Text(text) | Cell::Numeric(text) => numeric(text)?.parse().ok()?,
        // One that no float is stays what it is, and so differs from every float.
        Cell::Integer(number) if (*number as f64) as i128 == i128::from(*number) => *number as f64,
        _ => return None,
    };
    let whole = if number == 0.0 { 0.0 } else { number };
    number.is_finite().then_some(whole)
}

fn boolean(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::Integer(0) => Some(false),
        Cell::Integer(1) => Some(true),
        Cell::Text(text) => match text.as_str() {
            "true" | "t" | "1" => Some(true),
            "false" | "f" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn decimal(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) | Cell::Numeric(text) => numeric(text),
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Real(number) => numeric(&number.to_string()),
        _ => None,
    }
}

fn json(cell: &Cell) -> Option<String> {
    Some(match cell {
        Cell::Text(text) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
            text.clone()
        }
        Cell::Integer(number) => number.to_string(),
        Cell::Numeric(text) => text.clone(),
        Cell::Boolean(value) => value.to_string(),
        _ => return None,
    })
}

fn blob(cell: &mut Cell) -> Option<Cell> {
    match cell {
        Cell::Text(text) => Some(Cell::Blob(std::mem::take(text).into_bytes())),
        _ => None,
    }
}

fn uuid(cell: &Cell) -> Option<Cell> {
    match cell {
        Cell::Text(text) => parse_uuid(text).map(Cell::Uuid),
        Cell::Blob(bytes) => bytes.as_slice().try_into().ok().map(Cell::Uuid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelog_mapping::Element;

    fn normal(kind: ColumnType, mut cell: Cell) -> Cell {
        normalise(kind, &mut cell);
        cell
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    fn json(text: &str) -> Cell {
        Cell::Json(text.into())
    }

    #[test]
    fn one_value_written_in_two_ways_becomes_one_cell() {
        use ColumnType::{
            Blob, Boolean, Date, Integer, List, Numeric, Real, Text, Timestamp, Uuid,
        };
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for (kind, one, other) in [
            (Integer, Cell::Integer(12), text("12")),
            (Integer, Cell::Numeric("12".into()), json("12")),
            (Integer, Cell::Real(12.0), json("\"12\"")),
            (Numeric, Cell::Numeric("12.5".into()), text("12.50")),
            (Numeric, Cell::Integer(3), json("3.00")),
            (Real, Cell::Integer(3), json("3.0")),
            (Boolean, Cell::Integer(1), json("true")),
            (Boolean, text("0"), Cell::Boolean(false)),
            (Text, Cell::Integer(7), json("\"7\"")),
            (Date, Cell::Date(1), text("1970-01-02")),
            (
                Timestamp,
                Cell::Timestamp(0),
                json("\"1970-01-01T01:00:00+01:00\""),
            ),
            (Uuid, text(uuid), Cell::Uuid(parse_uuid(uuid).unwrap())),
            (
                List(Element::Integer),
                Cell::List(vec![Cell::Integer(1), Cell::Null]),
                json("[\"1\", null]"),
            ),
            (Text, Cell::Null, json("null")),
            (Blob, Cell::Blob(vec![0, 255, 16]), json("\"AP8Q\"")),
            (Blob, Cell::Blob(Vec::new()), json("\"\"")),
            (Blob, Cell::Blob(b"AP8Q".to_vec()), text("AP8Q")),
        ] {
            assert_eq!(
                normal(kind, one.clone()),
                normal(kind, other.clone()),
                "{kind:?} {one:?} {other:?}"
            );
        }
    }

    #[test]
    fn what_is_not_the_same_stays_apart() {
        use ColumnType::{Blob, Boolean, Integer, Real, Text};
        let next = 9_007_199_254_740_993; // two to the power of 53 and one: no float
        for (kind, one, other) in [
            (
                Real,
                Cell::Integer(next),
                Cell::Real(9_007_199_254_740_992.0),
            ),
            (Integer, Cell::Integer(12), text("12a")),
            (Integer, Cell::Integer(12), json("12.5")),
            (Integer, Cell::Integer(0), Cell::Null),
            (Boolean, Cell::Boolean(true), Cell::Integer(2)),
            (Text, text(""), Cell::Null),
            (Text, text("a"), json("{\"a\": 1}")),
            (Blob, Cell::Blob(b"AP8Q".to_vec()), json("\"AP8Q\"")),
            (
                Blob,
                Cell::Blob(b"no base64".to_vec()),
                json("\"no base64\""),
            ),
        ] {
            assert_ne!(normal(kind, one), normal(kind, other));
        }
    }
}
