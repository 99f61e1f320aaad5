//! Redis under test. It refuses no value itself: what does not fit a column is refused before
//! anything is sent, and only another record mends it.

use onelog_testkit::{Redis, Server};
use serde_json::{Value, json};

use crate::rig::{Rig, columns};

/// What a row is in Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Strings,
    Hashes,
}

pub struct RedisRig {
    server: Redis,
    shape: Shape,
}

impl RedisRig {
    pub fn start(shape: Shape) -> Self {
        let server = Redis::start();
        Self { server, shape }
    }

    fn shaped(&self, mut mapping: Value) -> Value {
        if self.shape == Shape::Hashes {
            mapping["as"] = json!("hash");
        }
        mapping
    }
}

impl Rig for RedisRig {
    fn server(&self) -> &dyn Server {
        &self.server
    }

    fn target(&self) -> Value {
        json!({"kind": "redis", "url": self.server.url()})
    }

    fn mapping(&self, into: &str) -> Value {
        self.shaped(columns(into))
    }

    fn lax_mapping(&self, into: &str) -> Value {
        let mut mapping = self.mapping(into);
        mapping["columns"]["total"]["type"] = json!("json");
        mapping
    }

    fn forbid(&self, _into: &str) {}

    fn allow(&self, _into: &str) -> bool {
        false
    }

    fn refused(&self) -> Value {
        json!({"total": "many", "note": "no number"})
    }

    fn message(&self) -> &str {
        "total"
    }

    fn total(&self, into: &str, key: &str) -> Option<String> {
        let name = format!("{into}:{key}");
        let found = match self.shape {
            Shape::Strings => self.server.command(&["GET", &name]),
            Shape::Hashes => self.server.command(&["HGET", &name, "total"]),
        };
        if found.is_empty() || self.shape == Shape::Hashes {
            return (!found.is_empty()).then_some(found);
        }
        let row: Value = serde_json::from_str(&found).unwrap();
        Some(row["total"].to_string())
    }

    fn change(&self, into: &str, key: &str, total: i64) {
        self.add(into, key, total);
    }

    fn remove(&self, into: &str, key: &str) {
        self.server.command(&["DEL", &format!("{into}:{key}")]);
    }

    fn add(&self, into: &str, key: &str, total: i64) {
        let (name, total) = (format!("{into}:{key}"), total.to_string());
        match self.shape {
            Shape::Strings => {
                let row = format!(r#"{{"id":"{key}","total":{total},"note":"by hand"}}"#);
                self.server.command(&["SET", &name, &row])
            }
            Shape::Hashes => self
                .server
                .command(&["HSET", &name, "id", key, "total", &total]),
        };
    }
}
