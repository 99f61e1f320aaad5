//! Rows in PostgreSQL's binary forms: as one array per column for `unnest`, and as the stream of
//! `COPY … (FORMAT binary)`. Cells are written straight into the buffers that are sent.
//!
//! What PostgreSQL would change silently or refuse without naming the row is refused here: the
//! character U+0000, more characters or digits than an existing column takes.

use bytes::{Bytes, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use super::{jsonb, numeric};
use onelog_mapping::{self, Cell, ColumnType, Element, Row};
use onelog_store::Change;

/// Microseconds and days from 1970 to 2000, where PostgreSQL's calendar begins.
pub(crate) const EPOCH_US: i64 = 946_684_800_000_000;
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// The first moment and the first day behind PostgreSQL's calendar, and the first ones in it.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
const TIMESTAMP_START: i64 = -211_813_488_000_000_000;
const DATE_END: i32 = 2_145_031_949;
const DATE_START: i32 = -2_451_545;

const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_END: [u8; 2] = (-1_i16).to_be_bytes();

/// The key and the offset of a record.
const RECORD_COLUMNS: usize = 2;

/// What a column of an existing table takes beyond its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Limit {
    #[default]
    None,
    Characters(usize),
    /// So many digits, of which so many behind the point.
    Digits {
        all: usize,
        fraction: usize,
    },
}

/// How the cells of one column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) kind: ColumnType,
    pub(crate) limit: Limit,
}

impl Wire {
    pub(crate) const fn of(kind: ColumnType) -> Self {
        Self {
            kind,
            limit: Limit::None,
        }
    }
}

/// The type that a column has in PostgreSQL.
pub(crate) const fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Integer => "bigint",
        ColumnType::Real => "double precision",
        ColumnType::Boolean => "boolean",
        ColumnType::Json => "jsonb",
        ColumnType::Blob => "bytea",
        ColumnType::Numeric => "numeric",
        ColumnType::Timestamp => "timestamp with time zone",
        ColumnType::Date => "date",
        ColumnType::Uuid => "uuid",
        ColumnType::List(element) => match element {
            Element::Text => "text[]",
            Element::Integer => "bigint[]",
            Element::Real => "double precision[]",
            Element::Boolean => "boolean[]",
            Element::Numeric => "numeric[]",
            Element::Timestamp => "timestamp with time zone[]",
            Element::Date => "date[]",
            Element::Uuid => "uuid[]",
        },
    }
}

/// The number of a type; fixed for the built-in ones.
pub(crate) const fn type_of(kind: ColumnType) -> Type {
    match kind {
        ColumnType::Text | ColumnType::List(_) => Type::TEXT,
        ColumnType::Integer => Type::INT8,
        ColumnType::Real => Type::FLOAT8,
        ColumnType::Boolean => Type::BOOL,
        ColumnType::Json => Type::JSONB,
        ColumnType::Blob => Type::BYTEA,
        ColumnType::Numeric => Type::NUMERIC,
        ColumnType::Timestamp => Type::TIMESTAMPTZ,
        ColumnType::Date => Type::DATE,
        ColumnType::Uuid => Type::UUID,
    }
}

/// A parameter whose bytes are ready.
#[derive(Debug)]
pub(crate) struct Parameter(Bytes);

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

/// One array per column. A list is text in its array, because arrays of arrays are
/// flattened by `unnest`; the statement casts it back.
#[derive(Debug)]
pub(crate) struct Arrays {
    columns: Vec<Vec<u8>>,
    kinds: Vec<ColumnType>,
    rows: i32,
    bytes: usize,
}

/// Dimensions, whether there are nulls, the elements' type, their count, the first one's number.
const ARRAY_HEAD_BYTES: usize = 20;
const ARRAY_COUNT_AT: usize = 12;

impl Arrays {
    pub(crate) fn new(kinds: impl Iterator<Item = ColumnType>) -> Self {
        let kinds: Vec<ColumnType> = kinds.collect();
        let mut arrays = Self {
            columns: vec![Vec::new(); kinds.len()],
            kinds,
            rows: 0,
            bytes: 0,
        };
        arrays.begin();
        arrays
    }

    fn begin(&mut self) {
        for (column, kind) in self.columns.iter_mut().zip(&self.kinds) {
            column.clear();
            column.extend_from_slice(&1_i32.to_be_bytes());
            column.extend_from_slice(&1_i32.to_be_bytes());
            column.extend_from_slice(&type_of(*kind).oid().to_be_bytes());
            column.extend_from_slice(&0_i32.to_be_bytes());
            column.extend_from_slice(&1_i32.to_be_bytes());
        }
        self.rows = 0;
        self.bytes = 0;
    }

