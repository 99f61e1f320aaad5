//! `onelog import` and `onelog export`.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::server::{Ran, Server, onelog};

struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), &[]);
        Self { folder, server }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("rows.ndjson");
        fs::write(&path, text).unwrap();
        path
    }

    fn import(&self, file: &str, more: &[&str]) -> Ran {
        let args = [
            "import",
            "t.rows",
            file,
            "--key",
            "id",
            "--json",
            "--batch-records",
            "10",
        ];
        self.server.run(&[&args, more].concat())
    }

    fn position(&self) -> u64 {
        self.server.run(&["status", "--json"]).json()["position"]
            .as_u64()
            .unwrap()
    }

    fn value(&self, key: &str) -> String {
        self.server.run(&["get", "t.rows", key]).good()
    }
}

fn rows(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "{{\"id\": {n}, \"n\": {n}.0}}").unwrap();
    }
    text
}

#[test]
fn every_line_becomes_a_row_and_running_it_again_repeats_nothing() {
    let place = Place::new();
    let file = place.file(&rows(105));
    let file = file.to_str().unwrap();
    let summary = place.import(file, &["--create"]).json();
    assert_eq!(
        (&summary["records"], &summary["transactions"]),
        (&json!(105), &json!(11))
    );
    assert_eq!(place.value("104"), "{\"id\": 104, \"n\": 104.0}\n");
    let end = place.position();
    assert!(!PathBuf::from(format!("{file}.onelog-import")).exists());

    let again = place.import(file, &[]).json();
    assert_eq!(again["repeated_transactions"], 11);
    assert_eq!(place.position(), end);
    let anew = place.import(file, &["--again"]).json();
    assert_eq!(anew["repeated_transactions"], 0);
    assert_eq!(place.position(), end + 105);
}

#[test]
fn the_last_line_of_a_key_wins_however_many_connections_there_are() {
    let place = Place::new();
    let mut text = String::new();
    for n in 0..400 {
        writeln!(text, "{{\"id\":\"{}\",\"n\":{n}}}", n % 7).unwrap();
    }
    let file = place.file(&text);
    place
        .import(file.to_str().unwrap(), &["--create", "--connections", "8"])
        .json();
    for key in 0..7 {
        let value: Value = serde_json::from_str(&place.value(&key.to_string())).unwrap();
        let n = value["n"].as_u64().unwrap();
        assert_eq!(n % 7, key);
        assert!(n + 7 >= 400, "key {key} has {n}, not the last");
    }
}

#[test]
fn a_stream_gets_its_lines_in_their_order_however_many_connections_there_are() {
    const ROWS: usize = 400;
    let place = Place::new();
    let create = ["tables", "create", "t.rows", "--kind", "stream"];
    place.server.run(&create).good();
    let file = place.file(&rows(ROWS));
    place
        .import(file.to_str().unwrap(), &["--connections", "8"])
        .json();
    let limit = ROWS.to_string();
    let tail = [
        "tail", "--from", "start", "--table", "t.rows", "--limit", &limit, "--json",
    ];
    let said = place.server.run(&tail).good();
    let mut keys = Vec::new();
    for line in said.lines() {
        let transaction: Value = serde_json::from_str(line).unwrap();
        let records = transaction["records"].as_array().unwrap();
        keys.extend(records.iter().map(|record| record["key"].clone()));
    }
    let expected: Vec<Value> = (0..ROWS).map(|n| json!(n.to_string())).collect();
    assert_eq!(keys, expected);
}

#[test]
fn a_bad_line_stops_the_import_by_its_number_and_the_next_run_goes_on() {
    let place = Place::new();
    let mut text = rows(30);
    text.push_str("{\"id\": broken}\n");
    let file = place.file(&(text.clone() + &rows(40)));
    let path = file.to_str().unwrap();
    place
        .import(path, &["--create"])
        .fails(1, "line 31: not JSON");
    let stopped = place.position();
    let record = format!("{path}.onelog-import");
    assert!(fs::exists(&record).unwrap());

    let summary = place.import(path, &["--skip-bad"]).json();
    assert_eq!(summary["resumed"], true);
    assert_eq!(summary["bad_lines"], 1);
    assert_eq!(summary["records_in_all_runs"], 70);
    assert_eq!(
        place.position(),
        stopped + summary["records"].as_u64().unwrap()
    );
    assert!(!fs::exists(&record).unwrap());
}

