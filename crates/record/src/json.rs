//! A JSON document whose parts stay as they were written: numbers and strings are their text, so
//! that what is read, changed at one place and written again differs at that place alone.
//!
//! It takes what serde_json takes, and nothing else. Numbers compare exactly, 1 equals 1.0, and the
//! order of an object's fields does not matter; of fields of one name the last one counts.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use onelog_decimal::{canonical_number, compare_numbers};

use crate::field::{FieldPath, array_index};

mod find;
mod number;
mod read;

use find::compact;
pub use find::{FOUND_AT_ONCE_MAX, Place, find, place};
pub use number::{NotANumber, Number};
use read::{NESTING_MAX, Reader};

/// A JSON value. Its text may be borrowed.
#[derive(Clone, Debug, Default)]
pub enum Json<'t> {
    #[default]
    Null,
    Bool(bool),
    Number(Cow<'t, str>),
    String(JsonString<'t>),
    Array(Vec<Json<'t>>),
    Object(Vec<(JsonString<'t>, Json<'t>)>),
}

/// A string as it was written, with its quotes and escapes.
#[derive(Clone, Debug)]
pub struct JsonString<'t>(Cow<'t, str>);

/// A text that is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonFault {
    pub what: &'static str,
    pub at: usize,
}

impl JsonString<'_> {
    /// The string that says this.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Cow::Owned(serde_json::Value::from(text).to_string()))
    }

    /// Whether the string says this.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        let inner = self.inner();
        // An escape is longer than what it says.
        match inner.len() < text.len() {
            true => false,
            false => inner == text || (!self.is_plain() && self.text() == text),
        }
    }

    /// Whether it says what is between its quotes.
    fn is_plain(&self) -> bool {
        !self.0.contains('\\')
    }

    fn inner(&self) -> &str {
        self.0.get(1..self.0.len() - 1).unwrap_or_default()
    }

    /// What the string says.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        if self.is_plain() {
            return Cow::Borrowed(self.inner());
        }
        #[cfg(test)]
        ESCAPES_READ.set(ESCAPES_READ.get() + 1);
        // The escapes were checked when the string was read.
        Cow::Owned(serde_json::from_str(&self.0).unwrap_or_default())
    }
}

impl<'t> Json<'t> {
    /// Reads a document.
    ///
    /// # Errors
    /// Says where the text is no JSON, or has what no reader of the log could hold: a number out
    /// of the range of floats, half of a surrogate pair, too deep a nesting.
    pub fn parse(text: &'t [u8]) -> Result<Self, JsonFault> {
        let mut reader = Reader::new(text)?;
        let value = reader.value(NESTING_MAX)?;
        reader.end()?;
        Ok(value)
    }

