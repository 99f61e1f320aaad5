//! A path to a field of a JSON document: a JSON Pointer (RFC 6901), or a bare name for a field
//! at the top. The empty path is the whole document.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FIELD_PATH_BYTES_MAX;

/// A parsed path. Its text is kept as it was written.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath {
    text: String,
    steps: Vec<String>,
}

/// A text that is no field path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    /// Longer than `FIELD_PATH_BYTES_MAX`.
    #[error("the field path has {0} bytes, the limit is {FIELD_PATH_BYTES_MAX}")]
    TooLong(usize),
    /// A `~` that is followed by neither 0 nor 1.
    #[error("in the field path '{0}' a '~' must be followed by 0 (for ~) or 1 (for /)")]
    Escape(String),
}

impl FieldPath {
    /// Parses `/a/b` (JSON Pointer), `a` (a field at the top) or the empty text (everything).
    pub fn parse(text: &str) -> Result<Self, FieldPathError> {
        if text.len() > FIELD_PATH_BYTES_MAX {
            return Err(FieldPathError::TooLong(text.len()));
        }
        let steps = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => vec![text.to_owned()],
            Some(rest) => rest
                .split('/')
                .map(|step| unescape(step, text))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// The path to the whole document.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            text: String::new(),
            steps: Vec::new(),
        }
    }

    /// Whether this is the path to the whole document.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps from the document to the value: names of fields, or indices of list elements.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value at this path, if there is one.
    #[must_use]
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let mut at = value;
        for step in &self.steps {
            at = match at {
                Value::Object(fields) => fields.get(step)?,
                Value::Array(items) => items.get(array_index(step)?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// A place for the value at this path: objects on the way are made where nothing is yet.
    /// `None` when something on the way is neither an object nor an array that reaches so far.
    pub fn make<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        let mut at = value;
        for step in &self.steps {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            at = match at {
                Value::Object(fields) => fields.entry(step.as_str()).or_insert(Value::Null),
                Value::Array(items) => items.get_mut(array_index(step)?)?,
                _ => return None,
            };
        }
        Some(at)
    }
}

/// The place in a list that a step of a path says: digits without a zero in front (RFC 6901, section 4).
#[must_use]
pub fn array_index(step: &str) -> Option<usize> {
    let is_number = step.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_number && (step == "0" || !step.starts_with('0'));
    is_plain.then(|| step.parse().ok()).flatten()
}

fn unescape(step: &str, whole: &str) -> Result<String, FieldPathError> {
    let mut out = String::with_capacity(step.len());
    let mut chars = step.chars();
    while let Some(c) = chars.next() {
        if c != '~' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('0') => out.push('~'),
            Some('1') => out.push('/'),
            _ => return Err(FieldPathError::Escape(whole.to_owned())),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldPath({:?})", self.text)
    }
}

impl TryFrom<String> for FieldPath {
    type Error = FieldPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_finds_its_field() {
        let value = json!({"a": {"b/c": [1, 2, {"~": 3}]}, "plain": true});
        for (path, expected) in [
            ("", Some(value.clone())),
            ("plain", Some(json!(true))),
            ("/a/b~1c/2/~0", Some(json!(3))),
            ("/a/x", None),
            ("/plain/x", None),
            ("/a/b~1c/9", None),
            ("/a/b~1c/0", Some(json!(1))),
            ("/a/b~1c/01", None),
            ("/a/b~1c/+1", None),
            ("/a/b~1c/", None),
        ] {
            assert_eq!(
                FieldPath::parse(path).unwrap().get(&value).cloned(),
                expected,
                "{path}"
            );
        }
        assert!(FieldPath::parse("/a~2").is_err());
    }

    #[test]
    fn a_missing_field_is_made_but_nothing_is_replaced() {
        let mut value = json!({"n": 1});
        *FieldPath::parse("/a/b").unwrap().make(&mut value).unwrap() = json!(5);
        assert_eq!(value, json!({"n": 1, "a": {"b": 5}}));
        assert!(FieldPath::parse("/n/b").unwrap().make(&mut value).is_none());
    }
}
