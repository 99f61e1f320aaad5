//! The search index's process, as the demonstration starts, kills and watches it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::DemoError;

/// The command of this program that follows the log.
pub const FOLLOW_COMMAND: &str = "demo-store";

/// How far the process says it is.
#[derive(Debug, Default)]
struct Reached {
    position: Mutex<u64>,
    moved: Condvar,
}

/// The process. It ends with this value.
#[derive(Debug)]
pub struct Follower {
    url: String,
    database: PathBuf,
    table: &'static str,
    child: Option<Child>,
    reached: Arc<Reached>,
}

fn failed(error: &std::io::Error) -> DemoError {
    DemoError::Failed(format!(
        "the search index's process cannot be started: {error}"
    ))
}

impl Follower {
    /// A follower that is not started yet.
    pub fn new(url: &str, database: &Path, table: &'static str) -> Self {
        Self {
            url: url.to_owned(),
            database: database.to_owned(),
            table,
            child: None,
            reached: Arc::default(),
        }
    }

    /// Starts the process: this program again.
    pub fn start(&mut self) -> Result<(), DemoError> {
        let program = std::env::current_exe().map_err(|e| failed(&e))?;
        let mut child = Command::new(program)
            .args([FOLLOW_COMMAND, "--url", &self.url, "--table", self.table])
            .arg("--database")
            .arg(&self.database)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let lines = child.stdout.take();
        self.child = Some(child);
        if let Some(lines) = lines {
            let reached = Arc::clone(&self.reached);
            std::thread::spawn(move || watch(lines, &reached));
        }
        Ok(())
    }

    /// Ends the process as `kill -9` does. Answers its id.
    pub fn kill(&mut self) -> Result<Option<u32>, DemoError> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        let id = child.id();
        let ended = child.kill().and_then(|()| child.wait());
        ended
            .map(|_| Some(id))
            .map_err(|error| DemoError::Failed(format!("process {id} cannot be ended: {error}")))
    }

    /// How far the process is.
    pub fn position(&self) -> u64 {
        *self.reached.position.lock()
    }

    /// Waits until the process has reached a position.
    pub fn wait(&self, position: u64, limit: Duration) -> Result<(), DemoError> {
        let deadline = Instant::now() + limit;
        let mut reached = self.reached.position.lock();
        while *reached < position {
            if self
                .reached
                .moved
                .wait_until(&mut reached, deadline)
                .timed_out()
            {
                return Err(DemoError::Failed(format!(
                    "the search index is at position {reached} and did not reach {position} in time"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // There is nowhere left to report an error.
        let _ = self.kill();
    }
}

fn watch(lines: ChildStdout, reached: &Reached) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        if let Ok(position) = line.parse() {
            *reached.position.lock() = position;
            reached.moved.notify_all();
        }
    }
}
