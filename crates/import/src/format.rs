//! In which form records come: found out from the name and the first bytes, or said by `--format`.
//! What cannot be read is named, with the way to convert it.

use std::io::{self, Cursor, Read};
use std::path::Path;

use onelog_record::VALUE_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// The longest text of one record that is kept: a value of the greatest length, and some space
/// around it.
pub const PIECE_BYTES_MAX: usize = VALUE_BYTES_MAX + 4096;
/// How many bytes are looked at to find out what a stream holds.
const HEAD_BYTES: u64 = 1024;
/// Where a tar archive says that it is one.
const TAR_MARK_AT: usize = 257;
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How records are written one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON document per line
    #[default]
    Ndjson,
    /// JSON documents in one array, or one behind the other, each over as many lines as it likes
    Json,
    /// A header with the names of the columns, then one record a row; each value is a text
    Csv,
    /// The same, separated by tabs
    Tsv,
    /// Rows of a table in a store
    #[value(skip)]
    Store,
}

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The command that writes what is inside.
    pub const fn unpacker(self) -> &'static str {
        match self {
            Self::Plain => "cat",
            Self::Gzip => "gzip -dc",
            Self::Zstd => "zstd -dc",
        }
    }
}

/// The text of one record and its place in the unpacked stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of its line, or of the document in a stream of documents, from 1.
    pub number: u64,
    /// Where it begins, in bytes from the start of the stream.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
    /// The key, where it is not a field of the record.
    pub key: Option<Vec<u8>>,
    /// Its JSON, or why it has none.
    pub text: Result<Vec<u8>, String>,
}

/// The text of one record while it is read. What is beyond the bound is not held.
#[derive(Debug, Default)]
pub struct PieceText {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl PieceText {
    pub fn push(&mut self, part: &[u8]) {
        self.is_too_long |= self.bytes.len() + part.len() > PIECE_BYTES_MAX;
        if !self.is_too_long {
            self.bytes.extend_from_slice(part);
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What a [`Piece`] holds.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        match self.is_too_long {
            true => Err(too_long()),
            false => Ok(self.bytes),
        }
    }
}

pub fn too_long() -> String {
    format!("the value is larger than {VALUE_BYTES_MAX} bytes")
}

/// Reads the first bytes of a stream; they stay in front of it.
pub fn peek(mut stream: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut head = Vec::new();
    stream.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(stream))))
}

impl Format {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Store => "store",
        }
    }

    /// What numbers count.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Json => "document",
            Self::Store => "row",
            Self::Ndjson | Self::Csv | Self::Tsv => "line",
        }
    }

    /// What the name of a file says, without the ending of its packing.
    fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let packed = [".gz", ".gzip", ".zst", ".zstd"];
        let name = packed
            .iter()
            .find_map(|ending| name.strip_suffix(ending))
            .unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// What the first unpacked bytes say: a list of objects is one array, all else lines.
    fn of_head(head: &[u8]) -> Self {
        let mut bytes = without_mark(head)
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace());
        match (bytes.next(), bytes.next()) {
            (Some(b'['), Some(b'{' | b']')) => Self::Json,
            _ => Self::Ndjson,
        }
    }

    /// The format of a stream that nobody has named.
    pub fn find(path: &Path, head: &[u8]) -> Self {
        Self::of_name(path).unwrap_or_else(|| Self::of_head(head))
    }
}

impl Packing {
    pub fn of_head(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that holds something for packers only.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Whether a member or frame can begin with this byte.
    pub const fn may_begin_with(self, byte: u8) -> bool {
        match self {
            Self::Plain => false,
            Self::Gzip => byte == 0x1f,
            Self::Zstd => matches!(byte, 0x28 | 0x50..=0x5f),
        }
    }
}

/// How long the byte order mark at the start of a text is.
pub fn mark_bytes(head: &[u8]) -> usize {
    head.len() - without_mark(head).len()
}

fn without_mark(head: &[u8]) -> &[u8] {
    head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head)
}

