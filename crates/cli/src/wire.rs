//! Keys and values as the API's JSON carries them: UTF-8 as a string, all else as
//! `{"base64": "..."}`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use onelog_client::{Part, segment};
use onelog_record::Json;
use serde_json::{Value, json};

pub fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"base64": BASE64_STANDARD.encode(bytes)}),
    }
}

/// Bytes from JSON; `None` when the value has neither form.
pub fn bytes_from_json(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Object(fields) if fields.len() == 1 => {
            BASE64_STANDARD.decode(fields.get("base64")?.as_str()?).ok()
        }
        _ => None,
    }
}

/// Keys as they are written in a URL's query: text, or all of them as base64 where one is not UTF-8.
pub fn key_query(keys: &[(&'static str, &[u8])]) -> Vec<(&'static str, String)> {
    let texts: Option<Vec<_>> = keys
        .iter()
        .map(|(name, key)| Some((*name, std::str::from_utf8(key).ok()?.to_owned())))
        .collect();
    texts.unwrap_or_else(|| {
        let encoded = keys
            .iter()
            .map(|(name, key)| (*name, BASE64_STANDARD.encode(key)));
        encoded.chain([("encoding", "base64".to_owned())]).collect()
    })
}

/// The path of a key, and what the query must say of it.
pub fn key_path(table: &str, key: &[u8]) -> (String, Vec<(&'static str, String)>) {
    let mut query = key_query(&[("key", key)]);
    let (_, key) = query.remove(0);
    let path = format!(
        "/v1/tables/{}/keys/{}",
        segment(table.as_bytes()),
        segment(key.as_bytes())
    );
    (path, query)
}

/// A key or value of an answer for people: strings without quotes, the rest as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A part of an answer on one line, with all digits of its numbers.
pub fn written(part: Part<'_>) -> String {
    let text = part.text();
    // Documents are not as deep as what is around them may make it.
    Json::parse(text.as_bytes()).map_or_else(|_| text.to_owned(), |json| json.to_string())
}

/// The bytes of a command's argument.
pub fn argument(text: &OsStr) -> &[u8] {
    text.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_travel() {
        for bytes in [&b"plain"[..], b"", "ä".as_bytes(), &[0xff, 0], b"\0"] {
            assert_eq!(bytes_from_json(&bytes_json(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(
            key_path("s.t", b"a/b"),
            ("/v1/tables/s.t/keys/a%2Fb".to_owned(), vec![])
        );
        assert_eq!(
            key_path("s.t", &[0xff]),
            (
                "/v1/tables/s.t/keys/%2Fw%3D%3D".to_owned(),
                vec![("encoding", "base64".to_owned())]
            )
        );
        assert_eq!(bytes_from_json(&json!(5)), None);
        assert_eq!(bytes_from_json(&json!({"base64": "*"})), None);
    }
}
