//! Starts servers so that the kernel kills them when this process ends.
//!
//! The death signal fires when the *thread* that spawned a process ends, so one thread, which
//! lives as long as this process, spawns all of them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// The death signal is missed when the parent ends before it is set; the shell looks after it.
const ONLY_WITH_PARENT: &str = r#"test "$PPID" = "$0" && exec "$@""#;
/// What a program needs of the environment; everything else would make tests differ.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user of the system, for servers that refuse to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) user_id: u32,
    pub(crate) group_id: u32,
}

impl User {
    /// The user that runs a server that refuses root: `None`, which is this process's user,
    /// except when that is root.
    pub(crate) fn for_servers() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
        let find = |name: &str| {
            let fields: Vec<&str> = users
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|fields| fields.first() == Some(&name))?;
            Some(Self {
                user_id: fields.get(2)?.parse().ok()?,
                group_id: fields.get(3)?.parse().ok()?,
            })
        };
        let user = find("postgres").or_else(|| find("nobody"));
        Some(user.expect("/etc/passwd names a user postgres or nobody"))
    }
}

/// A command without this process's environment, as `user` where one is given.
pub(crate) fn command(program: &Path, user: Option<User>, folder: &Path) -> Command {
    let mut command = if let Some(user) = user {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", user.user_id))
            .arg(format!("--regid={}", user.group_id))
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    set_environment(&mut command, folder);
    command
}

fn set_environment(command: &mut Command, folder: &Path) {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", folder)
        .stdin(Stdio::null());
}

#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) user: Option<User>,
    /// Current folder of the process: by it the guardian knows whose it is.
    pub(crate) folder: PathBuf,
    /// Where both output streams go, appended.
    pub(crate) log: PathBuf,
}

impl Program {
    /// Starts the program, which ends with this process at the latest.
    pub(crate) fn spawn(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if let Some(user) = self.user {
            command
                .arg(format!("--reuid={}", user.user_id))
                .arg(format!("--regid={}", user.group_id))
                .arg("--clear-groups");
        }
        command
            .args(["--", "/bin/sh", "-c", ONLY_WITH_PARENT])
            .arg(std::process::id().to_string())
            .arg(&self.path)
            .args(&self.arguments);
        set_environment(&mut command, &self.folder);
        command
            .current_dir(&self.folder)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let (answer, answered) = channel();
        spawner()
            .send((command, answer))
            .expect("the spawner ends with the process");
        answered.recv().expect("the spawner answers every request")
    }
}

type Request = (Command, Sender<io::Result<Child>>);

fn spawner() -> &'static Sender<Request> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in requests {
                    // The thread that requested it may have panicked meanwhile.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        sender
    })
}
