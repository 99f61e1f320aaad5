//! One connection to one Redis server: everything bounded by time, every error named.
//!
//! After an error of the connection its answers no longer belong to its questions, so the link is
//! dead from then on.

use std::time::Duration;

use onelog_store::StoreError;
use redis::{Client, Connection, ConnectionInfo, RedisError, Value};

use super::wire::command;
use crate::error::{cause_of, classify, classify_refusal};

/// How long connecting may take, TLS and log-in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answer to the swap of a rebuild may take: it is one long step of the server.
pub(crate) const SWAP_TIMEOUT: Duration = Duration::from_secs(180);

pub(crate) struct Link {
    connection: Connection,
    /// Where it leads to, for people.
    pub(crate) place: String,
    dead: bool,
}

impl Link {
    pub(crate) fn connect(info: &ConnectionInfo, place: &str) -> Result<Self, StoreError> {
        let failed = |error| classify("connecting to", place, error);
        let client = Client::open(info.clone()).map_err(failed)?;
        let connection = client
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .map_err(failed)?;
        connection
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .and_then(|()| connection.set_write_timeout(Some(ANSWER_TIMEOUT)))
            .map_err(failed)?;
        Ok(Self {
            connection,
            place: place.to_owned(),
            dead: false,
        })
    }

    fn lost(&mut self, what: &str, error: RedisError) -> StoreError {
        self.dead = true;
        StoreError::Unavailable {
            what: format!("{what} Redis at {}", self.place),
            cause: cause_of(error),
        }
    }

    /// Sends commands. Every command has one answer, which must be received.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.dead {
            return Err(StoreError::Unavailable {
                what: format!("writing to Redis at {}", self.place),
                cause: "the connection was lost".into(),
            });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.connection
            .send_packed_command(bytes)
            .map_err(|error| self.lost("writing to", error))
    }

    /// The next answer. What Redis refuses comes as [`Value::ServerError`].
    pub(crate) fn receive(&mut self) -> Result<Value, StoreError> {
        self.connection
            .recv_response()
            .map_err(|error| self.lost("waiting for an answer of", error))
    }

    /// The next answer, which is no error.
    pub(crate) fn receive_good(&mut self, what: &str) -> Result<Value, StoreError> {
        let value = self.receive()?;
        self.good(what, value)
    }

    pub(crate) fn good(&self, what: &str, value: Value) -> Result<Value, StoreError> {
        match value {
            Value::ServerError(error) => Err(classify_refusal(what, &self.place, &error)),
            value => Ok(value),
        }
    }

    /// Sends one command and takes its answer.
    pub(crate) fn request(&mut self, what: &str, arguments: &[&[u8]]) -> Result<Value, StoreError> {
        let mut bytes = Vec::new();
        command(arguments, &mut bytes);
        self.send(&bytes)?;
        self.receive_good(what)
    }

    /// Waits up to `timeout` for each answer meanwhile.
    pub(crate) fn with_timeout<T>(
        &mut self,
        timeout: Duration,
        act: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let set = |link: &mut Self, timeout| {
            link.connection
                .set_read_timeout(Some(timeout))
                .map_err(|error| link.lost("setting the timeout of the connection to", error))
        };
        set(self, timeout)?;
        let done = act(self);
        set(self, ANSWER_TIMEOUT)?;
        done
    }

    /// An answer of a form that Redis does not give.
    pub(crate) fn unexpected(&self, what: &str, value: &Value) -> StoreError {
        let shape = match value {
            Value::Nil => "nothing",
            Value::Int(_) => "a number",
            Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
            Value::Array(_) => "a list",
            _ => "something else",
        };
        StoreError::Broken {
            what: format!("{what} Redis at {}", self.place),
            cause: format!("the answer is {shape}, which was not expected").into(),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("place", &self.place)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}
