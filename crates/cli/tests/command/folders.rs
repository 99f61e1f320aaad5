//! `onelog check`, `backup` and `restore`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_log::{HardState, HardStateRead, Log, LogOptions, RealDisk};
use onelog_record::Index;
use serde_json::Value;

use crate::server::{Ran, Server, onelog};

fn run(args: &[&str], paths: &[&Path]) -> Ran {
    let mut command = onelog();
    Ran::of(command.args(args).args(paths).output().unwrap())
}

/// A folder with 300 puts on 100 keys, one deleted again, and a table that was deleted.
fn filled(folder: &Path) -> PathBuf {
    filled_with(&folder.join("data"), "{\"n\":7}", &["k50"])
}

/// The same, with this first value of the key `odd` and these keys deleted in each round.
fn filled_with(data: &Path, odd: &str, deleted: &[&str]) -> PathBuf {
    let data = data.to_owned();
    let server = Server::start(&data, &["--create-tables"]);
    for round in 0..3 {
        let mut writes = Vec::new();
        for n in 0..100 {
            writes.push(serde_json::json!({"op": "put", "table": "t.rows", "key": format!("k{n:02}"), "value": {"n": n, "round": round}}));
        }
        for key in deleted {
            writes.push(serde_json::json!({"op": "delete", "table": "t.rows", "key": key}));
        }
        let odd: Value = serde_json::from_str(odd).unwrap();
        writes
            .push(serde_json::json!({"op": "put", "table": "t.rows", "key": "odd", "value": odd}));
        writes
            .push(serde_json::json!({"op": "put", "table": "t.gone", "key": "k", "value": round}));
        let text = serde_json::json!({"writes": writes}).to_string();
        server.run_fed(&["commit", "-"], &text).good();
    }
    server.run(&["tables", "delete", "t.gone", "--yes"]).good();
    assert_eq!(server.terminate().0.code(), Some(0));
    data
}

#[test]
fn a_sound_folder_is_found_sound() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let report = run(&["check", "--json"], &[&data]).json();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["log"]["transactions"], 6);
    // 100 rows, the definition of their table and what is left of the deleted one's.
    assert_eq!(report["state"]["rows"], 102);
    assert_eq!(report["state"]["ids"], 6);
    assert!(
        run(&["check"], &[&data])
            .good()
            .contains("everything is as it was written")
    );
}

#[test]
fn a_folder_after_kill_9_is_found_sound() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let server = Server::start(&data, &[]);
    server.run(&["put", "t.rows", "new", "1"]).good();
    server.kill();
    let report = run(&["check", "--json"], &[&data]).json();
    assert_eq!(report["ok"], true, "{report}");
    assert!(report["state"]["position"].as_u64() < report["log"]["end"].as_u64());
}

#[test]
fn a_flipped_bit_in_the_log_is_named_by_file_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let segment = fs::read_dir(data.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::metadata(path).unwrap().len() > 1 << 20)
        .min()
        .unwrap();
    let bytes = fs::read(&segment).unwrap();
    let at = find(&bytes, b"\"round\":1");
    flip(&segment, at);
    let ran = run(&["check", "--json"], &[&data]);
    assert_eq!(ran.status, 1);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let place = &report["faults"][0]["place"];
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert_eq!(place["file"], format!("log/{name}"));
    let byte = place["byte"].as_u64().unwrap();
    assert!(
        byte <= at as u64 && at as u64 - byte < 8 << 10,
        "byte {byte}, flipped {at}"
    );
    run(&["check"], &[&data]).fails(1, "WRONG");
}

#[test]
fn a_changed_row_of_the_state_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let state = data.join("state").join("state.redb");
    let bytes = fs::read(&state).unwrap();
    flip(&state, find(&bytes, b"{\"n\":77,\"round\":2}") + 5);
    let ran = run(&["check", "--json"], &[&data]);
    assert_eq!(ran.status, 1, "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["ok"], false);
    let what = report["faults"][0]["what"].as_str().unwrap();
    assert!(what.contains("is not as it was written"), "{what}");
}

