//! Reading and writing through the command.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::server::{Server, onelog};

fn server() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.run(&["tables", "create", "t.keyed"]).good();
    (folder, server)
}

#[test]
fn a_value_is_written_read_and_deleted() {
    let (_folder, server) = server();
    server
        .run(&[
            "put",
            "t.keyed",
            "a/b c",
            "{\"n\": 1.50, \"big\": 12345678901234567890123}",
        ])
        .good();
    let read = server.run(&["get", "t.keyed", "a/b c"]).good();
    assert_eq!(read, "{\"n\": 1.50, \"big\": 12345678901234567890123}\n");
    let shown = server.run(&["get", "t.keyed", "a/b c", "--json"]).good();
    assert!(shown.contains("12345678901234567890123"), "{shown}");
    server.run(&["delete", "t.keyed", "a/b c"]).good();
    server
        .run(&["get", "t.keyed", "a/b c"])
        .fails(1, "there is no key \"a/b c\"");
    let old = server
        .run(&["get", "t.keyed", "a/b c", "--at", "2", "--json"])
        .json();
    assert_eq!(old["found"], true);
    let missing = server.run(&["get", "t.keyed", "a/b c", "--json"]);
    assert_eq!(missing.status, 1);
    assert_eq!(
        serde_json::from_str::<Value>(&missing.out).unwrap()["found"],
        false
    );
}

#[test]
fn the_empty_key_is_read_and_deleted_like_any_other() {
    let (_folder, server) = server();
    server.run(&["put", "t.keyed", "", "1"]).good();
    assert_eq!(server.run(&["get", "t.keyed", ""]).good(), "1\n");
    let found = server.run(&["get", "t.keyed", "", "--json"]).json();
    assert_eq!((&found["key"], &found["found"]), (&json!(""), &json!(true)));
    server.run(&["delete", "t.keyed", ""]).good();
    server
        .run(&["get", "t.keyed", ""])
        .fails(1, "there is no key \"\" in table 't.keyed'");
}

#[test]
fn conditions_are_checked_by_the_server() {
    let (_folder, server) = server();
    let first = server
        .run(&["put", "t.keyed", "k", "1", "--if-absent", "--json"])
        .json();
    server
        .run(&["put", "t.keyed", "k", "2", "--if-absent"])
        .fails(1, "guards[0] does not hold");
    let transaction = r#"{"guards":[{"table":"t.keyed","key":"k","field":"","gt":5}],"writes":[{"op":"put","table":"t.keyed","key":"k","value":9}]}"#;
    server
        .run_fed(&["commit", "-"], transaction)
        .fails(1, "see 'met'; met: 1");
    let version = first["offsets"][0].to_string();
    server
        .run(&["put", "t.keyed", "k", "2", "--if-version", &version])
        .good();
    server
        .run(&["delete", "t.keyed", "k", "--if-version", &version])
        .fails(1, "guards[0]");
    server
        .run(&["delete", "t.keyed", "k", "--if-exists"])
        .good();
    let id = "0190aaaa-0000-7000-8000-000000000001";
    let once = server
        .run(&["put", "t.keyed", "k", "3", "--id", id, "--json"])
        .json();
    let again = server
        .run(&["put", "t.keyed", "k", "3", "--id", id, "--json"])
        .json();
    assert_eq!(once["position"], again["position"]);
    assert_eq!(again["repeated"], true);
}

#[test]
fn what_is_wrong_is_reported_with_the_servers_message() {
    let (_folder, server) = server();
    server
        .run(&["get", "t.keyd", "k"])
        .fails(1, "did you mean 't.keyed'?");
    server
        .run(&["put", "t.keyed", "k", "nope"])
        .fails(2, "the value is not JSON");
    let refused = server.run_fed(
        &["commit", "-", "--json"],
        "{\"writes\":[{\"op\":\"putt\"}]}",
    );
    assert_eq!(refused.status, 1);
    let body: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(body["error"], "malformed");
    server.run_fed(&["commit", "-"], "{").fails(1, "not JSON");
}

#[test]
fn a_transaction_in_a_file_is_committed_as_it_is() {
    let (folder, server) = server();
    let file = folder.path().join("transaction.json");
    let writes = json!([
        {"op": "put", "table": "t.keyed", "key": "k", "value": {"n": 1}},
        {"op": "add", "table": "t.keyed", "key": "k", "field": "n", "by": 4},
    ]);
    std::fs::write(&file, json!({"writes": writes}).to_string()).unwrap();
    let answer = server.run(&["commit", file.to_str().unwrap()]).json();
    assert_eq!(answer["offsets"].as_array().unwrap().len(), 2);
    assert_eq!(server.run(&["get", "t.keyed", "k"]).good(), "{\"n\":5}\n");
}

#[test]
fn bytes_that_are_no_text_are_keys_and_values() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let (_folder, server) = server();
    server
        .run(&["tables", "create", "t.bytes", "--value", "bytes"])
        .good();
    let key = OsStr::from_bytes(&[b'k', 0xff]);
    let with_key = |args: &[&str], rest: &[&str]| {
        server.run_with(args, |command| {
            command.arg(key).args(rest);
        })
    };
    with_key(&["put", "t.bytes", "--bytes"], &["raw"]).good();
    assert_eq!(with_key(&["get", "t.bytes"], &[]).good(), "raw");
    let row = server.run(&["scan", "t.bytes", "--json"]).json();
    assert_eq!(row["key"], json!({"base64": "a/8="}));
    assert_eq!(row["value"], "raw");
}