    /// Whether [`Json::parse`] takes the text, without making the value.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn check(text: &[u8]) -> Result<(), JsonFault> {
        find(text, &[]).map(drop)
    }

    /// A value that was found in a document. Strings and numbers are not read again.
    #[must_use]
    pub fn found(text: &'t str) -> Self {
        match text.as_bytes().first() {
            Some(b'"') => Self::String(JsonString(Cow::Borrowed(text))),
            Some(b'-' | b'0'..=b'9') => Self::Number(Cow::Borrowed(text)),
            _ => Self::parse(text.as_bytes()).unwrap_or_default(),
        }
    }

    /// The value at this path, if there is one.
    #[must_use]
    pub fn get(&self, path: &FieldPath) -> Option<&Self> {
        let mut at = self;
        for step in path.steps() {
            at = match at {
                Self::Object(fields) => {
                    let mut found = fields.iter().rev();
                    &found.find(|(name, _)| name.says(step))?.1
                }
                Self::Array(items) => items.get(array_index(step)?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// A place for the value at this path: objects on the way are made where nothing is yet.
    /// `None` when something on the way is neither an object nor an array that reaches so far.
    pub fn make(&mut self, path: &FieldPath) -> Option<&mut Self> {
        let mut at = self;
        for step in path.steps() {
            if matches!(at, Self::Null) {
                *at = Self::Object(Vec::new());
            }
            at = match at {
                Self::Object(fields) => {
                    let found = fields.iter().rposition(|(name, _)| name.says(step));
                    let index = found.unwrap_or_else(|| {
                        fields.push((JsonString::new(step), Self::Null));
                        fields.len() - 1
                    });
                    &mut fields.get_mut(index)?.1
                }
                Self::Array(items) => items.get_mut(array_index(step)?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// The first number, in the order of the text, of which `wanted` holds.
    #[must_use]
    pub fn find_number(&self, wanted: &dyn Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::Number(number) => wanted(number).then_some(number),
            Self::Array(items) => items.iter().find_map(|item| item.find_number(wanted)),
            Self::Object(fields) => {
                let mut fields = fields.iter();
                fields.find_map(|(_, field)| field.find_number(wanted))
            }
            _ => None,
        }
    }

    /// The first number that serde_json's own values, and with them most programs, would round.
    #[must_use]
    pub fn rounded_number(&self) -> Option<&str> {
        self.find_number(&|number| {
            let kept = serde_json::from_str::<serde_json::Number>(number);
            let same = kept.is_ok_and(|kept| {
                compare_numbers(&kept.to_string(), number).is_some_and(Ordering::is_eq)
            });
            !same
        })
    }

    /// [`Json::rounded_number`] with the path to it.
    #[must_use]
    pub fn rounded_field(&self) -> Option<(String, &str)> {
        let number = self.rounded_number()?;
        let mut path = String::new();
        self.write_path_to(number, &mut path);
        Some((path, number))
    }

    /// Whether this very text is a number in here; then the path to it is written.
    fn write_path_to(&self, number: &str, path: &mut String) -> bool {
        let start = path.len();
        let mut inside = |step: &str, value: &Self| {
            path.truncate(start);
            path.push('/');
            path.push_str(&step.replace('~', "~0").replace('/', "~1"));
            value.write_path_to(number, path)
        };
        match self {
            Self::Number(own) => std::ptr::eq(own.as_ref(), number),
            Self::Array(items) => {
                let mut items = items.iter().enumerate();
                items.any(|(n, item)| inside(&n.to_string(), item))
            }
            Self::Object(fields) => fields
                .iter()
                .any(|(name, field)| inside(&name.text(), field)),
            _ => false,
        }
    }

    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The name of the value's type, for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// The name of the type of the value that this text of JSON is.
    #[must_use]
    pub fn kind_of(text: &str) -> &'static str {
        match text.as_bytes().first() {
            Some(b'n') => "null",
            Some(b't' | b'f') => "a boolean",
            Some(b'"') => "a string",
            Some(b'[') => "an array",
            Some(b'{') => "an object",
            _ => "a number",
        }
    }

    /// Whether two values are equal.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => match compare_numbers(left, right) {
                Some(order) => order.is_eq(),
                None => left == right,
            },
            (Self::String(left), Self::String(right)) => left.text() == right.text(),
            (Self::Array(left), Self::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.equals(r))
            }
            (Self::Object(_), Self::Object(_)) => self.canonical() == other.canonical(),
            _ => false,
        }
    }

    /// The order of two numbers, or of two strings (bytewise); nothing else has one.
    #[must_use]
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => compare_numbers(left, right),
            (Self::String(left), Self::String(right)) => {
                Some(left.text().as_bytes().cmp(right.text().as_bytes()))
            }
            _ => None,
        }
    }

    /// The text that all values equal to this one share: no spaces, fields sorted by name bytewise,
    /// numbers as [`canonical_number`] has them.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => out.push_str(&canonical_number(number)),
            Self::String(string) if string.is_plain() => out.push_str(&string.0),
            Self::String(string) => out.push_str(&canonical_string(&string.text())),
            Self::Array(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                let mut sorted: Vec<_> = fields.iter().map(|(name, f)| (name.text(), f)).collect();
                // Stable: of equal names the last one stays last.
                sorted.sort_by(|(left, _), (right, _)| left.as_bytes().cmp(right.as_bytes()));
                out.push('{');
                let mut first = true;
                for (n, (name, field)) in sorted.iter().enumerate() {
                    if sorted.get(n + 1).is_some_and(|(next, _)| next == name) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    out.push_str(&canonical_string(name));
                    out.push(':');
                    field.write_canonical(out);
                }
                out.push('}');
            }
        }
    }
}

