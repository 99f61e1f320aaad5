//! `onelog tables delete`: refused while anything names the table, and never without being asked.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server::{Ran, Server};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, config: &str) -> Server {
        let path = self.path("onelog.toml");
        fs::write(&path, config).unwrap();
        Server::start(&self.path("data"), &["--config", path.to_str().unwrap()])
    }

    fn sink(&self, name: &str, table: &str) -> String {
        let path = self.path(&format!("{name}.db"));
        format!(
            r#"{{"name":"{name}","kind":"sqlite","path":"{}","mappings":[{{"table":"{table}","into":"t"}}]}}"#,
            path.display()
        )
    }
}

/// The command on a terminal, which gets these lines.
fn on_a_terminal(server: &Server, command: &str, typed: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_onelog");
    let mut child = Command::new("script")
        .args(["-qec", &format!("{program} {command}"), "/dev/null"])
        .env("ONELOG_URL", &server.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), typed.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_table_that_sinks_follow_is_not_deleted() {
    let place = Place::new();
    let server = place.start("");
    server.run(&["tables", "create", "t.rows"]).good();
    server.run(&["put", "t.rows", "a", "1"]).good();
    for name in ["one", "two"] {
        let sink = place.sink(name, "t.rows");
        server.run_fed(&["sinks", "create", "-"], &sink).good();
    }
    let delete = ["tables", "delete", "t.rows", "--yes"];
    server.run(&delete).fails(
        1,
        "the table 't.rows' is followed by the sinks 'one', 'two', whose stores would be emptied: delete them first",
    );
    assert_eq!(server.run(&["get", "t.rows", "a"]).good(), "1\n");
    server.run(&["sinks", "pause", "one"]).good();
    server.run(&["sinks", "delete", "two"]).good();
    server.run(&delete).fails(1, "followed by the sink 'one'");
    server.run(&["sinks", "delete", "one"]).good();
    server.run(&delete).good();
    server.run(&["get", "t.rows", "a"]).fails(1, "no table");
}

#[test]
fn a_table_that_the_configuration_declares_is_not_deleted() {
    let place = Place::new();
    let server = place.start("# first line\n[[tables]]\nname = \"t.rows\"\n");
    let delete = ["tables", "delete", "t.rows", "--yes"];
    server.run(&delete).fails(
        1,
        "onelog.toml, line 2 declares the table 't.rows', and the next start would make it again, empty",
    );
    drop(server);
    let server = place.start("");
    server.run(&delete).good();
}

#[test]
fn without_a_terminal_yes_must_be_said_and_on_one_the_name_must_be_typed() {
    let place = Place::new();
    let server = place.start("");
    server.run(&["tables", "create", "t.rows"]).good();
    server
        .run(&["tables", "delete", "t.rows"])
        .fails(2, "--yes says that it is meant");
    let ran = on_a_terminal(&server, "tables delete t.rows", "yes\n");
    ran.fails(1, "'yes' is not 't.rows': nothing was done");
    server.run(&["tables", "show", "t.rows"]).good();
    let ran = on_a_terminal(&server, "tables delete t.rows", "t.rows\n");
    assert!(ran.out.contains("is deleted"), "{ran:?}");
    server
        .run(&["tables", "show", "t.rows"])
        .fails(1, "no table");
}
