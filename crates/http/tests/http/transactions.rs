//! `POST /v1/transactions`: every answer.

use onelog_http::HttpOptions;
use serde_json::{Value, json};

use crate::server::Server;

fn put(key: &str, value: Value) -> Value {
    json!({"op": "put", "table": "shop.orders", "key": key, "value": value})
}

#[test]
fn a_transaction_is_committed_and_its_id_repeats_the_answer() {
    let server = Server::with_tables();
    let id = "01900000-0000-7000-8000-000000000001";
    let transaction = json!({"id": id, "writes": [put("a", json!(1)), put("b", json!({"n": 2}))]});

    let answer = server.commit(&transaction).expect(200);

    let position = answer["position"].as_u64().unwrap();
    assert_eq!(answer["id"], id);
    assert_eq!(answer["offsets"], json!([position - 2, position - 1]));
    assert_eq!(answer.get("repeated"), None);
    let again = server.commit(&transaction).expect(200);
    assert_eq!(again["repeated"], true);
    assert_eq!(again["position"], answer["position"]);
    assert_eq!(again["offsets"], answer["offsets"]);
    let other = json!({"id": id, "writes": [put("a", json!(5))]});
    let refused = server.commit(&other).refused(409, "id_mismatch");
    assert_eq!(
        (&refused["id"], &refused["position"]),
        (&json!(id), &json!(position))
    );
}

#[test]
fn an_id_is_made_where_none_is_given() {
    let server = Server::with_tables();
    let answer = server
        .commit(&json!({"writes": [put("a", json!(1))]}))
        .expect(200);
    assert_eq!(answer["id"].as_str().unwrap().len(), 36);
}

#[test]
fn a_read_that_was_overtaken_is_a_conflict_that_says_where_to_go_on() {
    let server = Server::with_tables();
    let position = server.put("shop.orders", "a", json!(1));
    let overtaking = server.put("shop.orders", "a", json!(2));

    let write = put("b", json!(1));
    let point = json!({"read_position": position, "reads": [{"table": "shop.orders", "key": "z"}, {"table": "shop.orders", "key": "a"}], "writes": [write]});
    let conflict = server.commit(&point).refused(409, "conflict");

    assert_eq!(conflict["where"], "reads[1]");
    assert_eq!(
        (&conflict["table"], &conflict["key"]),
        (&json!("shop.orders"), &json!("a"))
    );
    assert_eq!(conflict["version"], overtaking - 1);
    let retry_at = conflict["retry_at"].as_u64().unwrap();
    assert!(retry_at >= overtaking);
    for range in [
        json!({"table": "shop.orders", "prefix": ""}),
        json!({"table": "shop.orders", "from": "a", "to": "b"}),
    ] {
        let scanned =
            json!({"read_position": position, "reads": [range], "writes": [put("b", json!(1))]});
        assert_eq!(
            server.commit(&scanned).refused(409, "conflict")["where"],
            "reads[0]"
        );
    }
    let mut retried = point;
    retried["read_position"] = json!(retry_at);
    server.commit(&retried).expect(200);
}

#[test]
fn a_guard_that_does_not_hold_shows_what_it_met() {
    let server = Server::with_tables();
    let position = server.put("shop.orders", "a", json!({"n": 5}));
    server.commit(&json!({"writes": [{"op": "put", "table": "shop.blobs", "key": "b", "value": {"base64": "AP8="}}]})).expect(200);
    let guarded = |guard: Value| {
        let writes = [put("c", json!(1))];
        server.commit(&json!({"guards": [{"table": "shop.orders", "key": "a", "exists": true}, guard], "writes": writes}))
    };

    let met = guarded(json!({"table": "shop.orders", "key": "a", "field": "/n", "lt": 5}))
        .refused(412, "guard_failed");
    assert_eq!(met["guard"], 1);
    assert_eq!(met["where"], "guards[1]");
    assert_eq!(
        (&met["table"], &met["key"]),
        (&json!("shop.orders"), &json!("a"))
    );
    assert_eq!(met["met"], json!({"n": 5}));
    assert_eq!(met["version"], position - 1);
    assert!(met["retry_at"].as_u64().unwrap() >= position);

    let met = guarded(json!({"table": "shop.blobs", "key": "b", "absent": true}))
        .refused(412, "guard_failed");
    assert_eq!(met["met"], json!({"base64": "AP8="}));

    let met = guarded(json!({"table": "shop.orders", "key": "none", "exists": true}))
        .refused(412, "guard_failed");
    assert_eq!((&met["met"], &met["version"]), (&Value::Null, &Value::Null));
    assert!(met["message"].as_str().unwrap().contains("no value"));

    guarded(json!({"table": "shop.orders", "key": "a", "version": position - 1})).expect(200);
}

