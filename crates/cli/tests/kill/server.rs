//! The server as a process, and its folder.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A test that hangs must fail; nothing is measured with this.
pub const PATIENCE: Duration = Duration::from_secs(120);

const ONELOG: &str = env!("CARGO_BIN_EXE_onelog");
/// Small, so that segments roll and checkpoints happen all the time.
const OPTIONS: [&str; 8] = [
    "--segment-bytes=64KiB",
    "--memtable-bytes=64KiB",
    "--checkpoint-interval-ms=300ms",
    "--cache-bytes=4MiB",
    "--compression=lz4",
    "--listen=127.0.0.1:0",
    "--log-level=info",
    "--json",
];
const LINES_KEPT: usize = 50;

/// The data folder, the store's file beside it. Kept when the test fails.
pub struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn sqlite(&self) -> PathBuf {
        self.folder.path().join("copy.db")
    }

    /// Runs `onelog check`, which must find nothing.
    pub fn check(&self) {
        let output = Command::new(ONELOG)
            .args(["check", "--json"])
            .arg(self.data())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "onelog check: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["ok"], true, "{report:#}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the folder is kept: {}", self.folder.path().display());
        }
    }
}

/// What a process says.
enum Said {
    Out(String),
    Err,
}

/// A server process. Dropping it kills it, by its id.
pub struct Server {
    child: Child,
    said: Receiver<Said>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    pub url: String,
}

impl Server {
    /// Starts a server and waits until it says that it is ready.
    pub fn start(folder: &Folder) -> Self {
        let mut server = Self::spawn(&folder.data());
        loop {
            match server.said.recv_timeout(PATIENCE) {
                Ok(Said::Err) => {}
                Ok(Said::Out(line)) => {
                    let ready: Value = serde_json::from_str(&line).unwrap();
                    server.url = ready["url"].as_str().unwrap().to_owned();
                    return server;
                }
                Err(RecvTimeoutError::Timeout) => panic!("the server does not become ready"),
                Err(RecvTimeoutError::Disconnected) => panic!("the server ended at its start"),
            }
        }
    }

    /// Starts a server and kills it at its first line, which mostly comes before it is ready.
    pub fn start_and_kill_early(folder: &Folder) {
        let server = Self::spawn(&folder.data());
        let word = server.said.recv_timeout(PATIENCE);
        assert!(word.is_ok(), "the server said nothing");
        server.kill();
    }

    fn spawn(data: &Path) -> Self {
        let mut child = Command::new(ONELOG)
            .arg("serve")
            .arg("--folder")
            .arg(data)
            .args(OPTIONS)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, said) = channel();
        let last_lines = Arc::default();
        listen(child.stdout.take().unwrap(), &say, &last_lines, Said::Out);
        listen(child.stderr.take().unwrap(), &say, &last_lines, |_| {
            Said::Err
        });
        Self {
            child,
            said,
            last_lines,
            url: String::new(),
        }
    }

    /// Sends SIGKILL; it must be running.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the server ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn listen(
    pipe: impl Read + Send + 'static,
    say: &Sender<Said>,
    last_lines: &Arc<Mutex<VecDeque<String>>>,
    said: impl Fn(String) -> Said + Send + 'static,
) {
    let say = say.clone();
    let last_lines = Arc::clone(last_lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut kept = last_lines.lock().unwrap();
            if kept.len() == LINES_KEPT {
                kept.pop_front();
            }
            kept.push_back(line.clone());
            drop(kept);
            // The receiver is gone once the server is ready; the pipe must be read all the same.
            let _ = say.send(said(line));
        }
    });
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.last_lines.lock().unwrap();
            eprintln!("the server's last lines:");
            lines.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}
