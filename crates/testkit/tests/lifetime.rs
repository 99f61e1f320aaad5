//! Servers live as long as the test that started them, however it ends, and no longer; tests
//! whose server is missing say so.
//!
//! The tests marked as ignored are parts of others, which run them in a process of their own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use onelog_testkit::{Kind, Mariadb, OpenSearch, Postgres, Redis, Server, require};

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// One part in a process of its own.
fn part(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    command
}

fn exists(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whatever has this folder as its current folder.
fn processes_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| {
            let place = fs::read_link(format!("/proc/{name}/cwd"));
            place.is_ok_and(|place| place.starts_with(folder)) && exists(name)
        })
        .collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}

#[test]
#[ignore = "a part of nothing_survives_a_killed_test"]
fn start_servers_and_wait_to_be_killed() {
    let postgres = Postgres::start();
    let (mariadb, redis) = (Mariadb::start(), Redis::start());
    // A process that is stopped does not see that its parent is gone.
    postgres.pause();
    let data = fs::read_link(format!("/proc/{}/cwd", postgres.pid())).unwrap();
    let pids = [postgres.pid(), mariadb.pid(), redis.pid()].map(|pid| pid.to_string());
    println!("\nSTARTED {} {}", data.display(), pids.join(" "));
    // Ends also when the test that runs this part ends early.
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn nothing_survives_a_killed_test() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis);
    // Given a test with three servers, one of them paused,
    let mut test = part(&this_program(), "start_servers_and_wait_to_be_killed")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = BufReader::new(test.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.starts_with("STARTED "))
        .unwrap();
    let mut words = started.split(' ').skip(1).map(str::to_owned);
    // TMP/onelog-testkit-…/NUMBER-postgres/data
    let data = PathBuf::from(words.next().unwrap());
    let folder = data.ancestors().nth(2).unwrap();
    let pids: Vec<String> = words.collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| exists(pid)));
    assert!(
        processes_in(folder).len() > pids.len(),
        "PostgreSQL has many processes"
    );

    // when it is killed, then all processes and the folder go.
    test.kill().unwrap();
    test.wait().unwrap();
    wait_until("the folder is removed", || !folder.exists());
    assert_eq!(processes_in(folder), Vec::<String>::new());
    assert!(!pids.iter().any(|pid| exists(pid)));
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    require!(Kind::Redis);
    let server = thread::spawn(Redis::start).join().unwrap();
    assert_eq!(server.command(&["PING"]), "PONG");
}

#[test]
fn a_dropped_server_leaves_no_process_and_no_folder() {
    require!(Kind::Postgres);
    let server = Postgres::start();
    let data = fs::read_link(format!("/proc/{}/cwd", server.pid())).unwrap();
    let folder = data.parent().unwrap();
    assert!(!processes_in(folder).is_empty());
    drop(server);
    assert_eq!(processes_in(folder), Vec::<String>::new());
    assert!(!folder.exists());
}

#[test]
fn a_server_that_does_not_start_says_why() {
    require!(Kind::Postgres);
    let panic = thread::spawn(|| Postgres::start_with(&["shared_buffers=many"]))
        .join()
        .unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("invalid value for parameter \"shared_buffers\""),
        "{message}"
    );
}

#[test]
#[ignore = "a part of a_test_without_its_server_is_skipped_loudly_or_fails"]
fn needs_opensearch() {
    require!(Kind::OpenSearch);
    let _server = OpenSearch::start();
    panic!("it is here");
}

#[test]
fn a_test_without_its_server_is_skipped_loudly_or_fails() {
    // Given a test program in a place where no OpenSearch was assembled,
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("test");
    // Not copied by this process, whose other threads' children would hold the copy open.
    let copied = Command::new("cp")
        .arg(this_program())
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let run = |require: &str| {
        let mut command = part(&program, "needs_opensearch");
        command.env("ONELOG_REQUIRE_SERVERS", require);
        command.output().unwrap()
    };
    let says =
        |output: &Output, words: &str| String::from_utf8_lossy(&output.stderr).contains(words);

    // then its test is skipped with a line that says what to do,
    for require in ["", "postgres,redis"] {
        let output = run(require);
        assert!(output.status.success());
        assert!(says(&output, "SKIPPED: needs_opensearch: "), "{output:?}");
    }

    // and fails where the server must be.
    for require in ["1", "postgres,opensearch"] {
        let output = run(require);
        assert!(!output.status.success());
        assert!(says(&output, "needs opensearch: "), "{output:?}");
    }
}