#[test]
fn a_unique_field_names_the_owner() {
    let server = Server::start();
    let table =
        json!({"name": "shop.users", "kind": "keyed", "value": "json", "unique": ["/email"]});
    server.post("/v1/tables", &table).expect(201);
    server.put("shop.users", "u1", json!({"email": "a@example.org"}));

    let write = json!({"op": "put", "table": "shop.users", "key": "u2", "value": {"email": "a@example.org"}});
    let refused = server
        .commit(&json!({"writes": [write]}))
        .refused(409, "not_unique");

    assert_eq!(refused["where"], "writes[0]");
    assert_eq!(
        (&refused["table"], &refused["key"]),
        (&json!("shop.users"), &json!("u2"))
    );
    assert_eq!(
        (&refused["field"], &refused["value"], &refused["owner"]),
        (&json!("/email"), &json!("a@example.org"), &json!("u1"))
    );
}

#[test]
fn the_offsets_are_those_of_the_clients_own_writes() {
    let server = Server::start();
    let table =
        json!({"name": "shop.users", "kind": "keyed", "value": "json", "unique": ["/email"]});
    server.post("/v1/tables", &table).expect(201);
    let write = |key: &str| json!({"op": "put", "table": "shop.users", "key": key, "value": {"email": key}});

    let answer = server
        .commit(&json!({"writes": [write("u1"), write("u2")]}))
        .expect(200);

    let lines = server.get("/v1/log?table=shop.users").lines();
    let logged: Vec<&Value> = lines.iter().map(|line| &line["offset"]).collect();
    assert_eq!(answer["offsets"], json!(logged));
}

#[test]
fn every_operation_leaves_its_after_image() {
    let server = Server::with_tables();
    let on = |op: &str, rest: Value| {
        let mut write = json!({"op": op, "table": "shop.orders", "key": "a"});
        write
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        server.commit(&json!({"writes": [write]}))
    };
    on("put", json!({"value": {"n": 1, "tags": ["x"]}})).expect(200);
    on("add", json!({"field": "/n", "by": 4})).expect(200);
    on("min", json!({"field": "/low", "by": 2.5})).expect(200);
    on("max", json!({"field": "/n", "by": 3})).expect(200);
    on("append", json!({"field": "/tags", "value": {"y": 1}})).expect(200);
    let value = server.get("/v1/tables/shop.orders/keys/a").expect(200);
    assert_eq!(value, json!({"n": 5, "tags": ["x", {"y": 1}], "low": 2.5}));

    let refused = on("add", json!({"field": "/tags", "by": 1})).refused(422, "bad_operation");
    assert_eq!(refused["where"], "writes[0]");

    on("delete", json!({})).expect(200);
    server
        .get("/v1/tables/shop.orders/keys/a")
        .refused(404, "key_not_found");

    let blob = |op: &str, value: Value| {
        server.commit(
            &json!({"writes": [{"op": op, "table": "shop.blobs", "key": "b", "value": value}]}),
        )
    };
    blob("put", json!("ab")).expect(200);
    blob("append", json!({"base64": "/w=="})).expect(200);
    assert_eq!(server.get("/v1/tables/shop.blobs/keys/b").body, b"ab\xff");
}

#[test]
fn a_value_that_breaks_the_schema_is_refused() {
    let server = Server::start();
    let table = json!({"name": "shop.users", "kind": "keyed", "value": "json", "schema": {"type": "object", "required": ["email"]}});
    server.post("/v1/tables", &table).expect(201);
    let write = json!({"op": "put", "table": "shop.users", "key": "u", "value": {"mail": 1}});
    let refused = server
        .commit(&json!({"writes": [write]}))
        .refused(422, "schema");
    assert_eq!(refused["where"], "writes[0]");
    assert!(refused["message"].as_str().unwrap().contains("email"));
}

#[test]
fn a_position_that_is_not_there_yet_cannot_have_been_read() {
    let server = Server::with_tables();
    let read = json!({"read_position": 1_000_000, "reads": [{"table": "shop.orders", "key": "a"}]});
    let refused = server.commit(&read).refused(422, "position_in_future");
    assert_eq!(refused["where"], "read_position");
    assert_eq!(refused["latest"], server.node.position().get());
}

