//! The rows of a CSV stream as JSON objects. A value is a text, as it was written, so that zip codes
//! keep their zeros; the columns named by `--numbers` are numbers, as they were written.

use std::collections::HashSet;
use std::io::{self, Read};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, Terminator};
use onelog_record::FieldPath;
use onelog_terminal::counted;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::format::{PIECE_BYTES_MAX, Piece};
use crate::quotes::Written;

const READ_BYTES: usize = 64 << 10;
/// How many names of columns a message lists.
const NAMES_SHOWN_MAX: usize = 20;

/// What the reader of rows must know.
#[derive(Clone, Debug)]
pub struct RowOptions {
    /// The byte between two columns.
    pub delimiter: u8,
    /// The columns whose values are numbers.
    pub numbers: Vec<String>,
    /// The column that is the key.
    pub key: FieldPath,
}

pub struct Rows<R> {
    rows: Reader<Bounded<R>>,
    delimiter: u8,
    names: Vec<String>,
    is_number: Vec<bool>,
    record: ByteRecord,
    at: u64,
    /// How many lines are behind.
    lines: u64,
}

/// A quote that is not closed makes one row of all that follows: it must not be held in memory.
struct Bounded<R> {
    inner: R,
    left: usize,
    /// What was read and belongs to no row that was given out: the reader takes quotes away and is
    /// lenient with them, so that each row is looked at as it was written.
    raw: Vec<u8>,
    /// How many bytes of `raw` belong to the latest row, and to those before it.
    used: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..len])?;
        self.left -= read;
        self.raw.drain(..self.used);
        self.used = 0;
        self.raw.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl<R> Bounded<R> {
    /// The next bytes of those that were read.
    fn take(&mut self, bytes: u64) -> &[u8] {
        let start = self.used;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.used = start.saturating_add(bytes).min(self.raw.len());
        &self.raw[start..self.used]
    }
}

impl<R: Read> Rows<R> {
    /// Reads the header of a stream whose first byte is `at`.
    pub fn open(stream: R, at: u64, options: &RowOptions) -> Result<Self, String> {
        let bounded = Bounded {
            inner: stream,
            left: PIECE_BYTES_MAX,
            raw: Vec::new(),
            used: 0,
        };
        let mut rows = ReaderBuilder::new()
            .delimiter(options.delimiter)
            // By default the two bytes of a line's end are read apart, and lines are miscounted.
            .terminator(Terminator::Any(b'\n'))
            .buffer_capacity(READ_BYTES)
            .has_headers(false)
            .flexible(true)
            .from_reader(bounded);
        let mut record = ByteRecord::new();
        rows.read_byte_record(&mut record)
            .map_err(|error| format!("its header: {}", said(error, 1)))?;
        let end = rows.position().byte();
        let written = Written::of(rows.get_mut().take(end), options.delimiter);
        if let Some(fault) = written.fault {
            return Err(format!("its header: {}", fault.said(&[])));
        }
        if written.ends_with_return {
            strip_return(&mut record);
        }
        let names = header(&record)?;
        let listed = listed(&names);
        let unknown = options.numbers.iter().find(|name| !names.contains(name));
        if let Some(name) = unknown {
            return Err(format!("--numbers: there is no column '{name}'; {listed}"));
        }
        let columns: Value = names
            .iter()
            .map(|name| (name.clone(), Value::Null))
            .collect();
        if options.key.get(&columns).is_none() {
            return Err(format!(
                "there is no column '{}' for the key; {listed}",
                options.key
            ));
        }
        let is_number = names
            .iter()
            .map(|name| options.numbers.contains(name))
            .collect();
        Ok(Self {
            rows,
            delimiter: options.delimiter,
            names,
            is_number,
            record,
            at,
            lines: written.blank + written.lines,
        })
    }

