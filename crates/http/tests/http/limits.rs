//! More clients than there is room for.

use std::io::{BufReader, Write as _};

use onelog_http::HttpOptions;
use serde_json::json;

use crate::server::{Answer, Server};

#[test]
fn a_connection_over_the_limit_is_answered_when_to_come_back() {
    let server = Server::with(HttpOptions {
        max_connections: 2,
        ..HttpOptions::default()
    });
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
            .unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(Answer::read(&mut reader).status, 200);
        held.push(reader);
    }

    let refused = server.get("/healthz");

    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.refused(503, "overloaded");
    drop(held);
    while server.get("/healthz").status != 200 {}
}

#[test]
fn one_connection_serves_many_requests_also_when_they_are_sent_at_once() {
    let server = Server::with_tables();
    let mut stream = server.connect();
    let mut requests = Vec::new();
    for n in 0..50 {
        let body = json!({"writes": [{"op": "put", "table": "shop.orders", "key": format!("{n}"), "value": n}]}).to_string();
        requests.extend_from_slice(
            format!(
                "POST /v1/transactions HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }
    stream.write_all(&requests).unwrap();
    let mut reader = BufReader::new(stream);
    let mut last = 0;
    for _ in 0..50 {
        let position = Answer::read(&mut reader).expect(200)["position"]
            .as_u64()
            .unwrap();
        assert!(position > last, "one connection's transactions are ordered");
        last = position;
    }
}

#[test]
fn a_node_whose_queue_is_full_asks_to_come_back() {
    let server = Server::with_node(HttpOptions::default(), |options| {
        options.queue_bytes_max = 2_000
    });
    server.make_tables();
    let write =
        json!({"op": "put", "table": "shop.orders", "key": "a", "value": "v".repeat(2_000)});
    let answer = server.commit(&json!({"writes": [write]}));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let refused = answer.refused(503, "overloaded");
    assert!(refused["retry_after_ms"].as_u64().unwrap() >= 1);
    server.put("shop.orders", "a", json!("small"));
}

#[test]
fn a_request_that_takes_too_long_may_have_happened() {
    let options = HttpOptions {
        request_timeout_ms: 0,
        ..HttpOptions::default()
    };
    let server = Server::with(options);
    let table = onelog::NewTable::keyed("shop.orders");
    server.node.create_table_blocking(table).unwrap();
    let write = json!({"op": "put", "table": "shop.orders", "key": "a", "value": 1});
    // A commit that is done before the limit is looked at is answered even so: the next one is not.
    let refused = loop {
        let answer = server.commit(&json!({"writes": [write]}));
        if answer.status != 200 {
            break answer.refused(504, "request_timeout");
        }
    };
    assert!(refused["message"].as_str().unwrap().contains("same id"));
}

#[test]
fn large_bodies_share_one_bound_and_small_ones_pass_beside_them() {
    let server = Server::with(HttpOptions {
        bodies_bytes_max: 100_000,
        ..HttpOptions::default()
    });
    server.make_tables();
    let write = |length: usize| json!({"writes": [{"op": "put", "table": "shop.orders", "key": "a", "value": "v".repeat(length)}]});

    let answer = server.commit(&write(200_000));

    assert_eq!(answer.header("retry-after"), Some("1"));
    answer.refused(503, "overloaded");
    server.commit(&write(90_000)).expect(200);
    server.commit(&write(90_000)).expect(200);
}