#[test]
fn an_unknown_table_is_refused_with_the_nearest_name_and_nothing_is_made() {
    let server = Server::with_tables();
    let write = json!({"op": "put", "table": "shop.order", "key": "a", "value": 1});
    let refused = server
        .commit(&json!({"writes": [put("a", json!(1)), write]}))
        .refused(422, "unknown_table");
    assert_eq!(refused["where"], "writes[1].table");
    assert_eq!(
        (&refused["table"], &refused["nearest"]),
        (&json!("shop.order"), &json!("shop.orders"))
    );
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("did you mean 'shop.orders'")
    );
    server
        .get("/v1/tables/shop.orders/keys/a")
        .refused(404, "key_not_found");
}

#[test]
fn with_create_tables_a_write_makes_its_table() {
    let server = Server::with(HttpOptions {
        create_tables: true,
        ..HttpOptions::default()
    });
    let write = |table: &str| json!({"op": "put", "table": table, "key": "k", "value": {"a": 1}});
    let guard = json!({"table": "new.two", "key": "k", "absent": true});

    server
        .commit(&json!({"guards": [guard], "writes": [write("new.one"), write("new.two")]}))
        .expect(200);

    assert_eq!(
        server.get("/v1/tables/new.two/keys/k").expect(200),
        json!({"a": 1})
    );
    let made = server.get("/v1/tables/new.one").expect(200);
    assert_eq!(
        (&made["kind"], &made["value"]),
        (&json!("keyed"), &json!("json"))
    );
    let refused = server
        .commit(&json!({"writes": [write("no name")]}))
        .refused(422, "malformed");
    assert_eq!(refused["where"], "writes[0].table");
    let many: Vec<Value> = (0..100).map(|n| write(&format!("many.t{n}"))).collect();
    server
        .commit(&json!({"writes": many}))
        .refused(422, "unknown_table");
    server
        .commit(&json!({"writes": [write("onelog.tables")]}))
        .refused(403, "reserved_table");
}

#[test]
fn the_tables_of_onelog_can_be_read_but_not_written() {
    let server = Server::with_tables();
    let write = json!({"op": "delete", "table": "onelog.tables", "key": "shop.orders"});
    let refused = server
        .commit(&json!({"writes": [write]}))
        .refused(403, "reserved_table");
    assert_eq!(refused["where"], "writes[0].table");
    let definition = server
        .get("/v1/tables/onelog.tables/keys/shop.orders")
        .expect(200);
    assert_eq!(definition["name"], "shop.orders");
}

#[test]
fn headers_travel_with_their_record() {
    let server = Server::with_tables();
    let mut write = put("a", json!(1));
    write["headers"] = json!({"source": "test", "raw": {"base64": "/w=="}});
    server.commit(&json!({"writes": [write]})).expect(200);
    let line = &server.get("/v1/log?table=shop.orders").lines()[0];
    assert_eq!(
        line["headers"],
        json!({"source": "test", "raw": {"base64": "/w=="}})
    );
}

#[test]
fn a_stream_table_takes_events_and_nothing_else() {
    let server = Server::with_tables();
    let write = |op: &str, rest: Value| {
        let mut write = json!({"op": op, "table": "shop.clicks", "key": "k"});
        write
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        server.commit(&json!({"writes": [write]}))
    };
    write("put", json!({"value": {"x": 1}})).expect(200);
    write("delete", json!({})).refused(422, "bad_operation");
    let line = &server.get("/v1/log?table=shop.clicks").lines()[0];
    assert_eq!(
        (&line["op"], &line["value"]),
        (&json!("event"), &json!({"x": 1}))
    );
}

#[test]
fn limits_are_named_with_what_is_and_what_may_be() {
    let server = Server::with_tables();
    let key = "k".repeat(onelog::record::KEY_BYTES_MAX + 1);
    let value = "v".repeat(onelog::record::VALUE_BYTES_MAX);
    let writes = vec![put("a", json!("v".repeat(onelog::record::VALUE_BYTES_MAX - 2))); 9];
    for (writes, limit) in [
        (vec![put(&key, json!(1))], "KEY_BYTES_MAX"),
        (vec![put("a", json!(value))], "VALUE_BYTES_MAX"),
        (writes, "TRANSACTION_BYTES_MAX"),
        (vec![put("a", json!(1)); 10_001], "RECORDS_MAX"),
    ] {
        let refused = server
            .commit(&json!({"writes": writes}))
            .refused(413, "too_large");
        assert_eq!(refused["limit"], limit);
        assert!(
            refused["is"].as_u64() > refused["max"].as_u64(),
            "{refused}"
        );
    }
}
