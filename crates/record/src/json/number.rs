//! A number of JSON as a value of its own.

use std::borrow::Cow;
use std::fmt;

use onelog_decimal::{is_finite, is_number};

use crate::Quoted;

/// A number of JSON, as it was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Number(Cow<'static, str>);

/// A text that is no number of JSON, or one beyond the range of a 64-bit float.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a number of JSON within the range of 64-bit floats", Quoted(.0))]
pub struct NotANumber(String);

impl Number {
    /// A number as JSON writes it.
    ///
    /// # Errors
    /// Anything else, and numbers that readers of the log could not hold even as floats.
    pub fn parse(text: &str) -> Result<Self, NotANumber> {
        if is_number(text) && is_finite(text) {
            return Ok(Self(Cow::Owned(text.to_owned())));
        }
        Err(NotANumber(text.chars().take(64).collect()))
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({})", self.0)
    }
}

macro_rules! from_whole {
    ($($whole:ty),*) => {$(
        impl From<$whole> for Number {
            fn from(number: $whole) -> Self {
                Self(Cow::Owned(number.to_string()))
            }
        }
    )*};
}

from_whole!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

impl TryFrom<f64> for Number {
    type Error = NotANumber;

    fn try_from(number: f64) -> Result<Self, NotANumber> {
        serde_json::Number::from_f64(number)
            .map(|number| Self(Cow::Owned(number.to_string())))
            .ok_or_else(|| NotANumber(number.to_string()))
    }
}

impl From<serde_json::Number> for Number {
    fn from(number: serde_json::Number) -> Self {
        Self(Cow::Owned(number.to_string()))
    }
}
