//! What Redis's errors mean for a sink: worth another attempt, or final.

use onelog_store::{Cause, StoreError, URL};
use redis::{ErrorKind, RedisError, ServerError};

/// An error of the driver: mostly of the connection.
pub(crate) fn classify(what: &str, place: &str, error: RedisError) -> StoreError {
    let what = format!("{what} Redis at {place}");
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            let message = error.to_string();
            let advice = login_advice(&message).unwrap_or(WRONG_LOGIN);
            StoreError::NoAccess {
                what,
                cause: format!("{message}. {advice}").into(),
            }
        }
        ErrorKind::InvalidClientConfig => StoreError::Broken {
            what,
            cause: Box::new(error),
        },
        _ => match error.code() {
            Some(code) => classify_code(what, code, &error.to_string()),
            None => StoreError::Unavailable {
                what,
                cause: cause_of(error),
            },
        },
    }
}

/// An error of the connection. The system calls a timeout a resource that is unavailable.
pub(crate) fn cause_of(error: RedisError) -> Cause {
    match error.is_timeout() {
        true => format!("it did not answer in time ({error})").into(),
        false => Box::new(error),
    }
}

/// An error that Redis answered with.
pub(crate) fn classify_refusal(what: &str, place: &str, error: &ServerError) -> StoreError {
    let what = format!("{what} Redis at {place}");
    let message = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    classify_code(what, error.code(), &message)
}

/// What a server answers writes with that it takes again by itself, or when it is mended.
const NOT_WRITABLE: [&str; 5] = ["READONLY", "MISCONF", "OOM ", "NOREPLICAS", "MASTERDOWN"];

pub(crate) const REPLICA: &str = "It is a replica: until it is promoted nothing can be written; where that is not a failover, give the address of the master, or of all servers, separated by commas";

const WRONG_LOGIN: &str = "The password is wrong, there is no such user, or the server has no password at all: mend them in the address";

/// What is wrong with the user and the password of an address.
fn login_advice(message: &str) -> Option<&'static str> {
    Some(if message.contains("NOAUTH") {
        "The server wants a password and the address has none: redis://:PASSWORD@host, or redis://USER:PASSWORD@host"
    } else if message.contains("WRONGPASS") {
        WRONG_LOGIN
    } else {
        return None;
    })
}

fn classify_code(what: String, code: &str, message: &str) -> StoreError {
    // A script's error is wrapped in some versions.
    let has = |text: &str| code == text.trim() || message.contains(text);
    let advice = if has("READONLY") {
        REPLICA
    } else if has("OOM ") {
        "Redis has reached its 'maxmemory'; give it more memory or delete other keys"
    } else if has("MISCONF") {
        "Redis takes no writes because it cannot save its data; look at its log and its disk"
    } else if has("NOPERM") {
        "The user lacks a right: give it those that docs/sinks/redis.md lists"
    } else if has("DB index is out of range") {
        "There is no database of this number: name another one in the address, or raise the server's 'databases'"
    } else if let Some(advice) = login_advice(message) {
        advice
    } else if has("WRONGTYPE") {
        "a key that onelog keeps for itself holds something else; delete the keys 'onelog:*' of this sink and rebuild it"
    } else {
        ""
    };
    let cause: Cause = match advice {
        "" => message.into(),
        advice => format!("{message}. {advice}").into(),
    };
    if NOT_WRITABLE.iter().any(|code| has(code)) {
        return StoreError::NotWritable { what, cause };
    }
    if has("DB index is out of range") {
        let field = URL.name;
        return StoreError::NoSuchPlace { field, what, cause };
    }
    if ["NOAUTH", "WRONGPASS"].iter().any(|code| has(code)) {
        return StoreError::NoAccess { what, cause };
    }
    let hopeless = ["NOPERM", "WRONGTYPE", "CROSSSLOT"];
    let plain = code == "ERR" && !message.contains("max number of clients");
    if plain || hopeless.iter().any(|code| has(code)) {
        StoreError::Broken { what, cause }
    } else {
        StoreError::Unavailable { what, cause }
    }
}

/// Whether the user lacks a right, as for a key.
pub(crate) fn lacks_right(error: &ServerError) -> bool {
    error.code() == "NOPERM"
}

/// Whether an error says that a partition is elsewhere now, or soon.
pub(crate) fn is_moved(error: &ServerError) -> bool {
    ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"].contains(&error.code())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_timeout_is_called_so() {
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            let error = classify("reading from", "h:1", io::Error::from(kind).into());
            let text = error.to_string();
            assert!(text.contains("it did not answer in time"), "{text}");
        }
    }
}
