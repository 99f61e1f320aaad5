//! Read replicas: real processes that follow others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use onelog_testkit::{Port, until_ok};
use serde_json::{Value, json};

use crate::load::{keys_in_log, write};
use crate::rig::{Nodes, TABLE, agent, ready};
use crate::server::{Ran, Server, onelog};

/// Servers that are not of one cluster, each with a port that it keeps.
struct Servers {
    folder: tempfile::TempDir,
}

impl Servers {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server with a table.
    fn source(&self, name: &str) -> Server {
        let server = Server::start(&self.data(name), &[]);
        server.run(&["tables", "create", TABLE]).good();
        server
    }

    fn follow(&self, name: &str, url: &str) -> Server {
        Server::start(&self.data(name), &["--follow", url])
    }

    /// Starts a server that is to end at its start.
    fn start_refused(&self, name: &str, flags: &[&str]) -> Ran {
        let mut command = onelog();
        command.args(["serve", "--folder"]).arg(self.data(name));
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(flags);
        Ran::of(command.output().unwrap())
    }
}

#[track_caller]
fn put(server: &Server, key: &str, value: &str) -> u64 {
    let answer = server.run(&["put", TABLE, key, value, "--json"]).json();
    answer["position"].as_u64().unwrap()
}

/// Reads a key once the server has the position.
#[track_caller]
fn get(server: &Server, key: &str, after: u64) -> String {
    let after = after.to_string();
    let args = ["get", TABLE, key, "--after", &after];
    let mut found = String::new();
    let waited = until_ok(|| {
        let ran = server.run(&args);
        if ran.status != 0 {
            return Err(format!("{ran:?}"));
        }
        found = ran.good().trim().to_owned();
        Ok(())
    });
    waited.unwrap_or_else(|last| panic!("{key} was not read: {last}"));
    found
}

fn replica(server: &Server) -> Value {
    let status = server.run(&["status", "--json"]).json();
    status["read_replica"].clone()
}

#[track_caller]
fn wait_for_state(server: &Server, state: &str) -> Value {
    let mut found = Value::Null;
    let waited = until_ok(|| {
        found = replica(server);
        (found["state"] == state)
            .then_some(())
            .ok_or_else(|| format!("{found:#}"))
    });
    waited.unwrap_or_else(|last| panic!("not {state}: {last}"));
    found
}

