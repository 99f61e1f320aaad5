//! The form of rows: strings, hashes, documents, lifetimes.

use std::sync::Arc;

use onelog_mapping::{Plan, timestamp_text};
use onelog_record::TableId;
use onelog_store::Store;
use onelog_store::conformance::{self, Harness, LOG, Model, ORDERS, backfilled};
use onelog_testkit::{Kind, require};

use crate::harness::{OneServer, RedisShape};
use crate::repairs::differing;

pub(crate) const TYPED: &str = r#"{"table":"shop.orders","into":"orders","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
    "note":{"from":"/note","type":"text"},"price":{"from":"/price","type":"numeric"},
    "at":{"from":"/at","type":"timestamp"},"tags":{"from":"/tags","type":"text[]"},
    "more":{"from":"/more","type":"json"},"version":{"from":"$version","type":"integer"}}},
  {"table":"shop.blobs","into":"blobs","columns":{
    "k":{"from":"$key","type":"blob"},"v":{"from":"$value","type":"blob"}}}"#;
pub(crate) const ORDER: &str = r#"{"total":7,"note":"\"x\"\u0000","price":1.50,"at":"2026-11-22T20:00:00+01:00",
    "tags":["a",null],"more":{"b":[1,2]}}"#;

/// A store with one order and one blob.
pub(crate) fn typed(server: &OneServer) -> (Arc<Plan>, Box<dyn Store>, Model) {
    let plan = conformance::plan(server, TYPED);
    let mut model = Model::default();
    model.write(ORDERS, b"o1", Some(ORDER));
    model.write(ORDERS, b"o2", Some("{}"));
    model.write(TableId(1025), &[0xff, 0], Some("\u{0}bytes"));
    let mut store = server.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    (plan, store, model)
}

#[test]
fn a_row_as_a_string_is_a_json_object_of_its_columns() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let _store = typed(&server);
    assert_eq!(
        server.command(&["GET", "orders:o1"]).trim_end(),
        r#"{"id":"o1","total":7,"note":"\"x\"\u0000","price":"1.5","at":"2026-11-22T19:00:00Z","tags":["a",null],"more":{"b":[1,2]},"version":0}"#
            .replace("19:00:00Z", &timestamp_text(1_795_374_000_000_000)[11..])
    );
    assert_eq!(
        server.command(&["GET", "orders:o2"]).trim_end(),
        r#"{"id":"o2","total":null,"note":null,"price":null,"at":null,"tags":null,"more":null,"version":1}"#
    );
}

#[test]
fn a_row_as_a_hash_has_a_field_for_each_value() {
    require!(Kind::Redis);
    let server = OneServer::with(RedisShape::Hash, None);
    let _store = typed(&server);
    let get = |field| server.command(&["HGET", "orders:o1", field]);
    assert_eq!(get("price").trim_end(), "1.5");
    assert_eq!(get("tags").trim_end(), r#"["a",null]"#);
    assert_eq!(get("more").trim_end(), r#"{"b":[1,2]}"#);
    // Without a value there is no field, and the key alone makes the row.
    assert_eq!(
        server.command(&["HKEYS", "orders:o2"]).trim_end(),
        "id\nversion"
    );
}

#[test]
fn a_document_is_kept_byte_for_byte() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::plan(
        &server,
        r#"{"table":"shop.orders","into":"whole","key":"<{$key}>"}"#,
    );
    let mut model = Model::default();
    model.write(ORDERS, b"k", Some("{\"b\" : 1.50,\"a\":2}"));
    let mut store = server.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_eq!(
        server.command(&["GET", "<k>"]).trim_end(),
        "{\"b\" : 1.50,\"a\":2}"
    );
    // The same JSON written otherwise is no difference, another number is one.
    server.command(&["SET", "<k>", r#"{"a":2,"b":1.5}"#]);
    assert!(model.verify(&plan, store.as_mut()).equal);
    server.command(&["SET", "<k>", r#"{"a":2,"b":1.51}"#]);
    assert!(!model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn rows_with_a_lifetime_vanish_and_are_not_missed() {
    require!(Kind::Redis);
    for shape in [RedisShape::String, RedisShape::Hash] {
        let server = OneServer::with(shape, None);
        let plan = {
            let mut plan = Plan::clone(&conformance::standard_plan(&server));
            let options = &mut plan.mappings[0].options;
            *options = std::mem::take(options).with("ttl_seconds", 1000);
            Arc::new(plan)
        };
        let (mut store, mut model) = backfilled(&server, &plan);
        let life = |key| -> i64 { server.command(&["TTL", key]).trim().parse().unwrap() };
        assert!(
            (990..=1000).contains(&life("orders:a")),
            "of a first backfill"
        );
        let from = model.position();
        model.order("d", 4, "four");
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!((990..=1000).contains(&life("orders:d")), "of a batch");
        // Time passes: Redis takes them away.
        server.command(&["PEXPIRE", "orders:a", "0"]);
        server.command(&["PEXPIRE", "orders:d", "0"]);
        let found = model.verify(&plan, store.as_mut());
        assert!(found.equal, "{found:#?}");
        let table = &found.tables[0];
        assert_eq!((table.expired, table.differences_total), (2, 0));
        // A row that is there must be right, and no other may be there.
        server.command(&["RENAME", "orders:b", "orders:x"]);
        let found = model.verify(&plan, store.as_mut());
        assert!(!found.equal);
        assert_eq!(
            (found.tables[0].expired, differing(&found)),
            (3, vec![vec!["\"x\"".into()]])
        );
    }
}
