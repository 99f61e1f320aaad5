//! MariaDB: an empty database `onelog`; user and password `onelog`, with all rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;

use crate::client;
use crate::kind::find_program;
use crate::node::{Node, Setup, data_folder};
use crate::run_folder;
use crate::server::{Server, serve_by_node};
use crate::spawner;

const USER: &str = "onelog";
const PASSWORD: &str = "onelog";

/// The first line turns the rights on, which are off while the server is set up.
const INITIAL_SQL: &str = "\
FLUSH PRIVILEGES;
CREATE DATABASE onelog CHARACTER SET utf8mb4;
CREATE USER onelog@localhost IDENTIFIED BY 'onelog';
GRANT ALL ON *.* TO onelog@localhost WITH GRANT OPTION;
";

/// Killing a process loses nothing that was handed to the kernel, so nothing waits for the disk;
/// a test that measures sets `innodb_flush_log_at_trx_commit=1` and `innodb_flush_method=fsync`.
const OPTIONS: [&str; 10] = [
    "bind-address=127.0.0.1",
    "max-connections=50",
    "character-set-server=utf8mb4",
    "default-time-zone=+00:00",
    "innodb-buffer-pool-size=64M",
    "innodb-flush-log-at-trx-commit=2",
    "innodb-flush-method=nosync",
    "aria-pagecache-buffer-size=8M",
    "key-buffer-size=8M",
    "performance-schema=off",
];

/// In the template, too: a server with another size would rebuild its log at the first start.
const LOG_FILE_SIZE: &str = "--innodb-log-file-size=48M";

#[derive(Debug)]
pub struct Mariadb {
    node: Node,
}

impl Mariadb {
    /// Starts a server with an empty database.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with options of `mariadbd`, such as `sql-mode=ANSI`.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let node = Node::start(
            "mariadb",
            |folder| run_folder::copy(template(), &data_folder(folder)),
            |folder, port| setup(folder, port, options),
        );
        Self { node }
    }

    /// Runs SQL in the database by `mariadb`; the result's rows are lines, their columns separated
    /// by tabs. Panics when the server refuses.
    pub fn sql(&self, statements: &str) -> String {
        match query(self.node.folder(), self.node.port(), statements) {
            Ok(rows) => rows,
            Err(problem) => panic!("{problem}"),
        }
    }
}

impl Server for Mariadb {
    fn url(&self) -> String {
        format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/onelog", self.port())
    }

    serve_by_node!();
}

fn setup(folder: &Path, port: u16, options: &[&str]) -> Setup {
    let data = data_folder(folder);
    let mut arguments = vec![
        "--no-defaults".to_owned(),
        // The kit starts as root on a machine whose root runs the tests.
        format!("--user={}", if is_root() { "root" } else { "" }),
        format!("--datadir={}", data.display()),
        format!("--port={port}"),
        // Relative to the data folder: a path to a socket must be short.
        "--socket=socket".to_owned(),
        "--pid-file=pid".to_owned(),
        // A server that starts removes what others have in a folder for temporary files.
        format!("--tmpdir={}", folder.display()),
        LOG_FILE_SIZE.to_owned(),
    ];
    arguments.retain(|argument| argument != "--user=");
    let options = OPTIONS.iter().chain(options);
    arguments.extend(options.map(|option| format!("--{option}")));
    let (folder, data) = (folder.to_owned(), format!("{}/", data.display()));
    Setup {
        path: find_program("mariadbd").expect("tests ask first whether MariaDB is there"),
        arguments,
        user: None,
        stop_signal: Signal::TERM,
        answers: Box::new(move || {
            let answer = query(&folder, port, "SELECT @@datadir")?;
            if answer == data {
                return Ok(());
            }
            Err(format!(
                "the server on port {port} has its data in {answer}"
            ))
        }),
    }
}

fn query(folder: &Path, port: u16, statements: &str) -> Result<String, String> {
    let port = format!("--port={port}");
    let user = format!("--user={USER}");
    let password = format!("--password={PASSWORD}");
    client::run(
        "mariadb",
        folder,
        &[
            "--no-defaults",
            "--host=127.0.0.1",
            &port,
            &user,
            &password,
            "--connect-timeout=5",
            "--batch",
            "--skip-column-names",
            "--database=onelog",
            "--execute",
            statements,
        ],
    )
}

/// An initialised data folder, made once in this process and copied for every server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = run_folder::new_folder("mariadb-template");
        let data = data_folder(&folder);
        let sql = folder.join("initial.sql");
        fs::write(&sql, INITIAL_SQL).expect("an own folder can be written to");
        let install =
            find_program("mariadb-install-db").expect("tests ask first whether MariaDB is there");
        let mut command = spawner::command(&install, None, &folder);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", folder.display()))
            .arg(format!("--extra-file={}", sql.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--innodb-flush-method=nosync", LOG_FILE_SIZE]);
        if is_root() {
            command.arg("--user=root");
        }
        if let Err(problem) = client::output_of(command) {
            panic!("{problem}");
        }
        data
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
