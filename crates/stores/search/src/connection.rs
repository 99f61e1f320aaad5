//! Requests to Elasticsearch and OpenSearch, and what their answers mean.
//!
//! One pool of connections per client; every request is bounded by a timeout. The address of the
//! requests has no user, no password and no parameters: they become a header that is never shown.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onelog_store::{Cause, StoreError, Trust, read_pem, tls_config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};
use url::Url;

use crate::kind::ElasticsearchTarget;

pub(crate) use ureq::http::Method;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a step of a rebuild may take.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(300);
/// The most bytes of an answer. A page of documents is far below it.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// The first version of Elasticsearch with points in time and `require_alias`.
const ELASTICSEARCH_MIN: (u32, u32) = (7, 10);
/// The first version of OpenSearch with points in time.
const OPENSEARCH_MIN: (u32, u32) = (2, 4);

/// Which of the two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Elasticsearch,
    OpenSearch,
}

/// A connection pool to one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: Agent,
    authorization: Option<HeaderValue>,
    base: String,
    /// For people: without secrets.
    pub(crate) shown: String,
    pub(crate) product: Product,
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Nothing,
    Json(Value),
    /// Newline-delimited JSON.
    Lines(Bytes),
}

impl Body {
    /// The bytes, and what they are.
    fn into_bytes(self) -> (Bytes, Option<&'static str>) {
        match self {
            Self::Nothing => (Bytes::new(), None),
            Self::Json(value) => (value.to_string().into(), Some("application/json")),
            Self::Lines(lines) => (lines, Some("application/x-ndjson")),
        }
    }
}

/// An answer that came, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Root {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
    #[serde(default)]
    distribution: Option<String>,
}

impl Client {
    /// What to do where the server does not know the user.
    pub(crate) const fn login_advice(&self) -> &'static str {
        match self.authorization {
            Some(_) => {
                "the password is wrong, or there is no such user or key: mend them in the address"
            }
            None => {
                "the server wants a user and the address has none: https://USER:PASSWORD@host, or ?api_key=KEY behind it"
            }
        }
    }

    /// Reads what the cluster is. Nothing is written.
    pub(crate) fn connect(target: &ElasticsearchTarget) -> Result<Self, StoreError> {
        let shown = target.server.url.shown();
        let broken = |cause: Cause| StoreError::Broken {
            what: format!("opening {shown}"),
            cause,
        };
        let text = target
            .server
            .url
            .resolve()
            .map_err(|error| broken(error.into()))?;
        let (base, authorization) = split_address(&text).map_err(|what| broken(what.into()))?;
        let trust = match base.starts_with("https:") {
            true => target.server.trust(),
            false => Trust::NoCertificate,
        };
        let tls = http_tls(trust).map_err(|what| broken(what.into()))?;
        let authorization = authorization
            .map(|value| {
                let mut value = HeaderValue::try_from(value).map_err(|_| {
                    broken("the user, password or key has a line break in it".into())
                })?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("onelog/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .build();
        let mut client = Self {
            http: config.new_agent(),
            authorization,
            base,
            shown: shown.clone(),
            product: Product::Elasticsearch,
        };
        client.product = client.request_product()?;
        Ok(client)
    }

    fn request_product(&self) -> Result<Product, StoreError> {
        let answer = self.get("requesting the version of", "/")?;
        let answer = answer.success(self, "requesting the version of")?;
        let root: Root = answer.json(self, "requesting the version of")?;
        let number = &root.version.number;
        let (product, name, least) = match root.version.distribution.as_deref() {
            Some("opensearch") => (Product::OpenSearch, "OpenSearch", OPENSEARCH_MIN),
            _ => (Product::Elasticsearch, "Elasticsearch", ELASTICSEARCH_MIN),
        };
        let mut parts = number.split(['.', '-']).map(str::parse::<u32>);
        let found = match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        };
        if found >= least {
            return Ok(product);
        }
        Err(StoreError::Broken {
            what: format!("opening {}", self.shown),
            cause: format!(
                "this is {name} {number}; version {}.{} or later is needed",
                least.0, least.1
            )
            .into(),
        })
    }

    pub(crate) fn get(&self, doing: &str, path: &str) -> Result<Answer, StoreError> {
        self.read(doing, Method::GET, path, Body::Nothing, REQUEST_TIMEOUT)
    }

    /// Sends a request that changes nothing. It is sent once more, on another connection, when the
    /// server closed the one that it was sent on: servers and proxies close idle connections.
    pub(crate) fn read(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Body,
        timeout: Duration,
    ) -> Result<Answer, StoreError> {
        let (body, kind) = body.into_bytes();
        self.send(method.clone(), path, (body.clone(), kind), timeout)
            .or_else(|error| match was_closed(&error) {
                true => self.send(method, path, (body, kind), timeout),
                false => Err(error),
            })
            .map_err(|error| self.unavailable(doing, &error))
    }

    /// Sends a request and takes the answer, whatever its status.
    pub(crate) fn call(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Body,
        timeout: Duration,
    ) -> Result<Answer, StoreError> {
        self.send(method, path, body.into_bytes(), timeout)
            .map_err(|error| self.unavailable(doing, &error))
    }

    fn unavailable(&self, doing: &str, error: &ureq::Error) -> StoreError {
        StoreError::Unavailable {
            what: format!("{doing} {}", self.shown),
            cause: error.to_string().into(),
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        (body, kind): (Bytes, Option<&str>),
        timeout: Duration,
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.request(method, &format!("{}{path}", self.base));
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let response = request.send(&body[..])?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()?;
        Ok(Answer { status, body })
    }

    /// A request that may carry a body, whatever its method.
    fn request(&self, method: Method, url: &str) -> RequestBuilder<WithBody> {
        match method {
            Method::PUT => self.http.put(url),
            Method::DELETE => self.http.delete(url).force_send_body(),
            Method::GET => self.http.get(url).force_send_body(),
            _ => self.http.post(url),
        }
    }
}

/// Whether the server closed the connection before it answered.
fn was_closed(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(error) = error else {
        return false;
    };
    let closed = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ];
    closed.contains(&error.kind())
}

/// How a client of HTTP checks the identity of a server; the error is for users.
pub fn http_tls(trust: Trust<'_>) -> Result<TlsConfig, String> {
    static SYSTEM: OnceLock<RootCerts> = OnceLock::new();
    // Also says what is wrong with a file.
    let config = tls_config(trust)?;
    let roots = match trust {
        Trust::NoCertificate => RootCerts::new_with_certs(&[]),
        Trust::These(path) => authorities(path)?,
        Trust::System => SYSTEM
            .get_or_init(|| {
                let found = rustls_native_certs::load_native_certs().certs;
                found.iter().map(|der| owned(der)).into()
            })
            .clone(),
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(config.crypto_provider().clone())
        .root_certs(roots)
        .build())
}

fn authorities(path: &Path) -> Result<RootCerts, String> {
    let pem = read_pem(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| owned(&der)))
        .collect();
    found
        .map(RootCerts::from)
        .map_err(|error| format!("reading the certificates in {}: {error}", path.display()))
}

