//! Cells from PostgreSQL's binary forms, into buffers that are used again from row to row.
//!
//! Columns come cast to types of onelog. What onelog never writes but another client can (NaN,
//! infinity, lists of lists, lists that do not begin at 1) becomes a cell that equals none of
//! onelog's.

use super::encode::{EPOCH_DAYS, EPOCH_US, type_of};
use super::numeric::{self, Decoded};
use onelog_mapping::{Cell, ColumnType, Row};

const COPY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, and the length of an extension.
const COPY_HEAD_BYTES: usize = COPY_SIGNATURE.len() + 8;

/// Bytes that are not what the protocol says.
#[derive(Debug, thiserror::Error)]
#[error("the server's stream of rows is malformed: {0}")]
pub(crate) struct Malformed(&'static str);

/// Splits the stream of a binary `COPY … TO STDOUT` into rows. The pieces may end anywhere.
#[derive(Debug, Default)]
pub(crate) struct CopyStream {
    carried: Vec<u8>,
    begun: bool,
}

impl CopyStream {
    /// Takes the next piece; `each` gets every row that is now whole, and says whether to go on.
    pub(crate) fn take(
        &mut self,
        piece: &[u8],
        kinds: &[ColumnType],
        row: &mut Row,
        each: &mut dyn FnMut(&Row) -> bool,
    ) -> Result<bool, Malformed> {
        if self.carried.is_empty() {
            let (used, go_on) = self.rows(piece, kinds, row, each)?;
            self.carried.extend_from_slice(&piece[used..]);
            return Ok(go_on);
        }
        self.carried.extend_from_slice(piece);
        let mut whole = std::mem::take(&mut self.carried);
        let (used, go_on) = self.rows(&whole, kinds, row, each)?;
        whole.drain(..used);
        self.carried = whole;
        Ok(go_on)
    }

    fn rows(
        &mut self,
        bytes: &[u8],
        kinds: &[ColumnType],
        row: &mut Row,
        each: &mut dyn FnMut(&Row) -> bool,
    ) -> Result<(usize, bool), Malformed> {
        let mut used = 0;
        if !self.begun {
            let Some(head) = bytes.get(..COPY_HEAD_BYTES) else {
                return Ok((0, true));
            };
            if !head.starts_with(COPY_SIGNATURE) {
                return Err(Malformed("it does not begin as it should"));
            }
            let extension = int(&head[COPY_HEAD_BYTES - 4..]).unwrap_or(0);
            let end = COPY_HEAD_BYTES + usize::try_from(extension).unwrap_or(0);
            if bytes.len() < end {
                return Ok((0, true));
            }
            self.begun = true;
            used = end;
        }
        while let Some(row_bytes) = one_row(&bytes[used..], kinds, row)? {
            used += row_bytes;
            if row_bytes == END_BYTES {
                return Ok((used, true));
            }
            if !each(row) {
                return Ok((used, false));
            }
        }
        Ok((used, true))
    }
}

/// The mark at the end; no row with columns is that short.
const END_BYTES: usize = 2;

/// Reads the row at the head of `bytes` and answers its length; `None` when it is not whole yet.
fn one_row(bytes: &[u8], kinds: &[ColumnType], row: &mut Row) -> Result<Option<usize>, Malformed> {
    let Some(count) = bytes.get(..2) else {
        return Ok(None);
    };
    let count = i16::from_be_bytes([count[0], count[1]]);
    if count == -1 {
        return Ok(Some(END_BYTES));
    }
    if usize::try_from(count) != Ok(kinds.len()) {
        return Err(Malformed("a row has another number of columns"));
    }
    let mut at = 2;
    for (kind, cell) in kinds.iter().zip(&mut row.cells) {
        let Some(length) = bytes.get(at..).and_then(int) else {
            return Ok(None);
        };
        at += 4;
        let Ok(length) = usize::try_from(length) else {
            *cell = Cell::Null;
            continue;
        };
        let Some(field) = bytes.get(at..at + length) else {
            return Ok(None);
        };
        at += length;
        read(*kind, field, cell)?;
    }
    Ok(Some(at))
}

fn int(bytes: &[u8]) -> Option<i32> {
    let bytes = bytes.get(..4)?;
    Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes
        .try_into()
        .map_err(|_| Malformed("a field has another length than its type"))
}

fn read(kind: ColumnType, field: &[u8], cell: &mut Cell) -> Result<(), Malformed> {
    match kind {
        ColumnType::Text => match std::str::from_utf8(field) {
            Ok(text) => cell.set_text(text),
            Err(_) => cell.set_blob(field),
        },
        ColumnType::Json => match std::str::from_utf8(field) {
            Ok(text) => cell.set_json(text),
            Err(_) => cell.set_blob(field),
        },
        ColumnType::Blob => cell.set_blob(field),
        ColumnType::Integer => *cell = Cell::Integer(i64::from_be_bytes(fixed(field)?)),
        ColumnType::Real => *cell = Cell::Real(f64::from_be_bytes(fixed(field)?)),
        ColumnType::Boolean => *cell = Cell::Boolean(fixed::<1>(field)?[0] != 0),
        ColumnType::Numeric => read_numeric(field, cell)?,
        ColumnType::Timestamp => match i64::from_be_bytes(fixed(field)?) {
            i64::MAX => cell.set_text("infinity"),
            i64::MIN => cell.set_text("-infinity"),
            us => *cell = Cell::Timestamp(us.saturating_add(EPOCH_US)),
        },
        ColumnType::Date => match i32::from_be_bytes(fixed(field)?) {
            i32::MAX => cell.set_text("infinity"),
            i32::MIN => cell.set_text("-infinity"),
            days => *cell = Cell::Date(days.saturating_add(EPOCH_DAYS)),
        },
        ColumnType::Uuid => *cell = Cell::Uuid(fixed(field)?),
        ColumnType::List(element) => read_list(element.kind(), field, cell)?,
    }
    Ok(())
}

fn read_numeric(field: &[u8], cell: &mut Cell) -> Result<(), Malformed> {
    let mut text = match std::mem::take(cell) {
        Cell::Numeric(text) => text,
        _ => String::new(),
    };
    match numeric::decode(field, &mut text) {
        Some(Decoded::Number) => *cell = Cell::Numeric(text),
        Some(Decoded::Special(word)) => cell.set_text(word),
        None => return Err(Malformed("a number is none")),
    }
    Ok(())
}

fn read_list(kind: ColumnType, field: &[u8], cell: &mut Cell) -> Result<(), Malformed> {
    let malformed = Malformed("a list is none");
    let Some(dimensions) = int(field) else {
        return Err(malformed);
    };
    let mut elements = match std::mem::take(cell) {
        Cell::List(elements) => elements,
        _ => Vec::new(),
    };
    if dimensions == 0 {
        elements.clear();
        *cell = Cell::List(elements);
        return Ok(());
    }
    if dimensions > 1 {
        *cell = Cell::Text(format!("a list of {dimensions} dimensions"));
        return Ok(());
    }
    let Some(first) = field.get(16..).and_then(int) else {
        return Err(malformed);
    };
    if first != 1 {
        let text = format!("a list whose first element has the number {first}");
        *cell = Cell::Text(text);
        return Ok(());
    }
    let element_type = field.get(8..12).and_then(int);
    let count = field.get(12..).and_then(int);
    let (Some(element_type), Some(count)) = (element_type, count) else {
        return Err(malformed);
    };
    if element_type.cast_unsigned() != type_of(kind).oid() {
        return Err(Malformed("a list holds another type"));
    }
    let mut at = 20;
    elements.clear();
    for _ in 0..count {
        let Some(length) = field.get(at..).and_then(int) else {
            return Err(malformed);
        };
        at += 4;
        let mut element = Cell::Null;
        if let Ok(length) = usize::try_from(length) {
            let Some(bytes) = field.get(at..at + length) else {
                return Err(malformed);
            };
            at += length;
            read(kind, bytes, &mut element)?;
        }
        elements.push(element);
    }
    *cell = Cell::List(elements);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::encode::{CopyRows, Wire};
    use super::*;
    use onelog_mapping::Element;

    #[test]
    fn rows_come_back_however_the_stream_is_cut() {
        let kinds = [
            ColumnType::Text,
            ColumnType::Integer,
            ColumnType::Numeric,
            ColumnType::List(Element::Integer),
            ColumnType::Timestamp,
            ColumnType::Date,
        ];
        let wires = kinds.map(Wire::of);
        let rows: Vec<Row> = (0..5)
            .map(|n| {
                let mut row = Row::new(kinds.len());
                row.cells = vec![
                    Cell::Text("ü".repeat(n)),
                    if n % 2 == 0 {
                        Cell::Null
                    } else {
                        Cell::Integer(-(n as i64))
                    },
                    Cell::Numeric(format!("-{n}.5")),
                    Cell::List(vec![Cell::Integer(1), Cell::Null]),
                    Cell::Timestamp(n as i64 - 2),
                    Cell::Date(n as i32 - 2),
                ];
                row
            })
            .collect();
        let mut copy = CopyRows::new();
        for row in &rows {
            copy.push(row, &wires, None).unwrap();
        }
        let bytes = copy.end();
        for size in [1, 2, 3, 7, 19, 64, bytes.len()] {
            let mut stream = CopyStream::default();
            let mut row = Row::new(kinds.len());
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                // Text is as it is; a jsonb column would come cast to text.
                stream
                    .take(piece, &kinds, &mut row, &mut |row| {
                        found.push(row.clone());
                        true
                    })
                    .unwrap();
            }
            assert_eq!(found, rows, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_stream_of_rows_is_an_error() {
        let mut stream = CopyStream::default();
        let mut row = Row::new(1);
        let text = [b'x'; 40];
        let outcome = stream.take(&text, &[ColumnType::Text], &mut row, &mut |_| true);
        assert!(outcome.is_err());
    }
}
