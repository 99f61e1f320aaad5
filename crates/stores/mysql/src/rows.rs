//! Cells as values of the server, and back.

use jiff::civil;
use jiff::tz::TimeZone;
use mysql_async::Value;

use onelog_mapping::{Cell, ColumnType, MappingPlan, Row, numeric};

/// The longest key of text, in characters, and of bytes: what an index takes.
pub(super) const KEY_CHARS_MAX: usize = 768;
pub(super) const KEY_BYTES_MAX: usize = 3072;
/// Digits of a decimal number, and how many of them are behind the point.
pub(super) const DECIMAL_DIGITS: u32 = 65;
pub(super) const DECIMAL_SCALE: u32 = 30;
/// The years that the server's dates have.
const YEARS: std::ops::RangeInclusive<i16> = 1000..=9999;
/// What a value takes in a request beside its bytes, at most.
const VALUE_BYTES_EXTRA: usize = 12;

/// How many digits a decimal column keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) digits: u32,
    pub(super) scale: u32,
}

impl Default for Decimal {
    fn default() -> Self {
        Self {
            digits: DECIMAL_DIGITS,
            scale: DECIMAL_SCALE,
        }
    }
}

/// The values of a row, taken out of its cells; or which column does not fit, and why.
pub(super) fn take_values(
    plan: &MappingPlan,
    decimals: &[Decimal],
    row: &mut Row,
) -> Result<Vec<Value>, String> {
    let mut values = Vec::with_capacity(plan.columns.len());
    for (n, cell) in row.cells.iter_mut().enumerate() {
        let fitting = match n == plan.key {
            true => key_value(std::mem::take(cell)),
            false => value(std::mem::take(cell), decimals[n]),
        };
        values.push(fitting.map_err(|what| format!("column '{}': {what}", plan.columns[n].name))?);
    }
    Ok(values)
}

/// A key's value, or why no key of a table can be so.
pub(super) fn key_value(cell: Cell) -> Result<Value, String> {
    match &cell {
        Cell::Text(text) if text.len() > KEY_CHARS_MAX => {
            let chars = text.chars().count();
            if chars > KEY_CHARS_MAX {
                return Err(format!(
                    "the key has {chars} characters; a key in this store has at most {KEY_CHARS_MAX}"
                ));
            }
        }
        Cell::Blob(bytes) if bytes.len() > KEY_BYTES_MAX => {
            return Err(format!(
                "the key has {} bytes; a key in this store has at most {KEY_BYTES_MAX}",
                bytes.len()
            ));
        }
        _ => {}
    }
    value(cell, Decimal::default())
}

fn value(cell: Cell, decimal: Decimal) -> Result<Value, String> {
    Ok(match cell {
        Cell::Null => Value::NULL,
        Cell::Integer(number) => Value::Int(number),
        Cell::Real(number) => Value::Double(number),
        Cell::Boolean(value) => Value::Int(i64::from(value)),
        Cell::Text(text) | Cell::Json(text) => Value::Bytes(text.into_bytes()),
        Cell::Blob(bytes) => Value::Bytes(bytes),
        Cell::Numeric(text) => {
            check_decimal(&text, decimal)?;
            Value::Bytes(text.into_bytes())
        }
        Cell::Timestamp(micros) => timestamp(micros)?,
        Cell::Date(days) => date(days)?,
        Cell::Uuid(bytes) => Value::Bytes(bytes.to_vec()),
        Cell::List(_) => return Err("this store has no lists".into()),
    })
}

/// The server would round with no more than a note.
fn check_decimal(text: &str, decimal: Decimal) -> Result<(), String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0').len();
    let (whole_max, scale) = (decimal.digits - decimal.scale, decimal.scale);
    if whole <= whole_max as usize && fraction.len() <= scale as usize {
        return Ok(());
    }
    Err(format!(
        "the number {text} has {whole} digits before and {} behind the point; the column keeps {whole_max} and {scale}",
        fraction.len()
    ))
}

fn out_of_range(what: &str) -> String {
    format!(
        "{what} is outside the years {} to {}, which this store's dates have",
        YEARS.start(),
        YEARS.end()
    )
}

fn timestamp(micros: i64) -> Result<Value, String> {
    let found = jiff::Timestamp::from_microsecond(micros)
        .map(|moment| moment.to_zoned(TimeZone::UTC).datetime());
    match found {
        Ok(at) if YEARS.contains(&at.year()) => Ok(Value::Date(
            at.year().cast_unsigned(),
            at.month().cast_unsigned(),
            at.day().cast_unsigned(),
            at.hour().cast_unsigned(),
            at.minute().cast_unsigned(),
            at.second().cast_unsigned(),
            at.subsec_nanosecond().cast_unsigned() / 1000,
        )),
        _ => Err(out_of_range(&onelog_mapping::timestamp_text(micros))),
    }
}

