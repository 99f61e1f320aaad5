//! The query of a URL, strictly: an unknown parameter, one given twice or a wrong value is an
//! error that says where. A space may be written `+` or `%20`, as in forms.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use onelog_record::Position;
use percent_encoding::percent_decode_str;

use crate::errors::ApiError;
use crate::options::WAIT_TIMEOUT_MS;
use onelog_request::WAIT_TIMEOUT_MS_MAX;
use onelog_request::decode_base64;
use onelog_request::unknown_field;

/// The decoded parameters of one request.
#[derive(Debug)]
pub(crate) struct Query<'q> {
    pairs: Vec<(Cow<'q, str>, Vec<u8>)>,
    base64: bool,
}

impl<'q> Query<'q> {
    /// Decodes `query`, which may hold the `known` parameters.
    pub(crate) fn parse(query: Option<&'q str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(Cow<'q, str>, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&form_decoded("query", name)?).into_owned();
            if !known.contains(&name.as_str()) {
                return Err(ApiError::malformed(
                    "query",
                    unknown_field(&name, known).replacen("field", "parameter", 1),
                ));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::malformed(
                    &name,
                    "the parameter is given twice; give it once",
                ));
            }
            let value = form_decoded(&name, value)?;
            pairs.push((name.into(), value));
        }
        let mut query = Self {
            pairs,
            base64: false,
        };
        query.base64 = match query.text("encoding")? {
            None | Some("text") => false,
            Some("base64") => true,
            Some(other) => {
                let message = format!("'{other}' is not known; write 'text' or 'base64'");
                return Err(ApiError::malformed("encoding", message));
            }
        };
        Ok(query)
    }

    fn raw(&self, name: &str) -> Option<&[u8]> {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// A parameter that is text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        match std::str::from_utf8(raw) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ApiError::malformed(name, "the text is not UTF-8")),
        }
    }

    /// A parameter that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain => Ok(Some(number)),
            _ => Err(ApiError::malformed(
                name,
                format!("'{text}' is not a whole number from 0"),
            )),
        }
    }

    /// A parameter that is a count from 1 to `max`.
    pub(crate) fn limit(&self, name: &str, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.number(name)? {
            None => Ok(default),
            Some(number) => match usize::try_from(number) {
                Ok(count) if (1..=max).contains(&count) => Ok(count),
                _ => Err(ApiError::malformed(
                    name,
                    format!("'{number}' is not a number from 1 to {max}"),
                )),
            },
        }
    }

    /// A parameter that is a position.
    pub(crate) fn position(&self, name: &str) -> Result<Option<Position>, ApiError> {
        Ok(self.number(name)?.map(Position))
    }

    /// A parameter that is on or off; bare, it is on.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)? {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(ApiError::malformed(
                name,
                format!("'{other}' is neither 'true' nor 'false'"),
            )),
        }
    }

    /// A parameter that is a key.
    pub(crate) fn key(&self, name: &str) -> Result<Option<Bytes>, ApiError> {
        let raw = self.raw(name);
        raw.map(|raw| self.decode_key(name, raw)).transpose()
    }

    /// A key as `encoding` says: text, or base64 in either alphabet.
    pub(crate) fn decode_key(&self, place: &str, raw: &[u8]) -> Result<Bytes, ApiError> {
        if !self.base64 {
            return match std::str::from_utf8(raw) {
                Ok(_) => Ok(Bytes::copy_from_slice(raw)),
                Err(_) => Err(ApiError::malformed(
                    place,
                    "the key is not UTF-8; write it in base64 and add encoding=base64",
                )),
            };
        }
        // An unescaped '+' of the standard alphabet arrives as a space.
        let text = String::from_utf8_lossy(raw).replace(' ', "+");
        match decode_base64(&text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(ApiError::malformed(
                place,
                format!("this is not base64: {error}"),
            )),
        }
    }

    /// `timeout_ms`, bounded.
    pub(crate) fn timeout(&self) -> Result<Duration, ApiError> {
        let timeout_ms = self.number("timeout_ms")?.unwrap_or(WAIT_TIMEOUT_MS);
        if timeout_ms > WAIT_TIMEOUT_MS_MAX {
            let message =
                format!("{timeout_ms} is over the longest wait, {WAIT_TIMEOUT_MS_MAX} ms");
            return Err(ApiError::malformed("timeout_ms", message));
        }
        Ok(Duration::from_millis(timeout_ms))
    }
}

/// Undoes percent-encoding. The decoder leaves a broken escape as it is; here it is an error.
pub(crate) fn percent_decoded(place: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err(ApiError::malformed(
            place,
            "a '%' must be followed by two hexadecimal digits; write '%25' for '%'",
        ));
    }
    Ok(percent_decode_str(text).collect())
}

/// The same in a query, where `+` is a space.
fn form_decoded(place: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    percent_decoded(place, &text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &[
        "from",
        "limit",
        "reverse",
        "encoding",
        "timeout_ms",
        "prefix",
    ];

    fn fault(query: &str, read: impl Fn(&Query<'_>) -> Result<(), ApiError>) -> (String, String) {
        let error = Query::parse(Some(query), KNOWN)
            .and_then(|query| read(&query))
            .unwrap_err();
        let (status, body) = error.parts();
        assert_eq!(status, 422);
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("where"), text("message"))
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some("from=a%2Fb+c&&limit=10&reverse"), KNOWN).unwrap();
        assert_eq!(query.key("from").unwrap().as_deref(), Some(&b"a/b c"[..]));
        assert_eq!(query.number("limit").unwrap(), Some(10));
        assert!(query.flag("reverse").unwrap());
        assert_eq!(query.key("prefix").unwrap(), None);
        assert_eq!(query.timeout().unwrap(), Duration::from_secs(5));
    }

    #[test]
    fn keys_may_be_base64() {
        for form in ["%2B%2F8=", "+/8=", "-_8"] {
            let query = format!("encoding=base64&from={form}");
            let query = Query::parse(Some(&query), KNOWN).unwrap();
            assert_eq!(
                query.key("from").unwrap().as_deref(),
                Some(&[0xfb, 0xff][..]),
                "{form}"
            );
        }
    }

    #[test]
    fn every_fault_says_where() {
        let ok = |_: &Query<'_>| Ok(());
        let cases = [
            (fault("limi=1", ok), "query", "did you mean 'limit'"),
            (fault("limit=1&limit=2", ok), "limit", "twice"),
            (fault("encoding=hex", ok), "encoding", "base64"),
            (fault("from=%4", ok), "from", "hexadecimal"),
            (
                fault("limit=+1", |q| q.number("limit").map(drop)),
                "limit",
                "whole number",
            ),
            (
                fault("limit=99999999999999999999", |q| {
                    q.number("limit").map(drop)
                }),
                "limit",
                "whole number",
            ),
            (
                fault("reverse=yes", |q| q.flag("reverse").map(drop)),
                "reverse",
                "neither",
            ),
            (
                fault("from=%ff", |q| q.key("from").map(drop)),
                "from",
                "encoding=base64",
            ),
            (
                fault("from=*&encoding=base64", |q| q.key("from").map(drop)),
                "from",
                "not base64",
            ),
            (
                fault("timeout_ms=60001", |q| q.timeout().map(drop)),
                "timeout_ms",
                "60000",
            ),
        ];
        for ((place, message), expected_place, expected) in cases {
            assert_eq!(place, expected_place);
            assert!(message.contains(expected), "{message}");
        }
    }
}