#[test]
fn a_state_that_says_something_else_than_the_log_is_found_row_by_row() {
    // Given two folders with logs of the same shape that differ in one value and one delete.
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let other = filled_with(&folder.path().join("other"), "{\"n\":8}", &["k51"]);

    // When the one gets the other's state.
    let state = |data: &Path| data.join("state").join("state.redb");
    fs::copy(state(&other), state(&data)).unwrap();

    // Then every row that differs is named, with what is wrong about it.
    let ran = run(&["check", "--json"], &[&data]);
    assert_eq!(ran.status, 1);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let faults = report["faults"].as_array().unwrap();
    let of = |key: &str| -> Vec<&str> {
        let of_key = faults.iter().filter(|f| f["place"]["key"] == key);
        of_key.map(|f| f["what"].as_str().unwrap()).collect()
    };
    assert_eq!(of("odd"), ["the row holds another value than the log"]);
    assert_eq!(
        of("k51"),
        ["the log wrote this row, the state does not have it"]
    );
    assert_eq!(of("k50").len(), 1);
    assert!(
        of("k50")[0].starts_with("the log deleted this row at offset"),
        "{faults:?}"
    );
    let ids = faults
        .iter()
        .filter(|f| f["place"].get("position").is_some());
    assert!(
        ids.count() > 0,
        "the ids of the other log's transactions are found too"
    );
}

#[test]
fn a_state_of_another_length_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let strange = folder.path().join("strange");
    let server = Server::start(&strange, &["--create-tables"]);
    let put = |n: u32| serde_json::json!({"op": "put", "table": "t.rows", "key": "k", "value": n});
    let writes: Vec<Value> = (0..20).map(put).collect();
    let text = serde_json::json!({"writes": writes}).to_string();
    server.run_fed(&["commit", "-"], &text).good();
    server.terminate();
    let state = |data: &Path| data.join("state").join("state.redb");
    fs::copy(state(&strange), state(&data)).unwrap();
    run(&["check"], &[&data]).fails(1, "the state is at entry");
}

#[test]
fn what_is_no_folder_of_a_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(&["check"], &[folder.path()]).fails(1, "not the folder of a server");
    run(&["check"], &[&folder.path().join("none")]).fails(1, "not the folder of a server");
}

#[test]
fn a_folder_of_other_files_is_neither_served_nor_checked_nor_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("var");
    fs::create_dir_all(data.join("log")).unwrap();
    fs::write(data.join("log/messages"), "boot").unwrap();
    let into = folder.path().join("restored");
    run(&["serve", "--listen", "127.0.0.1:0", "--folder"], &[&data]).fails(1, "log/messages");
    run(&["check"], &[&data]).fails(1, "log/messages");
    run(&["restore"], &[&data, &into]).fails(1, "log/messages");
    assert_eq!(fs::read_dir(data.join("log")).unwrap().count(), 1);
    assert!(!into.exists());
}

#[test]
fn a_folder_of_a_newer_version_is_called_newer_and_not_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let newer = |path: &Path, blocks: &[usize], format: u8| {
        let mut bytes = fs::read(path).unwrap();
        for at in blocks {
            bytes[at + 4] = format;
            bytes[at + 8..at + 64].fill(0xee);
        }
        fs::write(path, bytes).unwrap();
    };
    let into = folder.path().join("restored");
    let refused = || {
        for (command, paths) in [("check", vec![&data]), ("restore", vec![&data, &into])] {
            let paths: Vec<&Path> = paths.into_iter().map(PathBuf::as_path).collect();
            run(&[command], &paths).fails(1, "made by a newer version of onelog");
        }
        run(&["serve", "--listen", "127.0.0.1:0", "--folder"], &[&data])
            .fails(1, "made by a newer version of onelog");
        assert!(!into.exists());
    };
    newer(&data.join("state/state.redb"), &[0], 4);
    refused();
    newer(&data.join("log/hard-state"), &[0, 4096], 2);
    refused();
}

#[test]
fn a_copy_is_restored_checked_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let into = folder.path().join("restored");
    run(&["restore"], &[&data, &into]).good();
    run(&["restore"], &[&data, &into]).fails(1, "not empty");
    let server = Server::start(&into, &[]);
    assert_eq!(
        server.run(&["get", "t.rows", "k07"]).good(),
        "{\"n\":7,\"round\":2}\n"
    );
    let third = folder.path().join("third");
    run(&["restore"], &[&into, &third]).fails(1, "a server is running");
}

/// The folder of a stopped node knows of so many of its last entries no more that they are committed.
fn forget_commits(data: &Path, entries: u64) {
    let disk = Arc::new(RealDisk::open(data.join("log")).unwrap());
    let (mut log, found) = Log::open(disk, LogOptions::default()).unwrap();
    let HardStateRead::Present(was) = found.hard_state else {
        panic!("{found:?}")
    };
    let commit = Index(found.last_index.get() - entries);
    log.close(&HardState { commit, ..was }).unwrap();
}

