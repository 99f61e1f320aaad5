//! Lines become batches: transactions of many puts, each with an id that is derived from what it
//! writes and where that is. The same batch of the same file has the same id in every run, so
//! that the server answers a batch it has already committed instead of committing it again.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use onelog_record::{FieldPath, Json, KEY_BYTES_MAX, TxnId, VALUE_BYTES_MAX};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::format::{BYTE_ORDER_MARK, Piece, too_long};

const ID_DOMAIN: &str = "onelog import batch, version 1";

/// The bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    pub records_max: usize,
    /// The most bytes of keys and values, unless one record alone has more.
    pub bytes_max: usize,
}

/// A line, or a document, that cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unit} {line}: {message}")]
pub struct BadLine {
    pub unit: &'static str,
    pub line: u64,
    pub message: String,
}

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line that it came from.
    pub line: u64,
    pub key: Vec<u8>,
    /// The value: the line's JSON as it was written.
    pub value: Vec<u8>,
}

/// Records that are committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where its first line begins.
    pub start: u64,
    /// Where the line behind its last one begins.
    pub end: u64,
    /// The number of its last line.
    pub last_line: u64,
    /// The records, in the order of their lines.
    pub rows: Vec<Row>,
    /// How many of its lines were passed over as bad.
    pub bad_lines: u64,
}

impl Batch {
    /// The id: the same for the same records at the same place of the same file for the same table.
    pub fn id(&self, identity: &str, table: &str) -> TxnId {
        let mut hasher = blake3::Hasher::new_derive_key(ID_DOMAIN);
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(identity.as_bytes());
        part(table.as_bytes());
        part(&self.start.to_le_bytes());
        for row in &self.rows {
            part(&row.key);
            part(&row.value);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        // A UUID of version 8: made by a rule of one's own.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        TxnId::from_bytes(bytes)
    }

    /// The request that commits it.
    pub fn body(&self, id: TxnId, read_position: u64, table: &str) -> Vec<u8> {
        let table = Value::from(table).to_string();
        let size: usize = self
            .rows
            .iter()
            .map(|row| row.key.len() + row.value.len() + table.len() + 48)
            .sum();
        let mut out = Vec::with_capacity(size + 128);
        out.extend_from_slice(
            format!("{{\"id\":\"{id}\",\"read_position\":{read_position},\"writes\":[").as_bytes(),
        );
        for (n, row) in self.rows.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"op\":\"put\",\"table\":");
            out.extend_from_slice(table.as_bytes());
            out.extend_from_slice(b",\"key\":");
            out.extend_from_slice(key_json(&row.key).to_string().as_bytes());
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(&row.value);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// A key as a request has it.
fn key_json(key: &[u8]) -> Value {
    match std::str::from_utf8(key) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": BASE64_STANDARD.encode(key)}),
    }
}

/// Collects lines into batches.
#[derive(Debug)]
pub struct Batcher {
    key: FieldPath,
    unit: &'static str,
    bounds: BatchBounds,
    open: Option<Batch>,
    bytes: usize,
}

impl Batcher {
    /// Keys are found at `key`; `unit` is what is counted.
    pub const fn new(key: FieldPath, unit: &'static str, bounds: BatchBounds) -> Self {
        Self {
            key,
            unit,
            bounds,
            open: None,
            bytes: 0,
        }
    }

    /// Adds a line; answers the batch before it, when the line did not fit any more. A bad line
    /// belongs to the batch that is open, as nothing: what follows a batch starts behind it.
    pub fn push(&mut self, line: Piece) -> (Option<Batch>, Result<(), BadLine>) {
        let place = (line.number, line.start, line.end);
        match self.row(line) {
            Ok(Some(row)) => {
                let size = row.key.len() + row.value.len();
                let full = match &self.open {
                    Some(open) => {
                        open.rows.len() >= self.bounds.records_max
                            || !open.rows.is_empty() && self.bytes + size > self.bounds.bytes_max
                    }
                    None => false,
                };
                let ready = if full { self.finish() } else { None };
                self.bytes += size;
                self.at(place).rows.push(row);
                (ready, Ok(()))
            }
            Ok(None) => {
                self.at(place);
                (None, Ok(()))
            }
            Err(bad) => {
                self.at(place).bad_lines += 1;
                (None, Err(bad))
            }
        }
    }

    /// The open batch, if there is one. It may hold no records when its lines were blank or bad.
    pub fn finish(&mut self) -> Option<Batch> {
        self.bytes = 0;
        self.open.take()
    }

    fn at(&mut self, (number, start, end): (u64, u64, u64)) -> &mut Batch {
        let open = self.open.get_or_insert_with(|| Batch {
            start,
            end,
            last_line: number,
            rows: Vec::new(),
            bad_lines: 0,
        });
        open.end = end;
        open.last_line = number;
        open
    }

