//! `onelog import --from-store`: what becomes of values that a store shows otherwise than JSON does.

use onelog_testkit::{Kind, Mariadb, Postgres, Server as _, require};
use serde_json::{Value, json};

use crate::import_stores::{Place, definition};

/// The definition of a sink of this store with these columns of the table `goods`.
fn with_columns(store: &Value, columns: &Value) -> Value {
    let mut out = definition(store);
    out["mappings"][0]["columns"] = columns.clone();
    out
}

/// Lets a sink adopt the table that was imported: it has nothing to change.
fn is_adopted(place: &Place, definition: &Value, rows: u64) {
    let mut definition = definition.clone();
    definition["mappings"][0]["existing"] = json!(true);
    let path = place.define(&definition);
    let server = &place.server;
    let path = path.to_str().unwrap();
    server.run(&["sinks", "create", path]).good();
    server.run(&["sinks", "wait", "goods"]).good();
    let verified = server.run(&["sinks", "verify", "goods", "--json"]).json();
    assert_eq!(verified["equal"], true, "{verified}");
    assert_eq!(verified["tables"][0]["store_rows"], rows, "{verified}");
}

#[test]
fn a_list_of_postgresql_is_a_list_of_json_and_numbers_keep_their_zeros() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        r#"CREATE DOMAIN labels AS text[]; CREATE DOMAIN few_labels AS labels;
         CREATE TABLE goods (id bigint PRIMARY KEY, tags text[], more few_labels, sizes numeric[], grid int[],
           docs jsonb[], bits varbit, price numeric(10,2), rate float8, exact numeric[], plain numeric);
         INSERT INTO goods VALUES
           (1, '{a,NULL,"NULL","b \"q\", {c}"}', '{x}', '{1.10,-0.50,12345678901234567890.1230,NULL}', '{{1,2},{3,NULL}}',
             ARRAY['{"a": [1.10]}', 'null']::jsonb[], B'0101', 1.10, '-0.0', '{1.50,2}', 3.000),
           (2, '{}', '{}', '{}', '{}', '{}', B'', -0.00, 2, '{}', 1e3),
           (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
    );
    let store = json!({"kind": "postgres", "url": postgres.url()});
    let columns = json!({"id": {"from": "$key", "type": "integer"},
        "tags": {"from": "/tags", "type": "json"}, "more": {"from": "/more", "type": "json"},
        "sizes": {"from": "/sizes", "type": "json"}, "grid": {"from": "/grid", "type": "json"},
        "docs": {"from": "/docs", "type": "json"}, "bits": {"from": "/bits", "type": "text"},
        "price": {"from": "/price", "type": "numeric"}, "rate": {"from": "/rate", "type": "real"},
        "exact": {"from": "/exact", "type": "numeric[]"}, "plain": {"from": "/plain", "type": "integer"}});
    let goods = with_columns(&store, &columns);
    let place = Place::new();
    // When the table is imported, then lists are lists, and each number is as the store shows it.
    place.import(&goods, &[]).good();
    assert_eq!(
        place.value("1").trim(),
        r#"{"tags":["a",null,"NULL","b \"q\", {c}"],"more":["x"],"sizes":[1.10,-0.50,12345678901234567890.1230,null],"grid":[[1,2],[3,null]],"docs":[{"a": [1.10]},null],"bits":"0101","price":1.10,"rate":-0.0,"exact":[1.50,2],"plain":3.000}"#
    );
    assert_eq!(
        place.value("2").trim(),
        r#"{"tags":[],"more":[],"sizes":[],"grid":[],"docs":[],"bits":"","price":0.00,"rate":2.0,"exact":[],"plain":1000}"#
    );
    // And a sink that follows finds these numbers to be the ones that it would write.
    let numbers = json!({"id": {"from": "$key", "type": "integer"},
        "price": {"from": "/price", "type": "numeric"}, "rate": {"from": "/rate", "type": "real"},
        "exact": {"from": "/exact", "type": "numeric[]"}});
    is_adopted(&place, &with_columns(&store, &numbers), 3);
}