fn canonical_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The value with its numbers as serde_json holds them: beyond 64 bits they are rounded.
impl From<&Json<'_>> for serde_json::Value {
    fn from(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let number = serde_json::from_str(number);
                number.map_or(Self::Null, Self::Number)
            }
            Json::String(string) => Self::String(string.text().into_owned()),
            Json::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Json::Object(fields) => {
                let fields = fields.iter();
                Self::Object(
                    fields
                        .map(|(name, field)| (name.text().into_owned(), Self::from(field)))
                        .collect(),
                )
            }
        }
    }
}

/// The value as it was written, without the spaces between its parts.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => f.write_str(number),
            Self::String(string) => f.write_str(&string.0),
            Self::Array(items) => {
                f.write_char('[')?;
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        f.write_char(',')?;
                    }
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Self::Object(fields) => {
                f.write_char('{')?;
                for (n, (name, field)) in fields.iter().enumerate() {
                    if n > 0 {
                        f.write_char(',')?;
                    }
                    f.write_str(&name.0)?;
                    f.write_char(':')?;
                    field.fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

/// A JSON value of a request, as it was written, checked when it was made.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// # Errors
    /// Says where the text is no JSON.
    pub fn parse(text: &str) -> Result<Self, JsonFault> {
        Json::check(text.as_bytes())?;
        Ok(Self(text.into()))
    }

    /// JSON that a program may have made, without the blanks between its parts: its numbers may be
    /// beyond the range of floats.
    ///
    /// # Errors
    /// Says where the text is no JSON.
    pub fn of_any_range(text: &str) -> Result<Self, JsonFault> {
        let mut reader = Reader::new(text.as_bytes())?;
        reader.any_range = true;
        reader.skip(NESTING_MAX)?;
        reader.end()?;
        Ok(Self(compact(text, reader.has_blanks).into()))
    }

    /// An array of these values.
    pub fn array(items: impl IntoIterator<Item = Self>) -> Self {
        let items: Vec<Self> = items.into_iter().collect();
        let items: Vec<&str> = items.iter().map(Self::as_str).collect();
        Self(format!("[{}]", items.join(",")).into())
    }

    /// An object of these fields.
    pub fn object<'n>(fields: impl IntoIterator<Item = (&'n str, Self)>) -> Self {
        let field = |(name, value): (&str, Self)| format!("{}:{value}", JsonString::new(name).0);
        let fields: Vec<String> = fields.into_iter().map(field).collect();
        Self(format!("{{{}}}", fields.join(",")).into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without the blanks between its parts.
    #[must_use]
    pub fn compact(&self) -> Cow<'_, str> {
        compact(&self.0, true)
    }

    /// Whether the value has at most `left` containers inside one another.
    #[must_use]
    pub fn nests_within(&self, left: usize) -> bool {
        let reader = Reader::new(self.0.as_bytes());
        reader.is_ok_and(|mut reader| reader.skip(left).is_ok())
    }

    /// The value, read again: only the text is kept. Null where a number in it is beyond the range of
    /// floats.
    #[must_use]
    pub fn json(&self) -> Json<'_> {
        Json::parse(self.0.as_bytes()).unwrap_or(Json::Null)
    }
}

impl From<serde_json::Value> for JsonText {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<&Json<'_>> for JsonText {
    fn from(value: &Json<'_>) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({})", self.0)
    }
}

impl serde::Serialize for JsonText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_str(&self.0);
        raw.map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

#[cfg(test)]
thread_local! {
    /// How many strings with escapes were read.
    static ESCAPES_READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests;
