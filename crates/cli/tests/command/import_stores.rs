//! `onelog import --from-store`: the rows of a table that was there before onelog become the first
//! content of a table of the log, and a sink then finds them equal.

use std::path::PathBuf;

use onelog_testkit::{Kind, Mariadb, Postgres, Server as _, require};
use serde_json::{Value, json};

use crate::server::{Ran, Server};

const ROWS: u64 = 3000;

pub struct Place {
    pub folder: tempfile::TempDir,
    pub server: Server,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), &[]);
        Self { folder, server }
    }

    pub fn define(&self, definition: &Value) -> PathBuf {
        let path = self.folder.path().join("sink.json");
        std::fs::write(&path, definition.to_string()).unwrap();
        path
    }

    pub fn import(&self, definition: &Value, more: &[&str]) -> Ran {
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

    pub fn value(&self, key: &str) -> String {
        self.server.run(&["get", "shop.goods", key]).good()
    }
}

pub fn definition(store: &Value) -> Value {
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

/// Every row of `refused`, a key with its column and what the message says of its value, is refused by
/// name until `delete` has taken it away; `--skip-bad` counts them all. What is left, with `good`
/// rows, is adopted by a sink without a change.
fn what_the_log_cannot_have_is_named(
    definition: &Value,
    good: u64,
    refused: &[(&str, &str, &str)],
    delete: &dyn Fn(&str),
) {
    let place = Place::new();
    let done = place.import(definition, &["--skip-bad"]).json();
    let counted = (&done["records"], &done["bad_lines"]);
    assert_eq!(counted, (&json!(good), &json!(refused.len())), "{done}");
    for (key, column, value) in refused {
        let ran = place.import(definition, &["--again"]);
        let named =
            format!("the table 'goods', key \"{key}\", column '{column}': it holds {value}");
        ran.fails(1, &named);
        delete(key);
    }
    place.import(definition, &["--again"]).good();
    let path = place.define(definition);
    let path = path.to_str().unwrap();
    place.server.run(&["sinks", "create", path]).good();
    place.server.run(&["sinks", "wait", "goods"]).good();
    let verified = place
        .server
        .run(&["sinks", "verify", "goods", "--json"])
        .json();
    assert_eq!(verified["equal"], true, "{verified}");
    assert_eq!(verified["tables"][0]["store_rows"], good, "{verified}");
}

#[test]
fn what_only_postgresql_can_hold_is_refused_by_name_and_never_made_into_a_text() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        r#"CREATE TABLE goods (id bigint PRIMARY KEY, price numeric, rate double precision,
           made timestamptz, day date, doc jsonb, days date[]);
         INSERT INTO goods (id, price, rate, made, day, doc, days) VALUES
           (1, 1e-30, -0.0, '0001-01-01T00:00:00Z', '9999-12-31', '{"b": [null, 1.10], "a": 1}', '{NULL,2024-05-01}'),
           (2, 1e300, 1e308, '9999-12-31T23:59:59.999999Z', '0001-01-01', '"null"', '{}'),
           (3, NULL, NULL, NULL, NULL, NULL, NULL);
         INSERT INTO goods (id, made) VALUES (10, 'infinity'), (11, '-infinity'),
           (12, '10000-01-01T00:00:00Z'), (13, '0044-03-15T12:00:00Z BC'), (14, '0001-12-31T00:00:00Z BC');
         INSERT INTO goods (id, day) VALUES (20, 'infinity'), (21, '-infinity'), (22, '10000-01-01'),
           (23, '0044-03-15 BC');
         INSERT INTO goods (id, price) VALUES (30, 'NaN'), (31, 'Infinity'), (32, '-Infinity');
         INSERT INTO goods (id, price) SELECT 33, ('1' || repeat('0', 1200))::numeric;
         INSERT INTO goods (id, rate) VALUES (40, 'NaN'), (41, 'Infinity');
         INSERT INTO goods (id, doc) VALUES (50, 'null');
         INSERT INTO goods (id, days) VALUES (60, '{infinity}'), (61, '{{2024-05-01}}'), (62, '[0:0]={2024-05-01}')"#,
    );
    let mut goods = definition(&json!({"kind": "postgres", "url": postgres.url()}));
    goods["mappings"][0]["existing"] = json!(true);
    goods["mappings"][0]["columns"] = json!({
        "id": {"from": "$key", "type": "integer"}, "price": {"from": "/price", "type": "numeric"},
        "rate": {"from": "/rate", "type": "real"}, "made": {"from": "/made", "type": "timestamp"},
        "day": {"from": "/day", "type": "date"}, "doc": {"from": "/doc", "type": "json"},
        "days": {"from": "/days", "type": "date[]"}});
    let refused = [
        ("10", "made", "\"infinity\""),
        ("11", "made", "\"-infinity\""),
        ("12", "made", "\"+010000-01-01T00:00:00Z\""),
        ("13", "made", "\"-000043-03-15T12:00:00Z\""),
        ("14", "made", "\"0000-12-31T00:00:00Z\""),
        ("20", "day", "\"infinity\""),
        ("21", "day", "\"-infinity\""),
        ("22", "day", "\"+010000-01-01\""),
        ("23", "day", "\"-000043-03-15\""),
        ("30", "price", "\"NaN\""),
        ("31", "price", "\"Infinity\""),
        ("32", "price", "\"-Infinity\""),
        ("33", "price", "\"1000"),
        ("40", "rate", "NaN"),
        ("41", "rate", "inf"),
        ("50", "doc", "the JSON value null"),
        ("60", "days", "[\"infinity\"]"),
        ("61", "days", "\"a list of 2 dimensions\""),
        (
            "62",
            "days",
            "\"a list whose first element has the number 0\"",
        ),
    ];
    what_the_log_cannot_have_is_named(&goods, 3, &refused, &|key| {
        postgres.sql(&format!("DELETE FROM goods WHERE id = {key}"));
    });
}

