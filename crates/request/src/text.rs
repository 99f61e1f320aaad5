//! Keys and values as JSON carries them.
//!
//! Bytes that are UTF-8 travel as a JSON string, all others as `{"base64": "..."}`. Requests may
//! use either form for any bytes; answers use the string whenever it is possible.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use onelog_record::ValueKind;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a request must look like where bytes are expected.
pub const EXPECTED: &str = r#"a string or {"base64": "..."}"#;

/// Decodes base64 in the standard or the URL-safe alphabet, padded or not.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    if text.bytes().any(|b| b == b'-' || b == b'_') {
        URL_SAFE.decode(text)
    } else {
        STANDARD.decode(text)
    }
}

/// Bytes of a request or of an error: a string, which is UTF-8, or `{"base64": "..."}`.
#[derive(Debug, PartialEq, Eq)]
pub struct WireBytes(pub Bytes);

impl<'de> Deserialize<'de> for WireBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WireVisitor)
    }
}

impl Serialize for WireBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BytesOut(&self.0).serialize(serializer)
    }
}

impl From<&[u8]> for WireBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = WireBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<WireBytes, E> {
        Ok(WireBytes(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_string<E>(self, text: String) -> Result<WireBytes, E> {
        Ok(WireBytes(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireBytes, A::Error> {
        use serde::de::Error as _;
        let expected = || A::Error::custom(format_args!("expected {EXPECTED}"));
        match map.next_key::<Name<'de>>()? {
            Some(name) if name.as_str() == "base64" => {}
            _ => return Err(expected()),
        }
        let text = map.next_value::<Name<'de>>()?;
        let bytes = decode_base64(text.as_str())
            .map_err(|error| A::Error::custom(format_args!("this is not base64: {error}")))?;
        match map.next_key::<Name<'de>>()? {
            None => Ok(WireBytes(bytes.into())),
            Some(_) => Err(expected()),
        }
    }
}

/// A string of a request, borrowed where it has no escapes.
#[derive(Clone, Debug)]
pub enum Name<'de> {
    Borrowed(&'de str),
    Owned(String),
}

impl Name<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Bytes of an answer, in the form that this module describes.
#[derive(Clone, Copy, Debug)]
pub struct BytesOut<'b>(pub &'b [u8]);

impl Serialize for BytesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &BASE64_STANDARD.encode(self.0))?;
        map.end()
    }
}

/// A value of an answer: JSON as it was written (line ends between its parts become spaces, so
/// that it fits one line), bytes in the form that this module describes.
#[derive(Clone, Copy, Debug)]
pub struct ValueOut<'b> {
    pub kind: ValueKind,
    pub bytes: &'b [u8],
}

impl Serialize for ValueOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.kind == ValueKind::Bytes {
            return BytesOut(self.bytes).serialize(serializer);
        }
        let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if self.bytes.iter().any(is_line_end) {
            // A line end inside a JSON string is always escaped: a bare one is only space.
            let one_line: Vec<u8> = self
                .bytes
                .iter()
                .map(|byte| if is_line_end(byte) { b' ' } else { *byte })
                .collect();
            return write_json(&one_line, serializer);
        }
        write_json(self.bytes, serializer)
    }
}

fn write_json<S: Serializer>(json: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_slice::<&RawValue>(json) {
        Ok(raw) => raw.serialize(serializer),
        // An embedded application wrote something else into a table of JSON: still an answer.
        Err(_) => BytesOut(json).serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Bytes, String> {
        serde_json::from_str::<WireBytes>(json)
            .map(|wire| wire.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_are_a_string_or_base64_in_either_alphabet() {
        for (json, expected) in [
            (r#""plain""#, &b"plain"[..]),
            (r#""a\u00e9\n""#, "aé\n".as_bytes()),
            (r#"{"base64":"AP/+"}"#, &[0, 255, 254]),
            (r#"{"base64":"AP_-"}"#, &[0, 255, 254]),
            (r#"{"base64":"AP8="}"#, &[0, 255]),
            (r#"{"base64":"AP8"}"#, &[0, 255]),
            (r#"{"base64":""}"#, &[]),
        ] {
            assert_eq!(read(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_expected_form() {
        for json in [
            "5",
            "null",
            "[1]",
            "{}",
            r#"{"base65":"AA"}"#,
            r#"{"base64":"AA","x":1}"#,
        ] {
            assert!(read(json).unwrap_err().contains(EXPECTED), "{json}");
        }
        assert!(
            read(r#"{"base64":"A*"}"#)
                .unwrap_err()
                .contains("not base64")
        );
        assert!(read(r#"{"base64":5}"#).unwrap_err().contains("a string"));
    }

    #[test]
    fn a_json_value_keeps_its_bytes_and_fits_one_line() {
        let show = |bytes: &[u8]| {
            let kind = ValueKind::Json;
            serde_json::to_string(&ValueOut { kind, bytes }).unwrap()
        };
        assert_eq!(show(br#"{"b":1.0,  "a":1e2}"#), r#"{"b":1.0,  "a":1e2}"#);
        assert_eq!(show(b"{\n\"a\":\r\n1}"), "{ \"a\":  1}");
        assert_eq!(show(b"no json"), r#""no json""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let json = serde_json::to_string(&BytesOut(&bytes)).unwrap();
            prop_assert_eq!(read(&json).unwrap(), bytes);
        }
    }
}