#[test]
fn a_line_that_the_server_refuses_is_named_and_can_be_passed_over() {
    let place = Place::new();
    place
        .server
        .run(&["tables", "create", "t.rows", "--unique", "/mail"])
        .good();
    let mut text = String::new();
    for n in 0..25 {
        // The mail of line 18 is that of line 4.
        writeln!(
            text,
            "{{\"id\":{n},\"mail\":\"{}\"}}",
            if n == 17 { 3 } else { n }
        )
        .unwrap();
    }
    let file = place.file(&text);
    let file = file.to_str().unwrap();
    place.import(file, &[]).fails(1, "line 18: ");
    let summary = place.import(file, &["--skip-bad"]).json();
    assert_eq!(summary["bad_lines"], 1);
    assert_eq!(summary["records_in_all_runs"], 24);
}

#[test]
fn an_unfinished_import_is_only_continued_as_what_it_was() {
    let place = Place::new();
    let text = rows(20) + "nope\n";
    let file = place.file(&text);
    let path = file.to_str().unwrap();
    place.import(path, &["--create"]).fails(1, "line 21");
    place
        .server
        .run(&["import", "t.other", path, "--key", "id"])
        .fails(1, "it was into table 't.rows'");
    place
        .server
        .run(&["import", "t.rows", path, "--key", "n"])
        .fails(1, "its key was the field 'id'");
    let other = Server::start(&place.folder.path().join("other"), &[]);
    other.run(&["tables", "create", "t.rows"]).good();
    other
        .run(&["import", "t.rows", path, "--key", "id"])
        .fails(1, &format!("it was into the server {}", place.server.url));
    fs::write(&file, rows(20)).unwrap();
    place
        .import(path, &[])
        .fails(1, "the file has changed since");
    assert_eq!(place.import(path, &["--again"]).json()["records"], 20);
}

#[test]
fn a_table_that_was_made_again_has_nothing_of_an_earlier_import() {
    let place = Place::new();
    let file = place.file(&rows(20));
    let path = file.to_str().unwrap();
    let delete_table = || {
        place
            .server
            .run(&["tables", "delete", "t.rows", "--yes"])
            .good();
    };
    // Given an import that is finished, when its table is made again, then it writes everything again.
    place.import(path, &["--create"]).good();
    delete_table();
    let summary = place.import(path, &["--create"]).json();
    assert_eq!(
        (&summary["records"], &summary["repeated_records"]),
        (&json!(20), &json!(0))
    );
    // Given one that is unfinished, then it is not continued.
    fs::write(&file, rows(20) + "nope\n").unwrap();
    place.import(path, &[]).fails(1, "line 21");
    delete_table();
    place
        .import(path, &["--create"])
        .fails(1, "the table was deleted and made again since");
}

#[test]
fn a_table_that_the_first_batch_made_is_known_again_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &["--create-tables"]);
    let place = Place { folder, server };
    let file = place.file(&(rows(20) + "nope\n"));
    let path = file.to_str().unwrap();
    let delete_table = || {
        place
            .server
            .run(&["tables", "delete", "t.rows", "--yes"])
            .good();
    };
    // Given an import that began before there was a table, when it goes on, then it does.
    for resumed in [false, true] {
        place.import(path, &[]).fails(1, "line 21");
        let record = fs::read_to_string(format!("{path}.onelog-import")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["records"], 10, "{resumed}: {record}");
    }
    // When the table is gone, or another one has its name, then it does not.
    delete_table();
    place
        .import(path, &[])
        .fails(1, "the table was deleted since");
    place.server.run(&["put", "t.rows", "other", "{}"]).good();
    place
        .import(path, &[])
        .fails(1, "the table was deleted and made again since");
}