    fn read_piece(&mut self) -> io::Result<Option<Piece>> {
        let start = self.rows.position().byte();
        let mut begin = start;
        loop {
            if !self.read_record()? {
                return Ok(None);
            }
            let end = self.rows.position().byte();
            let raw = self.rows.get_mut().take(end - begin);
            let written = Written::of(raw, self.delimiter);
            begin = end;
            let number = self.lines + written.blank + 1;
            self.lines += written.blank + written.lines;
            if written.ends_with_return {
                strip_return(&mut self.record);
            }
            if written.is_empty {
                continue;
            }
            let text = match written.fault {
                Some(fault) => Err(fault.said(&self.names)),
                None => self.object(),
            };
            return Ok(Some(Piece {
                number,
                start: self.at + start,
                end: self.at + end,
                key: None,
                text,
            }));
        }
    }

    fn read_record(&mut self) -> io::Result<bool> {
        self.rows.get_mut().left = PIECE_BYTES_MAX;
        let line = self.lines + 1;
        let read = self.rows.read_byte_record(&mut self.record);
        read.map_err(|error| match error.into_kind() {
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => too_large(line),
            ErrorKind::Io(error) => error,
            other => io::Error::other(format!("line {line}: {other:?}")),
        })
    }

    fn object(&self) -> Result<Vec<u8>, String> {
        let (found, expected) = (self.record.len(), self.names.len());
        if found != expected {
            return Err(format!(
                "it has {}, the header has {expected}; is a quote missing, or is the delimiter another (--delimiter)?",
                counted(found as u64, "column")
            ));
        }
        let mut out = Vec::with_capacity(self.record.as_slice().len() + expected * 16);
        let cells = self.record.iter().zip(&self.names).zip(&self.is_number);
        for (n, ((cell, name), is_number)) in cells.enumerate() {
            out.push(if n == 0 { b'{' } else { b',' });
            let cell = std::str::from_utf8(cell).map_err(|error| {
                format!(
                    "the column '{name}' is not UTF-8 at its byte {}; convert the file first: iconv -f ISO-8859-1 -t UTF-8",
                    error.valid_up_to()
                )
            })?;
            push_text(&mut out, name);
            out.push(b':');
            match is_number {
                true => out.extend_from_slice(number(name, cell)?.as_bytes()),
                false => push_text(&mut out, cell),
            }
        }
        out.push(b'}');
        Ok(out)
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_piece().transpose()
    }
}

/// Takes the carriage return off the last column.
fn strip_return(record: &mut ByteRecord) {
    let Some(last) = record.len().checked_sub(1) else {
        return;
    };
    let Some(rest) = record[last].strip_suffix(b"\r").map(<[u8]>::to_vec) else {
        return;
    };
    record.truncate(last);
    record.push_field(&rest);
}

