//! Redis under test.

use onelog_testkit::{Proxy, Redis, Server};
use serde_json::{Value, json};

use crate::rig::{ACCOUNTS, Auditor, LEFT, RIGHT, Rig};

pub struct RedisRig {
    server: Redis,
    proxy: Proxy,
}

impl RedisRig {
    pub fn start() -> Self {
        let server = Redis::start();
        let proxy = Proxy::in_front_of(&server);
        Self { server, proxy }
    }
}

impl Rig for RedisRig {
    fn server(&self) -> &dyn Server {
        &self.server
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn target(&self) -> Value {
        json!({"kind": "redis", "url": self.proxy.url_of(&self.server.url())})
    }

    fn commit(&self) -> &[u8] {
        b"EXEC"
    }

    fn connect(&self) -> Option<Box<dyn Auditor>> {
        let connection = redis::Client::open(self.server.url())
            .and_then(|client| {
                client.get_connection_with_timeout(std::time::Duration::from_secs(5))
            })
            .map_err(|error| error.to_string());
        Some(Box::new(RedisAuditor(connection)))
    }

    /// As full as it can be.
    fn refuse_writes(&self) {
        self.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    fn allow_writes(&self) {
        self.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    }
}

struct RedisAuditor(Result<redis::Connection, String>);

impl Auditor for RedisAuditor {
    fn sum(&mut self) -> Result<i64, String> {
        let connection = self.0.as_mut().map_err(|error| error.clone())?;
        let mut command = redis::cmd("MGET");
        for table in [LEFT, RIGHT] {
            (0..ACCOUNTS).for_each(|n| {
                command.arg(format!("{table}:{n}"));
            });
        }
        let rows: Vec<Option<String>> = command
            .query(connection)
            .map_err(|error| error.to_string())?;
        rows.into_iter()
            .map(|row| {
                let row = row.ok_or_else(|| "not backfilled".to_owned())?;
                let row: Value = serde_json::from_str(&row).map_err(|error| error.to_string())?;
                row["balance"]
                    .as_i64()
                    .ok_or_else(|| "no balance".to_owned())
            })
            .sum()
    }
}
