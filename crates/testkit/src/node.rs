//! One server process with its port, folder and log: the life that all kinds share.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::port::Port;
use crate::spawner::{Program, User};
use crate::{process, run_folder, wait};

/// How often a server is moved to another port because another process took its own.
const PORTS_TRIED: usize = 5;
/// How much of a log is shown when something went wrong.
const LOG_TAIL_BYTES: usize = 4000;

/// What a kind of server says about its process.
pub(crate) struct Setup {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) user: Option<User>,
    /// What ends the server gracefully.
    pub(crate) stop_signal: Signal,
    /// Whether *this* server, not another one on the same port, answers.
    pub(crate) answers: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// One server process, up or down.
pub(crate) struct Node {
    folder: PathBuf,
    port: Port,
    program: Program,
    stop_signal: Signal,
    answers: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    running: Mutex<Option<Child>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Node")
            .field("folder", &self.folder)
            .field("port", &self.port.number())
            .finish_non_exhaustive()
    }
}

/// The folder in a node's folder that is saved and restored.
pub(crate) fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

impl Node {
    /// Starts a server in a new folder, in which `prepare` makes the data; `setup` gets the folder
    /// and the port.
    pub(crate) fn start(
        name: &str,
        prepare: impl Fn(&Path),
        setup: impl Fn(&Path, u16) -> Setup,
    ) -> Self {
        let mut problem = String::new();
        for _ in 0..PORTS_TRIED {
            let folder = run_folder::new_folder(name);
            prepare(&folder);
            let port = Port::take();
            let setup = setup(&folder, port.number());
            let node = Self {
                port,
                program: Program {
                    path: setup.path,
                    arguments: setup.arguments.into_iter().map(Into::into).collect(),
                    user: setup.user,
                    folder: folder.clone(),
                    log: folder.join("log"),
                },
                folder,
                stop_signal: setup.stop_signal,
                answers: setup.answers,
                running: Mutex::new(None),
            };
            match node.launch() {
                Ok(()) => return node,
                Err(failure) if failure.to_lowercase().contains("already in use") => {
                    problem = failure;
                }
                Err(failure) => panic!("{failure}"),
            }
        }
        panic!("each of {PORTS_TRIED} ports was taken; {problem}");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn pid(&self) -> u32 {
        match self.running().as_ref() {
            Some(child) => child.id(),
            None => panic!("{} is down", self.folder.display()),
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.running().take() {
            process::kill_family(&mut child);
        }
    }

    pub(crate) fn stop(&self) {
        let mut running = self.running();
        let Some(child) = running.as_mut() else {
            return;
        };
        process::resume(child.id());
        process::signal_child(child, self.stop_signal);
        let stopped = wait::until_ok(|| match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it does not stop".into()),
            Err(error) => Err(format!("waiting for it: {error}")),
        });
        if let Err(problem) = stopped {
            panic!("{problem}\n{}", self.log_tail());
        }
        *running = None;
    }

    pub(crate) fn start_again(&self) {
        if let Err(failure) = self.launch() {
            panic!("{failure}");
        }
    }

    pub(crate) fn pause(&self) {
        process::pause(self.pid());
    }

    pub(crate) fn resume(&self) {
        process::resume(self.pid());
    }

    pub(crate) fn save_data(&self) -> PathBuf {
        self.assert_down("save its data");
        let saved = run_folder::new_folder("saved");
        run_folder::copy(&data_folder(&self.folder), &data_folder(&saved));
        saved
    }

    pub(crate) fn restore_data(&self, saved: &Path) {
        self.assert_down("restore its data");
        let data = data_folder(&self.folder);
        fs::remove_dir_all(&data).expect("the data of a server that is down can be removed");
        run_folder::copy(&data_folder(saved), &data);
    }

    fn launch(&self) -> Result<(), String> {
        let mut running = self.running();
        if let Some(child) = running.as_mut() {
            let crashed = child.try_wait().is_ok_and(|ended| ended.is_some());
            assert!(crashed, "{} is up", self.folder.display());
        }
        let child = self
            .program
            .spawn()
            .map_err(|error| format!("starting {}: {error}", self.program.path.display()))?;
        // From here on a panic leaves a process that is ended by Drop.
        let child = running.insert(child);
        let mut ended = None;
        let answered = wait::until_ok(|| {
            ended = child.try_wait().ok().flatten();
            if ended.is_some() {
                return Ok(());
            }
            (self.answers)()
        });
        if let Some(status) = ended {
            *running = None;
            return Err(format!("it ended with {status}\n{}", self.log_tail()));
        }
        answered.map_err(|problem| format!("it does not answer: {problem}\n{}", self.log_tail()))
    }

    fn assert_down(&self, wish: &str) {
        assert!(
            self.running().is_none(),
            "{} is up; stop or kill it to {wish}",
            self.folder.display()
        );
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.program.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        format!(
            "{} says:\n{}",
            self.program.path.display(),
            String::from_utf8_lossy(tail)
        )
    }

    /// A test that panicked with the lock held leaves nothing half done that matters.
    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        run_folder::remove(&self.folder);
    }
}
