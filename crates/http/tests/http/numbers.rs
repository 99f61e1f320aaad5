//! Numbers that no float holds, over HTTP: what is sent is what is kept, compared and answered.

use serde_json::json;

use crate::server::{Answer, Server};

const ORDER: &str =
    r#"{"count":1,"total":12345678901234567.89,"wei":10000000000000000000000001,"price":1.10}"#;

fn commit(server: &Server, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    server.send("POST", "/v1/transactions", &headers, body.as_bytes())
}

fn write(op: &str, rest: &str) -> String {
    format!(r#"{{"writes":[{{"op":"{op}","table":"shop.orders","key":"a",{rest}}}]}}"#)
}

fn with_order() -> Server {
    let server = Server::with_tables();
    commit(&server, &write("put", &format!(r#""value":{ORDER}"#))).expect(200);
    server
}

fn value(server: &Server) -> String {
    let answer = server.get("/v1/tables/shop.orders/keys/a");
    answer.text().trim_end().to_owned()
}

#[test]
fn what_an_operation_does_not_name_keeps_every_digit() {
    let server = with_order();
    commit(&server, &write("add", r#""field":"/count","by":1"#)).expect(200);
    commit(&server, &write("max", r#""field":"/count","by":0"#)).expect(200);
    let counted = ORDER.replace(r#""count":1"#, r#""count":2"#);
    assert_eq!(value(&server), counted);

    let tag = r#""field":"/tags","value":{"rate":1.2345678901234567890}"#;
    commit(&server, &write("append", tag)).expect(200);
    let tags = r#","tags":[{"rate":1.2345678901234567890}]}"#;
    assert_eq!(
        value(&server),
        format!("{}{tags}", counted.trim_end_matches('}'))
    );
}

#[test]
fn what_an_operation_names_is_exact_or_refused() {
    let server = with_order();
    commit(&server, &write("add", r#""field":"/total","by":0.02"#)).expect(200);
    commit(
        &server,
        &write("max", r#""field":"/wei","by":10000000000000000000000002"#),
    )
    .expect(200);
    commit(&server, &write("add", r#""field":"/price","by":0.90"#)).expect(200);
    let expected = ORDER
        .replace("567.89", "567.91")
        .replace("0001,", "0002,")
        .replace("1.10", "2.00");
    assert_eq!(value(&server), expected);
    let refused = commit(&server, &write("add", r#""field":"/wei","by":1"#));
    let refused = refused.refused(422, "bad_operation");
    assert!(refused["message"].as_str().unwrap().contains("64 bits"));
    assert_eq!(value(&server), expected);
}

#[test]
fn a_guard_compares_exactly_and_shows_what_it_met() {
    let server = with_order();
    let guard = |compare: &str| {
        let guard = r#"{"table":"shop.orders","key":"a","field":"/total""#;
        commit(
            &server,
            &format!(r#"{{"guards":[{guard},{compare}}}],"writes":[]}}"#),
        )
    };
    guard(r#""eq":12345678901234567.890"#).expect(200);
    guard(r#""lt":12345678901234567.90"#).expect(200);
    let failed = guard(r#""ge":12345678901234567.90"#);
    failed.refused(412, "guard_failed");
    assert!(failed.text().contains(ORDER), "{}", failed.text());
}

#[test]
fn a_unique_field_and_a_schema_see_every_digit() {
    let server = Server::start();
    let table = json!({"name": "shop.orders", "kind": "keyed", "value": "json",
        "unique": ["/wei"], "schema": {"properties": {"total": {"maximum": 12345678901234568_u64}}}});
    server.post("/v1/tables", &table).expect(201);
    let put = |key: &str, value: &str| {
        let write =
            format!(r#"{{"op":"put","table":"shop.orders","key":"{key}","value":{value}}}"#);
        commit(&server, &format!(r#"{{"writes":[{write}]}}"#))
    };
    put("a", ORDER).expect(200);
    put("b", &ORDER.replace("0001,", "0002,")).expect(200);
    let taken = put("c", &ORDER.replace("0001,", "0001.0,"));
    taken.refused(409, "not_unique");
    assert!(
        taken.text().contains("10000000000000000000000001.0"),
        "{}",
        taken.text()
    );
    let broken = put("d", r#"{"total":12345678901234568.01}"#).refused(422, "schema");
    assert!(
        broken["message"]
            .as_str()
            .unwrap()
            .contains("12345678901234568.01")
    );
    put("d", r#"{"total":12345678901234568.00}"#).expect(200);
}

#[test]
fn a_schema_whose_numbers_would_be_rounded_is_refused() {
    let server = Server::start();
    let body = r#"{"name":"shop.orders","kind":"keyed","value":"json","schema":{"maximum":12345678901234567.89}}"#;
    let headers = [("content-type", "application/json")];
    let answer = server.send("POST", "/v1/tables", &headers, body.as_bytes());
    let refused = answer.refused(422, "malformed");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("12345678901234567.89")
    );
}
