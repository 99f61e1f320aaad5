//! What can go wrong between a client and a server.

use std::io;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Answer;
use crate::json::parse_answer;

/// How long to wait when a server is overloaded and does not say how long.
const RETRY_AFTER_MS: u64 = 1_000;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS is not spoken here.
    #[error(
        "cannot use {url}: onelog speaks plain HTTP only; for TLS put a proxy in front of the server and give its http address"
    )]
    Https { url: String },
    #[error(
        "'{url}' is not the address of a server: {reason}; expected something like http://127.0.0.1:7070"
    )]
    BadUrl { url: String, reason: String },
    /// Nothing listens there.
    #[error(
        "no server answers at {base} (connection refused): start one with `onelog serve`, or name another with --url or ONELOG_URL"
    )]
    Refused { base: String },
    /// The host has no address.
    #[error("the host of {base} cannot be found")]
    NoHost { base: String },
    /// No answer in time. Whether the server carried the request out is not known.
    #[error("{base} did not answer within {:.1} s ({what}); --timeout allows more", limit.as_secs_f64())]
    TimedOut {
        base: String,
        what: String,
        limit: Duration,
    },
    /// The connection broke. Whether the server carried the request out is not known.
    #[error(
        "the connection to {base} was lost: {source}; if that happens again, is --url, or ONELOG_URL, the address of an onelog server?"
    )]
    Lost {
        base: String,
        source: Box<ureq::Error>,
    },
    /// The server said no.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// Something answered that is no onelog server, or one of another version.
    #[error(
        "{base} does not answer like an onelog server: {what}; is --url, or ONELOG_URL, the address of one?"
    )]
    Unexpected { base: String, what: String },
    /// A request that cannot be written as JSON.
    #[error("the request cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
}

impl ClientError {
    /// Whether nothing is known of what the server did, so that the request must be repeated under the same id.
    pub fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Lost { .. }
        )
    }

    /// The server's error, if it was one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }
}

/// The error that a server answered with.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", shown(met))]
pub struct ServerError {
    pub status: u16,
    pub error: String,
    pub message: String,
    /// Everything the server said.
    pub body: Value,
    /// The value that a guard met, as the server wrote it.
    pub met: Option<String>,
    /// When to try again, for an overloaded server.
    pub retry_after_ms: Option<u64>,
}

/// How much of a value that a guard met is shown.
const MET_CHARS_MAX: usize = 500;

fn shown(met: &Option<String>) -> String {
    match met {
        None => String::new(),
        Some(met) => match met.char_indices().nth(MET_CHARS_MAX) {
            None => format!("; met: {met}"),
            Some((end, _)) => format!("; met: {}…", &met[..end]),
        },
    }
}

/// The value by its digits: as JSON of a program it would be rounded.
#[derive(serde::Deserialize)]
struct Met<'a> {
    #[serde(borrow, default)]
    met: Option<&'a RawValue>,
}

impl ServerError {
    /// Reads the error of an answer; `None` when it holds none.
    pub(super) fn read(answer: &Answer) -> Option<Self> {
        let body = parse_answer(&answer.body).ok()?;
        let error = body.get("error")?.as_str()?.to_owned();
        let message = match body.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => error.replace('_', " "),
        };
        let exact = body.get("retry_after_ms").and_then(Value::as_u64);
        let header = answer
            .headers
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .map(|seconds| seconds.saturating_mul(1_000));
        let retry_after_ms =
            (answer.status == 503).then(|| exact.or(header).unwrap_or(RETRY_AFTER_MS));
        let met: Option<Met<'_>> = serde_json::from_slice(&answer.body).ok();
        Some(Self {
            status: answer.status,
            error,
            message,
            body,
            met: met.and_then(|met| Some(met.met?.get().to_owned())),
            retry_after_ms,
        })
    }
}

