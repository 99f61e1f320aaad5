//! A refusal quotes what a client sent, and never repeats a long value.

use onelog_record::QUOTED_BYTES_MAX;
use serde_json::{Value, json};

use crate::server::Server;

/// What an answer may have besides what it quotes: its own sentence and fields, an example.
const SENTENCES_BYTES: usize = 2 << 10;
/// A message quotes a few things, and escapes may double them.
const QUOTES: usize = 6;

fn long() -> String {
    "ü\"".repeat(220_000)
}

fn is_short(server: &Server, path: &str, body: &Value, status: u16, code: &str) -> Value {
    let answer = server.post(path, body);
    let bytes = answer.body.len();
    let refused = answer.refused(status, code);
    let max = QUOTES * QUOTED_BYTES_MAX + SENTENCES_BYTES;
    let message = refused["message"].as_str().unwrap();
    let begins: String = message.chars().take(200).collect();
    assert!(bytes <= max, "{path} {code}: {bytes} bytes: {begins}");
    refused
}

fn transaction_is_refused(server: &Server, body: &Value, status: u16, code: &str) -> Value {
    is_short(server, "/v1/transactions", body, status, code)
}

fn put(table: &str, key: &str, value: &Value) -> Value {
    json!({"writes": [{"op": "put", "table": table, "key": key, "value": value}]})
}

#[test]
fn a_unique_value_of_a_megabyte_is_quoted_by_its_beginning() {
    let server = Server::with_tables();
    let table = json!({"name": "shop.users", "unique": ["/email"]});
    server.post("/v1/tables", &table).expect(201);
    let user = json!({"email": long()});
    server.put("shop.users", "a", user.clone());
    let body = put("shop.users", "b", &user);
    let refused = transaction_is_refused(&server, &body, 409, "not_unique");
    assert_eq!(refused["owner"], "a");
    assert!(refused.get("value").is_none(), "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("\"ü\\\"ü"), "{message}");
    // A short one is there as it is.
    server.put("shop.users", "c", json!({"email": "c@example.org"}));
    let body = put("shop.users", "d", &json!({"email": "c@example.org"}));
    let refused = transaction_is_refused(&server, &body, 409, "not_unique");
    assert_eq!(refused["value"], "c@example.org");
}

#[test]
fn a_value_that_breaks_a_schema_is_quoted_by_its_beginning() {
    let server = Server::with_tables();
    let options: Vec<String> = (0..10_000).map(|n| format!("option {n}")).collect();
    let (name, text) = (long(), long());
    for (n, (schema, value)) in [
        (
            json!({"properties": {"n": {"type": "integer"}}}),
            json!({"n": text}),
        ),
        (
            json!({"properties": {"n": {"anyOf": [{"type": "integer"}, {"maxLength": 3}]}}}),
            json!({"n": text}),
        ),
        (
            json!({"properties": {"n": {"enum": options}}}),
            json!({"n": text}),
        ),
        (
            json!({"properties": {"n": {"const": 5}}}),
            json!({"n": text}),
        ),
        (
            json!({"properties": {"n": {"pattern": "^a+$"}}}),
            json!({"n": text}),
        ),
        (
            json!({"additionalProperties": false}),
            json!({name.as_str(): 1}),
        ),
        (
            json!({"additionalProperties": {"type": "string"}}),
            json!({name.as_str(): 1}),
        ),
        (
            json!({"propertyNames": {"maxLength": 5}}),
            json!({name.as_str(): 1}),
        ),
        (json!({"uniqueItems": true}), json!([text, 1, 1])),
        (json!({"required": ["x"]}), json!({"n": text})),
        (json!({"not": {}}), json!(text)),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("shop.schema{n}");
        let definition = json!({"name": table, "schema": schema});
        server.post("/v1/tables", &definition).expect(201);
        transaction_is_refused(&server, &put(&table, "a", &value), 422, "schema");
    }
    // Beside a number that is compared by its digits.
    let body = format!(
        r#"{{"writes":[{{"op":"put","table":"shop.schema0","key":"a","value":{{"n":{},"m":12345678901234567.89}}}}]}}"#,
        json!(text)
    );
    let answer = server.send("POST", "/v1/transactions", &[], body.as_bytes());
    let bytes = answer.body.len();
    answer.refused(422, "schema");
    assert!(bytes < QUOTED_BYTES_MAX + SENTENCES_BYTES, "{bytes}");
}

