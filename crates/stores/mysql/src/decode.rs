//! Values of the server as cells.

use jiff::civil;
use mysql_async::consts::ColumnType as SqlType;
use mysql_async::{Column, Value};
use onelog_mapping::{Cell, ColumnType, days_of_date, numeric_as_written};

use crate::encode::DAY_MICROS;

/// The character set of columns that hold bytes.
const BINARY: u16 = 63;

/// How a column is read, so that no text of a value is taken for another value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadAs {
    Kind(ColumnType),
    /// Bits are a whole number.
    Bits(ColumnType),
}

impl ReadAs {
    /// How a column is read that the mapping takes for this type.
    pub(crate) fn of(kind: ColumnType, column: &Column) -> Self {
        use ColumnType::{Blob, Boolean, Integer, Json, Numeric, Real};
        match (kind, column.column_type()) {
            (kind, SqlType::MYSQL_TYPE_BIT) => Self::Bits(kind),
            (
                Integer | Real | Boolean,
                SqlType::MYSQL_TYPE_DECIMAL | SqlType::MYSQL_TYPE_NEWDECIMAL,
            ) => Self::Kind(Numeric),
            // MySQL's own JSON says the same of itself.
            (Json, sql_type)
                if sql_type != SqlType::MYSQL_TYPE_JSON
                    && (sql_type.is_character_type() || is_blob(sql_type))
                    && column.character_set() == BINARY =>
            {
                Self::Kind(Blob)
            }
            (kind, _) => Self::Kind(kind),
        }
    }

    pub(crate) fn read(self, value: Value, cell: &mut Cell) {
        match (self, value) {
            (Self::Bits(kind), Value::Bytes(bytes)) if bytes.len() <= 8 => {
                let number = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                read_cell(kind, Value::UInt(number), cell);
            }
            (Self::Bits(kind) | Self::Kind(kind), value) => read_cell(kind, value, cell),
        }
    }
}

const fn is_blob(sql_type: SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::MYSQL_TYPE_TINY_BLOB
            | SqlType::MYSQL_TYPE_MEDIUM_BLOB
            | SqlType::MYSQL_TYPE_LONG_BLOB
    )
}

/// A stored value as the cell that it was, or as what another client made of it.
pub(crate) fn read_cell(kind: ColumnType, value: Value, cell: &mut Cell) {
    *cell = match value {
        Value::NULL => Cell::Null,
        Value::Int(number) => integer(kind, number),
        Value::UInt(number) => match i64::try_from(number) {
            Ok(number) => integer(kind, number),
            Err(_) => Cell::Numeric(number.to_string()),
        },
        Value::Float(number) => Cell::Real(f64::from(number)),
        Value::Double(number) => Cell::Real(number),
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
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let sign = if negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            let fraction = match micros {
                0 => String::new(),
                micros => format!(".{micros:06}"),
            };
            Cell::Text(format!(
                "{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}"
            ))
        }
        Value::Bytes(bytes) => read_bytes(kind, bytes),
    };
}

fn integer(kind: ColumnType, number: i64) -> Cell {
    match (kind, number) {
        (ColumnType::Boolean, 0 | 1) => Cell::Boolean(number == 1),
        _ => Cell::Integer(number),
    }
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
        Ok(text) if kind == ColumnType::Numeric => match numeric_as_written(&text) {
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
    let Some(days) = days_of_date(at.date()) else {
        return shown();
    };
    if kind == ColumnType::Date && at.time() == civil::Time::midnight() {
        return Cell::Date(days);
    }
    let clock = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    let within = clock * 1_000_000 + i64::from(micros);
    Cell::Timestamp(i64::from(days) * DAY_MICROS + within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{date, timestamp};

    #[test]
    fn moments_and_days_come_back() {
        for micros in [
            0,
            -1,
            1_700_000_000_123_456,
            -30_000_000_000_000_000,
            253_402_300_799_999_999,
        ] {
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
