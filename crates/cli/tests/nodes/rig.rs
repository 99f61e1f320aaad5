//! Nodes of one cluster, each a process with a folder and a port for the other nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onelog_testkit::{Port, until_ok};
use serde_json::Value;

use crate::server::{Ran, Server, onelog};

pub const TABLE: &str = "shop.orders";

pub struct Nodes {
    folder: tempfile::TempDir,
    ports: BTreeMap<u64, Port>,
    running: BTreeMap<u64, Server>,
}

impl Nodes {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            ports: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// Three voters, of which two have joined by their own request, and a table.
    pub fn of_three() -> Self {
        let mut nodes = Self::new();
        nodes.start(1, &[]);
        for id in [2, 3] {
            nodes.start(id, &["--join", "voter"]);
        }
        nodes.wait_for_voters(3);
        nodes.run(1, &["tables", "create", TABLE]).good();
        nodes
    }

    pub fn data(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Where other nodes reach it.
    pub fn address(&mut self, id: u64) -> String {
        let port = self.ports.entry(id).or_insert_with(Port::take);
        format!("127.0.0.1:{}", port.number())
    }

    /// From now on the node has another port for the others.
    pub fn move_to_another_port(&mut self, id: u64) {
        self.ports.insert(id, Port::take());
    }

    /// The flags of a node that knows all others which run.
    pub fn flags(&mut self, id: u64) -> Vec<String> {
        let others: Vec<u64> = self
            .ids()
            .into_iter()
            .filter(|other| *other != id)
            .collect();
        let peers: Vec<String> = others
            .into_iter()
            .map(|other| format!("{other}={}", self.address(other)))
            .collect();
        let mut flags = vec!["--node".to_owned(), id.to_string()];
        flags.extend(["--peer-listen".to_owned(), self.address(id)]);
        if !peers.is_empty() {
            flags.extend(["--peers".to_owned(), peers.join(",")]);
        }
        flags
    }

    pub fn start(&mut self, id: u64, more: &[&str]) {
        let flags = self.flags(id);
        let flags: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let server = Server::start(&self.data(id), &flags);
        self.adopt(id, server);
    }

    pub fn adopt(&mut self, id: u64, server: Server) {
        self.running.insert(id, server);
    }

    pub fn take(&mut self, id: u64) -> Server {
        self.running.remove(&id).unwrap()
    }

    pub fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    pub fn url(&self, id: u64) -> &str {
        &self.running[&id].url
    }

    pub fn urls(&self) -> Vec<String> {
        self.running
            .values()
            .map(|server| server.url.clone())
            .collect()
    }

    pub fn run(&self, id: u64, args: &[&str]) -> Ran {
        self.running[&id].run(args)
    }

    /// Writes a key through a node; the position behind it.
    #[track_caller]
    pub fn put(&self, id: u64, key: &str, value: &str) -> u64 {
        let answer = self.run(id, &["put", TABLE, key, value, "--json"]).json();
        answer["position"].as_u64().unwrap()
    }

    /// Reads a key through a node, once that has the position.
    #[track_caller]
    pub fn get(&self, id: u64, key: &str, after: u64) -> String {
        let after = after.to_string();
        let ran = self.run(id, &["get", TABLE, key, "--after", &after]);
        ran.good().trim().to_owned()
    }

    pub fn status(&self, id: u64) -> Value {
        self.run(id, &["cluster", "status", "--json"]).json()
    }

    #[track_caller]
    pub fn wait(&self, id: u64, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        let waited = until_ok(|| {
            found = self.status(id);
            condition(&found)
                .then_some(())
                .ok_or_else(|| format!("{found:#}"))
        });
        waited.unwrap_or_else(|last| panic!("node {id}: {what}: {last}"));
        found
    }

    /// Waits until each node that runs sees so many voters, and who leads.
    #[track_caller]
    pub fn wait_for_voters(&self, count: usize) {
        for id in self.ids() {
            self.wait(id, "voters", |status| {
                let members = status["members"].as_array().unwrap();
                let voters = members.iter().filter(|member| member["is_voter"] == true);
                voters.count() == count && status["leader"].is_u64()
            });
        }
    }

    /// The node that leads and runs, as all that run see it.
    #[track_caller]
    pub fn leader(&self) -> u64 {
        let ids = self.ids();
        let mut leader = 0;
        let found = until_ok(|| {
            let seen: Vec<_> = ids
                .iter()
                .map(|id| self.status(*id)["leader"].as_u64())
                .collect();
            leader = seen[0].unwrap_or_default();
            let agree = seen.iter().all(|other| *other == Some(leader));
            (agree && ids.contains(&leader))
                .then_some(())
                .ok_or_else(|| format!("{seen:?}"))
        });
        found.unwrap_or_else(|last| panic!("nobody leads: {last}"));
        leader
    }

    /// Starts a node that is to end at its start.
    pub fn start_refused(&mut self, id: u64, more: &[&str]) -> Ran {
        let flags = self.flags(id);
        let mut command = onelog();
        command.args(["serve", "--listen", "127.0.0.1:0", "--folder"]);
        command.arg(self.data(id)).args(flags).args(more);
        Ran::of(command.output().unwrap())
    }
}

/// What `/readyz` answers.
pub fn ready(url: &str) -> (u16, Value) {
    let agent = agent();
    let mut answer = agent.get(format!("{url}/readyz")).call().unwrap();
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(std::time::Duration::from_secs(60)));
    config.build().new_agent()
}
