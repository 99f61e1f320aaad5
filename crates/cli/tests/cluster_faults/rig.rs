//! Three nodes of the real binary, each in its namespace, connected by TLS.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onelog_testkit::{Authority, Certificates, until_ok};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::network::{Network, address};

pub const NODES: [u64; 3] = [1, 2, 3];
pub const TABLE: &str = "faults.lists";
/// The node that has a disk of its own.
const ON_ITS_DISK: u64 = 3;
const ONELOG: &str = env!("CARGO_BIN_EXE_onelog");
const PORT: u16 = 7070;
const PEER_PORT: u16 = 7171;
/// How long a look at a node may take.
const LOOK: Duration = Duration::from_millis(500);
/// How much of a node's log is shown when the test fails.
const SHOWN_LINES: usize = 30;

pub struct Cluster {
    running: BTreeMap<u64, Child>,
    pub network: Network,
    certificates: BTreeMap<u64, Certificates>,
    /// Of the node [`ON_ITS_DISK`], where it may be mounted here. Before the folder that it is in.
    disk: Option<Disk>,
    folder: tempfile::TempDir,
    eyes: ureq::Agent,
}

pub fn url(node: u64) -> String {
    format!("http://{}:{PORT}", address(node))
}

pub fn agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(patience));
    config.build().new_agent()
}

#[track_caller]
pub fn make_table(node: u64, name: &str) {
    let table = json!({"name": name, "kind": "keyed", "value": "json"});
    let (status, said) = post(node, "/v1/tables", &table);
    assert!([200, 201].contains(&status), "{status}: {said}");
}

/// What a node answers, however long it takes.
#[track_caller]
pub fn post(node: u64, path: &str, body: &Value) -> (u16, Value) {
    let sent = agent(Duration::from_secs(60)).post(format!("{}{path}", url(node)));
    let mut answer = sent.send_json(body).unwrap();
    let said = answer.body_mut().read_json().unwrap();
    (answer.status().as_u16(), said)
}

impl Cluster {
    /// Three voters and a table.
    pub fn start() -> Self {
        let mut authority = Authority::new();
        let issue = |node: u64| (node, authority.issue(&format!("node-{node}.onelog")));
        let folder = tempfile::tempdir().unwrap();
        let mount = Disk::mount(folder.path().join("image"), folder.path().join("disk"));
        if let Err(why) = &mount {
            // Not eprintln!, which the test harness keeps to itself when a test passes.
            let mut errors = std::io::stderr();
            let _ = writeln!(errors, "SKIPPED: a disk that loses its power: {why}");
        }
        let mut cluster = Self {
            running: BTreeMap::new(),
            disk: mount.ok(),
            network: Network::new(&NODES),
            certificates: NODES.into_iter().map(issue).collect(),
            folder,
            eyes: agent(LOOK),
        };
        cluster.start_with(1, &[]);
        cluster.wait_for_leader(&[1]);
        for node in [2, 3] {
            cluster.start_node(node);
        }
        cluster.wait("three voters", |cluster| {
            NODES.iter().all(|node| cluster.voters(*node) == 3)
        });
        make_table(1, TABLE);
        cluster
    }

    fn data(&self, node: u64) -> PathBuf {
        match &self.disk {
            Some(disk) if node == ON_ITS_DISK => disk.folder().join("node"),
            _ => self.folder.path().join(format!("node-{node}")),
        }
    }

    fn log(&self, node: u64) -> PathBuf {
        self.folder.path().join(format!("node-{node}.log"))
    }

    /// Starts a node that knows the others.
    pub fn start_node(&mut self, node: u64) {
        let others = NODES.into_iter().filter(|other| *other != node);
        let others: Vec<String> = others
            .map(|other| format!("{other}={}:{PEER_PORT}", address(other)))
            .collect();
        let others = others.join(",");
        let mut more = vec!["--peers", &others];
        if node != 1 {
            more.extend(["--join", "voter"]);
        }
        self.start_with(node, &more);
    }

