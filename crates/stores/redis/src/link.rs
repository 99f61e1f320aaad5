//! One connection to one Redis server: everything bounded by time, every error named.
//!
//! After an error of the connection its answers no longer belong to its questions, so the link is
//! dead from then on.

use std::time::Duration;

use redis::{Client, Connection, ConnectionInfo, ErrorKind, RedisError, ServerError, Value};

use super::wire;
use onelog_store::StoreError;

/// How long connecting may take, TLS and log-in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answer to the swap of a rebuild may take: it is one long step of the server.
pub(super) const SWAP_TIMEOUT: Duration = Duration::from_secs(180);

/// A connection.
pub(super) struct Link {
    connection: Connection,
    /// Where it leads to, for people.
    pub(super) place: String,
    dead: bool,
}

impl Link {
    pub(super) fn connect(info: &ConnectionInfo, place: &str) -> Result<Self, StoreError> {
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
            cause: Box::new(error),
        }
    }

    /// Sends commands. Every command has one answer, which must be received.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
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
    pub(super) fn receive(&mut self) -> Result<Value, StoreError> {
        self.connection
            .recv_response()
            .map_err(|error| self.lost("waiting for an answer of", error))
    }

    /// The next answer, which is no error.
    pub(super) fn receive_good(&mut self, what: &str) -> Result<Value, StoreError> {
        let value = self.receive()?;
        self.good(what, value)
    }

    pub(super) fn good(&self, what: &str, value: Value) -> Result<Value, StoreError> {
        match value {
            Value::ServerError(error) => Err(refusal(what, &self.place, &error)),
            value => Ok(value),
        }
    }

    /// Sends one command and takes its answer.
    pub(super) fn ask(&mut self, what: &str, words: &[&[u8]]) -> Result<Value, StoreError> {
        let mut bytes = Vec::new();
        wire::command(words, &mut bytes);
        self.send(&bytes)?;
        self.receive_good(what)
    }

    /// Does something that may take long.
    pub(super) fn patiently<T>(
        &mut self,
        timeout: Duration,
        act: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let set = |link: &mut Self, timeout| {
            link.connection
                .set_read_timeout(Some(timeout))
                .map_err(|error| link.lost("setting the patience with", error))
        };
        set(self, timeout)?;
        let done = act(self);
        set(self, ANSWER_TIMEOUT)?;
        done
    }

    /// An answer of a form that Redis does not give.
    pub(super) fn strange(&self, what: &str, value: &Value) -> StoreError {
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

/// An error of the driver: mostly of the connection.
pub(super) fn classify(what: &str, place: &str, error: RedisError) -> StoreError {
    let what = format!("{what} Redis at {place}");
    match error.kind() {
        ErrorKind::AuthenticationFailed => StoreError::Broken {
            what,
            cause: format!("{error}; check the user and the password in 'url'").into(),
        },
        ErrorKind::InvalidClientConfig => StoreError::Broken {
            what,
            cause: Box::new(error),
        },
        _ => match error.code() {
            Some(code) => by_code(what, code, &error.to_string()),
            None => StoreError::Unavailable {
                what,
                cause: Box::new(error),
            },
        },
    }
}

/// What Redis itself refused.
pub(super) fn refusal(what: &str, place: &str, error: &ServerError) -> StoreError {
    let what = format!("{what} Redis at {place}");
    let words = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    by_code(what, error.code(), &words)
}

fn by_code(what: String, code: &str, words: &str) -> StoreError {
    // A script's error is wrapped in some versions.
    let has = |text: &str| code == text.trim() || words.contains(text);
    let advice = if has("OOM ") {
        "Redis has reached its 'maxmemory'; give it more memory or delete other keys"
    } else if has("MISCONF") {
        "Redis takes no writes because it cannot save its data; look at its log and its disk"
    } else if has("NOPERM") {
        "the user of 'url' lacks a right; the rights that are needed stand in the documentation of this store"
    } else if has("NOAUTH") || has("WRONGPASS") {
        "check the user and the password in 'url'"
    } else if has("WRONGTYPE") {
        "a key that onelog keeps for itself holds something else; delete the keys 'onelog:*' of this sink and rebuild it"
    } else {
        ""
    };
    let cause: onelog_store::Cause = match advice {
        "" => words.into(),
        advice => format!("{words}. {advice}").into(),
    };
    let hopeless = ["NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE", "CROSSSLOT"];
    let plain = code == "ERR" && !has("OOM ") && !words.contains("max number of clients");
    if plain || hopeless.iter().any(|code| has(code)) {
        StoreError::Broken { what, cause }
    } else {
        StoreError::Unavailable { what, cause }
    }
}

/// Whether an error says that a partition is elsewhere now, or soon.
pub(super) fn is_moved(error: &ServerError) -> bool {
    ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"].contains(&error.code())
}
