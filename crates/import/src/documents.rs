//! The documents of one JSON array, or of a stream of documents one behind the other, without
//! holding more than one of them. Only ends are found here; what is inside a document is checked by
//! the reader of the document, so that a bad one can be passed over.

use std::io::{self, BufRead};

use crate::format::{Piece, PieceText};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first byte that is no space.
    Start,
    /// In an array, before a document or its end.
    First,
    /// In an array, behind a comma.
    Next,
    /// In an array, behind a document.
    Behind,
    /// Between documents that are in no array.
    Loose,
    /// Behind the end of the array.
    Closed,
}

#[derive(Debug)]
pub struct Documents<R> {
    reader: R,
    place: Place,
    number: u64,
    at: u64,
}

impl<R: BufRead> Documents<R> {
    /// Reads from a stream that is at byte `at`, in front of every document.
    pub const fn new(reader: R, at: u64) -> Self {
        Self {
            reader,
            place: Place::Start,
            number: 0,
            at,
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.reader.fill_buf() {
                Ok(chunk) => return Ok(chunk.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn consume(&mut self) {
        self.reader.consume(1);
        self.at += 1;
    }

    /// The next byte that is no space, not consumed.
    fn after_space(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.byte()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.consume();
        }
        Ok(None)
    }

    fn broken(&self, what: &str) -> io::Error {
        let place = match self.number {
            0 => "at the start".to_owned(),
            number => format!("behind document {number}"),
        };
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{what} {place}, at byte {}", self.at),
        )
    }

    fn read_piece(&mut self) -> io::Result<Option<Piece>> {
        let start = self.at;
        loop {
            let found = self.after_space()?;
            match (self.place, found) {
                (Place::Start | Place::Loose | Place::Closed, None) => return Ok(None),
                (_, None) => return Err(self.broken("the array has no end: it is cut off")),
                (Place::Start, Some(b'[')) => {
                    self.consume();
                    self.place = Place::First;
                }
                (Place::First | Place::Behind, Some(b']')) => {
                    self.consume();
                    self.place = Place::Closed;
                }
                (Place::Behind, Some(b',')) => {
                    self.consume();
                    self.place = Place::Next;
                }
                (Place::Behind, Some(_)) => {
                    return Err(self.broken("expected a comma or the end of the array"));
                }
                (Place::Closed, Some(_)) => {
                    return Err(self.broken("there is more behind the end of the array,"));
                }
                (Place::First | Place::Next, Some(b',' | b']')) => {
                    return Err(self.broken("expected a document"));
                }
                (Place::First | Place::Next, Some(_)) => {
                    self.place = Place::Behind;
                    return self.document(start).map(Some);
                }
                (Place::Start | Place::Loose, Some(_)) => {
                    self.place = Place::Loose;
                    return self.document(start).map(Some);
                }
            }
        }
    }

    /// Reads one document, whose first byte is the next.
    fn document(&mut self, start: u64) -> io::Result<Piece> {
        let mut text = PieceText::default();
        let (mut depth, mut in_text, mut is_escaped) = (0u64, false, false);
        loop {
            let Some(byte) = self.byte()? else {
                if depth > 0 || in_text {
                    return Err(self.broken("the last document has no end: it is cut off"));
                }
                break;
            };
            let is_scalar = depth == 0 && !in_text && !text.is_empty();
            if is_scalar && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}')) {
                break;
            }
            self.consume();
            text.push(&[byte]);
            if in_text {
                in_text = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                if !in_text && depth == 0 {
                    break;
                }
                continue;
            }
            match byte {
                b'"' => in_text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
        }
        self.number += 1;
        Ok(Piece {
            number: self.number,
            start,
            end: self.at,
            key: None,
            text: text.finish(),
        })
    }
}

impl<R: BufRead> Iterator for Documents<R> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_piece().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::format::{PIECE_BYTES_MAX, too_long};

    fn read(text: &str, chunk: usize) -> Result<Vec<String>, String> {
        let documents = Documents::new(BufReader::with_capacity(chunk, text.as_bytes()), 0);
        let mut end = 0;
        let mut out = Vec::new();
        for piece in documents {
            let piece = piece.map_err(|error| error.to_string())?;
            assert_eq!(piece.start, end, "every byte belongs to a piece");
            assert_eq!(piece.number, out.len() as u64 + 1);
            end = piece.end;
            out.push(String::from_utf8(piece.text.unwrap()).unwrap());
        }
        Ok(out)
    }

    #[test]
    fn an_array_and_a_stream_of_documents_are_read_alike() {
        let documents = [r#"{"a":"]},{\"\\"}"#, "[1,[2]]", "\"x\"", "-1.5", "null"];
        let array = format!(" [ {} ]\n", documents.join(" ,\n"));
        for text in [array, documents.join("\n"), documents.join(" ") + " "] {
            for chunk in [1, 3, 100] {
                // A stream that begins with an array is that array.
                assert_eq!(read(&text, chunk).unwrap(), documents, "{text}");
            }
        }
        assert_eq!(read("[]", 10).unwrap(), Vec::<String>::new());
        assert_eq!(read(" \n", 10).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_broken_array_says_where() {
        for (text, expected) in [
            (
                "[{} {}]",
                "expected a comma or the end of the array behind document 1, at byte 4",
            ),
            ("[,{}]", "expected a document at the start, at byte 1"),
            ("[{},]", "expected a document behind document 1, at byte 4"),
            (
                "[{}",
                "the array has no end: it is cut off behind document 1",
            ),
            (
                "[{",
                "the last document has no end: it is cut off at the start",
            ),
            (
                "[] {}",
                "there is more behind the end of the array, at the start",
            ),
        ] {
            let said = read(text, 10).unwrap_err();
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }

    #[test]
    fn a_document_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let text = format!("[\"{}\", 2]", "x".repeat(PIECE_BYTES_MAX));
        let pieces: Vec<Piece> = Documents::new(text.as_bytes(), 0)
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(pieces[0].text, Err(too_long()));
        assert_eq!(pieces[1].text, Ok(b"2".to_vec()));
    }

    proptest! {
        #[test]
        fn every_array_is_cut_as_a_parser_would(
            texts in proptest::collection::vec(r#"[a-z"\\\[\]{}, ]{0,9}"#, 0..6),
            pretty: bool,
            chunk in 1usize..9,
        ) {
            let values: Vec<Value> = texts
                .iter()
                .map(|text| serde_json::json!({"a": text, "b": [text, {"c": 1.5}]}))
                .collect();
            let text = match pretty {
                true => serde_json::to_string_pretty(&values).unwrap(),
                false => serde_json::to_string(&values).unwrap(),
            };
            let read: Vec<Value> = read(&text, chunk)
                .unwrap()
                .iter()
                .map(|text| serde_json::from_str(text).unwrap())
                .collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_text_stops_the_scanner_for_ever(text in r#"[\[\]{}",:0-9a \\]{0,40}"#) {
            let documents = Documents::new(text.as_bytes(), 0);
            let whole = documents.take_while(Result::is_ok).take(100).count();
            prop_assert!(whole <= text.len());
        }
    }
}