/// What a server answers, with the code of its error.
fn answer(method: &str, url: &str, body: &Value) -> (u16, Value, Option<String>) {
    let agent = agent();
    let sent = match method {
        "GET" => agent.get(url).call(),
        "DELETE" => agent.delete(url).call(),
        _ => agent.post(url).send_json(body),
    };
    let mut answer = sent.unwrap();
    let source = answer.headers().get("onelog-source");
    let source = source.map(|source| source.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    (answer.status().as_u16(), body, source)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn a_read_replica_has_what_its_source_has_through_restarts_of_both() {
    // Given a source, a server that follows it, and one that follows that one,
    let servers = Servers::new();
    let port = Port::take();
    let address = format!("127.0.0.1:{}", port.number());
    let source = Server::start_at(&address, &servers.data("source"), &[]);
    source.run(&["tables", "create", TABLE]).good();
    let first = put(&source, "a", "1");
    let url = source.url.clone();
    let follower = servers.follow("follower", &url);
    let second = servers.follow("second", &follower.url);
    assert_eq!(get(&follower, "a", first), "1");
    assert_eq!(get(&second, "a", first), "1");
    assert_eq!(wait_for_state(&follower, "following")["source"], url);
    // when the follower is started again, and the source has gone on meanwhile,
    second.terminate();
    follower.terminate();
    let more = put(&source, "b", "2");
    let follower = servers.follow("follower", &url);
    // then it has that as well.
    assert_eq!(get(&follower, "b", more), "2");
    // When the source is away, then reads go on, and the state says so;
    source.terminate();
    let away = wait_for_state(&follower, "source_away");
    assert!(away["why"].is_string(), "{away}");
    assert_eq!(get(&follower, "a", more), "1");
    assert_eq!(ready(&follower.url).0, 200);
    let linearizable = format!(
        "{}/v1/tables/{TABLE}/keys/a?linearizable=true&timeout_ms=500",
        follower.url
    );
    let (status, body, _) = answer("GET", &linearizable, &Value::Null);
    assert_eq!((status, &body["error"]), (503, &json!("source_away")));
    // also when it starts without it;
    follower.terminate();
    let follower = servers.follow("follower", &url);
    assert_eq!(get(&follower, "b", more), "2");
    // and it follows again by itself, and so does who follows it.
    let source = Server::start_at(&address, &servers.data("source"), &[]);
    let last = put(&source, "c", "3");
    assert_eq!(get(&follower, "c", last), "3");
    let second = servers.follow("second", &follower.url);
    assert_eq!(get(&second, "c", last), "3");
    let (status, _, _) = answer("GET", &linearizable_of(&second, "c"), &Value::Null);
    assert_eq!(status, 200);
    assert_eq!(keys_in_log(&second.url, last), keys_in_log(&url, last));
}

fn linearizable_of(server: &Server, key: &str) -> String {
    let url = &server.url;
    format!("{url}/v1/tables/{TABLE}/keys/{key}?linearizable=true")
}

#[test]
fn a_read_replica_that_is_killed_under_load_goes_on_where_it_was() {
    // Given a server that follows one which is written to,
    let servers = Servers::new();
    let source = servers.source("source");
    let (ends, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let client = {
        let (urls, ends, count) = ([source.url.clone()], Arc::clone(&ends), Arc::clone(&count));
        std::thread::spawn(move || write(&urls, "k", &ends, &count))
    };
    let mut follower = servers.follow("follower", &source.url);
    // when it is killed again and again,
    for _ in 0..3 {
        let enough = count.load(Ordering::Relaxed) + 50;
        let waited = until_ok(|| {
            let is = count.load(Ordering::Relaxed);
            (is >= enough).then_some(()).ok_or(format!("{is}"))
        });
        waited.unwrap();
        follower.kill();
        follower = servers.follow("follower", &source.url);
    }
    ends.store(true, Ordering::Relaxed);
    let acknowledged = client.join().unwrap();
    // then it gets everything, once, and its folder is whole.
    let end = *acknowledged.values().max().unwrap();
    get(&follower, "k-0", end);
    let keys = keys_in_log(&follower.url, end);
    assert!(acknowledged.keys().all(|key| keys.contains(key)));
    assert_eq!(keys, keys_in_log(&source.url, end));
    follower.terminate();
    let folder = servers.data("follower");
    let check = onelog().arg("check").arg(&folder).output().unwrap();
    Ran::of(check).good();
}

#[test]
fn a_read_replica_takes_the_state_where_the_log_was_cut() {
    // Given a source that keeps little of its log, and a server that follows it and is away,
    let servers = Servers::new();
    let flags = [
        "--segment-bytes",
        "64KiB",
        "--retain-bytes",
        "64KiB",
        "--checkpoint-interval-ms",
        "50",
    ];
    let source = Server::start(&servers.data("source"), &flags);
    source.run(&["tables", "create", TABLE]).good();
    let first = put(&source, "old", "1");
    let follower = servers.follow("follower", &source.url);
    assert_eq!(get(&follower, "old", first), "1");
    follower.terminate();
    // when what it lacks is cut,
    let value = format!("\"{}\"", "v".repeat(20_000));
    let mut n = 0;
    let waited = until_ok(|| {
        n += 1;
        put(&source, &format!("k{}", n % 7), &value);
        let status = source.run(&["status", "--json"]).json();
        let start = status["log_start"].as_u64().unwrap();
        (start > first + 1).then_some(()).ok_or(format!("{start}"))
    });
    waited.unwrap();
    let last = put(&source, "last", "2");
    // then it takes the state, and follows; so does one that begins now, and one that follows that.
    let follower = servers.follow("follower", &source.url);
    let new = servers.follow("new", &source.url);
    let second = servers.follow("second", &new.url);
    for server in [&follower, &new, &second] {
        assert_eq!(get(server, "last", last), "2");
        assert_eq!(get(server, "old", last), "1");
        assert_eq!(wait_for_state(server, "following")["restarts"], 1);
        let status = server.run(&["status", "--json"]).json();
        assert!(status["log_start"].as_u64().unwrap() > first);
    }
    // Also after a restart, and with what comes then.
    follower.terminate();
    let follower = servers.follow("follower", &source.url);
    let more = put(&source, "more", "3");
    assert_eq!(get(&follower, "more", more), "3");
    assert_eq!(wait_for_state(&follower, "following")["restarts"], 0);
    follower.terminate();
    let folder = servers.data("follower");
    let check = onelog().arg("check").arg(&folder).output().unwrap();
    Ran::of(check).good();
}

#[test]
fn another_log_or_another_history_is_never_followed() {
    // Given a server that follows another one, and a copy of that one's folder,
    let servers = Servers::new();
    let source = servers.source("source");
    let shared = put(&source, "a", "1");
    source.terminate();
    copy_folder(&servers.data("source"), &servers.data("copy"));
    let source = Server::start(&servers.data("source"), &[]);
    let position = put(&source, "b", "2");
    let follower = servers.follow("follower", &source.url);
    assert_eq!(get(&follower, "b", position), "2");
    follower.terminate();
    // when it is to follow the copy, which has gone another way,
    let copy = Server::start(&servers.data("copy"), &[]);
    for n in 0..5 {
        put(&copy, &format!("other{n}"), "0");
    }
    let follower = servers.follow("follower", &copy.url);
    // then it does not, and says why;
    let found = wait_for_state(&follower, "other_history");
    assert!(
        found["why"].as_str().unwrap().contains("checksum"),
        "{found}"
    );
    let (status, body) = ready(&follower.url);
    assert_eq!((status, &body["status"]), (503, &json!("other_history")));
    follower.terminate();
    // nor does it follow another log,
    let stranger = servers.source("stranger");
    put(&stranger, "x", "0");
    let follower = servers.follow("follower", &stranger.url);
    wait_for_state(&follower, "other_log");
    assert_eq!(ready(&follower.url).0, 503);
    follower.terminate();
    // and nothing was changed: it goes on with its own source.
    let follower = servers.follow("follower", &source.url);
    let last = put(&source, "c", "3");
    assert_eq!(get(&follower, "c", last), "3");
    assert_eq!(get(&follower, "a", shared), "1");
}

#[test]
fn what_writes_is_refused_with_the_address_of_the_source() {
    let servers = Servers::new();
    let source = servers.source("source");
    let position = put(&source, "a", "1");
    let follower = servers.follow("follower", &source.url);
    get(&follower, "a", position);
    let write = json!({"writes": [{"op": "put", "table": TABLE, "key": "a", "value": 2}]});
    for (method, path, body) in [
        ("POST", "/v1/transactions", &write),
        (
            "POST",
            "/v1/tables",
            &json!({"name": "a.b", "kind": "keyed", "value": "json"}),
        ),
        ("DELETE", "/v1/tables/shop.orders", &Value::Null),
        ("POST", "/v1/sinks", &json!({})),
        ("GET", "/v1/sinks", &Value::Null),
        ("GET", "/v1/sinks/x/wait?position=1", &Value::Null),
        ("POST", "/v1/cluster/transfer", &json!({})),
        ("GET", "/v1/cluster", &Value::Null),
    ] {
        let (status, body, header) = answer(method, &format!("{}{path}", follower.url), body);
        assert_eq!(
            (status, &body["error"]),
            (421, &json!("read_replica")),
            "{path}"
        );
        assert_eq!(body["source"], source.url);
        assert_eq!(header.as_deref(), Some(source.url.as_str()));
    }
    // Reads are answered, at any position and in any form.
    let at = format!("{}/v1/tables/{TABLE}/keys/a?at={position}", follower.url);
    assert_eq!(answer("GET", &at, &Value::Null).1, json!(1));
    let (status, value, _) = answer("GET", &linearizable_of(&follower, "a"), &Value::Null);
    assert_eq!((status, value), (200, json!(1)));
    // A copy of it is a log of its own.
    let copy = servers.data("backup");
    follower.run(&["backup", copy.to_str().unwrap()]).good();
    let restored = Server::start(&copy, &[]);
    assert_eq!(get(&restored, "a", position), "1");
    put(&restored, "a", "2");
}

#[test]
fn the_folder_of_a_read_replica_is_no_node_s_and_the_reverse() {
    let servers = Servers::new();
    let source = servers.source("source");
    let position = put(&source, "a", "1");
    let follower = servers.follow("follower", &source.url);
    get(&follower, "a", position);
    follower.terminate();
    let refused = servers.start_refused("follower", &[]);
    refused.fails(1, "belongs to a read replica");
    let listen = format!("127.0.0.1:{}", Port::take().number());
    let as_node = [
        "--node",
        "2",
        "--peer-listen",
        &listen,
        "--peers",
        "1=127.0.0.1:9",
    ];
    let refused = servers.start_refused("follower", &as_node);
    refused.fails(1, "belongs to a read replica");
    let (from, into) = (servers.data("follower"), servers.data("alone"));
    let mut restore = onelog();
    restore.args(["restore", "--alone"]).args([from, into]);
    let alone = Ran::of(restore.output().unwrap()).good();
    assert!(
        alone.contains("the read replica knew all of it to be committed"),
        "{alone}"
    );
    let other = servers.source("other");
    other.terminate();
    let refused = servers.start_refused("other", &["--follow", &source.url]);
    refused.fails(1, "belongs to node 1");
    let refused = servers.start_refused("x", &["--follow", "https://127.0.0.1"]);
    refused.fails(2, "--follow");
    let both = ["--follow", &source.url, "--node", "1"];
    servers.start_refused("x", &both).fails(2, "not both");
    let port = Port::take().number();
    for host in ["127.0.0.1", "localhost"] {
        let own = (format!("127.0.0.1:{port}"), format!("http://{host}:{port}"));
        let refused = servers.start_refused("x", &["--listen", &own.0, "--follow", &own.1]);
        refused.fails(2, "this server itself");
    }
}

#[test]
fn a_read_replica_follows_a_cluster_through_changes_of_its_members() {
    // Given a server that follows the first node of a cluster to be,
    let servers = Servers::new();
    let mut nodes = Nodes::new();
    nodes.start(1, &[]);
    nodes.run(1, &["tables", "create", TABLE]).good();
    let url = nodes.url(1).to_owned();
    let follower = servers.follow("follower", &url);
    // when others join,
    for id in [2, 3] {
        nodes.start(id, &["--join", "voter"]);
    }
    nodes.wait_for_voters(3);
    let position = nodes.put(3, "a", "1");
    // then it follows on, also after a restart, and behind another member.
    assert_eq!(get(&follower, "a", position), "1");
    follower.terminate();
    let third = nodes.url(3).to_owned();
    let follower = servers.follow("follower", &third);
    let position = nodes.put(1, "a", "2");
    assert_eq!(get(&follower, "a", position), "2");
    nodes.take(1).kill();
    nodes.leader();
    let position = nodes.put(2, "a", "3");
    assert_eq!(get(&follower, "a", position), "3");
    let status = nodes.status(3);
    assert_eq!(status["members"].as_array().unwrap().len(), 3, "{status}");
}