fn header(record: &ByteRecord) -> Result<Vec<String>, String> {
    if record.is_empty() {
        return Err("it is empty; its first line must name the columns".to_owned());
    }
    let mut names = Vec::with_capacity(record.len());
    let mut seen = HashSet::new();
    for (n, cell) in record.iter().enumerate() {
        let name = std::str::from_utf8(cell).map_err(|_| {
            format!(
                "the name of its column {} is not UTF-8; convert the file first: iconv -f ISO-8859-1 -t UTF-8",
                n + 1
            )
        })?;
        if name.contains('\r') {
            return Err(
                "its lines end with a carriage return alone, which is not read; convert it first: tr '\\r' '\\n'"
                    .to_owned(),
            );
        }
        if name.is_empty() {
            return Err(format!("its column {} has no name in the header", n + 1));
        }
        if !seen.insert(name) {
            return Err(format!(
                "its header names the column '{name}' twice; rename one of them"
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMES_SHOWN_MAX)
        .map(|name| format!("'{name}'"))
        .collect();
    let more = match names.len() > NAMES_SHOWN_MAX {
        true => ", …",
        false => "",
    };
    let hint = match names {
        [_] => "; --delimiter says what separates columns",
        _ => "",
    };
    format!("the header has {}{more}{hint}", shown.join(", "))
}

fn number<'c>(name: &str, cell: &'c str) -> Result<&'c str, String> {
    let cell = cell.trim();
    if cell.is_empty() {
        return Ok("null");
    }
    let is_number = cell.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(cell).is_ok();
    match is_number {
        true => Ok(cell),
        false => Err(format!(
            "the column '{name}' is '{cell}', which is no number as JSON writes it, such as 12, -0.5 or 1e9"
        )),
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

fn too_large(line: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the row that begins in line {line} is larger than {PIECE_BYTES_MAX} bytes; is a quote not closed?"
        ),
    )
}

fn said(error: csv::Error, line: u64) -> String {
    match error.into_kind() {
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            too_large(line).to_string()
        }
        ErrorKind::Io(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(numbers: &[&str]) -> RowOptions {
        RowOptions {
            delimiter: b',',
            numbers: numbers.iter().map(|&name| name.to_owned()).collect(),
            key: FieldPath::parse("id").unwrap(),
        }
    }

    fn read(text: &[u8], numbers: &[&str]) -> Vec<(u64, Result<String, String>)> {
        let rows = Rows::open(text, 0, &options(numbers)).unwrap();
        rows.map(|piece| {
            let piece = piece.unwrap();
            let text = piece.text.map(|text| String::from_utf8(text).unwrap());
            (piece.number, text)
        })
        .collect()
    }

    #[test]
    fn a_row_becomes_an_object_of_texts_and_of_the_numbers_that_were_named() {
        let text = b"id,zip,total\r\na,01069,1.50\r\n\r\n\"b, \"\"c\"\"\",\"two\nlines\",\nd,,12345678901234567890.10\n";
        assert_eq!(
            read(text, &["total"]),
            [
                (2, Ok(r#"{"id":"a","zip":"01069","total":1.50}"#.to_owned())),
                (
                    4,
                    Ok(r#"{"id":"b, \"c\"","zip":"two\nlines","total":null}"#.to_owned())
                ),
                (
                    6,
                    Ok(r#"{"id":"d","zip":"","total":12345678901234567890.10}"#.to_owned())
                ),
            ]
        );
    }

    #[test]
    fn a_row_that_does_not_fit_is_bad_and_the_next_is_read() {
        let rows = read(b"id,n\na,1,2\nb,1e\nc,\xe9\nd,7", &["n"]);
        let said: Vec<&str> = rows[..3]
            .iter()
            .map(|(_, row)| row.as_ref().unwrap_err().as_str())
            .collect();
        assert!(said[0].starts_with("it has 3 columns, the header has 2"));
        assert!(said[1].starts_with("the column 'n' is '1e', which is no number"));
        assert!(said[2].starts_with("the column 'n' is not UTF-8 at its byte 0"));
        assert_eq!(rows[3], (5, Ok(r#"{"id":"d","n":7}"#.to_owned())));
    }

    #[test]
    fn a_quote_that_is_missing_makes_a_bad_row_instead_of_one_that_has_others_inside() {
        let rows = read(b"id,n\n1,\"a\"\n2,\"b\n3,\"c\"\n4,\"d\"\n", &[]);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], (2, Ok(r#"{"id":"1","n":"a"}"#.to_owned())));
        let said = rows[1].1.as_ref().unwrap_err();
        assert_eq!(rows[1].0, 3);
        assert!(
            said.starts_with("the column 'n' has text behind its closing quote"),
            "{said}"
        );
        assert_eq!(rows[2], (5, Ok(r#"{"id":"4","n":"d"}"#.to_owned())));
    }

    #[test]
    fn what_is_not_quoted_as_csv_is_bad_and_names_its_line() {
        for (row, expected) in [
            ("1,\"a\"x\n", "has text behind its closing quote"),
            ("1,\"a\" \n", "has text behind its closing quote"),
            ("1,\"a\"\r\r\n", "has text behind its closing quote"),
            ("1,a\"b\n", "has a quote inside a text without quotes"),
            ("1, \"b\"\n", "has a quote inside a text without quotes"),
            ("1,\"a", "is not closed: the file ends inside its quotes"),
            ("1,\"a\n", "is not closed: the file ends inside its quotes"),
            (
                "1,\"a\"\"\r\n2,b\n",
                "is not closed: the file ends inside its quotes",
            ),
            ("1,\"", "is not closed: the file ends inside its quotes"),
        ] {
            let text = format!("id,n\n\n0,\"\nx\"\n{row}");
            let rows = read(text.as_bytes(), &[]);
            assert_eq!(rows.len(), 2, "{row:?}: {rows:?}");
            let (number, bad) = &rows[1];
            let bad = bad.as_ref().unwrap_err();
            assert_eq!(*number, 5, "{row:?}");
            assert!(bad.starts_with("the column 'n' "), "{row:?}: {bad}");
            assert!(bad.contains(expected), "{row:?}: {bad}");
        }
    }

    #[test]
    fn a_line_may_end_with_a_carriage_return_and_no_value_has_it() {
        let expected = |n: u64, id: &str| (n, Ok(format!(r#"{{"id":"{id}","v":"a"}}"#)));
        for text in [
            "id,v\n1,a\r\n2,a\n3,\"a\"\r\n4,a\r",
            "id,v\r\n1,a\n2,a\r\n3,\"a\"\n4,\"a\"\r",
        ] {
            assert_eq!(
                read(text.as_bytes(), &[]),
                [
                    expected(2, "1"),
                    expected(3, "2"),
                    expected(4, "3"),
                    expected(5, "4")
                ],
                "{text:?}"
            );
        }
        // Inside quotes it is a part of the value.
        assert_eq!(
            read(b"id,v\r\n1,\"a\r\"\n2,\"a\r\n\"\r\n", &[]),
            [
                (2, Ok(r#"{"id":"1","v":"a\r"}"#.to_owned())),
                (3, Ok(r#"{"id":"2","v":"a\r\n"}"#.to_owned())),
            ]
        );
    }

    #[test]
    fn rows_are_the_same_however_their_bytes_arrive() {
        struct Drops<'t>(&'t [u8], usize);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let len = self.1.min(self.0.len()).min(buffer.len());
                buffer[..len].copy_from_slice(&self.0[..len]);
                self.0 = &self.0[len..];
                Ok(len)
            }
        }
        let text = b"id,v\r\n1,\"a\"\"\r\n\"\r\n\n\r\n2,b\n3,\"c\"x\n\"4\",\n5,\"\"\r\n6,\"\n\nend";
        let whole = read(text, &[]);
        let numbers: Vec<u64> = whole.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 6, 7, 8, 9, 10]);
        for size in 1..20 {
            let rows = Rows::open(Drops(text, size), 0, &options(&[])).unwrap();
            let rows: Vec<_> = rows
                .map(|piece| {
                    let piece = piece.unwrap();
                    let text = piece.text.map(|text| String::from_utf8(text).unwrap());
                    (piece.number, text)
                })
                .collect();
            assert_eq!(rows, whole, "{size}");
        }
    }

    #[test]
    fn every_byte_belongs_to_a_piece() {
        let text = b"id\na\n\"b\nc\"\n\nd";
        let pieces: Vec<Piece> = Rows::open(&text[..], 3, &options(&[]))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(pieces.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(pieces.last().unwrap().end, 3 + text.len() as u64);
    }

    #[test]
    fn a_header_that_cannot_be_used_is_refused() {
        for (text, expected) in [
            ("", "it is empty"),
            ("id,id\n", "names the column 'id' twice"),
            ("id,\n", "its column 2 has no name"),
            ("id,\"n\"x\n", "column 2 has text behind its closing quote"),
            ("id,\"n", "column 2 is not closed"),
            ("id\ra\rb\r", "its lines end with a carriage return alone"),
            (
                "a;id\n",
                "there is no column 'id' for the key; the header has 'a;id'; --delimiter",
            ),
        ] {
            let said = Rows::open(text.as_bytes(), 0, &options(&[])).err().unwrap();
            assert!(said.contains(expected), "{text}: {said}");
        }
        let said = Rows::open(&b"id\n"[..], 0, &options(&["n"])).err().unwrap();
        assert!(said.contains("--numbers: there is no column 'n'"), "{said}");
    }

    #[test]
    fn a_quote_that_is_not_closed_is_not_held_in_memory() {
        let endless = b"id\na\n\"".chain(io::repeat(b'x'));
        let mut rows = Rows::open(endless, 0, &options(&[])).unwrap();
        rows.next().unwrap().unwrap();
        let said = rows.next().unwrap().unwrap_err().to_string();
        assert!(
            said.starts_with("the row that begins in line 3 is larger"),
            "{said}"
        );
    }
}
