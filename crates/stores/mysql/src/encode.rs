//! Cells as values of the server.

use mysql_async::Value;
use onelog_mapping::{Cell, MappingPlan, Row, date_of_days};

/// The longest key of text, in characters, and of bytes: what an index takes.
pub(crate) const KEY_CHARS_MAX: usize = 768;
pub(crate) const KEY_BYTES_MAX: usize = 3072;
/// Digits of a decimal number, and how many of them are behind the point.
pub(crate) const DECIMAL_DIGITS: u32 = 65;
pub(crate) const DECIMAL_SCALE: u32 = 30;
const SECOND_MICROS: i64 = 1_000_000;
pub(crate) const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;
/// The years that the server's dates have.
const YEARS: std::ops::RangeInclusive<i16> = 1000..=9999;
/// What a value takes in a request beside its bytes, at most.
const VALUE_BYTES_EXTRA: usize = 12;

/// How many digits a decimal column keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) digits: u32,
    pub(crate) scale: u32,
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
pub(crate) fn take_values(
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
pub(crate) fn key_value(cell: Cell) -> Result<Value, String> {
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

pub(crate) fn timestamp(micros: i64) -> Result<Value, String> {
    let beyond = || out_of_range(&onelog_mapping::timestamp_text(micros));
    let days = i32::try_from(micros.div_euclid(DAY_MICROS)).map_err(|_| beyond())?;
    let Ok(Value::Date(year, month, day, ..)) = date(days) else {
        return Err(beyond());
    };
    let within = micros.rem_euclid(DAY_MICROS);
    let seconds = within / SECOND_MICROS;
    let small = |number: i64| number as u8;
    Ok(Value::Date(
        year,
        month,
        day,
        small(seconds / 3600),
        small(seconds / 60 % 60),
        small(seconds % 60),
        (within % SECOND_MICROS) as u32,
    ))
}

pub(crate) fn date(days: i32) -> Result<Value, String> {
    match date_of_days(days) {
        Some(at) if YEARS.contains(&at.year()) => Ok(Value::Date(
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
pub(crate) fn request_bytes(values: &[Value]) -> usize {
    let bytes = |value: &Value| match value {
        Value::Bytes(bytes) => bytes.len() + VALUE_BYTES_EXTRA,
        _ => VALUE_BYTES_EXTRA + 2,
    };
    values.iter().map(bytes).sum()
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
}
