//! More clients than there is room for.

use std::io::{BufReader, Write as _};

use onelog_http::HttpOptions;
use serde_json::json;

use crate::server::{Answer, Server};

#[test]
fn a_connection_over_the_limit_is_told_to_come_back() {
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
