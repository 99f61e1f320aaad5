//! JSON values as cells of a column's type, made of the text in the document: a number becomes a
//! float in a column of floats and nowhere else.

use std::borrow::Cow;
use std::fmt;

use onelog_decimal::{is_whole, whole_number};
use serde_json::value::RawValue;

use crate::{
    Cell, ColumnPlan, ColumnType, Element, RowFault, numeric, parse_date, parse_timestamp,
    parse_uuid,
};

/// So much of a number is shown in a message.
const SHOWN_BYTES_MAX: usize = 64;

/// A cell of the text of a JSON value: the defined projections; everything else is a refusal.
pub(super) fn set_raw(
    column: &ColumnPlan,
    kind: ColumnType,
    raw: &str,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    match (kind, raw.as_bytes().first()) {
        (_, Some(b'n')) => *cell = Cell::Null,
        (ColumnType::Json, _) => cell.set_json(raw),
        (_, Some(b'"')) => set_text(column, kind, &text_of(column, raw)?, cell)?,
        (ColumnType::Text, Some(b't' | b'f')) => cell.set_text(raw),
        (ColumnType::Boolean, Some(b't' | b'f')) => *cell = Cell::Boolean(raw == "true"),
        (_, Some(b't' | b'f')) => return Err(no_fit(column, kind, raw)),
        (ColumnType::List(element), Some(b'[')) => *cell = list(column, element, raw)?,
        (_, Some(b'[')) => return Err(no_fit(column, kind, "a list")),
        (_, Some(b'{')) => return Err(no_fit(column, kind, "an object")),
        _ => set_number(column, kind, raw, cell)?,
    }
    Ok(())
}

/// What a string says. Most have no escapes.
fn text_of<'r>(column: &ColumnPlan, raw: &'r str) -> Result<Cow<'r, str>, RowFault> {
    match raw.get(1..raw.len() - 1) {
        Some(text) if memchr::memchr(b'\\', text.as_bytes()).is_none() => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(raw)
            .map(Cow::Owned)
            .map_err(|error| fault(column, error.to_string())),
    }
}

fn set_text(
    column: &ColumnPlan,
    kind: ColumnType,
    text: &str,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    let parsed = |found: Option<Cell>, wanted: &str| {
        found.ok_or_else(|| fault(column, format!("the text is not {wanted}")))
    };
    match kind {
        ColumnType::Text => cell.set_text(text),
        ColumnType::Numeric => *cell = decimal(column, text)?,
        ColumnType::Timestamp => {
            let wanted = "a moment of the years 1 to 9999 (in UTC) with an offset (RFC 3339, for example 2024-05-01T12:00:00Z)";
            *cell = parsed(parse_timestamp(text).map(Cell::Timestamp), wanted)?;
        }
        ColumnType::Date => {
            let wanted = "a day (YYYY-MM-DD, from 0001-01-01 on)";
            *cell = parsed(parse_date(text).map(Cell::Date), wanted)?;
        }
        ColumnType::Uuid => *cell = parsed(parse_uuid(text).map(Cell::Uuid), "a UUID")?,
        kind => return Err(no_fit(column, kind, "a text")),
    }
    Ok(())
}

fn set_number(
    column: &ColumnPlan,
    kind: ColumnType,
    number: &str,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    match kind {
        ColumnType::Text => cell.set_text(number),
        ColumnType::Numeric => *cell = decimal(column, number)?,
        ColumnType::Integer => match whole_number(number) {
            Some(whole) => *cell = Cell::Integer(whole),
            None if is_whole(number) == Some(true) => {
                let shown = Shown(number);
                return Err(fault(
                    column,
                    format!("{shown} is beyond a whole number of 64 bits, signed"),
                ));
            }
            None => return Err(no_fit(column, kind, number)),
        },
        ColumnType::Real => match number.parse::<f64>() {
            Ok(real) if real.is_finite() => cell.set_real(real),
            _ => return Err(no_fit(column, kind, number)),
        },
        kind => return Err(no_fit(column, kind, number)),
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

fn no_fit(column: &ColumnPlan, kind: ColumnType, what: &str) -> RowFault {
    let what = Shown(what);
    fault(
        column,
        format!("{what} does not fit the column's type '{}'", kind.name()),
    )
}

fn fault(column: &ColumnPlan, what: String) -> RowFault {
    RowFault {
        column: column.name.clone(),
        what,
    }
}

/// The beginning of a text that may be long.
struct Shown<'t>(&'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..SHOWN_BYTES_MAX) {
            Some(beginning) if beginning.len() < self.0.len() => write!(f, "{beginning}…"),
            _ => f.write_str(self.0),
        }
    }
}