    /// Adds a row; the error is the number of the column and why its cell cannot be stored. After
    /// an error the rows of several columns are good for nothing but [`Self::clear`].
    pub(crate) fn push(&mut self, cells: &[Cell], wires: &[Wire]) -> Result<(), (usize, String)> {
        for (n, (cell, wire)) in cells.iter().zip(wires).enumerate() {
            let column = &mut self.columns[n];
            let before = column.len();
            match (cell, wire.kind) {
                (Cell::List(elements), ColumnType::List(_)) => {
                    long(column, |out| list_text(elements, out))
                }
                _ => field(cell, *wire, column),
            }
            .map_err(|what| {
                column.truncate(before);
                (n, what)
            })?;
            self.bytes += column.len() - before;
        }
        self.rows += 1;
        Ok(())
    }

    pub(crate) const fn rows(&self) -> i32 {
        self.rows
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        if self.rows > 0 || self.bytes > 0 {
            self.begin();
        }
    }

    /// The arrays as parameters; then it is empty again.
    pub(crate) fn take(&mut self) -> Vec<Parameter> {
        let count = self.rows.to_be_bytes();
        let mut out = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            debug_assert!(column.len() >= ARRAY_HEAD_BYTES);
            column[ARRAY_COUNT_AT..ARRAY_COUNT_AT + 4].copy_from_slice(&count);
            let next = Vec::with_capacity(column.len());
            out.push(Parameter(Bytes::from(std::mem::replace(column, next))));
        }
        self.begin();
        out
    }
}

/// The stream of a binary COPY.
#[derive(Debug)]
pub(crate) struct CopyRows {
    out: Vec<u8>,
}

impl CopyRows {
    pub(crate) fn new() -> Self {
        Self {
            out: COPY_HEAD.to_vec(),
        }
    }

    /// Adds a row, with the record of the log behind its columns where that is given; the error is
    /// the number of the column and why its cell cannot be stored.
    pub(crate) fn push(
        &mut self,
        row: &Row,
        wires: &[Wire],
        record: Option<&Change>,
    ) -> Result<(), (usize, String)> {
        let more = record.map_or(0, |_| RECORD_COLUMNS);
        let columns = (wires.len() + more) as i16;
        self.out.extend_from_slice(&columns.to_be_bytes());
        for (n, (cell, wire)) in row.cells.iter().zip(wires).enumerate() {
            match (cell, wire.kind) {
                (Cell::List(elements), ColumnType::List(element)) => {
                    long(&mut self.out, |out| array(elements, element, out))
                }
                _ => field(cell, *wire, &mut self.out),
            }
            .map_err(|what| (n, what))?;
        }
        if let Some(record) = record {
            short(&mut self.out, &record.key);
            short(&mut self.out, &record.offset.get().to_be_bytes());
        }
        Ok(())
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.out.len()
    }

    /// What has been gathered since the last call.
    pub(crate) fn take(&mut self) -> Bytes {
        let next = Vec::with_capacity(self.out.capacity());
        Bytes::from(std::mem::replace(&mut self.out, next))
    }

    pub(crate) fn end(mut self) -> Bytes {
        self.out.extend_from_slice(&COPY_END);
        Bytes::from(self.out)
    }
}

