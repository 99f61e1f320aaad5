//! Reads the text of a document from left to right. What is made of it is up to the caller: a tree,
//! or nothing for the parts that are only passed over.

use std::borrow::Cow;

use super::{Json, JsonFault, JsonString};
use crate::JSON_DEPTH_MAX;
use onelog_decimal::{is_finite, number_length};

/// The deepest nesting of containers that is read.
pub(super) const NESTING_MAX: usize = JSON_DEPTH_MAX - 1;

pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Whether there were blanks between the parts.
    pub(super) has_blanks: bool,
    /// Whether numbers beyond the range of floats are read, too.
    pub(super) any_range: bool,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t [u8]) -> Result<Self, JsonFault> {
        let text = std::str::from_utf8(text).map_err(|error| JsonFault {
            what: "text that is not UTF-8",
            at: error.valid_up_to(),
        })?;
        Ok(Self {
            text,
            at: 0,
            has_blanks: false,
            any_range: false,
        })
    }

    pub(super) const fn text(&self) -> &'t str {
        self.text
    }

    /// Where the next byte is read.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn end(&mut self) -> Result<(), JsonFault> {
        match self.next() {
            None => Ok(()),
            Some(_) => Err(self.fault("more than one value")),
        }
    }

    const fn fault(&self, what: &'static str) -> JsonFault {
        JsonFault { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte of the next part.
    pub(super) fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => {
                    self.has_blanks = true;
                    self.at += 1;
                }
                byte => return Some(byte),
            }
        }
        None
    }

    /// Reads a value with at most `left` containers inside one another.
    pub(super) fn value(&mut self, left: usize) -> Result<Json<'t>, JsonFault> {
        match self.next() {
            Some(b'"') => self.string().map(Json::String),
            Some(b'[') => {
                let mut items = Vec::new();
                self.items(left, |reader, inner| {
                    items.push(reader.value(inner)?);
                    Ok(())
                })?;
                Ok(Json::Array(items))
            }
            Some(b'{') => {
                let mut fields = Vec::new();
                self.fields(left, |reader, name, inner| {
                    fields.push((name, reader.value(inner)?));
                    Ok(())
                })?;
                Ok(Json::Object(fields))
            }
            Some(b'n') => self.word("null").map(|()| Json::Null),
            Some(b't') => self.word("true").map(|()| Json::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Json::Bool(false)),
            _ => {
                let number = self.number()?;
                Ok(Json::Number(Cow::Borrowed(number)))
            }
        }
    }

    /// Passes over a value with at most `left` containers inside one another, and checks it.
    pub(super) fn skip(&mut self, left: usize) -> Result<(), JsonFault> {
        match self.next() {
            Some(b'"') => self.string().map(drop),
            Some(b'[') => self.items(left, Self::skip),
            Some(b'{') => self.fields(left, |reader, _, inner| reader.skip(inner)),
            Some(b'n') => self.word("null"),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            _ => self.number().map(drop),
        }
    }

    /// Reads an array; `item` reads each of its elements, with how many containers may be inside one
    /// another there.
    pub(super) fn items(
        &mut self,
        left: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        let inner = self.deeper(left)?;
        self.at += 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self, inner)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.fault("neither ',' nor ']' after an element")),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Reads an object; `field` reads each of its values, with how many containers may be inside one
    /// another there.
    pub(super) fn fields(
        &mut self,
        left: usize,
        mut field: impl FnMut(&mut Self, JsonString<'t>, usize) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        let inner = self.deeper(left)?;
        self.at += 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next() != Some(b'"') {
                return Err(self.fault("no name of a field"));
            }
            let name = self.string()?;
            if self.next() != Some(b':') {
                return Err(self.fault("no ':' after the name of a field"));
            }
            self.at += 1;
            field(self, name, inner)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.fault("neither ',' nor '}' after a field")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn deeper(&self, left: usize) -> Result<usize, JsonFault> {
        left.checked_sub(1).ok_or(self.fault("too deep a nesting"))
    }

    fn word(&mut self, word: &str) -> Result<(), JsonFault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.fault("no JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<&'t str, JsonFault> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.fault("no JSON value"));
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let plain = plain_length(rest.as_bytes());
        let length = plain.or_else(|| number_length(rest.as_bytes()));
        let length = length.ok_or(self.fault("no number of JSON"))?;
        let number = rest.get(..length).unwrap_or_default();
        if plain.is_none() && !self.any_range && !is_finite(number) {
            return Err(self.fault("a number out of range"));
        }
        self.at += length;
        Ok(number)
    }

    fn string(&mut self) -> Result<JsonString<'t>, JsonFault> {
        let from = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.fault("the end inside a string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
                    let length = escape_length(rest).ok_or(JsonFault {
                        what: "a wrong escape in a string",
                        at: from,
                    })?;
                    self.at += 1 + length;
                }
                Some(0..0x20) => return Err(self.fault("a bare control character in a string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let written = self.text.get(from..self.at).unwrap_or_default();
        Ok(JsonString(Cow::Borrowed(written)))
    }
}

/// How many bytes a whole number takes that 64 bits hold for sure, as most numbers are.
fn plain_length(text: &[u8]) -> Option<usize> {
    const DIGITS_MAX: usize = 18;
    let digits = usize::from(text.first() == Some(&b'-'));
    let mut at = digits;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    let is_plain = match at - digits {
        1 => true,
        2..=DIGITS_MAX => text.get(digits) != Some(&b'0'),
        _ => false,
    };
    (is_plain && !matches!(text.get(at), Some(b'.' | b'e' | b'E'))).then_some(at)
}

/// How many bytes an escape takes behind its backslash: half of a surrogate pair is none.
fn escape_length(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(1),
        b'u' => match unit(rest.get(1..5)?)? {
            0xd800..0xdc00 => {
                let low = rest.get(5..11)?.strip_prefix(b"\\u")?;
                matches!(unit(low)?, 0xdc00..0xe000).then_some(11)
            }
            0xdc00..0xe000 => None,
            _ => Some(5),
        },
        _ => None,
    }
}

/// The UTF-16 unit that these four hexadecimal digits say.
fn unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit * 16 + digit)
    })
}
