//! The HTTP client: blocking, plain HTTP, every wait bounded, every error a sentence.

mod error;
mod events;
mod json;
mod url;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

pub use error::{ClientError, ServerError};
pub use events::{Event, Events};
pub use json::{Part, parse_answer};
pub use ureq::http::{HeaderMap, Method};
pub use url::{Url, segment};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream sends a sign of life at least this often; without one it counts as lost.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most bytes of an answer that is read as a whole.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const CONNECTIONS_MAX: usize = 32;

/// Speaks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: Url,
    timeout: Duration,
    /// How long a stream may be silent.
    silence: Duration,
}

/// An answer that was read as a whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `url`. Each request must be answered within `timeout`.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, ClientError> {
        let url = Url::parse(url)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_await_100(Some(Duration::ZERO))
            .max_idle_connections(CONNECTIONS_MAX)
            .max_idle_connections_per_host(CONNECTIONS_MAX)
            .user_agent(concat!("onelog/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            url,
            timeout,
            silence: STREAM_SILENCE_MAX,
        })
    }

    /// The same client with another time limit.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The same client, whose streams count as lost after another time of silence.
    #[must_use]
    pub fn with_silence(&self, silence: Duration) -> Self {
        Self {
            silence,
            ..self.clone()
        }
    }

    /// The server's address, for people.
    pub fn base(&self) -> &str {
        self.url.base()
    }

    /// Where that leads, as far as it can be found now. Asks a name server; blocks.
    pub fn socket_addresses(&self) -> Vec<SocketAddr> {
        self.url.socket_addresses()
    }

    /// GET, expecting JSON.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.json(self.call(Method::GET, path, query, None)?)
    }

    /// POST of a JSON value, expecting JSON.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Encode)?;
        self.post_bytes(path, body)
    }

    /// POST of JSON text, expecting JSON.
    pub fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        self.json(self.call(Method::POST, path, &[], Some(body))?)
    }

    /// DELETE, expecting JSON or nothing.
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(self.call(Method::DELETE, path, &[], None)?)
    }

    /// One request and its whole answer, which is not yet judged.
    pub fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.with(path, query));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let sent = match body {
            Some(body) => {
                let request = request.body(body).map_err(|e| self.bad_request(e))?;
                let request = self.agent.configure_request(request);
                self.agent
                    .run(request.timeout_global(Some(self.timeout)).build())
            }
            None => {
                let request = request.body(()).map_err(|e| self.bad_request(e))?;
                let request = self.agent.configure_request(request);
                self.agent
                    .run(request.timeout_global(Some(self.timeout)).build())
            }
        };
        self.whole(sent.map_err(|error| self.lost(error))?)
    }

    /// Opens an answer that is read as it comes and may never end. Errors of the server are judged.
    pub fn stream(
        &self,
        path: &str,
        query: &[(&str, String)],
        headers: &[(&str, String)],
    ) -> Result<impl Read + Send + use<>, ClientError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(self.url.with(path, query));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(|e| self.bad_request(e))?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(self.silence))
            .build();
        let response = self.agent.run(request).map_err(|error| self.lost(error))?;
        if response.status().is_success() {
            return Ok(response.into_body().into_reader());
        }
        let answer = self.whole(response)?;
        Err(self.refusal(&answer))
    }

    /// GET, expecting JSON of a known form. Numbers in it stay as they were written where the form
    /// keeps them raw.
    pub fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let answer = self.call(Method::GET, path, query, None)?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.unexpected(format!("an answer of another form: {error}")))
    }

    /// The JSON of a successful answer, or the server's error.
    pub fn json(&self, answer: Answer) -> Result<Value, ClientError> {
        if !(200..300).contains(&answer.status) {
            return Err(self.refusal(&answer));
        }
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        parse_answer(&answer.body).map_err(|_| {
            self.unexpected(format!(
                "status {} with a body that is not JSON",
                answer.status
            ))
        })
    }

    /// The error of an answer.
    pub fn refusal(&self, answer: &Answer) -> ClientError {
        match ServerError::read(answer) {
            Some(error) => ClientError::Server(Box::new(error)),
            None => self.unexpected(format!("status {} without a reason", answer.status)),
        }
    }

    /// An answer that no onelog server gives.
    pub fn unexpected(&self, what: String) -> ClientError {
        ClientError::Unexpected {
            base: self.base().to_owned(),
            what,
        }
    }

    fn whole(&self, response: Response<Body>) -> Result<Answer, ClientError> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.lost(error))?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn lost(&self, error: ureq::Error) -> ClientError {
        error::lost(self.base(), self.timeout, error)
    }

    fn bad_request(&self, error: ureq::http::Error) -> ClientError {
        ClientError::BadUrl {
            url: self.base().to_owned(),
            reason: error.to_string(),
        }
    }
}
