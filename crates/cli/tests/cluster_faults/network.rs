//! A network of the test's own: a bridge, and behind it a namespace for each node, with an address of
//! its own.
//!
//! The test runs itself again in a new network namespace, which holds the bridge. A node's namespace
//! belongs to a process that sleeps in it. So nothing has a name outside of the test, and all of it is
//! gone when the last of its processes is; each is killed with the one that started it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use onelog_testkit::until_ok;

/// Set in the process that runs inside.
const INSIDE: &str = "ONELOG_TEST_NETWORK";
const PROGRAMS: [&str; 5] = ["ip", "unshare", "nsenter", "setpriv", "openssl"];
const HUB: u64 = 254;

/// Whether this process is the one in a network of its own. If not, it runs the test there, and fails
/// when that does; or says why it cannot.
#[must_use]
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Err(why) = permitted() {
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
        return false;
    }
    let status = with_this_process("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{test}, in a network of its own: {status}"
    );
    false
}

fn permitted() -> Result<(), String> {
    for program in PROGRAMS {
        let version = if program == "ip" { "-V" } else { "--version" };
        let version = if program == "openssl" {
            "version"
        } else {
            version
        };
        quietly(Command::new(program).arg(version))
            .map_err(|why| format!("{program} is not installed: {why}"))?;
    }
    let bridge = "ip link add hub type bridge && ip link add port1 type veth peer name wire";
    quietly(Command::new("unshare").args(["--net", "--", "sh", "-c", bridge]))
        .map_err(|why| format!("no network namespace can be made here (it needs root): {why}"))
}

/// Runs a program; says what it said where it fails.
pub fn quietly(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// A program that is killed when the thread that started it ends.
pub fn with_this_process(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", "--", program]);
    command.stdin(Stdio::null());
    command
}

pub fn address(node: u64) -> String {
    format!("10.77.0.{node}")
}

/// The namespaces of the nodes. All of it ends with the processes in them.
pub struct Network {
    sleepers: BTreeMap<u64, Child>,
}

impl Network {
    pub fn new(nodes: &[u64]) -> Self {
        let hub = format!("{}/24", address(HUB));
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", "hub", "type", "bridge"]);
        ip(&["address", "add", &hub, "dev", "hub"]);
        ip(&["link", "set", "hub", "up"]);
        let mut network = Self {
            sleepers: BTreeMap::new(),
        };
        for node in nodes {
            network.add(*node);
        }
        network
    }

    fn add(&mut self, node: u64) {
        let mut command = with_this_process("unshare");
        let sleeper = command.args(["--net", "--", "sleep", "infinity"]).spawn();
        let id = self.sleepers.entry(node).or_insert(sleeper.unwrap()).id();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let waited = until_ok(|| match std::fs::read_link(format!("/proc/{id}/ns/net")) {
            Ok(other) if other != own => Ok(()),
            found => Err(format!("{found:?}")),
        });
        waited.unwrap_or_else(|last| panic!("no namespace for node {node}: {last}"));
        let (here, there) = (port(node), "wire");
        let place = format!("{}/24", address(node));
        ip(&["link", "add", &here, "type", "veth", "peer", "name", there]);
        ip(&["link", "set", there, "netns", &id.to_string()]);
        ip(&["link", "set", &here, "master", "hub", "up"]);
        self.ip_in(node, &["link", "set", "lo", "up"]);
        self.ip_in(node, &["address", "add", &place, "dev", there]);
        self.ip_in(node, &["link", "set", there, "up"]);
    }

    /// A program in a node's namespace.
    pub fn command(&self, node: u64, program: &str) -> Command {
        let mut command = with_this_process("nsenter");
        let sleeper = self.sleepers[&node].id().to_string();
        command.args(["--net", "--target", &sleeper, "--", program]);
        command
    }

    fn ip_in(&self, node: u64, args: &[&str]) {
        quietly(self.command(node, "ip").args(args))
            .unwrap_or_else(|why| panic!("ip {args:?} in node {node}: {why}"));
    }

    /// What one node sends to the other is lost; the other way is open.
    pub fn block(&self, from: u64, to: u64) {
        self.ip_in(from, &["route", "add", "blackhole", &address(to)]);
    }

    pub fn unblock(&self, from: u64, to: u64) {
        self.ip_in(from, &["route", "del", "blackhole", &address(to)]);
    }

    /// Pulls a node's cable: clients do not reach it either.
    pub fn unplug(&self, node: u64) {
        ip(&["link", "set", &port(node), "down"]);
    }

    pub fn plug(&self, node: u64) {
        ip(&["link", "set", &port(node), "up"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for sleeper in self.sleepers.values_mut() {
            // It may have been killed with its test.
            let _ = sleeper.kill();
            let _ = sleeper.wait();
        }
    }
}

fn port(node: u64) -> String {
    format!("port{node}")
}

#[track_caller]
fn ip(args: &[&str]) {
    quietly(Command::new("ip").args(args)).unwrap_or_else(|why| panic!("ip {args:?}: {why}"));
}