#[test]
fn what_a_node_did_not_know_to_be_committed_is_counted_and_in_the_log_that_is_made_of_it() {
    // Given the folder of a node that knows all of it to be committed,
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let known = folder.path().join("known");
    let said = run(&["restore", "--alone"], &[&data, &known]).good();
    assert!(
        said.contains("node 1 knew all of it to be committed"),
        "{said}"
    );
    // when it does not know so of the last two: the last round of puts, and the deleted table,
    forget_commits(&data, 2);
    let into = folder.path().join("restored");
    let report = run(&["restore", "--alone", "--json"], &[&data, &into]).json();
    let said = run(
        &["restore", "--alone"],
        &[&data, &folder.path().join("again")],
    );
    // then that is said, with the position from which on they are,
    assert_eq!(
        (&report["node"], &report["beyond"]),
        (&1.into(), &2.into()),
        "{report}"
    );
    let committed = report["committed"].as_u64().unwrap();
    let behind = report["log"]["end"].as_u64().unwrap() - committed;
    assert!((100..200).contains(&behind), "{report}");
    let said = said.good();
    let expected = format!("from position {committed} on, 2 entries, was committed");
    assert!(said.contains(&expected), "{said}");
    // and they are in.
    let server = Server::start(&into, &[]);
    assert_eq!(
        server.run(&["get", "t.rows", "k07"]).good(),
        "{\"n\":7,\"round\":2}\n"
    );
    server.run(&["get", "t.gone", "k"]).fails(1, "t.gone");
}

#[test]
fn a_copy_is_never_restored_into_its_source_nor_around_it() {
    // Given a folder, a link to it, and what is in it,
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    let names = |folder: &Path| -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    };
    let listed = || {
        [
            names(&data),
            names(&data.join("log")),
            names(&data.join("state")),
        ]
    };
    let before = listed();

    // when it is to be restored into itself, by whatever name,
    for into in [
        data.clone(),
        data.join("sub"),
        data.join("log/sub"),
        data.join("sub/../other"),
        link.join("sub"),
        folder.path().join("new/../data/sub"),
        folder.path().to_owned(),
    ] {
        for from in [&data, &link] {
            for flags in [&["restore"][..], &["restore", "--alone"]] {
                run(flags, &[from, &into]).fails(1, "a copy may not be in its source");
            }
        }
    }
    // then nothing was written; and it is restored beside it.
    assert_eq!(listed(), before);
    assert!(!folder.path().join("new").exists());
    run(&["restore"], &[&link, &folder.path().join("data-2")]).good();
}

#[test]
fn a_damaged_copy_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let state = data.join("state").join("state.redb");
    let bytes = fs::read(&state).unwrap();
    flip(&state, find(&bytes, b"{\"n\":77,\"round\":2}") + 5);
    let into = folder.path().join("restored");
    run(&["restore"], &[&data, &into]).fails(1, "cannot be restored");
    assert!(!into.exists());
}

#[test]
fn a_backup_of_a_running_server_is_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    let server = Server::start(&data, &[]);
    server.run(&["put", "t.rows", "late", "1"]).good();
    let backup = folder.path().join("backup");
    let answer = server
        .run(&["backup", backup.to_str().unwrap(), "--json"])
        .json();
    server.run(&["put", "t.rows", "later", "1"]).good();
    let into = folder.path().join("restored");
    run(&["restore"], &[&backup, &into]).good();
    let copy = Server::start(&into, &[]);
    assert_eq!(copy.position, answer["position"].as_u64().unwrap());
    assert_eq!(copy.run(&["get", "t.rows", "late"]).good(), "1\n");
    copy.run(&["get", "t.rows", "later"]).fails(1, "no key");
}

#[test]
fn a_backup_that_was_interrupted_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path());
    fs::rename(data.join("log"), data.join("log-unfinished")).unwrap();
    let into = folder.path().join("restored");
    run(&["check"], &[&data]).fails(1, "interrupted");
    run(&["restore"], &[&data, &into]).fails(1, "interrupted");
    assert!(!into.exists());
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|part| part == wanted);
    found.expect("the bytes are in the file")
}

fn flip(path: &Path, at: usize) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, at as u64).unwrap();
}
