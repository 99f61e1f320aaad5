//! `onelog import --from-store`: the rows of a table that was there before onelog become the first
//! content of a table of the log, and a sink then finds them equal.

use std::path::PathBuf;

use onelog_testkit::{Kind, Mariadb, Postgres, Server as _, require};
use serde_json::{Value, json};

use crate::server::{Ran, Server};

const ROWS: u64 = 3000;

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

    fn define(&self, definition: &Value) -> PathBuf {
        let path = self.folder.path().join("sink.json");
        std::fs::write(&path, definition.to_string()).unwrap();
        path
    }

    fn import(&self, definition: &Value, more: &[&str]) -> Ran {
        let path = self.define(definition);
        let path = path.to_str().unwrap();
        let args = [
            "import",
            "shop.goods",
            path,
            "--from-store",
            "--create",
            "--json",
        ];
        self.server.run(&[&args, more].concat())
    }

    fn value(&self, key: &str) -> String {
        self.server.run(&["get", "shop.goods", key]).good()
    }
}

fn definition(store: &Value) -> Value {
    let mut out = json!({"name": "goods", "mappings": [{
        "table": "shop.goods", "into": "goods", "columns": {
            "id": {"from": "$key", "type": "integer"},
            "price": {"from": "/price", "type": "numeric"},
            "made": {"from": "/made", "type": "timestamp"},
            "note": {"from": "/note", "type": "text"}}}]});
    for (name, value) in store.as_object().unwrap() {
        out[name] = value.clone();
    }
    out
}

/// Imports the table of a store, lets a sink adopt it, and compares.
fn adopted_without_a_change(store: &Value) {
    let place = Place::new();
    let mut definition = definition(store);
    definition["mappings"][0]["existing"] = json!(true);
    // When its rows are imported, then all of them are there, with every digit,
    let done = place.import(&definition, &[]).json();
    assert_eq!(done["records"], ROWS, "{done}");
    let first = place.value("1");
    assert!(first.contains("12345678901234567890.123456789"), "{first}");
    assert!(first.contains("2024-05-01T12:00:00.123456Z"), "{first}");
    // and a second import is refused, unless it is asked for.
    place.import(&definition, &[]).fails(1, "has keys already");
    place.import(&definition, &["--again"]).good();
    // When a sink with that definition is made, then it has nothing to change.
    let path = place.define(&definition);
    let server = &place.server;
    server
        .run(&["sinks", "create", path.to_str().unwrap()])
        .good();
    server.run(&["sinks", "wait", "goods"]).good();
    let verified = server.run(&["sinks", "verify", "goods", "--json"]).json();
    assert_eq!(verified["equal"], true, "{verified}");
    assert_eq!(verified["tables"][0]["store_rows"], ROWS, "{verified}");
}

#[test]
fn a_table_of_postgresql_becomes_the_first_content_of_a_table() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(&format!(
        "CREATE TABLE goods (id bigint PRIMARY KEY, price numeric, made timestamptz, note text);
         INSERT INTO goods SELECT n, n + 0.5, '2024-05-01T12:00:00Z', 'note ' || n
           FROM generate_series(1, {ROWS}) n;
         UPDATE goods SET price = 12345678901234567890.123456789,
           made = '2024-05-01T12:00:00.123456Z', note = NULL WHERE id = 1"
    ));
    adopted_without_a_change(&json!({"kind": "postgres", "url": postgres.url()}));
}

#[test]
fn a_table_of_mariadb_becomes_the_first_content_of_a_table() {
    require!(Kind::Mariadb);
    let mariadb = Mariadb::start();
    mariadb.sql(&format!(
        "CREATE TABLE goods (id BIGINT NOT NULL PRIMARY KEY, price DECIMAL(40,10), made DATETIME(6),
           note VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin);
         INSERT INTO goods SELECT seq, seq + 0.5, '2024-05-01 12:00:00', CONCAT('note ', seq)
           FROM seq_1_to_{ROWS};
         UPDATE goods SET price = 12345678901234567890.123456789,
           made = '2024-05-01 12:00:00.123456', note = NULL WHERE id = 1"
    ));
    adopted_without_a_change(&json!({"kind": "mysql", "url": mariadb.url()}));
}

#[test]
fn a_table_of_sqlite_is_read_and_what_cannot_be_read_back_is_refused_by_name() {
    let place = Place::new();
    let path = place.folder.path().join("shop.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE goods (id INTEGER PRIMARY KEY, price TEXT, note TEXT);
             INSERT INTO goods VALUES (1, '1.10', 'a'), (2, NULL, 'b')",
        )
        .unwrap();
    let mut goods = definition(&json!({"kind": "sqlite", "path": path}));
    goods["mappings"][0]["columns"] = json!({"id": {"from": "$key", "type": "integer"},
        "price": {"from": "/price", "type": "text"}, "note": {"from": "/note", "type": "text"}});
    // What has no inverse is refused before anything is made, with its place.
    let mut filtered = goods.clone();
    filtered["mappings"][0]["where"] = json!(".note != null");
    place.import(&filtered, &[]).fails(2, "mappings[0].where");
    let mut redis = definition(&json!({"kind": "redis", "url": "redis://localhost"}));
    redis["mappings"][0]["as"] = json!("hash");
    place
        .import(&redis, &[])
        .fails(2, "a store of the kind redis has no tables");
    let mut other = goods.clone();
    other["mappings"][0]["table"] = json!("shop.other");
    place
        .import(&other, &[])
        .fails(2, "0 mappings of the definition follow 'shop.goods'");
    place
        .server
        .run(&["tables", "show", "shop.goods"])
        .fails(1, "shop.goods");
    // What has one is read.
    let done = place.import(&goods, &[]).json();
    assert_eq!(
        (&done["records"], &done["format"]),
        (&json!(2), &json!("store"))
    );
    assert_eq!(place.value("1").trim(), r#"{"price":"1.10","note":"a"}"#);
    assert_eq!(place.value("2").trim(), r#"{"price":null,"note":"b"}"#);
}