pub(super) fn lost(base: &str, limit: Duration, error: ureq::Error) -> ClientError {
    let base = base.to_owned();
    match error {
        ureq::Error::Io(ref cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            ClientError::Refused { base }
        }
        ureq::Error::HostNotFound => ClientError::NoHost { base },
        ureq::Error::Timeout(what) => ClientError::TimedOut {
            base,
            what: what.to_string(),
            limit,
        },
        // Another protocol is spoken there.
        ureq::Error::Protocol(error) => ClientError::Unexpected {
            base,
            what: format!("no answer in HTTP ({error})"),
        },
        source => ClientError::Lost {
            base,
            source: Box::new(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use ureq::http::HeaderMap;

    use super::*;
    use crate::Client;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn the_servers_message_is_kept() {
        let error = ServerError::read(&answer(
            409,
            r#"{"error":"conflict","message":"key \"a\" was written","retry_at":7}"#,
        ))
        .unwrap();
        assert_eq!(error.to_string(), "key \"a\" was written");
        assert_eq!(error.body["retry_at"], 7);
        assert_eq!(error.retry_after_ms, None);
    }

    #[test]
    fn what_a_guard_met_may_be_as_deep_as_a_document() {
        let met = format!("{}7{}", "[".repeat(127), "]".repeat(127));
        let body = format!("{{\"error\":\"guard_failed\",\"message\":\"m\",\"met\":{met}}}");
        let error = ServerError::read(&answer(412, &body)).unwrap();
        assert_eq!(error.met.as_deref(), Some(&*met));
        assert_eq!(error.body["met"].to_string(), met);
    }

    #[test]
    fn what_a_guard_met_is_shown_by_its_digits() {
        let met = "{\"count\": 1, \"wei\": 10000000000000000000000001}";
        let body = format!("{{\"error\":\"guard_failed\",\"message\":\"m\",\"met\":{met}}}");
        let error = ServerError::read(&answer(412, &body)).unwrap();
        assert_eq!(error.to_string(), format!("m; met: {met}"));
        let nothing = r#"{"error":"guard_failed","message":"it met no value","met":null}"#;
        let error = ServerError::read(&answer(412, nothing)).unwrap();
        assert_eq!(error.to_string(), "it met no value");
        let long = format!(
            "{{\"error\":\"e\",\"message\":\"m\",\"met\":\"{}\"}}",
            "x".repeat(9_000)
        );
        let error = ServerError::read(&answer(412, &long)).unwrap();
        assert!(error.to_string().len() < 600);
    }

    #[test]
    fn an_overloaded_server_says_when_to_come_back() {
        let mut busy = answer(503, r#"{"error":"overloaded"}"#);
        assert_eq!(
            ServerError::read(&busy).unwrap().retry_after_ms,
            Some(1_000)
        );
        busy.headers.insert("retry-after", "2".parse().unwrap());
        assert_eq!(
            ServerError::read(&busy).unwrap().retry_after_ms,
            Some(2_000)
        );
        busy.body = br#"{"error":"overloaded","retry_after_ms":50}"#.to_vec();
        assert_eq!(ServerError::read(&busy).unwrap().retry_after_ms, Some(50));
    }

    #[test]
    fn a_server_that_speaks_another_protocol_is_called_none_of_ours() {
        // Given servers that answer as Redis and MariaDB do, and one that closes as PostgreSQL does,
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: [&[u8]; 3] = [
            b"-ERR unknown command 'GET'\r\n",
            b"\x4a\0\0\0\x0a5.5.5\0",
            b"",
        ];
        let other = std::thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                assert!(client.read(&mut request).unwrap() > 0);
                client.write_all(answer).unwrap();
            }
        });
        // when they are asked as if they were onelog,
        let ask = || {
            let client = Client::new(&url, Duration::from_secs(60)).unwrap();
            client.get("/v1/status", &[]).unwrap_err()
        };
        let [redis, mariadb, postgres] = [ask(), ask(), ask()];
        other.join().unwrap();
        // then the message leads to the address, and a cut connection may still be a server's that ended.
        for error in [redis, mariadb] {
            assert!(!error.is_lost(), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains("does not answer like an onelog server"),
                "{text}"
            );
            assert!(
                text.contains("is --url, or ONELOG_URL, the address of one?"),
                "{text}"
            );
        }
        assert!(postgres.is_lost(), "{postgres:?}");
        let text = postgres.to_string();
        assert!(
            text.contains("is --url, or ONELOG_URL, the address of an onelog server?"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_error_of_ours_is_not_taken_for_one() {
        assert!(ServerError::read(&answer(502, "<html>bad gateway</html>")).is_none());
        assert!(ServerError::read(&answer(404, "{}")).is_none());
    }
}