#[test]
fn what_of_postgresql_looks_like_json_and_is_none_is_refused_by_name() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        "CREATE TABLE goods (id text PRIMARY KEY, bits varbit, flag bit(1), span numrange, days date[],
           tags text[], sizes numeric[], raw bytea);
         INSERT INTO goods (id, bits) VALUES ('bits', B'101'); INSERT INTO goods (id, flag) VALUES ('flag', B'1');
         INSERT INTO goods (id, span) VALUES ('span', '[1,2]');
         INSERT INTO goods (id, days) VALUES ('days', '{2024-05-01}');
         INSERT INTO goods (id, tags) VALUES ('tags', '{a}'), ('bounds', '[0:0]={a}');
         INSERT INTO goods (id, sizes) VALUES ('sizes', '{1.5}'), ('nan', '{1,NaN}');
         INSERT INTO goods (id, raw) VALUES ('raw', '\\x31')",
    );
    let store = json!({"kind": "postgres", "url": postgres.url()});
    let import = |column: &str, kind: &str| {
        let columns = json!({"id": {"from": "$key", "type": "text"},
            column: {"from": format!("/{column}"), "type": kind}});
        Place::new().import(&with_columns(&store, &columns), &[])
    };
    // A type whose text would be read as another value is refused with the column,
    for (column, shown) in [
        ("bits", "bit varying"),
        ("flag", "bit(1)"),
        ("span", "numrange"),
        ("days", "date[]"),
        ("raw", "bytea"),
    ] {
        let named = format!("the column '{column}' is {shown}, and json in the mapping");
        import(column, "json").fails(1, &named);
    }
    // and a value that the mapping would change with the key.
    for (key, column, kind, value) in [
        ("bits", "bits", "integer", "\"101\""),
        ("flag", "flag", "integer", "\"1\""),
        ("tags", "tags", "text", "the JSON value [\"a\"]"),
        ("bounds", "tags", "json", "the JSON value \"[0:0]={a}\""),
        ("sizes", "sizes", "integer[]", "[\"1.5\"]"),
        ("nan", "sizes", "json", "the JSON value \"{1,NaN}\""),
        ("raw", "raw", "text", "{\"base64\":\"MQ==\"}"),
    ] {
        let named = format!("key \"{key}\", column '{column}': it holds {value}");
        if key == "bounds" {
            postgres.sql("DELETE FROM goods WHERE id = 'tags'");
        }
        if key == "nan" {
            postgres.sql("DELETE FROM goods WHERE id = 'sizes'");
        }
        import(column, kind).fails(1, &named);
    }
}

