//! Lines of a stream with their place, none longer than a bound.

use std::io::{self, BufRead};

use crate::format::{Piece, PieceText};

#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: u64,
    at: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads from a stream that is at byte `at`, behind line `number`.
    pub const fn new(reader: R, number: u64, at: u64) -> Self {
        Self { reader, number, at }
    }

    fn read_line(&mut self) -> io::Result<Option<Piece>> {
        let start = self.at;
        let mut text = PieceText::default();
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let line_end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..line_end.unwrap_or(chunk.len())];
            text.push(part);
            let used = part.len() + usize::from(line_end.is_some());
            self.reader.consume(used);
            self.at += used as u64;
            if line_end.is_some() || used == 0 {
                break;
            }
        }
        if self.at == start {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Piece {
            number: self.number,
            start,
            end: self.at,
            key: None,
            text: text.finish(),
        }))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::format::{PIECE_BYTES_MAX, too_long};

    fn read(text: &[u8], chunk: usize) -> Vec<Piece> {
        let reader = BufReader::with_capacity(chunk, text);
        Lines::new(reader, 0, 0).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn lines_know_their_place_however_they_arrive() {
        for chunk in [1, 2, 3, 100] {
            let lines = read(b"ab\n\nc", chunk);
            let places: Vec<_> = lines.iter().map(|l| (l.number, l.start, l.end)).collect();
            assert_eq!(places, [(1, 0, 3), (2, 3, 4), (3, 4, 5)]);
            assert_eq!(lines[0].text, Ok(b"ab".to_vec()));
            assert_eq!(lines[1].text, Ok(b"".to_vec()));
            assert_eq!(lines[2].text, Ok(b"c".to_vec()));
        }
        assert_eq!(read(b"", 4), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let mut text = vec![b'x'; PIECE_BYTES_MAX + 1];
        text.extend_from_slice(b"\nnext\n");
        let lines = read(&text, 8192);
        assert_eq!(lines[0].text, Err(too_long()));
        assert_eq!(lines[0].end, PIECE_BYTES_MAX as u64 + 2);
        assert_eq!(lines[1].text, Ok(b"next".to_vec()));
        assert_eq!(lines.len(), 2);
    }
}
