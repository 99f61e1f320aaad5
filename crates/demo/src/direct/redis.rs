//! Redis: a string under each key.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Connection, RedisError};

use super::{Contents, Direct, StoreClient, taken};
use crate::error::DemoError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many keys are looked at in one step.
const SCAN_KEYS: usize = 1_000;
/// Which sink's table is whose; onelog's own.
const OWNERS: &str = "onelog:owners";

pub const CLIENT: StoreClient = StoreClient {
    kind: "redis",
    help: "On this Redis, redis://host",
    connect: |url, shown| Ok(Box::new(Redis::connect(url, shown)?)),
};

pub struct Redis {
    connection: Connection,
    shown: String,
}

fn failed(shown: &str, error: &RedisError) -> DemoError {
    DemoError::Failed(format!("{shown}: {error}"))
}

impl Redis {
    pub fn connect(url: &str, shown: &str) -> Result<Self, DemoError> {
        let open = || -> Result<Connection, RedisError> {
            let client = redis::Client::open(url)?;
            let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
            connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(connection)
        };
        Ok(Self {
            connection: open().map_err(|error| failed(shown, &error))?,
            shown: shown.to_owned(),
        })
    }

    fn keys(&mut self, pattern: &str) -> Result<BTreeSet<String>, RedisError> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0u64;
        loop {
            let (next, some): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(SCAN_KEYS)
                .query(&mut self.connection)?;
            keys.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }
}

impl Direct for Redis {
    fn create(&mut self, place: &str) -> Result<(), DemoError> {
        let keys = self.keys(&format!("{place}:*"));
        match keys.map_err(|e| failed(&self.shown, &e))?.is_empty() {
            true => Ok(()),
            false => Err(taken(place, &self.shown)),
        }
    }

    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError> {
        redis::cmd("SET")
            .arg(format!("{place}:{key}"))
            .arg(text)
            .exec(&mut self.connection)
            .map_err(|e| failed(&self.shown, &e))
    }

    fn contents(&mut self, place: &str) -> Result<Contents, DemoError> {
        let start = format!("{place}:");
        let mut read = || -> Result<Contents, RedisError> {
            let keys: Vec<String> = self.keys(&format!("{start}*"))?.into_iter().collect();
            let mut out = Contents::new();
            for keys in keys.chunks(SCAN_KEYS) {
                let values: Vec<Option<String>> =
                    redis::cmd("MGET").arg(keys).query(&mut self.connection)?;
                let bare = keys.iter().map(|key| key[start.len()..].to_owned());
                let pairs = bare.zip(values);
                out.extend(pairs.filter_map(|(key, value)| Some((key, text_of(&value?)))));
            }
            Ok(out)
        };
        read().map_err(|e| failed(&self.shown, &e))
    }

    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError> {
        self.keys("*onelog*").map_err(|e| failed(&self.shown, &e))
    }

    fn clean(&mut self, run: &str, _before: &BTreeSet<String>) -> Result<(), DemoError> {
        let mut clean = || -> Result<(), RedisError> {
            let keys: Vec<String> = self.keys(&format!("*{run}*"))?.into_iter().collect();
            for keys in keys.chunks(SCAN_KEYS) {
                redis::cmd("UNLINK").arg(keys).exec(&mut self.connection)?;
            }
            let owned: Vec<String> = redis::cmd("HKEYS")
                .arg(OWNERS)
                .query(&mut self.connection)?;
            for template in owned.iter().filter(|template| template.contains(run)) {
                redis::cmd("HDEL")
                    .arg(OWNERS)
                    .arg(template)
                    .exec(&mut self.connection)?;
            }
            Ok(())
        };
        clean().map_err(|e| failed(&self.shown, &e))
    }
}

/// The text of a key: as it was put, or the field `text` of a document.
fn text_of(value: &str) -> String {
    let document: Option<serde_json::Value> = serde_json::from_str(value).ok();
    let field = document.as_ref().and_then(|d| d["text"].as_str());
    field.unwrap_or(value).to_owned()
}