#[test]
fn a_column_of_postgresql_of_another_type_is_not_rounded_to_the_mappings() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        "CREATE TABLE goods (id text PRIMARY KEY, count numeric, made text, day timestamptz, ok int);
         INSERT INTO goods VALUES ('1', 2, NULL, NULL, NULL), ('2', 1.5, NULL, NULL, NULL),
           ('3', NULL, 'yesterday', NULL, NULL), ('4', NULL, NULL, '2024-05-01T12:00:00Z', NULL),
           ('5', NULL, NULL, NULL, 5)",
    );
    let mut goods = definition(&json!({"kind": "postgres", "url": postgres.url()}));
    goods["mappings"][0]["columns"] = json!({
        "id": {"from": "$key", "type": "text"}, "count": {"from": "/count", "type": "integer"},
        "made": {"from": "/made", "type": "timestamp"}, "day": {"from": "/day", "type": "date"},
        "ok": {"from": "/ok", "type": "boolean"}});
    let place = Place::new();
    for (key, column, value) in [
        ("2", "count", "\"1.5\""),
        ("3", "made", "\"yesterday\""),
        ("4", "day", "\"2024-05-01T12:00:00Z\""),
        ("5", "ok", "5"),
    ] {
        place.import(&goods, &["--again"]).fails(
            1,
            &format!("the table 'goods', key \"{key}\", column '{column}': it holds {value}"),
        );
        postgres.sql(&format!("DELETE FROM goods WHERE id = '{key}'"));
    }
    place.import(&goods, &["--again"]).good();
    assert!(
        place.value("1").contains("\"count\":2,"),
        "{}",
        place.value("1")
    );
}

