//! The server that a read replica follows, by its HTTP API.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use onelog::{Index, Position, SILENCE_MAX, Source, SourceError};
use onelog_client::{Client, ClientError, Method};
use serde::Deserialize;

/// How long the source may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct HttpSource {
    client: Client,
}

#[derive(Deserialize)]
struct Status {
    log_id: String,
}

#[derive(Deserialize)]
struct At {
    position: Position,
}

impl HttpSource {
    /// The source at an address, which must be one.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let client = Client::new(url, ANSWER_TIMEOUT)?.with_silence(SILENCE_MAX);
        Ok(Self { client })
    }

    /// Whether requests to the source would come to this listener.
    pub fn is_served_by(&self, listener: SocketAddr) -> bool {
        // An address is this machine's where it can be listened on.
        let is_here = |ip: IpAddr| match listener.ip().is_unspecified() {
            true => UdpSocket::bind((ip, 0)).is_ok(),
            false => ip == listener.ip(),
        };
        let addresses = self.client.socket_addresses();
        addresses
            .iter()
            .any(|source| source.port() == listener.port() && is_here(source.ip()))
    }

    fn bytes(&self, query: &[(&str, String)]) -> Result<Bytes, SourceError> {
        let answer = self
            .client
            .call(Method::GET, "/v1/replica/state", query, None);
        let answer = answer.map_err(refused)?;
        match answer.status {
            200 => Ok(answer.body.into()),
            _ => Err(refused(self.client.refusal(&answer))),
        }
    }
}

/// What a client would be advised fits a command, not a server that follows.
fn text(error: &ClientError) -> String {
    match error {
        ClientError::Refused { base } => format!(
            "nothing listens at {base} (connection refused): start the source, or name another with --follow"
        ),
        ClientError::TimedOut { base, what, limit } => {
            format!(
                "{base} did not answer within {} s ({what})",
                limit.as_secs()
            )
        }
        ClientError::Lost { base, source } => format!(
            "the connection to {base} was lost: {source}; --follow is the address of a server's API (its --listen), not of its --peer-listen"
        ),
        ClientError::Unexpected { base, what } => format!(
            "{base} does not answer like an onelog server: {what}; --follow is the address of a server's API (its --listen)"
        ),
        error => error.to_string(),
    }
}

fn refused(error: ClientError) -> SourceError {
    let text = text(&error);
    match error.server().map(|error| error.error.as_str()) {
        Some("other_log") => SourceError::OtherLog(text),
        Some("other_history") => SourceError::OtherHistory(text),
        Some("source_behind") => SourceError::Behind(text),
        Some("log_cut") => SourceError::Cut(text),
        Some("state_gone") => SourceError::StateGone(text),
        _ => SourceError::Away(text),
    }
}

impl Source for HttpSource {
    fn address(&self) -> &str {
        self.client.base()
    }

    fn log_id(&self) -> Result<u128, SourceError> {
        let status: Status = self.client.get_as("/v1/status", &[]).map_err(refused)?;
        u128::from_str_radix(&status.log_id, 16).map_err(|_| {
            let what = "its status has no log_id".to_owned();
            refused(self.client.unexpected(what))
        })
    }

    fn log(
        &self,
        log_id: u128,
        behind: Index,
        checksum: u32,
    ) -> Result<Box<dyn Read + Send>, SourceError> {
        let query = [
            ("log_id", format!("{log_id:032x}")),
            ("index", behind.get().to_string()),
            ("checksum", checksum.to_string()),
        ];
        let stream = self.client.stream("/v1/replica/log", &query, &[]);
        Ok(Box::new(stream.map_err(refused)?))
    }

    fn state(&self) -> Result<Bytes, SourceError> {
        self.bytes(&[])
    }

    fn chunk(&self, index: Index, cursor: &[u8]) -> Result<Bytes, SourceError> {
        let cursor = cursor.iter().map(|byte| format!("{byte:02x}")).collect();
        self.bytes(&[("index", index.get().to_string()), ("cursor", cursor)])
    }

    fn position(&self, within: Duration) -> Result<Position, SourceError> {
        let client = self.client.with_timeout(within);
        let at: At = client
            .get_as("/v1/replica/position", &[])
            .map_err(refused)?;
        Ok(at.position)
    }
}
