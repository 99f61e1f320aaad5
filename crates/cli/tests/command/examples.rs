//! The folder `examples`, as a newcomer runs it. Each example has a minute.

use std::process::Command;

use crate::server::{ONELOG, Ran, Server};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

fn run(program: &[&str], arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .args(program)
        .args(arguments)
        .current_dir(FOLDER)
        .output()
        .unwrap();
    Ran::of(output).good()
}

#[test]
fn transactions_over_http_from_python() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let said = run(&["python3", "transactions.py"], &[&server.url]);
    assert!(said.contains("refused: conflict"), "{said}");
    assert!(said.ends_with("left in stock: {\"count\": 1}\n"), "{said}");
}

#[test]
fn a_sqlite_database_that_follows_and_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let file = folder.path().join("reports.sqlite");
    let said = run(&["sh", "sink.sh"], &[&server.url, file.to_str().unwrap()]);
    assert!(said.contains("order-1|apple|4.5"), "{said}");
    assert!(said.ends_with("\napple\n"), "{said}");
}

#[test]
fn an_audit_of_two_sqlite_files() {
    let said = run(&["sh", "audit.sh"], &[ONELOG]);
    assert!(said.contains("NOT equal: 2 keys differ"), "{said}");
    assert!(said.ends_with("\nequal\n"), "{said}");
}
