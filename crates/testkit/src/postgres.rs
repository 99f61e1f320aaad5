//! PostgreSQL: one database `postgres`, superuser `onelog`, no password.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;

use crate::certificates::Certificates;
use crate::client;
use crate::node::{Node, Setup, data_folder};
use crate::run_folder;
use crate::server::{Server, serve_by_node};
use crate::spawner::{self, User};

pub(crate) const USER: &str = "onelog";

/// Killing a process loses nothing that was handed to the kernel, so `fsync` is off; a test that
/// measures turns it on.
const OPTIONS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "max_connections=50",
    "shared_buffers=32MB",
    "min_wal_size=32MB",
    "max_wal_size=1GB",
    "timezone=UTC",
];

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    node: Node,
}

impl Postgres {
    /// Starts a server with an empty database.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of `postgresql.conf`, such as `fsync=on`. With `ssl=on` it has the
    /// certificate of [`Certificates::shared`] and speaks TLS to those who ask for it.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let node = Node::start(
            "postgres",
            |folder| {
                run_folder::copy(template(), &data_folder(folder));
                if options.contains(&"ssl=on") {
                    install_certificate(&data_folder(folder));
                }
            },
            |folder, port| setup(folder, port, options),
        );
        Self { node }
    }

    /// Runs SQL by `psql`, all statements in one transaction; the result's rows are lines, their
    /// columns separated by `|`. Panics when the server refuses.
    pub fn sql(&self, statements: &str) -> String {
        match query(self.node.folder(), self.node.port(), statements) {
            Ok(rows) => rows,
            Err(problem) => panic!("{problem}"),
        }
    }
}

impl Server for Postgres {
    fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port())
    }

    serve_by_node!();
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.node.kill();
        remove_shared_memory(self.node.folder());
    }
}

fn setup(folder: &Path, port: u16, options: &[&str]) -> Setup {
    let data = data_folder(folder);
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    let port_option = format!("port={port}");
    for option in OPTIONS.iter().chain([&port_option.as_str()]).chain(options) {
        arguments.push("-c".into());
        arguments.push((*option).into());
    }
    let (folder, data) = (folder.to_owned(), data.display().to_string());
    Setup {
        path: program("postgres").expect("tests ask first whether PostgreSQL is there"),
        arguments,
        user: User::for_servers(),
        stop_signal: Signal::INT,
        answers: Box::new(move || {
            let answer = query(&folder, port, "SHOW data_directory")?;
            if answer == data {
                return Ok(());
            }
            Err(format!(
                "the server on port {port} has its data in {answer}"
            ))
        }),
    }
}

pub(crate) fn query(folder: &Path, port: u16, statements: &str) -> Result<String, String> {
    let server =
        format!("host=127.0.0.1 port={port} user={USER} dbname=postgres connect_timeout=5");
    let program = program("psql").ok_or("psql is not installed")?;
    client::run(
        &program.display().to_string(),
        folder,
        &[
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &server,
            "-c",
            statements,
        ],
    )
}

/// An initialised data folder, made once in this process and copied for every server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = run_folder::new_folder("postgres-template");
        let data = data_folder(&folder);
        fs::create_dir(&data).expect("a folder can be made in an own folder");
        let user = User::for_servers();
        give_to_server(&data);
        let initdb = program("initdb").expect("tests ask first whether PostgreSQL is there");
        let mut command = spawner::command(&initdb, user, &folder);
        command
            .current_dir(&folder)
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--wal-segsize=4"]);
        if let Err(problem) = client::output_of(command) {
            panic!("{problem}");
        }
        data
    })
}

/// PostgreSQL wants the key to be its own and readable by no other user.
fn install_certificate(data: &Path) {
    let made = Certificates::shared();
    for (from, name) in [(&made.certificate, "server.crt"), (&made.key, "server.key")] {
        let file = data.join(name);
        fs::copy(from, &file).expect("a file can be copied into an own folder");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
            .expect("the mode of an own file can be changed");
        give_to_server(&file);
    }
}

fn give_to_server(path: &Path) {
    if let Some(user) = User::for_servers() {
        chown(path, Some(user.user_id), Some(user.group_id)).expect("root may give a file away");
    }
}

/// The newest installed version's program; Debian keeps them out of the path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    versions.sort();
    let newest = versions.pop().map(|(_, path)| path);
    newest.or_else(|| crate::kind::find_program(name))
}

/// A killed PostgreSQL leaves a segment of shared memory, named in its data.
fn remove_shared_memory(folder: &Path) {
    let Ok(text) = fs::read_to_string(data_folder(folder).join("postmaster.pid")) else {
        return;
    };
    let id = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = id {
        let _ = client::run("ipcrm", folder, &["-m", id]);
    }
}
