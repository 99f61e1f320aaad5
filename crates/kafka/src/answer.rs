//! Answers as bytes: the size, the number of the request, and the message.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use tokio::sync::OwnedSemaphorePermit;

use crate::apis::{API_VERSIONS, Api};
use crate::header::Header;

/// A request got no answer: the connection ends, as Kafka's brokers do it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the request is malformed: {0}")]
    Guard(#[from] crate::guard::GuardError),
    /// The library's own error, of reading or of writing a message.
    #[error("{what} (version {version}) cannot be {done}: {cause}")]
    Message {
        what: &'static str,
        version: i16,
        done: &'static str,
        cause: String,
    },
    #[error("what was read cannot be sent: {0}")]
    Scan(String),
    #[error("a read of files was given up: {0}")]
    Interrupted(String),
    /// A client that wants no answers is shown so that its request has failed.
    #[error("a request without an answer has failed: {0}")]
    Unanswered(kafka_protocol::error::ResponseError),
    #[error("request {key} in version {version} is not one that onelog knows")]
    Unknown { key: i16, version: i16 },
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    Answer(Answer),
    /// The client wants none.
    Silence,
}

/// Bytes for the client, and the room that they take until they are sent.
#[derive(Debug)]
pub struct Answer {
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Outcome {
    /// Keeps the room until the answer is sent.
    pub fn with_memory(self, memory: OwnedSemaphorePermit) -> Self {
        match self {
            Self::Answer(Answer { bytes, .. }) => Self::Answer(Answer {
                bytes,
                _memory: Some(memory),
            }),
            Self::Silence => Self::Silence,
        }
    }
}

/// Writes an answer in the version of its request.
pub fn encode(api: &Api, header: &Header, message: &impl Encodable) -> Result<Outcome, Fault> {
    encode_as(api, header, header.version, message)
}

/// Writes an answer in a version of its own.
pub fn encode_as(
    api: &Api,
    header: &Header,
    version: i16,
    message: &impl Encodable,
) -> Result<Outcome, Fault> {
    let fault = |cause: &dyn std::fmt::Display| Fault::Message {
        what: api.name,
        version,
        done: "answered",
        cause: cause.to_string(),
    };
    let size = message
        .compute_size(version)
        .map_err(|cause| fault(&cause))?;
    let mut out = BytesMut::with_capacity(size + 9);
    out.put_i32(0);
    out.put_i32(header.correlation);
    // A client reads the answer to ApiVersions before it knows which versions there are.
    if api.is_flexible(version) && api.key != API_VERSIONS {
        out.put_u8(0);
    }
    message
        .encode(&mut out, version)
        .map_err(|cause| fault(&cause))?;
    let bytes = i32::try_from(out.len() - 4).map_err(|cause| fault(&cause))?;
    out[..4].copy_from_slice(&bytes.to_be_bytes());
    Ok(Outcome::Answer(Answer {
        bytes: out.freeze(),
        _memory: None,
    }))
}
