//! Redis under test. It refuses no value itself: what does not fit a column is refused before
//! anything is sent, and only another record mends it.

use onelog_store::StoreErrorCode;
use onelog_testkit::{Redis, Server};
use serde_json::{Value, json};

use crate::rig::{Rig, columns};
use crate::world::World;

/// Lets the sink's user in again, which is that of the looks and edits as well.
const ADMIN: &str = "admin";

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

    fn administer(&self, command: &[&str]) {
        let login = ["--user", ADMIN, "--pass", "pw", "--no-auth-warning"];
        self.server.command(&[&login, command].concat());
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

    fn shut_out(&self) -> bool {
        let admin = ["ACL", "SETUSER", ADMIN, "on", ">pw", "~*", "+@all"];
        self.server.command(&admin);
        self.server.command(&["ACL", "SETUSER", "default", "off"]);
        self.administer(&["CLIENT", "KILL", "TYPE", "normal"]);
        true
    }

    fn let_in(&self) {
        self.administer(&["ACL", "SETUSER", "default", "on"]);
    }

    /// A replica of a master that is not there.
    fn freeze(&self, _into: &str) {
        self.server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    }

    fn thaw(&self, _into: &str) {
        self.server.command(&["REPLICAOF", "NO", "ONE"]);
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

/// The master becomes a replica of its replica while the sink is connected to it.
pub fn the_sink_follows_a_failover_to_the_replica(rig: &RedisRig) {
    let world = World::new(rig, "promoted");
    let other = Redis::start();
    let (first, second) = (rig.server.port().to_string(), other.port().to_string());
    let url = format!("redis://127.0.0.1:{first},127.0.0.1:{second}");
    world.create(&json!({ "url": url }));
    world.order("a", 1);
    world.assert_equal();
    other.command(&["REPLICAOF", "127.0.0.1", &first]);
    while !other
        .command(&["INFO", "replication"])
        .contains("master_link_status:up")
    {}
    rig.server.command(&["WAIT", "1", "0"]);

    other.command(&["REPLICAOF", "NO", "ONE"]);
    rig.server.command(&["REPLICAOF", "127.0.0.1", &second]);
    world.order("a", 2);
    world.assert_equal();
    let name = format!("{}:a", world.table("orders"));
    assert!(other.command(&["GET", &name]).contains("\"total\":2"));
    let status = world.sinks().get(world.sink()).unwrap();
    let fault = status.last_error.unwrap();
    assert_eq!(fault.code, Some(StoreErrorCode::NotWritable), "{fault:?}");
    world.end();
    rig.server.command(&["REPLICAOF", "NO", "ONE"]);
}

/// Keys that no mapping names any more are deletions like others.
pub fn another_template_asks_before_it_takes_many_keys_away(rig: &RedisRig) {
    const KEYS: usize = 150;
    let world = World::new(rig, "templates");
    let before = world.table("orders");
    world.create(&json!({}));
    for n in 0..KEYS {
        world.order(&format!("k{n}"), 1);
    }
    world.wait();
    let keys = |prefix: &str| {
        let found = rig.server.command(&["KEYS", &format!("{prefix}:*")]);
        found.lines().filter(|key| !key.is_empty()).count()
    };

    // Given a store with many keys, when its sink gets another template, it stops and counts.
    let mut mapping = rig.mapping(&before);
    mapping["key"] = json!("templates-new:{$key}");
    let changed = world.definition(world.sink(), &json!({ "mappings": [mapping] }));
    world.sinks().replace(changed).unwrap();
    let stopped = world.wait_for_stop(world.sink());
    let said = format!("would delete the {KEYS} rows of '{before}:{{$key}}'");
    assert!(stopped.contains(&said), "{stopped}");
    assert_eq!((keys(&before), keys("templates-new")), (KEYS, 0));

    // Then, with leave, the new keys are there and the old ones are not.
    world.sinks().rebuild_deleting(world.sink()).unwrap();
    world.assert_equal();
    assert_eq!((keys(&before), keys("templates-new")), (0, KEYS));
    world.end();
}