#[test]
fn an_import_is_not_continued_into_another_log_at_the_same_address() {
    let place = Place::new();
    let file = place.file(&(rows(20) + "nope\n"));
    let path = file.to_str().unwrap();
    place.import(path, &["--create"]).fails(1, "line 21");
    // Given a server of another log, when it has the first one's address,
    let other = Server::start(&place.folder.path().join("other"), &[]);
    other.run(&["tables", "create", "t.rows"]).good();
    let record = place.folder.path().join(format!("{path}.onelog-import"));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&place.server.url, &other.url)).unwrap();
    // then the import does not go on there.
    other
        .run(&["import", "t.rows", path, "--key", "id"])
        .fails(1, "it was into another log");
}

#[test]
fn standard_input_is_imported() {
    let place = Place::new();
    let args = [
        "import",
        "t.rows",
        "-",
        "--key",
        "/nested/id",
        "--create",
        "--json",
    ];
    let ran = place
        .server
        .run_fed(&args, "{\"nested\":{\"id\":\"x\"}}\n\n");
    assert_eq!(ran.json()["records"], 1);
    assert_eq!(place.value("x"), "{\"nested\":{\"id\":\"x\"}}\n");
}

#[test]
fn an_export_has_every_row_at_one_position_and_can_be_imported() {
    let place = Place::new();
    let file = place.file(&rows(50));
    place.import(file.to_str().unwrap(), &["--create"]).json();
    let before = place.position().to_string();
    place.server.run(&["delete", "t.rows", "7"]).good();
    let exported = place.server.run(&["export", "t.rows"]).good();
    assert_eq!(exported.lines().count(), 49);
    let first: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["key"], &first["value"]["n"]),
        (&json!("0"), &json!(0.0))
    );
    let values = place
        .server
        .run(&["export", "t.rows", "--values", "--at", &before])
        .good();
    assert_eq!(values.lines().count(), 50);

    let args = ["import", "t.copy", "-", "--key", "id", "--create", "--json"];
    assert_eq!(place.server.run_fed(&args, &values).json()["records"], 50);
    let copy = place.server.run(&["export", "t.copy", "--values"]).good();
    assert_eq!(copy, values, "each value is byte for byte what it was");
}

#[test]
fn an_import_that_is_killed_goes_on_and_writes_every_line_once() {
    const ROWS: usize = 5_000;
    let place = Place::new();
    let file = place.file(&rows(ROWS));
    let file = file.to_str().unwrap();
    place.server.run(&["tables", "create", "t.rows"]).good();
    let mut importing = onelog()
        .args([
            "import",
            "t.rows",
            file,
            "--key",
            "id",
            "--batch-records",
            "10",
        ])
        .args(["--url", &place.server.url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    place
        .server
        .run(&["scan", "t.rows", "--after", "1000", "--limit", "1"])
        .good();
    importing.kill().unwrap();
    importing.wait().unwrap();

    let summary = place.import(file, &[]).json();
    assert_eq!(summary["resumed"], true, "{summary}");
    assert_eq!(summary["records_in_all_runs"], ROWS);
    assert_eq!(place.position(), 1 + ROWS as u64);
}

#[test]
fn an_import_outlives_a_killed_server_and_writes_every_line_once() {
    const ROWS: usize = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("rows.ndjson");
    fs::write(&file, rows(ROWS)).unwrap();
    let server = Server::start(&data, &[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    server.run(&["tables", "create", "t.rows"]).good();
    let importing = onelog()
        .args([
            "import",
            "t.rows",
            file.to_str().unwrap(),
            "--key",
            "id",
            "--json",
        ])
        .args(["--batch-records", "10", "--url", &server.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    server
        .run(&["scan", "t.rows", "--after", "1000", "--limit", "1"])
        .good();
    server.kill();
    let server = Server::start_at(&address, &data, &[]);
    let summary = Ran::of(importing.wait_with_output().unwrap()).json();
    assert_eq!(summary["records"], ROWS, "{summary}");
    let status = server.run(&["status", "--json"]).json();
    assert_eq!(status["position"], 1 + ROWS as u64);
}