fn date(days: i32) -> Result<Value, String> {
    let found = civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days));
    match found {
        Ok(at) if YEARS.contains(&at.year()) => Ok(Value::Date(
            at.year().cast_unsigned(),
            at.month().cast_unsigned(),
            at.day().cast_unsigned(),
            0,
            0,
            0,
            0,
        )),
        _ => Err(out_of_range(&onelog_mapping::date_text(days))),
    }
}

/// About how many bytes a value takes in a request.
pub(super) fn request_bytes(values: &[Value]) -> usize {
    let bytes = |value: &Value| match value {
        Value::Bytes(bytes) => bytes.len() + VALUE_BYTES_EXTRA,
        _ => VALUE_BYTES_EXTRA + 2,
    };
    values.iter().map(bytes).sum()
}

/// A stored value as the cell that it was, or as what somebody made of it.
pub(super) fn read_cell(kind: ColumnType, value: Value, cell: &mut Cell) {
    *cell = match value {
        Value::NULL => Cell::Null,
        Value::Int(number) => integer(kind, number),
        Value::UInt(number) => match i64::try_from(number) {
            Ok(number) => integer(kind, number),
            Err(_) => Cell::Numeric(number.to_string()),
        },
        Value::Float(number) => real(f64::from(number)),
        Value::Double(number) => real(number),
        Value::Date(year, month, day, hour, minute, second, micros) => read_date(
            kind,
            [
                u32::from(year),
                month.into(),
                day.into(),
                hour.into(),
                minute.into(),
                second.into(),
            ],
            micros,
        ),
        Value::Time(..) => Cell::Text(value.as_sql(true)),
        Value::Bytes(bytes) => read_bytes(kind, bytes),
    };
}

fn integer(kind: ColumnType, number: i64) -> Cell {
    match (kind, number) {
        (ColumnType::Boolean, 0 | 1) => Cell::Boolean(number == 1),
        _ => Cell::Integer(number),
    }
}

fn real(number: f64) -> Cell {
    Cell::Real(if number == 0.0 { 0.0 } else { number })
}

fn read_bytes(kind: ColumnType, bytes: Vec<u8>) -> Cell {
    if kind == ColumnType::Blob {
        return Cell::Blob(bytes);
    }
    if kind == ColumnType::Uuid {
        return match <[u8; 16]>::try_from(bytes) {
            Ok(uuid) => Cell::Uuid(uuid),
            Err(bytes) => Cell::Blob(bytes),
        };
    }
    match String::from_utf8(bytes) {
        Ok(text) if kind == ColumnType::Json => Cell::Json(text),
        Ok(text) if kind == ColumnType::Numeric => match numeric(&text) {
            Some(number) => Cell::Numeric(number),
            None => Cell::Text(text),
        },
        Ok(text) => Cell::Text(text),
        Err(error) => Cell::Blob(error.into_bytes()),
    }
}

fn read_date(kind: ColumnType, parts: [u32; 6], micros: u32) -> Cell {
    let [year, month, day, hour, minute, second] = parts;
    let small = |number: u32| i8::try_from(number).unwrap_or(i8::MAX);
    let found = civil::DateTime::new(
        i16::try_from(year).unwrap_or(i16::MAX),
        small(month),
        small(day),
        small(hour),
        small(minute),
        small(second),
        i32::try_from(micros * 1000).unwrap_or(i32::MAX),
    );
    let shown = || {
        Cell::Text(format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"
        ))
    };
    let Ok(at) = found else {
        return shown();
    };
    if kind == ColumnType::Date && at.time() == civil::Time::midnight() {
        let span = at.date().since((jiff::Unit::Day, civil::date(1970, 1, 1)));
        return span.map_or_else(|_| shown(), |span| Cell::Date(span.get_days()));
    }
    match at.to_zoned(TimeZone::UTC) {
        Ok(moment) => Cell::Timestamp(moment.timestamp().as_microsecond()),
        Err(_) => shown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_that_would_be_rounded_are_refused() {
        let column = Decimal {
            digits: 10,
            scale: 2,
        };
        for good in ["0", "-12345678.25", "0.01", "99999999.99"] {
            check_decimal(good, column).unwrap();
        }
        for bad in ["0.001", "123456789", "-100000000.5"] {
            assert!(check_decimal(bad, column).unwrap_err().contains(bad));
        }
        assert!(check_decimal(&"9".repeat(36), Decimal::default()).is_err());
        check_decimal(&"9".repeat(35), Decimal::default()).unwrap();
    }

    #[test]
    fn moments_and_days_come_back() {
        for micros in [0, -1, 1_700_000_000_123_456, -30_000_000_000_000_000] {
            let mut cell = Cell::Null;
            read_cell(ColumnType::Timestamp, timestamp(micros).unwrap(), &mut cell);
            assert_eq!(cell, Cell::Timestamp(micros));
        }
        for days in [0, -1, 19_000, -350_000, 2_932_896] {
            let mut cell = Cell::Null;
            read_cell(ColumnType::Date, date(days).unwrap(), &mut cell);
            assert_eq!(cell, Cell::Date(days));
        }
        assert!(date(2_932_897).unwrap_err().contains("9999"));
        assert!(timestamp(i64::MAX).is_err());
    }
}
