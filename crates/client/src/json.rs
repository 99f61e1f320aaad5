//! JSON of the server's answers. A document in them may be as deep as a parser goes by itself, and
//! lies some levels deeper here: what is around it is read level by level, and the document then on
//! its own.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How many levels an answer has around a document, at most.
const LEVELS_AROUND_MAX: usize = 16;
/// How many levels are around a number that no float can hold, at most: those of a document.
const LEVELS_AROUND_NUMBER_MAX: usize = 128;

/// What serde_json says of such a number.
const OUT_OF_RANGE: &str = "number out of range";

/// How many more levels may be looked into.
#[derive(Clone, Copy)]
struct Left {
    around_document: usize,
    around_number: usize,
}

/// The JSON of an answer.
pub fn parse_answer(text: &[u8]) -> Result<Value, serde_json::Error> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => {
            let left = Left {
                around_document: LEVELS_AROUND_MAX,
                around_number: LEVELS_AROUND_NUMBER_MAX,
            };
            by_levels(serde_json::from_slice(text)?, left, error)
        }
    }
}

/// A text that is not read as a whole because of `error`, which is answered where nothing else is
/// read either. A number that no float can hold becomes its text.
fn by_levels(
    text: &RawValue,
    mut left: Left,
    error: serde_json::Error,
) -> Result<Value, serde_json::Error> {
    let is_number = |byte: &u8| matches!(byte, b'-' | b'0'..=b'9');
    if text.get().as_bytes().first().is_some_and(is_number) {
        return Ok(Value::String(text.get().to_owned()));
    }
    let counted = match error.to_string().contains(OUT_OF_RANGE) {
        true => &mut left.around_number,
        false => &mut left.around_document,
    };
    let Some(fewer) = counted.checked_sub(1) else {
        return Err(error);
    };
    *counted = fewer;
    let part = |text: &RawValue| match serde_json::from_str(text.get()) {
        Ok(value) => Ok(value),
        Err(error) => by_levels(text, left, error),
    };
    let parts = Part(text);
    if let Some(items) = parts.items() {
        return items.iter().map(|item| part(item.0)).collect();
    }
    let Some(fields) = parts.fields() else {
        return Err(error);
    };
    let fields = fields
        .into_iter()
        .map(|(name, value)| Ok((name, part(value)?)));
    fields
        .collect::<Result<Map<String, Value>, _>>()
        .map(Value::Object)
}

/// A part of an answer as it was written, with all digits of its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Part<'t>(&'t RawValue);

impl<'t> Part<'t> {
    /// The whole of an answer; `null` where it is not JSON.
    pub fn of(text: &'t str) -> Self {
        Self(serde_json::from_str(text).unwrap_or(RawValue::NULL))
    }

    /// The elements of an array.
    pub fn items(self) -> Option<Vec<Self>> {
        let items: Vec<&RawValue> = serde_json::from_str(self.0.get()).ok()?;
        Some(items.into_iter().map(Self).collect())
    }

    /// The elements of the array in a field; none where there is no such array.
    pub fn list(self, field: &str) -> Vec<Self> {
        let list = self.get(field).and_then(Self::items);
        list.unwrap_or_default()
    }

    /// The value of a field.
    pub fn get(self, field: &str) -> Option<Self> {
        let fields = self.fields()?;
        let found = fields.into_iter().rfind(|(name, _)| name == field)?;
        Some(Self(found.1))
    }

    pub fn text(self) -> &'t str {
        self.0.get()
    }

    fn fields(self) -> Option<Vec<(String, &'t RawValue)>> {
        let fields: Fields<'t> = serde_json::from_str(self.0.get()).ok()?;
        Some(fields.0)
    }
}

/// The fields of an object in their order.
struct Fields<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1.10{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn a_document_is_read_however_deep_it_lies() {
        // Given the deepest document that the server takes, within an answer,
        let deep = nested(127);
        let text = format!(r#"{{"z":1,"records":[{{"value":{deep}}},{{"value":null}}],"a":"b"}}"#);
        // when it is read, then all of it is there, in its order,
        let value = parse_answer(text.as_bytes()).unwrap();
        let written = value.to_string().replace("1.1]", "1.10]");
        assert_eq!(written, text);
        // and its parts are as they were written.
        let records = Part::of(&text).list("records");
        assert_eq!(records[0].get("value").unwrap().text(), deep);
        assert_eq!(records[1].get("value").unwrap().text(), "null");
        assert!(records[1].get("key").is_none());
    }

    #[test]
    fn a_number_that_no_float_can_hold_is_read_as_its_text() {
        // Given an answer with what a program made, beside a document that is deep,
        let (long, deep) = (nested(120).replace("1.10", "1e400"), nested(127));
        let text = format!(r#"{{"rows":[{{"a":{long}}},{{"a":-2E999}},{{"a":{deep}}}],"n":1}}"#);
        // when it is read, then the number is a text and the rest as it was,
        let value = parse_answer(text.as_bytes()).unwrap();
        assert_eq!(value["rows"][1]["a"], "-2E999");
        assert!(value["rows"][0].to_string().contains("[\"1e400\"]"));
        assert_eq!(value["n"], 1);
        // and depth is bounded there, too.
        let nested = format!("{}1e400{}", "[1e400,".repeat(100_000), "]".repeat(100_000));
        assert!(parse_answer(nested.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["", "{", "{\"a\":}", "[1,]", "{\"a\":1}x", "nul"] {
            assert!(parse_answer(text.as_bytes()).is_err(), "{text}");
        }
        // Depth is bounded: no text ends the process.
        assert!(parse_answer(nested(127 + LEVELS_AROUND_MAX).as_bytes()).is_ok());
        assert!(parse_answer(nested(128 + LEVELS_AROUND_MAX).as_bytes()).is_err());
        assert!(parse_answer(nested(1_000_000).as_bytes()).is_err());
    }
}
