//! A server on a file system that is really full: a small tmpfs, mounted in a namespace of the test's
//! own, which runs itself again in there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::Server;

/// Says inside where the small file system is.
const MOUNTED: &str = "ONELOG_TEST_MOUNTED";
const FOR_EVER: Duration = Duration::from_secs(120);
const DISK_MIB: usize = 600;
/// What another program holds of the disk: so much that a checkpoint which was late for the lack of
/// room leaves more than the reserve when this is gone.
const BALLAST_BYTES: usize = 370 << 20;

fn in_namespace(script: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    let mount = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && {script}");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", &mount])
        .arg(folder);
    command
}

/// Runs this test again where `MOUNTED` names a small file system; `None` inside.
fn run_inside(test: &str) -> Option<bool> {
    if std::env::var_os(MOUNTED).is_some() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let may_mount = in_namespace("true", folder.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !may_mount {
        eprintln!("NOT RUN: {test} needs `unshare --map-root-user --mount` and tmpfs");
        return Some(true);
    }
    let status = in_namespace("exec \"$@\"", folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MOUNTED, folder.path())
        .status();
    Some(status.unwrap().success())
}

fn fill(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let part = vec![7; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&part)?;
    }
    Ok(())
}

/// Writes 4 MB under keys of this round.
fn write_some(server: &Server, round: usize) -> crate::server::Ran {
    let value = "x".repeat(500_000);
    let put = |n: usize| json!({"op": "put", "table": "t.rows", "key": format!("r{round}-{n}"), "value": value});
    let writes: Vec<_> = (0..8).map(put).collect();
    server.run_fed(&["commit", "-"], &json!({"writes": writes}).to_string())
}

fn disk(server: &Server) -> serde_json::Value {
    server.run(&["status", "--json"]).json()["disk"].clone()
}

fn is_served(server: &Server, rounds: usize) {
    for round in [0, rounds / 2, rounds - 1] {
        let row = server
            .run(&["get", "t.rows", &format!("r{round}-7")])
            .good();
        assert_eq!(row.trim().len(), 500_002);
    }
    assert_eq!(disk(server)["read_only"], true);
    let refused = server.run(&["put", "t.rows", "more", "1"]);
    assert!(
        refused.err.contains("the disk is nearly full"),
        "{refused:?}"
    );
}

#[test]
fn a_server_on_a_full_disk_goes_on_reading_and_writes_again_when_there_is_room() {
    let test =
        "full_disk::a_server_on_a_full_disk_goes_on_reading_and_writes_again_when_there_is_room";
    if let Some(is_good) = run_inside(test) {
        assert!(is_good, "see above");
        return;
    }
    let mounted = std::env::var_os(MOUNTED).unwrap();
    let (data, ballast) = (
        Path::new(&mounted).join("data"),
        Path::new(&mounted).join("other"),
    );
    let flags = ["--create-tables", "--checkpoint-interval-ms", "200ms"];
    fill(&ballast, BALLAST_BYTES).unwrap();

    // Given a server that is written to until it refuses,
    let server = Server::start(&data, &flags);
    let begun = Instant::now();
    let mut rounds = 0;
    let refused = loop {
        assert!(begun.elapsed() < FOR_EVER, "the disk is full by now");
        let ran = write_some(&server, rounds);
        if ran.status != 0 {
            break ran;
        }
        rounds += 1;
    };
    assert!(
        refused.err.contains("the disk is nearly full"),
        "{refused:?}"
    );
    assert!(rounds > 5, "{rounds}");
    // then it serves what it has.
    is_served(&server, rounds);
    // When others take the very last byte, and it is started again, in order and after a kill,
    let _ = fill(&Path::new(&mounted).join("last"), 1 << 30);
    is_served(&server, rounds);
    let (status, said) = server.terminate();
    assert_eq!(status.code(), Some(0));
    let warned = said.find("the disk fills up: below the reserve nothing is written");
    let ended = said.find("the disk is nearly full: nothing is written");
    assert!(warned.is_some() && warned < ended, "{said}");
    let server = Server::start(&data, &flags);
    is_served(&server, rounds);
    server.kill();
    let server = Server::start(&data, &flags);
    is_served(&server, rounds);
    // then it takes writes by itself as soon as there is room,
    fs::remove_file(Path::new(&mounted).join("last")).unwrap();
    fs::remove_file(&ballast).unwrap();
    while disk(&server)["read_only"] == true {
        assert!(
            begun.elapsed() < FOR_EVER,
            "there is room: {}",
            disk(&server)
        );
    }
    server.run(&["put", "t.rows", "more", "1"]).good();
    assert_eq!(server.terminate().0.code(), Some(0));
    // and nothing is lost or damaged.
    let mut check = crate::server::onelog();
    let report = crate::server::Ran::of(check.arg("check").arg(&data).output().unwrap()).good();
    assert!(
        report.contains("everything is as it was written"),
        "{report}"
    );
}
