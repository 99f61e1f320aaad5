//! JSON values as cells of a column's type.

use std::fmt;

use serde_json::Number;
use serde_json::value::RawValue;

use crate::{
    Cell, ColumnPlan, ColumnType, Element, RowFault, numeric, parse_date, parse_timestamp,
    parse_uuid,
};

/// The largest whole number up to which every whole number is a `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'v> {
    Null,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'v str),
    List,
    Object,
}

/// Whether cells of this type are made of the text in the document.
pub(super) const fn takes_text(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Json | ColumnType::Numeric | ColumnType::List(_)
    )
}

/// A cell of the text of a JSON value.
pub(super) fn set_raw(
    column: &ColumnPlan,
    kind: ColumnType,
    raw: &str,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    match (kind, raw.as_bytes().first()) {
        (_, Some(b'n')) => *cell = Cell::Null,
        (ColumnType::Json, _) => cell.set_json(raw),
        (ColumnType::Numeric, Some(b'-' | b'0'..=b'9')) => *cell = decimal(column, raw)?,
        (ColumnType::List(element), Some(b'[')) => *cell = list(column, element, raw)?,
        (ColumnType::List(_), Some(b'{')) => return Err(no_fit(column, kind, Scalar::Object)),
        (_, Some(b'[')) => return Err(no_fit(column, kind, Scalar::List)),
        (_, Some(b'{')) => return Err(no_fit(column, kind, Scalar::Object)),
        (_, Some(b'"')) => {
            let text: String =
                serde_json::from_str(raw).map_err(|error| fault(column, error.to_string()))?;
            set_scalar(column, kind, Scalar::Text(&text), cell)?;
        }
        (_, Some(b't' | b'f')) => set_scalar(column, kind, Scalar::Boolean(raw == "true"), cell)?,
        _ => {
            let number: Number =
                serde_json::from_str(raw).map_err(|error| fault(column, error.to_string()))?;
            set_scalar(column, kind, scalar_of(&number), cell)?;
        }
    }
    Ok(())
}

fn decimal(column: &ColumnPlan, text: &str) -> Result<Cell, RowFault> {
    match numeric(text) {
        Some(text) => Ok(Cell::Numeric(text)),
        None => Err(fault(
            column,
            "the text is not a decimal number of at most 1,100 digits".to_owned(),
        )),
    }
}

fn list(column: &ColumnPlan, element: Element, raw: &str) -> Result<Cell, RowFault> {
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|error| fault(column, error.to_string()))?;
    let mut cells = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        let mut cell = Cell::Null;
        set_raw(column, element.kind(), item.get(), &mut cell).map_err(|fault| RowFault {
            column: fault.column,
            what: format!("element {n}: {}", fault.what),
        })?;
        cells.push(cell);
    }
    Ok(Cell::List(cells))
}

fn scalar_of(number: &Number) -> Scalar<'static> {
    if let Some(number) = number.as_i64() {
        Scalar::Signed(number)
    } else if let Some(number) = number.as_u64() {
        Scalar::Unsigned(number)
    } else {
        Scalar::Float(number.as_f64().unwrap_or(f64::INFINITY))
    }
}

/// The defined projections of a scalar; everything else is a refusal.
pub(super) fn set_scalar(
    column: &ColumnPlan,
    kind: ColumnType,
    scalar: Scalar<'_>,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    use ColumnType::{Boolean, Date, Integer, Numeric, Real, Text, Timestamp, Uuid};
    let parsed = |found: Option<Cell>, wanted: &str| {
        found.ok_or_else(|| fault(column, format!("the text is not {wanted}")))
    };
    match (kind, scalar) {
        (_, Scalar::Null) => *cell = Cell::Null,
        (Text, Scalar::Text(text)) => cell.set_text(text),
        (Text, Scalar::Boolean(value)) => cell.set_text(if value { "true" } else { "false" }),
        (Text, Scalar::Signed(_) | Scalar::Unsigned(_) | Scalar::Float(_)) => {
            cell.set_text(&scalar.to_string());
        }
        (Integer, Scalar::Signed(number)) => *cell = Cell::Integer(number),
        (Integer, Scalar::Float(number)) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => {
            *cell = Cell::Integer(number as i64);
        }
        (Integer, Scalar::Unsigned(_)) => {
            return Err(fault(
                column,
                format!("{scalar} is beyond a whole number of 64 bits, signed"),
            ));
        }
        (Real, Scalar::Signed(number)) => cell.set_real(number as f64),
        (Real, Scalar::Unsigned(number)) => cell.set_real(number as f64),
        (Real, Scalar::Float(number)) if number.is_finite() => cell.set_real(number),
        (Boolean, Scalar::Boolean(value)) => *cell = Cell::Boolean(value),
        (Numeric, Scalar::Text(text)) => *cell = decimal(column, text)?,
        (Timestamp, Scalar::Text(text)) => {
            let wanted = "a moment with an offset (RFC 3339, for example 2024-05-01T12:00:00Z)";
            *cell = parsed(parse_timestamp(text).map(Cell::Timestamp), wanted)?;
        }
        (Date, Scalar::Text(text)) => {
            let wanted = "a day (YYYY-MM-DD, from 0001-01-01 on)";
            *cell = parsed(parse_date(text).map(Cell::Date), wanted)?;
        }
        (Uuid, Scalar::Text(text)) => {
            *cell = parsed(parse_uuid(text).map(Cell::Uuid), "a UUID")?;
        }
        (kind, _) => return Err(no_fit(column, kind, scalar)),
    }
    Ok(())
}

fn no_fit(column: &ColumnPlan, kind: ColumnType, scalar: Scalar<'_>) -> RowFault {
    fault(
        column,
        format!("{scalar} does not fit the column's type '{}'", kind.name()),
    )
}

fn fault(column: &ColumnPlan, what: String) -> RowFault {
    RowFault {
        column: column.name.clone(),
        what,
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Float(number) => match Number::from_f64(*number) {
                Some(number) => number.fmt(f),
                None => number.fmt(f),
            },
            Self::Text(_) => f.write_str("a text"),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}
