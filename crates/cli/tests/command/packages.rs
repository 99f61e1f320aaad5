//! Debian's own package records: imported, followed into SQLite, searched, verified equal.
//!
//! The sample is a thousand paragraphs as `scripts/debian-packages` prints them. With
//! ONELOG_PACKAGES set to a file of the same form, that one is taken instead: all of them.

use std::path::Path;

use serde_json::{Value, json};

use crate::server::Server;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/packages.ndjson");
const TABLE: &str = "debian.packages";

#[test]
fn real_package_records_are_imported_followed_searched_and_verified_equal() {
    // Given a server, and real records.
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let file = std::env::var("ONELOG_PACKAGES").unwrap_or_else(|_| SAMPLE.to_owned());
    let lines = std::fs::read_to_string(&file).unwrap();
    let records: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    // When half of them are there before the store follows, and the rest comes while it does.
    let half = lines.lines().count() / 2;
    let first: String = lines.lines().take(half).map(|l| format!("{l}\n")).collect();
    let part = folder.path().join("first.ndjson");
    std::fs::write(&part, first).unwrap();
    let import = |file: &str| {
        server
            .run(&[
                "import", TABLE, file, "--key", "package", "--create", "--json",
            ])
            .json()
    };
    assert_eq!(import(part.to_str().unwrap())["records"], half);
    let database = folder.path().join("apt.db");
    follow(&server, &database);
    assert_eq!(import(&file)["records"], records.len());

    // Then the store is equal, row by row, and its full-text index finds what the records say.
    server.run(&["sinks", "wait", "apt"]).good();
    let verified = server.run(&["sinks", "verify", "apt", "--json"]).json();
    assert_eq!(verified["tables"][0]["equal"], true, "{verified}");
    assert_eq!(verified["tables"][0]["rows"], records.len());
    let list = server.run(&["sinks"]).good();
    assert!(list.contains("apt   sqlite  running"), "{list}");

    let database = rusqlite::Connection::open(database).unwrap();
    for word in ["library", "python", "fonts"] {
        let expected = records.iter().filter(|r| has_word(r, word)).count();
        let found: i64 = database
            .query_row(
                "SELECT count(*) FROM packages_fts WHERE packages_fts MATCH ?1",
                [word],
                |row| row.get(0),
            )
            .unwrap();
        assert!(expected > 0, "the sample has the word '{word}'");
        assert_eq!(found, expected as i64, "{word}");
    }
    let (name, size): (String, i64) = database
        .query_row(
            "SELECT name, size FROM packages ORDER BY size DESC, name LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    let largest = records.iter().filter_map(|r| r["size"].as_i64()).max();
    assert_eq!(Some(size), largest, "{name}");
}

fn follow(server: &Server, database: &Path) {
    let definition = json!({
        "name": "apt",
        "kind": "sqlite",
        "path": database,
        "mappings": [{
            "table": TABLE,
            "into": "packages",
            "columns": {
                "name": {"from": "$key", "type": "text"},
                "version": {"from": "/version", "type": "text"},
                "section": {"from": "/section", "type": "text"},
                "size": {"from": "/size", "type": "integer"},
                "description": {"from": "/description", "type": "text"},
                "record": {"from": "", "type": "json"},
            },
            "full_text": ["description"],
        }],
    });
    server
        .run_fed(&["sinks", "create", "-"], &definition.to_string())
        .good();
}

/// As FTS5's own tokenizer splits plain text: at whatever is no letter or digit.
fn has_word(record: &Value, word: &str) -> bool {
    let text = record["description"]
        .as_str()
        .unwrap_or_default()
        .to_lowercase();
    text.split(|c: char| !c.is_alphanumeric())
        .any(|part| part == word)
}