#[test]
fn a_scan_goes_both_ways_and_over_pages() {
    let (_folder, server) = server();
    let writes: Vec<Value> = (0..30)
        .map(|n| json!({"op": "put", "table": "t.keyed", "key": format!("{}{n:02}", ["a", "b"][n % 2]), "value": n}))
        .collect();
    server
        .run_fed(&["commit", "-"], &json!({"writes": writes}).to_string())
        .good();
    let keys = |args: &[&str]| -> Vec<String> {
        let all = [&["scan", "t.keyed", "--json"], args].concat();
        let out = server.run(&all).good();
        let rows = out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(&[]).len(), 30);
    assert_eq!(keys(&["--prefix", "b", "--limit", "2"]), ["b01", "b03"]);
    assert_eq!(keys(&["--reverse", "--limit", "2"]), ["b29", "b27"]);
    assert_eq!(
        keys(&["--from", "a26", "--to", "b02"]),
        ["a26", "a28", "b01"]
    );
    assert_eq!(keys(&["--at", "1"]), Vec::<String>::new());
    let text = server.run(&["scan", "t.keyed", "--limit", "1"]).good();
    assert_eq!(text, "key  version  value\na00        1  0\n");
}

#[test]
fn tables_are_made_listed_and_deleted() {
    let (folder, server) = server();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, "{\"type\":\"object\",\"required\":[\"email\"]}").unwrap();
    let schema = schema.to_str().unwrap();
    server
        .run(&[
            "tables", "create", "t.users", "--schema", schema, "--unique", "/email",
        ])
        .good();
    server.run(&["put", "t.users", "a", "{}"]).fails(1, "email");
    server
        .run(&["put", "t.users", "a", "{\"email\":\"x\"}"])
        .good();
    server
        .run(&["put", "t.users", "b", "{\"email\":\"x\"}"])
        .fails(1, "unique");
    let list = server.run(&["tables"]).good();
    assert!(
        list.contains("t.users  keyed  json   yes     /email"),
        "{list}"
    );
    assert_eq!(
        server.run(&["tables", "show", "t.users", "--json"]).json()["unique"],
        json!(["/email"])
    );
    server.run(&["tables", "delete", "t.users", "--yes"]).good();
    server
        .run(&["tables", "show", "t.users"])
        .fails(1, "no table 't.users'");
    let (_, said) = server.terminate();
    assert!(said.contains("a table was deleted"), "{said}");
}

#[test]
fn a_tail_sees_what_is_committed_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--create-tables"]);
    let address = server.url.trim_start_matches("http://").to_owned();
    server.run(&["put", "t.keyed", "k", "1"]).good();
    let mut tail = onelog()
        .args([
            "tail", "--from", "start", "--table", "t.keyed", "--limit", "2", "--json",
        ])
        .args(["--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Child)
        .unwrap();
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["records"][0]["value"], 1);
    assert_eq!(server.terminate().0.code(), Some(0));

    let server = Server::start_at(&address, &data, &[]);
    server.run(&["put", "t.keyed", "k", "2"]).good();
    assert_eq!(next()["records"][0]["value"], 2);
    assert_eq!(tail.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_document_as_deep_as_the_server_takes_is_read_by_every_command() {
    let (_folder, server) = server();
    for depth in [124, 125, 127] {
        let table = &format!("t.deep{depth}");
        server.run(&["tables", "create", table]).good();
        // Given a document of that many levels,
        let deep = format!("{}1.10{}", "[".repeat(depth), "]".repeat(depth));
        server.run_fed(&["put", table, "k", "-"], &deep).good();
        // when it is read, then it is there as it was written, whatever lies around it,
        let definition =
            &format!(r#"{{"kind":"redis","mappings":[{{"table":"{table}","into":"deep"}}]}}"#);
        let tail = ["tail", "--from", "start", "--table", table, "--limit", "1"];
        for said in [
            server.run(&["get", table, "k"]),
            server.run(&["get", table, "k", "--json"]),
            server.run(&["scan", table]),
            server.run(&["scan", table, "--json"]),
            server.run(&tail),
            server.run(&[&tail[..], &["--json"]].concat()),
            server.run_fed(&["sinks", "try", "-", "--json"], definition),
        ] {
            let said = said.good();
            assert!(
                said.contains(&"[".repeat(depth.min(100))),
                "{depth}: {said}"
            );
        }
        let said = server.run_fed(&["sinks", "try", "-"], definition).good();
        assert!(said.contains(&"[".repeat(80)), "{depth}: {said}");
        // and so it is in the answer to a guard that does not hold.
        let guarded = format!(
            r#"{{"guards":[{{"table":"{table}","key":"k","field":"","gt":5}}],"writes":[]}}"#
        );
        let ran = server.run_fed(&["commit", "-"], &guarded);
        ran.fails(1, "guards[0] does not hold");
    }
}

/// A process that ends with its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already where a test waited for its end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