#[test]
fn what_is_wrong_with_a_transaction_is_quoted_by_its_beginning() {
    let server = Server::with_tables();
    let text = long();
    server.put("shop.orders", "text", json!({"n": text}));
    let write = |more: Value| {
        let mut write = json!({"op": "put", "table": "shop.orders", "key": "a", "value": 1});
        for (name, value) in more.as_object().unwrap() {
            write[name] = value.clone();
        }
        json!({"writes": [write]})
    };
    let malformed = [
        json!({"id": text, "writes": []}),
        json!({"read_position": text, "writes": []}),
        json!({"writes": text}),
        json!({"guards": text}),
        json!({"wait_timeout_ms": text}),
        json!({text.as_str(): 1}),
        write(json!({"op": text})),
        write(json!({"key": {"base64": text}})),
        write(json!({"key": {text.as_str(): 1}})),
        write(json!({"headers": text})),
        write(json!({text.as_str(): 1})),
        json!({"writes": [{"op": "add", "table": "shop.orders", "key": "a", "by": text}]}),
        json!({"writes": [{"op": "add", "table": "shop.orders", "key": "a", "by": 1, "field": format!("/~{text}")}]}),
        json!({"writes": [{"op": "put", "table": "shop.blobs", "key": "a", "value": {"base64": text}}]}),
        json!({"writes": [{"op": "put", "table": "shop.blobs", "key": "a", "value": {text.as_str(): 1}}]}),
        json!({"guards": [{"table": "shop.orders", "key": "a", "version": text}]}),
        json!({"guards": [{"table": "shop.orders", "key": "a", "exists": text}]}),
        json!({"reads": [{"table": "shop.orders", "key": "a", "prefix": text, "from": 1}], "read_position": 1}),
    ];
    for body in malformed {
        transaction_is_refused(&server, &body, 422, "malformed");
    }
    transaction_is_refused(
        &server,
        &write(json!({"table": text})),
        422,
        "unknown_table",
    );
    let reserved = write(json!({"table": format!("onelog.{text}")}));
    transaction_is_refused(&server, &reserved, 403, "reserved_table");
    let add = json!({"writes": [{"op": "add", "table": "shop.orders", "key": "text", "field": "/n", "by": 1}]});
    transaction_is_refused(&server, &add, 422, "bad_operation");
    // What a guard met is the answer to it; the message only refers to it.
    let guard = json!({"guards": [{"table": "shop.orders", "key": "text", "absent": true}]});
    let refused = server
        .post("/v1/transactions", &guard)
        .refused(412, "guard_failed");
    assert_eq!(refused["met"]["n"], text);
    assert!(refused["message"].as_str().unwrap().len() < SENTENCES_BYTES);
    // Two fields and two headers of one long name.
    for twice in [
        r#""value":{NAME:1,NAME:2}"#,
        r#""value":1,"headers":{NAME:"a",NAME:"b"}"#,
    ] {
        let twice = twice.replace("NAME", &json!(text).to_string());
        let body =
            format!(r#"{{"writes":[{{"op":"put","table":"shop.orders","key":"a",{twice}}}]}}"#);
        let answer = server.send("POST", "/v1/transactions", &[], body.as_bytes());
        let bytes = answer.body.len();
        answer.refused(422, "malformed");
        assert!(bytes < QUOTES * QUOTED_BYTES_MAX, "{bytes}");
    }
}

#[test]
fn what_is_wrong_with_a_definition_is_quoted_by_its_beginning() {
    let server = Server::with_tables();
    let text = long();
    for body in [
        json!({"name": text}),
        json!({"name": "shop.a", "kind": text}),
        json!({"name": "shop.a", "value": text}),
        json!({"name": "shop.a", "unique": text}),
        json!({"name": "shop.a", "unique": [format!("/~{text}")]}),
        json!({"name": "shop.a", text.as_str(): 1}),
        json!({"name": "shop.a", "schema": {"type": text}}),
        json!({"name": "shop.a", "schema": {"$ref": format!("#/{text}")}}),
        json!({"name": "shop.a", "schema": {"$ref": format!("http://example.org/{text}")}}),
        json!({"name": "shop.a", "schema": {"pattern": format!("({text}")}}),
        json!({"name": "shop.a", "schema": text}),
    ] {
        is_short(&server, "/v1/tables", &body, 422, "malformed");
    }
    let sink = |more: Value| {
        let mut sink = json!({"name": "s", "kind": "sqlite", "path": "s.db",
            "mappings": [{"table": "shop.orders", "into": "orders"}]});
        for (name, value) in more.as_object().unwrap() {
            sink[name] = value.clone();
        }
        sink
    };
    let mapping = |more: Value| {
        let mut mapping = json!({"table": "shop.orders", "into": "orders"});
        for (name, value) in more.as_object().unwrap() {
            mapping[name] = value.clone();
        }
        sink(json!({"mappings": [mapping]}))
    };
    for body in [
        sink(json!({"name": text})),
        sink(json!({"kind": text})),
        sink(json!({"path": [text]})),
        sink(json!({text.as_str(): 1})),
        sink(json!({"mappings": text})),
        sink(json!({"on_refused": text})),
        mapping(json!({"table": text})),
        mapping(json!({"into": text})),
        mapping(json!({"where": text})),
        mapping(json!({"transform": format!("\"{}", "x".repeat(600_000))})),
        mapping(json!({"fields": [format!("/~{text}")]})),
        mapping(json!({"columns": {text.as_str(): {"from": "/a"}}})),
        mapping(json!({"columns": {"id": {"from": "$key", "type": text}}})),
        mapping(json!({"key": format!("{{{text}")})),
        mapping(json!({text.as_str(): 1})),
    ] {
        is_short(&server, "/v1/sinks", &body, 422, "malformed");
    }
}
