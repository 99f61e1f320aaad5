//! The server's address, and how paths and queries are written behind it.

use std::net::SocketAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::ClientError;

/// The address of a server: `http://host:port`, perhaps with a path in front of the API's.
#[derive(Clone, Debug)]
pub struct Url {
    base: String,
}

impl Url {
    /// Reads an address. Stricter than a browser: what it would mend is an error here.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            url: text.to_owned(),
            reason: reason.to_owned(),
        };
        let address = text.trim();
        if address.starts_with("https://") {
            return Err(ClientError::Https {
                url: text.to_owned(),
            });
        }
        let rest = address
            .strip_prefix("http://")
            .ok_or_else(|| bad("it does not begin with http://"))?;
        if rest.starts_with('/') {
            return Err(bad("the host is missing"));
        }
        if rest.contains(['?', '#', '\\']) || rest.contains(char::is_whitespace) {
            return Err(bad("it has a query, a fragment, a backslash or a space"));
        }
        let url = url::Url::parse(address).map_err(|error| match error {
            url::ParseError::EmptyHost => bad("the host is missing"),
            error => bad(&format!("it is malformed ({error})")),
        })?;
        if url.port() == Some(0) {
            return Err(bad("it is malformed (invalid port number)"));
        }
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
        })
    }

    /// The address without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where it leads, as far as that can be found now.
    pub fn socket_addresses(&self) -> Vec<SocketAddr> {
        let url = url::Url::parse(&self.base).ok();
        url.and_then(|url| url.socket_addrs(|| None).ok())
            .unwrap_or_default()
    }

    /// The address of a resource.
    pub fn with(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut out = format!("{}{path}", self.base);
        if !query.is_empty() {
            out.push('?');
            let start = out.len();
            out = url::form_urlencoded::Serializer::for_suffix(out, start)
                .extend_pairs(query)
                .finish();
        }
        out
    }
}

/// All but the characters that no part of a URL gives a meaning to.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Bytes as one segment of a path. `.` and `..` are escaped: as themselves they would name
/// another resource.
pub fn segment(bytes: &[u8]) -> String {
    match bytes {
        b"." | b".." => "%2E".repeat(bytes.len()),
        _ => percent_encode(bytes, RESERVED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_its_fault_is_named() {
        assert_eq!(
            Url::parse("http://localhost:7070/").unwrap().base(),
            "http://localhost:7070"
        );
        assert_eq!(
            Url::parse("http://[::1]:7070/behind/").unwrap().base(),
            "http://[::1]:7070/behind"
        );
        for (text, reason) in [
            ("https://localhost", "plain HTTP"),
            ("localhost:7070", "http://"),
            ("http://", "host"),
            ("http:///x", "host"),
            ("http://:7070", "host"),
            ("http://a b", "space"),
            ("http://a\tb", "space"),
            ("http://a/?b", "query"),
            ("http://a#b", "fragment"),
            ("http://a\\b", "backslash"),
            ("http://a:99999", "port"),
            ("http://a:0", "port"),
            ("http://a:b", "port"),
            ("http://[::1", "IPv6"),
        ] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_segment_holds_any_bytes() {
        assert_eq!(segment(b"a/b c%\xff"), "a%2Fb%20c%25%FF");
        assert_eq!(segment(b".."), "%2E%2E");
        assert_eq!(segment(b"a.b"), "a.b");
        assert_eq!(
            Url::parse("http://h")
                .unwrap()
                .with("/v1/x", &[("a", "1&2".into()), ("b", "ä +".into())]),
            "http://h/v1/x?a=1%262&b=%C3%A4+%2B"
        );
        assert_eq!(
            Url::parse("http://h").unwrap().with("/v1/x", &[]),
            "http://h/v1/x"
        );
    }
}
