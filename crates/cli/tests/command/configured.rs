//! Tables and sinks that the configuration file declares.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::server::{Ran, Server, onelog};

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

    fn configure(&self, more: &str) -> PathBuf {
        let path = self.path("onelog.toml");
        let text = CONFIG.replace("REPORTS", self.path("reports.db").to_str().unwrap());
        std::fs::write(&path, format!("{text}{more}")).unwrap();
        path
    }

    fn start(&self, config: &Path) -> Server {
        let flags = ["--config", config.to_str().unwrap()];
        Server::start(&self.path("data"), &flags)
    }

    /// A start that must fail.
    fn try_start(&self, config: &Path) -> Ran {
        let mut command = onelog();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--folder"])
            .arg(self.path("data"))
            .arg("--config")
            .arg(config);
        Ran::of(command.output().unwrap())
    }
}

const CONFIG: &str = r#"ids_max = 1000

[[tables]]
name = "shop.orders"

[[tables]]
name = "shop.clicks"
kind = "stream"

[[sinks]]
name = "reports"
kind = "sqlite"
path = "REPORTS"

[[sinks.mappings]]
table = "shop.orders"
into = "orders"
[sinks.mappings.columns]
id = { from = "$key", type = "text" }
total = { from = "/total", type = "real" }
"#;

fn sink(server: &Server) -> Value {
    server.run(&["sinks", "show", "reports", "--json"]).json()
}