fn owned(der: &[u8]) -> Certificate<'static> {
    Certificate::from_der(der).to_owned()
}

impl Answer {
    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.body
    }

    /// The answer, or the error that its status means.
    pub(crate) fn success(self, client: &Client, doing: &str) -> Result<Self, StoreError> {
        if self.is_success() {
            return Ok(self);
        }
        Err(self.classify(client, doing))
    }

    /// Like [`Answer::success`]; `None` when what was requested is not there.
    pub(crate) fn found(self, client: &Client, doing: &str) -> Result<Option<Self>, StoreError> {
        if self.status == 404 {
            return Ok(None);
        }
        self.success(client, doing).map(Some)
    }

    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        client: &Client,
        doing: &str,
    ) -> Result<T, StoreError> {
        serde_json::from_slice(&self.body).map_err(|error| StoreError::Unavailable {
            what: format!("{doing} {}", client.shown),
            cause: format!(
                "the answer was cut or is not what this request is answered with: {error}"
            )
            .into(),
        })
    }
}

/// The address without secrets, and the header that is made of them.
pub fn split_address(text: &str) -> Result<(String, Option<String>), String> {
    let mut url = Url::parse(text).map_err(|error| {
        format!("the address is not a URL ({error}); it looks like https://user:password@host:9200")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("the address begins with http:// or https:// and names a host".into());
    }
    let mut authorization = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "api_key" => authorization = Some(format!("ApiKey {value}")),
            other => {
                return Err(format!(
                    "the address has the parameter '{other}'; only 'api_key' is known"
                ));
            }
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        if authorization.is_some() {
            return Err("the address has a user and an 'api_key'; one of the two is needed".into());
        }
        let mut pair = unescape(url.username());
        pair.push(b':');
        pair.extend(unescape(url.password().unwrap_or_default()));
        authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
    }
    // Neither can fail for an address with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    let base = url.as_str().trim_end_matches('/').to_owned();
    Ok((base, authorization))
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// One part of a path, such as the name of an index.
pub(crate) fn escape(part: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                out.push(byte as char);
            }
            _ => {
                // Writing to a text cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
