//! The server's address, and how paths and queries are written behind it.

use std::fmt::Write;

use super::ClientError;

/// The address of a server: `http://host:port`, perhaps with a path in front of the API's.
#[derive(Clone, Debug)]
pub struct Url {
    base: String,
}

impl Url {
    /// Reads an address.
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
            .ok_or_else(|| bad("it does not begin with http://"))?
            .trim_end_matches('/');
        let base = format!("http://{rest}");
        if rest.is_empty() {
            return Err(bad("the host is missing"));
        }
        if base.contains(['?', '#', ' ']) {
            return Err(bad("it has a query, a fragment or a space"));
        }
        let uri: ureq::http::Uri = base.parse().map_err(|_| bad("it is malformed"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("the host is missing"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let has_port = authority
            .rsplit(']')
            .next()
            .is_some_and(|end| end.contains(':'));
        if has_port && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("the port is malformed"));
        }
        Ok(Self { base })
    }

    /// The address without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address of a resource.
    pub fn with(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut out = format!("{}{path}", self.base);
        for (n, (name, value)) in query.iter().enumerate() {
            out.push(if n == 0 { '?' } else { '&' });
            out.push_str(name);
            out.push('=');
            out.push_str(&segment(value.as_bytes()));
        }
        out
    }
}

/// Bytes as one segment of a path or one value of a query.
pub fn segment(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric()
            || b"-_~".contains(byte)
            || (*byte == b'.' && bytes != b".") && bytes != b".."
        {
            out.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_its_fault_is_told() {
        assert_eq!(
            Url::parse("http://localhost:7070/").unwrap().base(),
            "http://localhost:7070"
        );
        for (text, reason) in [
            ("https://localhost", "plain HTTP"),
            ("localhost:7070", "http://"),
            ("http://", "host"),
            ("http://a b", "space"),
            ("http://a:99999", "malformed"),
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
                .with("/v1/x", &[("a", "1&2".into()), ("b", "ä".into())]),
            "http://h/v1/x?a=1%262&b=%C3%A4"
        );
    }
}