/// A field with its length in front.
fn long(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let bytes = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
    Ok(())
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn field(cell: &Cell, wire: Wire, out: &mut Vec<u8>) -> Result<(), String> {
    match (cell, wire.kind) {
        (Cell::Null, _) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        (Cell::Text(text), ColumnType::Text) => {
            check_text(text, wire.limit)?;
            short(out, text.as_bytes());
        }
        (Cell::Integer(number), ColumnType::Integer) => short(out, &number.to_be_bytes()),
        (Cell::Real(number), ColumnType::Real) => short(out, &number.to_bits().to_be_bytes()),
        (Cell::Boolean(value), ColumnType::Boolean) => short(out, &[u8::from(*value)]),
        (Cell::Json(text), ColumnType::Json) => {
            jsonb::check(text)?;
            out.extend_from_slice(&(text.len() as i32 + 1).to_be_bytes());
            // The version of the binary form.
            out.push(1);
            out.extend_from_slice(text.as_bytes());
        }
        (Cell::Blob(bytes), ColumnType::Blob) => short(out, bytes),
        (Cell::Numeric(text), ColumnType::Numeric) => {
            check_digits(text, wire.limit)?;
            long(out, |out| numeric::encode(text, out))?;
        }
        (Cell::Timestamp(us), ColumnType::Timestamp) => {
            short(out, &timestamp(*us)?.to_be_bytes());
        }
        (Cell::Date(days), ColumnType::Date) => short(out, &date(*days)?.to_be_bytes()),
        (Cell::Uuid(bytes), ColumnType::Uuid) => short(out, bytes),
        _ => {
            return Err(format!(
                "the value is of another type than the column, which is '{}'",
                wire.kind.name()
            ));
        }
    }
    Ok(())
}

fn timestamp(us: i64) -> Result<i64, String> {
    us.checked_sub(EPOCH_US)
        .filter(|us| (TIMESTAMP_START..TIMESTAMP_END).contains(us))
        .ok_or_else(|| "PostgreSQL's calendar ends at the year 294276 and begins at 4713 BC".into())
}

fn date(days: i32) -> Result<i32, String> {
    days.checked_sub(EPOCH_DAYS)
        .filter(|days| (DATE_START..DATE_END).contains(days))
        .ok_or_else(|| "PostgreSQL's dates begin at 4713 BC and end at the year 5874897".into())
}

fn check_text(text: &str, limit: Limit) -> Result<(), String> {
    if text.as_bytes().contains(&0) {
        return Err("PostgreSQL cannot hold the character U+0000 in text".to_owned());
    }
    match limit {
        Limit::Characters(max) if text.len() > max && text.chars().count() > max => Err(format!(
            "the text has {} characters, the column takes {max}",
            text.chars().count()
        )),
        _ => Ok(()),
    }
}

fn check_digits(text: &str, limit: Limit) -> Result<(), String> {
    let Limit::Digits { all, fraction } = limit else {
        return Ok(());
    };
    let digits = text.trim_start_matches('-');
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let before = before.trim_start_matches('0').len();
    if behind.len() <= fraction && before + fraction <= all {
        return Ok(());
    }
    Err(format!(
        "the number has {before} digits before the point and {} behind it; the column, numeric({all},{fraction}), takes {} and {fraction}",
        behind.len(),
        all.saturating_sub(fraction)
    ))
}

/// A list as a binary array.
fn array(elements: &[Cell], element: Element, out: &mut Vec<u8>) -> Result<(), String> {
    let kind = element.kind();
    let dimensions = i32::from(!elements.is_empty());
    let nulls = i32::from(elements.contains(&Cell::Null));
    out.extend_from_slice(&dimensions.to_be_bytes());
    out.extend_from_slice(&nulls.to_be_bytes());
    out.extend_from_slice(&type_of(kind).oid().to_be_bytes());
    if elements.is_empty() {
        return Ok(());
    }
    out.extend_from_slice(&(elements.len() as i32).to_be_bytes());
    out.extend_from_slice(&1_i32.to_be_bytes());
    let wire = Wire::of(kind);
    elements.iter().try_for_each(|cell| field(cell, wire, out))
}

/// A list as the text of an array: `{"a",NULL,"b\"c"}`.
fn list_text(elements: &[Cell], out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'{');
    for (n, cell) in elements.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        match cell {
            Cell::Null => out.extend_from_slice(b"NULL"),
            Cell::Text(text) => {
                check_text(text, Limit::None)?;
                quoted(text, out);
            }
            Cell::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            // With an exponent the text stays short.
            Cell::Real(number) => out.extend_from_slice(format!("{number:e}").as_bytes()),
            Cell::Boolean(value) => out.push(if *value { b't' } else { b'f' }),
            Cell::Numeric(text) => out.extend_from_slice(text.as_bytes()),
            Cell::Timestamp(us) => {
                timestamp(*us)?;
                quoted(&onelog_mapping::timestamp_text(*us), out);
            }
            Cell::Date(days) => {
                date(*days)?;
                quoted(&onelog_mapping::date_text(*days), out);
            }
            Cell::Uuid(bytes) => {
                for byte in bytes {
                    out.extend_from_slice(format!("{byte:02x}").as_bytes());
                }
            }
            Cell::Json(_) | Cell::Blob(_) | Cell::List(_) => {
                return Err("a list cannot hold this".to_owned());
            }
        }
    }
    out.push(b'}');
    Ok(())
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_would_be_rounded_away_are_refused() {
        let limit = Limit::Digits {
            all: 5,
            fraction: 2,
        };
        for (text, fits) in [
            ("123.45", true),
            ("-999.99", true),
            ("1000", false),
            ("0.001", false),
            ("0.5", true),
        ] {
            assert_eq!(check_digits(text, limit).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(check_text("üüü", Limit::Characters(3)).is_ok());
        assert!(check_text("üüüü", Limit::Characters(3)).is_err());
        assert!(check_text("a\0", Limit::None).is_err());
    }
}