    fn start_with(&mut self, node: u64, more: &[&str]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(node))
            .unwrap();
        let certificates = &self.certificates[&node];
        let mut command = self.network.command(node, ONELOG);
        without_settings(&mut command);
        command
            .args(["serve", "--listen", &format!("{}:{PORT}", address(node))])
            .arg("--folder")
            .arg(self.data(node))
            .args(["--node", &node.to_string()])
            .args(["--peer-listen", &format!("{}:{PEER_PORT}", address(node))])
            .arg("--peer-certificate")
            .arg(&certificates.certificate)
            .arg("--peer-key")
            .arg(&certificates.key)
            .arg("--peer-authority")
            .arg(&certificates.root)
            .args(more)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        assert!(self.running.insert(node, child).is_none());
    }

    /// Ends a node as a failing machine does.
    pub fn kill(&mut self, node: u64) {
        let mut child = self.running.remove(&node).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends a node as its operator does.
    pub fn stop(&mut self, node: u64) {
        self.signal(node, "TERM");
        let mut child = self.running.remove(&node).unwrap();
        let status = child.wait().unwrap();
        assert!(
            status.success(),
            "node {node}: {status}\n{}",
            self.said(node)
        );
    }

    pub fn signal(&self, node: u64, name: &str) {
        let id = self.running[&node].id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(sent.unwrap().success(), "{name} to node {node}");
    }

    /// The node whose disk can lose its power.
    pub fn node_with_a_disk(&self) -> Option<u64> {
        self.disk.is_some().then_some(ON_ITS_DISK)
    }

    pub fn cut_power(&self) {
        self.disk.as_ref().unwrap().cut_power().unwrap();
    }

    pub fn power_on(&self) {
        self.disk.as_ref().unwrap().come_back().unwrap();
    }

    /// Hands the leadership to a node, as often as it takes.
    pub fn transfer(&self, to: u64) {
        self.wait(&format!("leadership of node {to}"), |cluster| {
            let (leader, _) = cluster.wait_for_leader(&NODES);
            leader == to || {
                // It may not have caught up yet.
                let _ = post(leader, "/v1/cluster/transfer", &json!({"node": to}));
                false
            }
        });
    }

    /// The segment that a node writes to.
    pub fn newest_segment(&self, node: u64) -> PathBuf {
        let files = std::fs::read_dir(self.data(node).join("log")).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        segments.sort();
        segments.pop().unwrap()
    }

    /// Reads the whole log of a node, which must have no damage.
    #[track_caller]
    pub fn read_log(&self, node: u64) {
        let path = format!("{}/v1/log?from=0", url(node));
        let mut answer = agent(Duration::from_secs(60)).get(path).call().unwrap();
        let body = answer.body_mut().with_config().limit(1 << 30);
        let text = body.read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "node {node}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(!last.contains("\"error\""), "node {node}: {last}");
    }

    /// How a node sees the cluster; `None` when it does not answer.
    pub fn view(&self, node: u64) -> Option<Value> {
        let answer = self.eyes.get(format!("{}/v1/cluster", url(node))).call();
        answer.ok()?.body_mut().read_json().ok()
    }

    fn voters(&self, node: u64) -> usize {
        let Some(view) = self.view(node) else {
            return 0;
        };
        let members = view["members"].as_array().into_iter().flatten();
        members.filter(|member| member["is_voter"] == true).count()
    }

    /// The first of these nodes that says that it leads, and how long that took.
    pub fn wait_for_leader(&self, among: &[u64]) -> (u64, Duration) {
        let begin = Instant::now();
        let mut leader = 0;
        self.wait("a leader", |cluster| {
            let leads = |node: &&u64| {
                cluster
                    .view(**node)
                    .is_some_and(|view| view["leads"] == true)
            };
            let found = among.iter().find(leads);
            leader = found.copied().unwrap_or_default();
            found.is_some()
        });
        (leader, begin.elapsed())
    }

    /// Waits until a node has everything up to a position.
    pub fn wait_for_position(&self, node: u64, position: u64) {
        let path = format!("/v1/tables/{TABLE}/keys?limit=1&after={position}&timeout_ms=100");
        self.wait(&format!("node {node} at position {position}"), |cluster| {
            let answer = cluster.eyes.get(format!("{}{path}", url(node))).call();
            answer.is_ok_and(|answer| answer.status() == 200)
        });
    }

    #[track_caller]
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let waited = until_ok(|| match condition(self) {
            true => Ok(()),
            false => Err(String::new()),
        });
        if waited.is_err() {
            let views: Vec<_> = NODES.iter().map(|node| self.view(*node)).collect();
            let said: Vec<_> = NODES.iter().map(|node| self.said(*node)).collect();
            panic!("no {what}: {views:#?}\n{}", said.join("\n"));
        }
    }

    /// The end of a node's own log.
    pub fn said(&self, node: u64) -> String {
        let text = std::fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        format!("node {node} says:\n{}", lines[from..].join("\n"))
    }
}

/// What the tester has set must not matter.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONELOG_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
