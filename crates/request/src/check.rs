//! Whether a value that is kept as it was written can be read by every reader later.
//!
//! `RawValue` only finds the end of a value. This finds what would stop a reader of the log:
//! numbers out of range, half surrogates, nesting over `JSON_DEPTH_MAX`, and two fields of one
//! name, of which one reader takes the first and another the last. It builds nothing.

use std::fmt;

use onelog_record::{JSON_DEPTH_MAX, Quoted};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::text::Name;

/// Checks one JSON text. The message says what is wrong and where in the value.
pub fn check_json(text: &str) -> Result<(), String> {
    match serde_json::from_str::<Sound>(text) {
        Ok(Sound) => Ok(()),
        Err(error) if error.to_string().starts_with("recursion limit") => Err(format!(
            "the value is nested too deeply; the limit is fewer than {JSON_DEPTH_MAX} levels"
        )),
        Err(error) => Err(format!("{error} of the value")),
    }
}

struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SoundVisitor)
    }
}

struct SoundVisitor;

impl<'de> Visitor<'de> for SoundVisitor {
    type Value = Sound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_unit<E>(self) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sound, A::Error> {
        while seq.next_element::<Sound>()?.is_some() {}
        Ok(Sound)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sound, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            map.next_value::<Sound>()?;
            names.push(name);
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        match names.windows(2).find(|w| w[0].as_str() == w[1].as_str()) {
            None => Ok(Sound),
            Some(twice) => Err(A::Error::custom(format_args!(
                "the field '{}' occurs twice in one object",
                Quoted(twice[0].as_str())
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn sound_values_pass() {
        for text in [
            "null",
            "true",
            "-0.5e-3",
            r#""\ud83d\ude00""#,
            "[]",
            r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#,
        ] {
            assert_eq!(check_json(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_a_reader_could_not_read_is_named() {
        for (text, expected) in [
            (r#""\ud83d""#, "hex escape"),
            ("1e999", "number out of range"),
            (r#"{"a":1,"b":2,"\u0061":3}"#, "'a' occurs twice"),
            ("[1,]", "trailing comma"),
        ] {
            let message = check_json(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let deep = format!(
            "{}{}",
            "[".repeat(JSON_DEPTH_MAX),
            "]".repeat(JSON_DEPTH_MAX)
        );
        assert!(check_json(&deep).unwrap_err().contains("nested too deeply"));
        assert_eq!(check_json(&deep[1..deep.len() - 1]), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_passes_can_be_parsed(text in r#"[\[\]{}",:0-9eu\\da.\-]{0,24}"#) {
            if check_json(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