    fn row(&self, line: Piece) -> Result<Option<Row>, BadLine> {
        let number = line.number;
        let bad = |message: String| BadLine {
            unit: self.unit,
            line: number,
            message,
        };
        let bytes = line.text.map_err(bad)?;
        if let Some(key) = line.key {
            if bytes.len() > VALUE_BYTES_MAX {
                return Err(bad(too_long()));
            }
            check_length(&key).map_err(bad)?;
            return Ok(Some(Row {
                line: number,
                key,
                value: bytes,
            }));
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > VALUE_BYTES_MAX {
            return Err(bad(too_long()));
        }
        // The parser's own messages, and its rules.
        serde_json::from_slice::<Value>(text)
            .map_err(|error| bad(json_fault(&error) + hint(number, text, &error)))?;
        let value = Json::parse(text).map_err(|error| bad(error.to_string()))?;
        let key = self.key_of(&value).map_err(bad)?;
        Ok(Some(Row {
            line: number,
            key: key.into_bytes(),
            value: text.to_vec(),
        }))
    }

    fn key_of(&self, value: &Json<'_>) -> Result<String, String> {
        let key = match value.get(&self.key) {
            None if !matches!(value, Json::Object(_)) => {
                return Err(format!(
                    "it is {}, which has no field '{}' for the key; expected an object",
                    value.kind(),
                    self.key
                ));
            }
            None => return Err(format!("there is no field '{}' for the key", self.key)),
            Some(Json::String(text)) => text.text().into_owned(),
            // Of any length, as it was written.
            Some(Json::Number(number)) if is_plain_whole(number) => number.to_string(),
            Some(other) => {
                let found = match other {
                    Json::Null => "null",
                    Json::Bool(_) => "true or false",
                    Json::Number(number) if !number.contains('.') => {
                        "a number with an exponent, or minus zero"
                    }
                    Json::Number(_) => "a number with a fraction",
                    Json::Array(_) => "a list",
                    Json::Object(_) => "an object",
                    Json::String(_) => "a text",
                };
                return Err(format!(
                    "the key field '{}' is {found}; expected a text or a whole number",
                    self.key
                ));
            }
        };
        check_length(key.as_bytes())?;
        Ok(key)
    }
}

fn check_length(key: &[u8]) -> Result<(), String> {
    match key.len() {
        0..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(format!(
            "the key has {bytes} bytes, the limit is {KEY_BYTES_MAX}"
        )),
    }
}

/// Whether a number is digits alone, perhaps with a sign: then no other text means the same.
fn is_plain_whole(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    number != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The parser's message without its line, which is always 1.
fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    format!("not JSON: {text}, at byte {}", error.column())
}

/// What the text may be instead of one line of JSON in UTF-8.
fn hint(number: u64, text: &[u8], error: &serde_json::Error) -> &'static str {
    if std::str::from_utf8(text).is_err() {
        return "; the text is not UTF-8, iconv makes it so";
    }
    if text.iter().all(|&byte| byte == 0) && !text.is_empty() {
        return "; it is zero bytes: padding, or a part of the file that was never written";
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return "; it begins with a byte order mark, as where files were joined: remove it";
    }
    match (number, text.first()) {
        (1, Some(b'{' | b'[')) if error.is_eof() => {
            "; documents over several lines are read with --format json"
        }
        (1, Some(b'{' | b'[')) if is_followed(text) => {
            "; several documents on one line are read with --format json"
        }
        (1, Some(b'{' | b'[')) => "",
        (1, Some(_)) if text.iter().any(|byte| b",;\t|".contains(byte)) => {
            "; rows of columns are read with --format csv"
        }
        _ => "",
    }
}

/// Whether another document follows the first one.
fn is_followed(text: &[u8]) -> bool {
    let mut documents = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    let is_whole = matches!(documents.next(), Some(Ok(_)));
    let behind = text[documents.byte_offset()..].trim_ascii_start();
    is_whole && matches!(behind.first(), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Lines;

    const BOUNDS: BatchBounds = BatchBounds {
        records_max: 2,
        bytes_max: 1000,
    };

    fn batches(text: &str, bounds: BatchBounds) -> (Vec<Batch>, Vec<String>) {
        let mut batcher = Batcher::new(FieldPath::parse("id").unwrap(), "line", bounds);
        let (mut ready, mut bad) = (Vec::new(), Vec::new());
        for line in Lines::new(text.as_bytes(), 0, 0) {
            let (batch, line) = batcher.push(line.unwrap());
            ready.extend(batch);
            bad.extend(line.err().map(|b| b.to_string()));
        }
        ready.extend(batcher.finish());
        (ready, bad)
    }

    #[test]
    fn a_hint_fits_what_is_wrong() {
        let hint = |text: &[u8]| {
            let error = serde_json::from_slice::<Value>(text).unwrap_err();
            super::hint(1, text, &error)
        };
        assert!(hint(b"{").contains("--format json"));
        assert!(hint(b"{\"id\":1}{\"id\":2}").contains("--format json"));
        assert!(hint(b"id,name").contains("--format csv"));
        assert!(hint(b"{\"id\":\"\xe9\"}").contains("not UTF-8"));
        assert_eq!(hint("[".repeat(5_000).as_bytes()), "");
        assert_eq!(hint(b"{\"id\":}"), "");
        assert_eq!(hint(b"{\"id\":\"a\",\"x\":NaN}"), "");
    }

    #[test]
    fn a_batch_is_bounded_by_records() {
        let text = "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":3}\n";
        let (ready, bad) = batches(text, BOUNDS);
        assert_eq!(bad, Vec::<String>::new());
        let shape: Vec<_> = ready
            .iter()
            .map(|b| (b.start, b.end, b.last_line, b.rows.len()))
            .collect();
        assert_eq!(shape, [(0, 22, 2, 2), (22, 31, 3, 1)]);
        assert_eq!(ready[1].rows[0].key, b"3");
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_but_one_record_always_fits() {
        let bounds = BatchBounds {
            records_max: 100,
            bytes_max: 5,
        };
        let (ready, _) = batches("{\"id\":1}\n{\"id\":2}", bounds);
        assert_eq!(
            ready.iter().map(|b| b.rows.len()).collect::<Vec<_>>(),
            [1, 1]
        );
    }

    #[test]
    fn bad_lines_are_named_and_every_byte_belongs_to_a_batch() {
        let text =
            "{\"id\":1}\n\nnope\n{\"x\":1}\n{\"id\":null}\n{\"id\":1.5}\n{\"id\":2}\n[\n[1]\n";
        let (ready, bad) = batches(text, BOUNDS);
        assert_eq!(
            bad,
            [
                "line 3: not JSON: expected ident, at byte 2",
                "line 4: there is no field 'id' for the key",
                "line 5: the key field 'id' is null; expected a text or a whole number",
                "line 6: the key field 'id' is a number with a fraction; expected a text or a whole number",
                "line 8: not JSON: EOF while parsing a list, at byte 1",
                "line 9: it is an array, which has no field 'id' for the key; expected an object",
            ]
        );
        assert_eq!(ready[0].start, 0);
        assert!(ready.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(ready.last().unwrap().end, text.len() as u64);
    }

    #[test]
    fn a_key_is_a_whole_number_of_any_length_as_it_was_written() {
        let digits = "123456789012345678901234567890";
        let text =
            format!("{{\"id\":{digits}}}\n{{\"id\":-{digits}}}\n{{\"id\":18446744073709551616}}\n");
        let bounds = BatchBounds {
            records_max: 10,
            ..BOUNDS
        };
        let (ready, bad) = batches(&text, bounds);
        assert!(bad.is_empty(), "{bad:?}");
        let keys: Vec<&[u8]> = ready[0].rows.iter().map(|row| &row.key[..]).collect();
        let negative = format!("-{digits}");
        let expected = [digits, &negative, "18446744073709551616"];
        assert_eq!(keys, expected.map(str::as_bytes));
        for (number, found) in [
            ("1e3", "a number with an exponent, or minus zero"),
            ("-0", "a number with an exponent, or minus zero"),
            ("1.0", "a number with a fraction"),
        ] {
            let (_, bad) = batches(&format!("{{\"id\":{number}}}\n"), BOUNDS);
            assert!(bad[0].contains(found), "{number}: {bad:?}");
        }
    }

    #[test]
    fn the_same_batch_has_the_same_id_and_no_other_has_it() {
        let (ready, _) = batches("{\"id\":1}\n{\"id\":2}\n{\"id\":1}\n{\"id\":2}\n", BOUNDS);
        let id = ready[0].id("file", "t");
        assert_eq!(id, ready[0].clone().id("file", "t"));
        assert_eq!(id.to_string().as_bytes()[14], b'8');
        let mut other = ready[0].clone();
        other.rows[0].value = b"{\"id\":1 }".to_vec();
        for different in [
            ready[0].id("other file", "t"),
            ready[0].id("file", "u"),
            ready[1].id("file", "t"),
            other.id("file", "t"),
        ] {
            assert_ne!(id, different);
        }
    }

    #[test]
    fn the_value_goes_out_as_it_was_written() {
        let (ready, _) = batches(" {\"id\": \"a\\\"b\", \"n\": 1.0e2}  \n", BOUNDS);
        let body = String::from_utf8(ready[0].body(TxnId(1), 7, "s.t")).unwrap();
        assert_eq!(
            body,
            r#"{"id":"00000000-0000-0000-0000-000000000001","read_position":7,"writes":[{"op":"put","table":"s.t","key":"a\"b","value":{"id": "a\"b", "n": 1.0e2}}]}"#
        );
        serde_json::from_str::<Value>(&body).unwrap();
    }

    #[test]
    fn a_key_of_bytes_goes_out_in_base64() {
        let (mut ready, _) = batches("{\"id\": 1}", BOUNDS);
        ready[0].rows[0].key = vec![0xff, 0];
        let body = ready[0].body(TxnId(1), 7, "s.t");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["writes"][0]["key"], json!({"base64": "/wA="}));
    }
}
