//! Reading records as values and writing values as JSON.
//!
//! The reader takes exactly what JSON allows (UTF-8, no deeper than [`DEPTH_MAX`]) and keeps every
//! number as it was written; a document that a program leaves alone comes out equal.

use std::io::Write;
use std::rc::Rc;

use jaq_json::Num;

use super::meter::DEPTH_MAX;
use super::value::{Array, Object, Value};

/// Floats below this without a fraction are exactly that integer and written as one, as jq does:
/// `4 / 2` is `2`.
pub(super) const WHOLE_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// What is wrong with a text that should be JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct NotJson {
    what: &'static str,
    at: usize,
}

pub(super) fn read(bytes: &[u8]) -> Result<Value, NotJson> {
    let text = std::str::from_utf8(bytes).map_err(|error| NotJson {
        what: "not UTF-8",
        at: error.valid_up_to(),
    })?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.fail("more than one value")),
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn fail(&self, what: &'static str) -> NotJson {
        NotJson { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let taken = self.peek() == Some(wanted);
        self.at += usize::from(taken);
        taken
    }

    fn value(&mut self, depth: u32) -> Result<Value, NotJson> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(self.fail("nested too deep")),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Value::text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.fail("no JSON value")),
            None => Err(self.fail("the end instead of a value")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotJson> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.fail("no JSON value"))
        }
    }

    fn array(&mut self, depth: u32) -> Result<Value, NotJson> {
        self.at += 1;
        let mut array = Array::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::array(array));
        }
        loop {
            array.push(self.value(depth)?);
            self.space();
            if self.take(b']') {
                return Ok(Value::array(array));
            }
            if !self.take(b',') {
                return Err(self.fail("neither ',' nor ']' after an element"));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value, NotJson> {
        self.at += 1;
        let mut object = Object::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::object(object));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.fail("no name of a field"));
            }
            let name = Rc::new(self.string()?);
            self.space();
            if !self.take(b':') {
                return Err(self.fail("no ':' after a field's name"));
            }
            let value = self.value(depth)?;
            object.insert(name, value);
            self.space();
            if self.take(b'}') {
                return Ok(Value::object(object));
            }
            if !self.take(b',') {
                return Err(self.fail("neither ',' nor '}' after a field"));
            }
        }
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.fail("no digit"));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        } else if let Some(b'0'..=b'9') = self.peek() {
            return Err(self.fail("a digit after a leading zero"));
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Value::number(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Result<String, NotJson> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    out.push_str(plain);
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(plain);
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.fail("a control character in a string")),
                None => return Err(self.fail("the end inside a string")),
            }
        }
    }

    fn plain(&mut self) -> &'t str {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest
            .iter()
            .position(|&b| b == b'"' || b == b'\\' || b < 0x20)
            .unwrap_or(rest.len());
        let plain = &self.text[self.at..self.at + length];
        self.at += length;
        plain
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let escaped = self.peek();
        self.at += 1;
        Ok(match escaped {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                self.at -= 1;
                return Err(self.fail("an unknown escape in a string"));
            }
        })
    }

    fn unicode(&mut self) -> Result<char, NotJson> {
        let first = self.four_hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(self.fail("half of a surrogate pair"));
                }
                let second = self.four_hex()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.fail("half of a surrogate pair"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.fail("half of a surrogate pair"))
    }

    fn four_hex(&mut self) -> Result<u32, NotJson> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let Some(digits) = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit)) else {
            return Err(self.fail("fewer than four hexadecimal digits"));
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, &digit| {
            (code << 4) | char::from(digit).to_digit(16).unwrap_or(0)
        }))
    }
}

/// Why a value cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritable {
    /// NaN or an infinity is in it.
    NotFinite,
    /// It is longer than allowed.
    TooLong,
}

/// What happens with numbers that JSON cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFinite {
    Refuse,
    Null,
}

/// Appends the value's compact form; what was appended before an error is the caller's to cut.
pub(super) fn write(
    value: &Value,
    out: &mut Vec<u8>,
    length_max: usize,
    not_finite: NotFinite,
) -> Result<(), Unwritable> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(Num::Dec(written)) => {
            write_start(written, out, length_max, |written, out| {
                out.extend_from_slice(written.as_bytes());
            })?
        }
        Value::Number(number) => write_number(number, out, not_finite)?,
        Value::Text(text) => write_start(text, out, length_max, write_text)?,
        Value::Array(array) => {
            out.push(b'[');
            for (i, item) in array.items().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out, length_max, not_finite)?;
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (i, (name, field)) in object.fields().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_start(name, out, length_max, write_text)?;
                out.push(b':');
                write(field, out, length_max, not_finite)?;
            }
            out.push(b'}');
        }
    }
    if out.len() > length_max {
        return Err(Unwritable::TooLong);
    }
    Ok(())
}

/// Writes a text, or only its start where the whole is too long anyway.
fn write_start(
    text: &str,
    out: &mut Vec<u8>,
    length_max: usize,
    write: fn(&str, &mut Vec<u8>),
) -> Result<(), Unwritable> {
    let room = length_max.saturating_sub(out.len());
    if text.len() <= room {
        write(text, out);
        return Ok(());
    }
    let start = text.ceil_char_boundary(room + 1);
    write(text.get(..start).unwrap_or(text), out);
    Err(Unwritable::TooLong)
}

fn write_number(number: &Num, out: &mut Vec<u8>, not_finite: NotFinite) -> Result<(), Unwritable> {
    // Writing into a Vec cannot fail.
    let _infallible = match number {
        Num::Float(float) if !float.is_finite() => {
            if not_finite == NotFinite::Refuse {
                return Err(Unwritable::NotFinite);
            }
            write!(out, "null")
        }
        Num::Float(float) if float.fract() == 0.0 && float.abs() < WHOLE_FLOAT_MAX => {
            write!(out, "{float:.0}")
        }
        Num::Float(float) => serde_json::to_writer(out, float).map_err(Into::into),
        exact => write!(out, "{exact}"),
    };
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Text can always be written into a Vec as JSON.
    serde_json::to_writer(out, text).unwrap_or(());
}