/// What a stream is that is not read, and how it becomes one that is.
pub fn unreadable(head: &[u8]) -> Option<&'static str> {
    const UTF_16: &str =
        "it is UTF-16, which is not read; convert it first: iconv -f UTF-16 -t UTF-8";
    const UTF_32: &str =
        "it is UTF-32, which is not read; convert it first: iconv -f UTF-32 -t UTF-8";
    if !head.is_empty() && head.iter().all(|&byte| byte == 0) {
        return Some(
            "it begins with zero bytes, which no text has: its room was reserved and never written, or it was lost; get the file anew (tr -d '\\0' leaves out what are only gaps)",
        );
    }
    Some(match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            UTF_32
        }
        // No text in UTF-8 holds a zero byte.
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => UTF_16,
        [b'P', b'K', 3, 4, ..] => {
            "it is a zip archive (or a spreadsheet), which is not read; unpack it first: unzip -p, or save the sheet as CSV"
        }
        [b'B', b'Z', b'h', ..] => {
            "it is packed with bzip2, which is not read; unpack it first: bzcat"
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            "it is packed with xz, which is not read; unpack it first: xzcat"
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            "it is packed with lz4, which is not read; unpack it first: lz4cat"
        }
        [b'P', b'A', b'R', b'1', ..] => {
            "it is Parquet, which is not read; write it as NDJSON or CSV first"
        }
        [b'O', b'b', b'j', 1, ..] => {
            "it is Avro, which is not read; write it as NDJSON or CSV first"
        }
        [b'S', b'Q', b'L', b'i', b't', b'e', b' ', ..] => {
            "it is a SQLite database, which is not read; write a table as CSV first: sqlite3 -csv -header"
        }
        _ if head
            .get(TAR_MARK_AT..)
            .is_some_and(|rest| rest.starts_with(b"ustar")) =>
        {
            "it is a tar archive, which is not read; take a file out of it first: tar -xOf"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_by_name_and_then_by_content() {
        for (name, head, expected) in [
            ("a.csv", "[{", Format::Csv),
            ("a.CSV.gz", "", Format::Csv),
            ("a.tsv.zst", "", Format::Tsv),
            ("a.jsonl", "[{", Format::Ndjson),
            ("a.json", " [\n {\"a\":1}]", Format::Json),
            ("-", "\u{feff}[{}]", Format::Json),
            ("-", "[]", Format::Json),
            ("a.json", "{\"a\":1}\n{\"a\":2}", Format::Ndjson),
            ("a", "[1,2]\n[3,4]", Format::Ndjson),
            ("a", "", Format::Ndjson),
        ] {
            let found = Format::find(Path::new(name), head.as_bytes());
            assert_eq!(found, expected, "{name} {head}");
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (head, expected) in [
            (&b"\xff\xfe{\0"[..], "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"{\0\"\0", "UTF-16"),
            (b"\0{\0\"", "UTF-16"),
            (b"{\0\0\0", "UTF-32"),
            (b"\0\0\0{", "UTF-32"),
            (b"\0\0\xfe\xff", "UTF-32"),
            (b"\xff\xfe", "UTF-16"),
            (b"\0", "zero bytes"),
            (&[0; 1024], "zero bytes"),
            (&[&[b'x'; 257][..], b"ustar\x0000"].concat(), "tar"),
            (b"PK\x03\x04", "zip"),
            (b"PAR1", "Parquet"),
        ] {
            let said = unreadable(head).unwrap_or_default();
            assert!(said.contains(expected), "{head:?}: {said}");
        }
        for head in ["{\"id\":1}", "\u{feff}{}", "\u{feff}", "id,name", ""] {
            assert_eq!(unreadable(head.as_bytes()), None, "{head}");
        }
    }

    #[test]
    fn the_first_bytes_stay_in_front_of_the_stream() {
        let text = "x".repeat(5000);
        let (head, mut rest) = peek(Box::new(Cursor::new(text.clone()))).unwrap();
        assert_eq!(head.len() as u64, HEAD_BYTES);
        let mut read = String::new();
        rest.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
    }
}