#[test]
fn a_server_makes_what_its_configuration_declares_and_only_once() {
    // Given a server whose file declares tables and a store
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    // When something is written
    server
        .run(&["put", "shop.orders", "o1", "{\"total\": 12.5}"])
        .good();
    server.run(&["sinks", "wait", "reports"]).good();
    // Then the store has it, columns in the order of the file
    let database = rusqlite::Connection::open(place.path("reports.db")).unwrap();
    let row: (String, f64) = database
        .query_row("SELECT * FROM orders", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(row, ("o1".to_owned(), 12.5));
    let tables = server.run(&["tables", "--json"]).json();
    assert_eq!(tables["tables"][0]["kind"], "stream", "{tables}");
    let position = server.run(&["status", "--json"]).json()["position"].clone();
    let (_, said) = server.terminate();
    assert!(said.contains("made a sink of the configuration"), "{said}");

    // And a second start with the same file writes nothing.
    let server = place.start(&config);
    assert_eq!(position, server.position);
    let (_, said) = server.terminate();
    assert!(!said.contains("of the configuration"), "{said}");
}

#[test]
fn a_sink_that_a_user_paused_or_made_stays_as_it_is() {
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    server.run(&["sinks", "pause", "reports"]).good();
    let other = r#"{"name": "mine", "kind": "sqlite", "path": "MINE", "mappings": [{"table": "shop.orders", "into": "mine"}]}"#;
    let other = other.replace("MINE", place.path("mine.db").to_str().unwrap());
    server.run_fed(&["sinks", "create", "-"], &other).good();
    drop(server);

    let server = place.start(&config);
    assert_eq!(sink(&server)["definition"]["paused"], true);
    assert!(server.run(&["sinks"]).good().contains("mine"));
    let (_, said) = server.terminate();
    assert!(
        said.contains("this sink is not in the configuration"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_in_a_section_stops_the_start_with_its_line() {
    let place = Place::new();
    let wrong = place.configure("full_txt = [\"note\"]\n");
    place.try_start(&wrong).fails(
        2,
        "onelog.toml, line 21: [[sinks]] 'reports', mappings[0].columns.full_txt: expected",
    );
    assert!(!place.path("data").exists(), "nothing was touched");

    let missing = place.path("missing.toml");
    let text = std::fs::read_to_string(place.configure("")).unwrap();
    std::fs::write(
        &missing,
        text.replace("[[tables]]\nname = \"shop.orders\"\n", ""),
    )
    .unwrap();
    let ran = place.try_start(&missing);
    ran.fails(
        2,
        "line 14: [[sinks]] 'reports', mappings[0].table: there is no table 'shop.orders'",
    );
    place
        .try_start(&missing)
        .fails(2, "declare it in a section [[tables]]");

    // A table that is there with another definition is not changed silently.
    drop(place.start(&place.configure("")));
    let stream = place.path("stream.toml");
    let text = std::fs::read_to_string(place.configure("")).unwrap();
    let other = text.replace(
        "name = \"shop.orders\"\n",
        "name = \"shop.orders\"\nvalue = \"bytes\"\n",
    );
    std::fs::write(&stream, other).unwrap();
    place.try_start(&stream).fails(
        2,
        "line 3: [[tables]] 'shop.orders': table 'shop.orders' exists already",
    );
}

#[test]
fn a_store_that_is_away_does_not_stop_the_start() {
    // Given a port where nothing listens
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let place = Place::new();
    let config = place.configure(&format!(
        "[[sinks]]\nname = \"cache\"\nkind = \"redis\"\nurl = \"redis://:secret@{free}\"\nmappings = [{{ table = \"shop.orders\", into = \"order\" }}]\n"
    ));
    // When the server starts, the sink is there and waits for its store
    let server = place.start(&config);
    let list = server.run(&["sinks", "list"]).good();
    assert!(list.contains("cache"), "{list}");
    // And the password is nowhere.
    let shown = server.run(&["sinks", "list", "--json"]).good();
    let (_, said) = server.terminate();
    assert!(!format!("{list}{shown}{said}").contains("secret"));
}

#[test]
fn a_changed_section_changes_the_sink_at_the_next_start() {
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    server
        .run(&[
            "put",
            "shop.orders",
            "o1",
            "{\"total\": 12.5, \"item\": \"apple\"}",
        ])
        .good();
    server.run(&["sinks", "wait", "reports"]).good();
    drop(server);

    let config = place.configure("item = { from = \"/item\", type = \"text\" }\n");
    let server = place.start(&config);
    server.run(&["sinks", "wait", "reports"]).good();
    let item: String = rusqlite::Connection::open(place.path("reports.db"))
        .unwrap()
        .query_row("SELECT item FROM orders", [], |row| row.get(0))
        .unwrap();
    assert_eq!(item, "apple");
    let (_, said) = server.terminate();
    assert!(
        said.contains("the configuration has changed this sink"),
        "{said}"
    );
}

/// A definition of the sink of the configuration without a column.
fn replacement(place: &Place) -> String {
    let path = place.path("reports.db");
    format!(
        r#"{{"name":"reports","kind":"sqlite","path":"{}","on_refused":"park","mappings":[{{"table":"shop.orders","into":"orders","columns":{{"zid":{{"from":"$key","type":"text"}},"item":{{"from":"/item","type":"text"}}}}}}]}}"#,
        path.display()
    )
}

#[test]
fn that_a_start_undoes_a_replacement_is_said_when_it_is_made_and_when_it_is_undone() {
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    let shown = sink(&server);
    let line = format!("{}, line 10", config.display());
    assert_eq!(shown["declared"], line.as_str(), "{shown}");
    let replace = ["sinks", "replace", "-"];
    let replaced = server.run_fed(&replace, &replacement(&place));
    assert!(
        replaced
            .err
            .contains(&format!("note: {line} declares this sink")),
        "{replaced:?}"
    );
    assert!(
        replaced.err.contains("onelog config export"),
        "{replaced:?}"
    );
    replaced.good();
    drop(server);

    let server = place.start(&config);
    let (_, said) = server.terminate();
    assert!(
        said.contains("WARN") && said.contains("is undone"),
        "{said}"
    );
    assert!(said.contains("zid"), "what it had is in the log: {said}");
    let server = place.start(&config);
    let deleted = server.run(&["sinks", "delete", "reports"]);
    assert!(
        deleted.err.contains("the next start makes the sink again"),
        "{deleted:?}"
    );
}

#[test]
fn an_exported_configuration_is_what_is_in_force() {
    // Given a server whose sink was replaced, and one of an address with a password
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    server
        .run(&["tables", "create", "t.users", "--unique", "/mail"])
        .good();
    server
        .run_fed(&["sinks", "replace", "-"], &replacement(&place))
        .good();
    let exported = server.run(&["config", "export"]).good();
    let before = sink(&server)["definition"].to_string();
    drop(server);
    // When it starts with what it exported
    std::fs::write(&config, &exported).unwrap();
    let server = place.start(&config);
    // Then the sink is what it was, in the order of its columns, and nothing was changed.
    assert_eq!(
        sink(&server)["definition"].to_string(),
        before,
        "{exported}"
    );
    let users = server.run(&["tables", "show", "t.users", "--json"]).json();
    assert_eq!(users["unique"][0], "/mail");
    assert_eq!(server.run(&["config", "export"]).good(), exported);
    let (_, said) = server.terminate();
    assert!(!said.contains("WARN"), "{said}");
}

#[test]
fn a_table_that_toml_cannot_hold_is_left_out_of_an_export_by_name() {
    // Given a table whose schema has a null, one with a number beyond TOML's, and a plain one
    let place = Place::new();
    let config = place.configure("");
    let server = place.start(&config);
    for (table, schema) in [
        ("t.none", r#"{"enum": ["a", null]}"#),
        ("t.large", r#"{"maximum": 18446744073709551615}"#),
        ("t.plain", r#"{"maximum": 12.5}"#),
    ] {
        let create = ["tables", "create", table, "--schema", "-"];
        server.run_fed(&create, schema).good();
    }
    // When its configuration is exported
    let ran = server.run(&["config", "export"]);
    // Then a comment and a warning name each table that is not in it, and why,
    for (table, why) in [
        ("t.none", "schema.enum[1] is null"),
        ("t.large", "schema.maximum is 18446744073709551615"),
    ] {
        let said = format!("the table '{table}' is left out: {why}");
        let comment = ran.out.lines().find(|line| line.contains(&said));
        assert!(
            comment.is_some_and(|line| line.starts_with("# ")),
            "{ran:?}"
        );
        assert!(ran.err.contains(&format!("warning: {said}")), "{ran:?}");
    }
    // and the rest is a configuration that a server starts with.
    let exported = ran.good();
    let all = server.run(&["config", "export", "--json"]).good();
    assert!(all.contains("t.none") && all.contains("null"), "{all}");
    drop(server);
    std::fs::write(&config, &exported).unwrap();
    let server = place.start(&config);
    let plain = server.run(&["tables", "show", "t.plain", "--json"]).json();
    assert_eq!(plain["schema"]["maximum"], 12.5, "{exported}");
    assert_eq!(sink(&server)["name"], "reports");
}

#[test]
fn an_exported_secret_is_a_variable_to_be_set() {
    let place = Place::new();
    let config = place.configure(
        "[[sinks]]\nname = \"my-cache\"\nkind = \"redis\"\nurl = \"redis://:secret@127.0.0.1:1\"\nmappings = [{ table = \"shop.orders\", into = \"order\" }]\n",
    );
    let server = place.start(&config);
    let exported = server.run(&["config", "export"]).good();
    assert!(!exported.contains("secret@"), "{exported}");
    assert!(
        exported.contains("redis://:${MY_CACHE_PASSWORD}@127.0.0.1:1"),
        "{exported}"
    );
    assert!(exported.contains("A server shows no secrets"), "{exported}");
}

#[test]
fn a_start_that_fails_by_its_configuration_has_made_nothing_of_it() {
    // Given a file whose tables and first sink are right, and whose last sink lacks a variable.
    let place = Place::new();
    let config = place.configure(
        r#"
[[sinks]]
name = "cache"
kind = "redis"
url = "redis://:${ONELOG_TEST_NOT_SET}@127.0.0.1:1/0"
[[sinks.mappings]]
table = "shop.orders"
into = "orders"
"#,
    );
    // When a server starts with it, then it says which one,
    let ran = place.try_start(&config);
    ran.fails(2, "'ONELOG_TEST_NOT_SET' is not set");
    // and neither its tables nor its sinks are there.
    let empty = place.path("empty.toml");
    std::fs::write(&empty, "").unwrap();
    let server = place.start(&empty);
    let tables = server.run(&["tables", "--json"]).json();
    let mut names = tables["tables"].as_array().unwrap().iter();
    let is_own = |table: &Value| table["name"].as_str().unwrap().starts_with("onelog.");
    assert!(names.all(is_own), "{tables}");
    assert_eq!(sink_names(&server), serde_json::json!([]));
    assert!(!place.path("reports.db").exists());
}

#[test]
fn two_declared_sinks_of_one_table_are_refused_before_either_is_made() {
    // Given a file whose two sinks write to one table of one store.
    let place = Place::new();
    let config = place.configure(
        &r#"
[[sinks]]
name = "again"
kind = "sqlite"
path = "REPORTS"
[[sinks.mappings]]
table = "shop.orders"
into = "ORDERS"
"#
        .replace("REPORTS", place.path("reports.db").to_str().unwrap()),
    );
    // When a server starts with it, then it names both, and has not touched the store.
    let ran = place.try_start(&config);
    ran.fails(2, "'reports' writes to 'orders' in this store already");
    assert!(!place.path("reports.db").exists());
}

fn sink_names(server: &Server) -> Value {
    server.run(&["sinks", "list", "--json"]).json()["sinks"].clone()
}

#[test]
fn commands_that_speak_to_no_server_do_not_offer_its_flags() {
    let help = |arguments: &[&str]| {
        let output = onelog().args(arguments).arg("--help").output().unwrap();
        Ran::of(output).good()
    };
    for command in ["serve", "check", "restore", "audit"] {
        let text = help(&[command]);
        assert!(
            !text.contains("--url") && !text.contains("--timeout"),
            "{text}"
        );
    }
    for command in ["get", "import", "status"] {
        let text = help(&[command]);
        assert!(
            text.contains("--url") && text.contains("--timeout"),
            "{text}"
        );
    }
    let refused = onelog()
        .args(["check", "somewhere", "--url", "http://x"])
        .output();
    Ran::of(refused.unwrap()).fails(2, "speaks to no server");
    let wait = help(&["sinks", "wait"]);
    assert_eq!(wait.matches("--timeout").count(), 1, "{wait}");
    assert!(!wait.contains("--for"), "{wait}");
}