#[test]
fn keys_of_bytes_are_imported_and_the_table_is_adopted() {
    require!(Kind::Postgres);
    let postgres = Postgres::start();
    postgres.sql(
        "CREATE TABLE goods (id bytea PRIMARY KEY, n bigint);
         INSERT INTO goods VALUES ('\\xff00', 1), ('a', 2), ('\\x00', 3)",
    );
    let store = json!({"kind": "postgres", "url": postgres.url()});
    let columns =
        json!({"id": {"from": "$key", "type": "blob"}, "n": {"from": "/n", "type": "integer"}});
    let goods = with_columns(&store, &columns);
    let place = Place::new();
    assert_eq!(place.import(&goods, &[]).json()["records"], 3);
    assert_eq!(place.value("a").trim(), r#"{"n":2}"#);
    is_adopted(&place, &goods, 3);
}

#[test]
fn bits_decimals_and_keys_of_bytes_of_mariadb_are_what_they_are() {
    require!(Kind::Mariadb);
    let mariadb = Mariadb::start();
    mariadb.sql(
        "CREATE TABLE goods (id VARBINARY(16) NOT NULL PRIMARY KEY, price DECIMAL(10,2), flag BIT(1), mask BIT(64),
           whole DECIMAL(30,1), doc JSON, rate DOUBLE);
         INSERT INTO goods VALUES ('a', 1.10, b'1', b'01000001', 7, '{\"a\": [1.10, -0, {}]}', 2),
           (x'ff00', -0.10, b'0', b'0', NULL, '[]', -2.5), (x'00', NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let store = json!({"kind": "mysql", "url": mariadb.url()});
    let columns = json!({"id": {"from": "$key", "type": "blob"},
        "price": {"from": "/price", "type": "numeric"}, "flag": {"from": "/flag", "type": "boolean"},
        "mask": {"from": "/mask", "type": "integer"}, "whole": {"from": "/whole", "type": "integer"},
        "doc": {"from": "/doc", "type": "json"}, "rate": {"from": "/rate", "type": "real"}});
    let place = Place::new();
    let done = place.import(&with_columns(&store, &columns), &[]).json();
    assert_eq!(done["records"], 3, "{done}");
    assert_eq!(
        place.value("a").trim(),
        r#"{"price":1.10,"flag":true,"mask":65,"whole":7.0,"doc":{"a": [1.10, -0, {}]},"rate":2.0}"#
    );
    let kept = json!({"id": {"from": "$key", "type": "blob"}, "price": {"from": "/price", "type": "numeric"},
        "doc": {"from": "/doc", "type": "json"}, "rate": {"from": "/rate", "type": "real"}});
    is_adopted(&place, &with_columns(&store, &kept), 3);
    // Bits are a number, and nothing else is made of them; bytes are no JSON.
    mariadb.sql(
        "DROP TABLE goods; CREATE TABLE goods (id VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
           mask BIT(8), raw VARBINARY(9), price DECIMAL(10,1));
         INSERT INTO goods (id, mask) VALUES ('mask', b'00110001'); INSERT INTO goods (id, raw) VALUES ('raw', '12');
         INSERT INTO goods (id, price) VALUES ('price', 2.5)",
    );
    for (column, kind, value) in [
        ("mask", "text", "49"),
        ("mask", "json", "49"),
        ("raw", "json", "{\"base64\":\"MTI=\"}"),
        ("price", "integer", "\"2.5\""),
    ] {
        let columns = json!({"id": {"from": "$key", "type": "text"},
            column: {"from": format!("/{column}"), "type": kind}});
        let named = format!("key \"{column}\", column '{column}': it holds {value}");
        let ran = Place::new().import(&with_columns(&store, &columns), &[]);
        ran.fails(1, &named);
    }
}

#[test]
fn keys_of_bytes_and_numbers_of_sqlite_are_what_they_are() {
    let place = Place::new();
    let path = place.folder.path().join("shop.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE goods (id BLOB PRIMARY KEY, price TEXT, rate REAL, n);
             INSERT INTO goods VALUES (CAST('a' AS BLOB), '1.10', 2, 5), (x'ff00', '-0.50', 0.1, 5.0), (x'00', '.5', NULL, NULL)",
        )
        .unwrap();
    let columns = json!({"id": {"from": "$key", "type": "blob"},
        "price": {"from": "/price", "type": "numeric"}, "rate": {"from": "/rate", "type": "real"},
        "n": {"from": "/n", "type": "integer"}});
    let goods = with_columns(&json!({"kind": "sqlite", "path": path}), &columns);
    assert_eq!(place.import(&goods, &[]).json()["records"], 3);
    assert_eq!(
        place.value("a").trim(),
        r#"{"price":1.10,"rate":2.0,"n":5}"#
    );
    // A key that is a text is no key of bytes.
    database
        .execute_batch("DELETE FROM goods; INSERT INTO goods VALUES ('b', NULL, NULL, NULL)")
        .unwrap();
    place
        .import(&goods, &["--again"])
        .fails(1, "key \"b\", column 'id': it holds \"b\"");
}
