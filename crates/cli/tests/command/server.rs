//! The real binary as a process: started, waited for by its own output, ended by its id.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

pub const ONELOG: &str = env!("CARGO_BIN_EXE_onelog");

/// A command in a clean environment: what the tester has set must not matter.
pub fn onelog() -> Command {
    let mut command = Command::new(ONELOG);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONELOG_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub position: u64,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts a server on a free port and waits until it says that it is ready.
    pub fn start(folder: &Path, flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", folder, flags)
    }

    /// The same, at an address.
    pub fn start_at(address: &str, folder: &Path, flags: &[&str]) -> Self {
        let mut child = onelog()
            .args(["serve", "--json", "--listen", address, "--folder"])
            .arg(folder)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut server = Self {
            child,
            url: String::new(),
            position: 0,
            errors: Some(errors),
        };
        if line.is_empty() {
            server.child.wait().unwrap();
            panic!("the server ended at its start: {}", server.errors());
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        server.url = ready["url"].as_str().unwrap().to_owned();
        server.position = ready["position"].as_u64().unwrap();
        server
    }

    /// Runs a command against this server.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, |_| {})
    }

    /// The same, with something else about the command.
    pub fn run_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Ran {
        let mut command = onelog();
        command.env("ONELOG_URL", &self.url).args(args);
        change(&mut command);
        Ran::of(command.output().unwrap())
    }

    /// Runs a command with this text as its standard input.
    pub fn run_fed(&self, args: &[&str], input: &str) -> Ran {
        use std::io::Write;
        let mut child = onelog()
            .env("ONELOG_URL", &self.url)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        signal("TERM", self.child.id());
        let status = self.child.wait().unwrap();
        (status, self.errors())
    }

    /// Ends the process as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn errors(&mut self) -> String {
        self.errors.take().unwrap().join().unwrap()
    }
}

/// Sends a signal to one process.
pub fn signal(name: &str, id: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &id.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "signal {name} to {id}");
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where a test waited for its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().expect("the command ended by itself"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It succeeded; answers what it printed.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }

    /// It succeeded and printed JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.good();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// It failed with this status and this text.
    #[track_caller]
    pub fn fails(self, status: i32, expected: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let text = format!("{}{}", self.err, self.out);
        assert!(text.contains(expected), "'{expected}' is not in: {text}");
    }
}
