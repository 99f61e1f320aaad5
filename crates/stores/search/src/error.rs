//! What an answer that is no success means: worth another attempt, or final.

use onelog_store::StoreError;
use serde::Deserialize;
use serde_json::Value;

use crate::connection::{Answer, Client};

/// How many bytes of an answer that is no error of the product's own are shown.
const MESSAGE_BYTES_MAX: usize = 500;

/// What is wrong, as the product reports it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Fault {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Fault>>,
}

impl Answer {
    /// What is wrong, where the product says so.
    pub(crate) fn fault(&self) -> Fault {
        #[derive(Deserialize)]
        struct Envelope {
            error: Value,
        }
        let fault = match serde_json::from_slice::<Envelope>(&self.body) {
            Ok(Envelope {
                error: Value::String(reason),
            }) => Some(Fault {
                reason: Some(reason),
                ..Fault::default()
            }),
            Ok(Envelope { error }) => serde_json::from_value(error).ok(),
            Err(_) => None,
        };
        fault.unwrap_or_else(|| {
            let shown = &self.body[..self.body.len().min(MESSAGE_BYTES_MAX)];
            Fault {
                reason: Some(String::from_utf8_lossy(shown).into_owned()),
                ..Fault::default()
            }
        })
    }

    /// The error that this status means.
    pub(crate) fn classify(&self, client: &Client, doing: &str) -> StoreError {
        let fault = self.fault();
        let what = format!("{doing} {}", client.shown);
        let message = format!("status {}: {fault}", self.status);
        match self.status {
            // A node with a full disk blocks its indexes until there is room again, and a cluster that
            // has lost its master or a shard takes no writes until there is another.
            403 | 429 | 503 if fault.is_no_writes() => StoreError::NotWritable {
                what,
                cause: message.into(),
            },
            408 | 429 | 500..=599 => StoreError::Unavailable {
                what,
                cause: message.into(),
            },
            401 => StoreError::NoAccess {
                what,
                cause: format!("{message}; {}", client.login_advice()).into(),
            },
            403 => StoreError::Broken {
                what,
                cause: format!(
                    "{message}; the user lacks a right: give it those that docs/sinks/elasticsearch.md lists"
                )
                .into(),
            },
            _ => StoreError::Broken {
                what,
                cause: message.into(),
            },
        }
    }
}

impl Fault {
    /// Whether writing is blocked for now.
    pub(crate) fn is_block(&self) -> bool {
        self.kind == "cluster_block_exception"
    }

    /// Whether the cluster answers and cannot take writes now.
    pub(crate) fn is_no_writes(&self) -> bool {
        let of_the_cluster = [
            "unavailable_shards_exception",
            "master_not_discovered_exception",
            "cluster_manager_not_discovered_exception",
            "process_cluster_event_timeout_exception",
            "node_not_connected_exception",
        ];
        self.is_block() || of_the_cluster.contains(&self.kind.as_str())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.kind[..], &self.reason) {
            ("", None) => f.write_str("no message")?,
            ("", Some(reason)) => f.write_str(reason)?,
            (kind, None) => f.write_str(kind)?,
            (kind, Some(reason)) => write!(f, "{kind}: {reason}")?,
        }
        match &self.caused_by {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_shown_with_its_causes() {
        let answer = Answer {
            status: 400,
            body: br#"{"error":{"type":"a","reason":"b","caused_by":{"type":"c","reason":"d"}},"status":400}"#
                .to_vec(),
        };
        assert_eq!(answer.fault().to_string(), "a: b (c: d)");
        let plain = Answer {
            status: 502,
            body: b"<html>bad gateway".to_vec(),
        };
        assert_eq!(plain.fault().to_string(), "<html>bad gateway");
    }
}