#[test]
fn a_document_that_is_written_otherwise_is_no_other_row() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        r#"CREATE TABLE goods (id text PRIMARY KEY, doc jsonb);
         INSERT INTO goods VALUES ('1', '{"b": 1.10, "a": [1, null]}')"#,
    );
    let mut goods = definition(&json!({"kind": "postgres", "url": postgres.url()}));
    goods["mappings"][0]["existing"] = json!(true);
    goods["mappings"][0]["columns"] = json!({
        "id": {"from": "$key", "type": "text"}, "doc": {"from": "/doc", "type": "json"}});
    let place = Place::new();
    let server = &place.server;
    server.run(&["tables", "create", "shop.goods"]).good();
    let document = r#"{"doc":{"a":[1,null],"b":1.1}}"#;
    server.run(&["put", "shop.goods", "1", document]).good();
    // When a sink is to adopt the table, then the log has its row as it is.
    let path = place.define(&goods);
    server
        .run(&["sinks", "create", path.to_str().unwrap()])
        .good();
    server.run(&["sinks", "wait", "goods"]).good();
    let verified = server.run(&["sinks", "verify", "goods", "--json"]).json();
    assert_eq!(verified["equal"], true, "{verified}");
}

#[test]
fn what_only_mariadb_can_hold_is_refused_by_name_and_never_made_into_a_text() {
    require!(Kind::Mariadb);
    let mariadb = Mariadb::start();
    mariadb.sql(
        "CREATE TABLE goods (id BIGINT NOT NULL PRIMARY KEY, made DATETIME(6), day DATE, doc JSON);
         SET sql_mode = '';
         INSERT INTO goods VALUES (1, '9999-12-31 23:59:59.999999', '1000-01-01', '{\"a\": [1.10, null]}'),
           (2, NULL, NULL, NULL);
         INSERT INTO goods (id, made) VALUES (10, '0000-00-00 00:00:00'), (11, '2024-05-00 12:00:00');
         INSERT INTO goods (id, made) VALUES (12, '0999-12-31 23:59:59'), (13, '0001-01-01 00:00:00');
         INSERT INTO goods (id, day) VALUES (20, '0000-00-00'), (21, '2024-00-01');
         INSERT INTO goods (id, day) VALUES (22, '0999-12-31');
         INSERT INTO goods (id, doc) VALUES (30, ' null ')",
    );
    let mut goods = definition(&json!({"kind": "mysql", "url": mariadb.url()}));
    goods["mappings"][0]["existing"] = json!(true);
    goods["mappings"][0]["columns"] = json!({
        "id": {"from": "$key", "type": "integer"}, "made": {"from": "/made", "type": "timestamp"},
        "day": {"from": "/day", "type": "date"}, "doc": {"from": "/doc", "type": "json"}});
    let refused = [
        ("10", "made", "\"0000-00-00 00:00:00.000000\""),
        ("11", "made", "\"2024-05-00 12:00:00.000000\""),
        // MariaDB promises no years before 1000, and a sink writes none.
        ("12", "made", "\"0999-12-31T23:59:59Z\", which the sink"),
        ("13", "made", "\"0001-01-01T00:00:00Z\", which the sink"),
        ("20", "day", "\"0000-00-00"),
        ("21", "day", "\"2024-00-01"),
        ("22", "day", "\"0999-12-31\", which the sink"),
        ("30", "doc", "the JSON value null"),
    ];
    what_the_log_cannot_have_is_named(&goods, 2, &refused, &|key| {
        mariadb.sql(&format!("DELETE FROM goods WHERE id = {key}"));
    });
    // A time of day is the text that the server shows.
    mariadb.sql(
        "DROP TABLE goods; CREATE TABLE goods (id BIGINT NOT NULL PRIMARY KEY, opens TIME(6));
         INSERT INTO goods VALUES (1, '08:30:00'), (2, '-838:59:58.500000')",
    );
    let mut goods = definition(&json!({"kind": "mysql", "url": mariadb.url()}));
    goods["mappings"][0]["columns"] = json!({"id": {"from": "$key", "type": "integer"},
        "opens": {"from": "/opens", "type": "text"}});
    let place = Place::new();
    place.import(&goods, &[]).good();
    assert_eq!(place.value("1").trim(), r#"{"opens":"08:30:00"}"#);
    assert_eq!(place.value("2").trim(), r#"{"opens":"-838:59:58.500000"}"#);
}

#[test]
fn a_table_of_sqlite_goes_into_the_log_and_a_sink_makes_a_table_of_its_own() {
    let place = Place::new();
    let path = place.folder.path().join("shop.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE goods (id INTEGER PRIMARY KEY, price DECIMAL(10,2), made TEXT);
             INSERT INTO goods VALUES (1, 5, '2024-05-01T12:00:00Z'), (2, 5.25, NULL),
               (3, NULL, '2024-05-01 12:00:00'), (4, 'free', NULL)",
        )
        .unwrap();
    let mut goods = definition(&json!({"kind": "sqlite", "path": path}));
    goods["mappings"][0]["columns"] = json!({"id": {"from": "$key", "type": "integer"},
        "price": {"from": "/price", "type": "numeric"}, "made": {"from": "/made", "type": "timestamp"}});
    // What the mapping would not write back is refused by name.
    for (key, column, value) in [
        ("3", "made", "\"2024-05-01 12:00:00\""),
        ("4", "price", "\"free\""),
    ] {
        place.import(&goods, &["--again"]).fails(
            1,
            &format!("the table 'goods', key \"{key}\", column '{column}': it holds {value}"),
        );
        database
            .execute("DELETE FROM goods WHERE id = ?1", [key])
            .unwrap();
    }
    // When the rows are in the log, then the command says that no sink fills this table,
    let file = place.define(&goods);
    let file = file.to_str().unwrap();
    let said = place
        .server
        .run(&["import", "shop.goods", file, "--from-store", "--again"])
        .good();
    assert!(
        said.contains("a sink of the kind sqlite makes a table of its own"),
        "{said}"
    );
    assert!(
        said.contains("another name for 'into' than 'goods'"),
        "{said}"
    );
    // and with another name a sink has the rows.
    goods["mappings"][0]["into"] = json!("goods_of_the_log");
    let file = place.define(&goods);
    let server = &place.server;
    server
        .run(&["sinks", "create", file.to_str().unwrap()])
        .good();
    server.run(&["sinks", "wait", "goods"]).good();
    let prices = "SELECT group_concat(price, ' ') FROM goods_of_the_log";
    let prices: String = database.query_row(prices, [], |row| row.get(0)).unwrap();
    assert_eq!(prices, "5 5.25");
}

#[test]
fn rows_that_share_a_key_are_refused_by_name_and_none_is_lost() {
    // Given a table without a unique key, in which two rows have one key,
    let place = Place::new();
    let path = place.folder.path().join("shop.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE goods (id TEXT, n INTEGER);
             INSERT INTO goods VALUES ('b', 0), ('a', 1), ('a', 2), (NULL, 3)",
        )
        .unwrap();
    let mut goods = definition(&json!({"kind": "sqlite", "path": path}));
    let columns = |kind: &str| json!({"id": {"from": "$key", "type": kind}, "n": {"from": "/n", "type": "integer"}});
    goods["mappings"][0]["columns"] = columns("text");
    // when it is imported, then it is refused, by name and before anything is written,
    for more in [&[][..], &["--skip-bad"]] {
        place.import(&goods, more).fails(
            1,
            "several rows of the table 'goods' have the key \"a\" (column 'id')",
        );
    }
    place
        .server
        .run(&["get", "shop.goods", "b"])
        .fails(1, "no table 'shop.goods'");
    // and once each row has a key of its own, all of them are there.
    database
        .execute_batch("UPDATE goods SET id = 'c' WHERE n = 2; DELETE FROM goods WHERE n = 3")
        .unwrap();
    assert_eq!(place.import(&goods, &[]).json()["records"], 3);
    // One UUID that is written in several ways is one key.
    database
        .execute_batch(
            "DELETE FROM goods;
             INSERT INTO goods VALUES ('67e55044-10b1-426f-9247-bb680e5fe0c8', 1),
               ('67E55044-10B1-426F-9247-BB680E5FE0C8', 2), ('67e5504410b1426f9247bb680e5fe0c8', 3)",
        )
        .unwrap();
    goods["mappings"][0]["columns"] = columns("uuid");
    place.import(&goods, &["--again"]).fails(
        1,
        "have the key \"67e55044-10b1-426f-9247-bb680e5fe0c8\" (column 'id')",
    );
}
