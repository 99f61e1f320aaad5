//! Clumsy and hostile requests: a clear 4xx, and all other clients are served on.

use std::io::{BufReader, Write as _};

use onelog_http::HttpOptions;
use serde_json::json;

use crate::server::{Answer, Server};

#[test]
fn what_is_no_route_or_no_method_is_answered_as_json() {
    let server = Server::with_tables();
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/tables/a/keys/b/c",
        "/v2/transactions",
    ] {
        let refused = server.get(path).refused(404, "not_found");
        assert!(refused["message"].as_str().unwrap().contains(path));
    }
    for (method, path, allowed) in [
        ("GET", "/v1/transactions", "POST"),
        ("PUT", "/v1/tables/shop.orders/keys/a", "GET,HEAD"),
        ("POST", "/v1/log", "GET,HEAD"),
        ("PATCH", "/v1/tables/shop.orders", "GET,HEAD,DELETE"),
        ("DELETE", "/healthz", "GET,HEAD"),
        ("OPTIONS", "/v1/sinks", "POST,GET,HEAD"),
    ] {
        let answer = server.send(method, path, &[], b"");
        answer.refused(405, "method_not_allowed");
        let mut found: Vec<&str> = answer.header("allow").unwrap().split(',').collect();
        let mut wanted: Vec<&str> = allowed.split(',').collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{method} {path}");
    }
}

#[test]
fn malformed_bodies_are_refused_with_the_place_and_the_server_goes_on() {
    let server = Server::with_tables();
    let write = |inner: &str| {
        format!(r#"{{"writes":[{{"op":"put","table":"shop.orders","key":"k",{inner}}}]}}"#)
    };
    let deep = |n: usize| "[".repeat(n);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "body"),
        (b"\0\0\0\0".to_vec(), "body"),
        (b"{\"writes\":[{\"op\":\"p\xff\"}]}".to_vec(), "body"),
        (b"null".to_vec(), "body"),
        (b"[1,2,3]".to_vec(), "body"),
        (b"\"text\"".to_vec(), "body"),
        (b"{\"writes\":".to_vec(), "writes"),
        (b"{\"writes\":\"all\"}".to_vec(), "writes"),
        (b"{\"writes\":[[]]}".to_vec(), "writes[0]"),
        (b"{\"writes\":[{}]} trailing".to_vec(), "writes[0]"),
        (b"{\"writes\":[],\"writes\":[]}".to_vec(), "writes"),
        (deep(1_000_000).into_bytes(), "body"),
        (
            format!("{{\"writes\":{}", deep(1_000_000)).into_bytes(),
            "writes[0]",
        ),
        (
            write(&format!(
                "\"value\":{}{}",
                deep(100_000),
                "]".repeat(100_000)
            ))
            .into_bytes(),
            "writes[0].value",
        ),
        (
            write(&format!("\"value\":{}", deep(100_000))).into_bytes(),
            "writes[0].value",
        ),
        (write(r#""value":1e999"#).into_bytes(), "writes[0].value"),
        (write(r#""value":"\ud800""#).into_bytes(), "writes[0].value"),
        (
            write(r#""value":{"a":1,"a":2}"#).into_bytes(),
            "writes[0].value",
        ),
        (
            write(r#""value":1,"key":"again""#).into_bytes(),
            "writes[0].key",
        ),
        (
            write(r#""value":1,"headers":{"h":1}"#).into_bytes(),
            "writes[0].headers",
        ),
        (write(r#""value":01"#).into_bytes(), "writes[0].value"),
    ];
    for (body, place) in cases {
        let answer = server.send("POST", "/v1/transactions", &[], &body);
        let refused = answer.refused(422, "malformed");
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(refused["where"], place, "{shown}: {refused}");
        assert!(answer.body.len() < 2_000, "{shown}");
    }
    server.put("shop.orders", "still", json!("here"));
}

#[test]
fn a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not() {
    let server = Server::with_tables();
    let body = vec![b' '; onelog::record::HTTP_BODY_BYTES_MAX + 1];
    let refused = server
        .send("POST", "/v1/transactions", &[], &body)
        .refused(413, "too_large");
    assert_eq!(refused["limit"], "HTTP_BODY_BYTES_MAX");
    assert_eq!(
        (&refused["is"], &refused["max"]),
        (&json!(body.len()), &json!(body.len() - 1))
    );

    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /v1/transactions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
    for chunk in body.chunks(1 << 20) {
        stream
            .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
            .unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    Answer::read(&mut BufReader::new(stream)).refused(413, "too_large");

    let exact = vec![b' '; onelog::record::HTTP_BODY_BYTES_MAX];
    server
        .send("POST", "/v1/transactions", &[], &exact)
        .refused(422, "malformed");
}

#[test]
fn what_is_not_http_ends_only_its_own_connection() {
    let server = Server::with_tables();
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "h".repeat(2 << 20));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET /\r\n\r\n",
        b"POST /v1/transactions HTTP/1.1\r\nhost: t\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/transactions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        huge.as_bytes(),
    ] {
        let mut stream = server.connect();
        // The server may close before everything is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        assert!(
            !answer.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    server.put("shop.orders", "still", json!("here"));
}

#[test]
fn a_client_that_does_not_finish_its_body_is_answered_and_let_go() {
    let server = Server::with(HttpOptions {
        body_timeout_ms: 50,
        ..HttpOptions::default()
    });
    let answer = server
        .raw(b"POST /v1/transactions HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{\"writ");
    let refused = answer.refused(408, "body_timeout");
    assert_eq!(refused["timeout_ms"], 50);
}

#[test]
fn a_client_that_does_not_finish_its_head_is_let_go() {
    let server = Server::with(HttpOptions {
        header_timeout_ms: 50,
        ..HttpOptions::default()
    });
    let mut stream = server.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost").unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}

#[test]
fn a_client_that_goes_away_in_the_middle_harms_nobody() {
    let server = Server::with_tables();
    for _ in 0..20 {
        let mut stream = server.connect();
        stream
            .write_all(
                b"POST /v1/transactions HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\n{",
            )
            .unwrap();
        drop(stream);
        drop(server.follow("/v1/log", &[]));
    }
    server.put("shop.orders", "still", json!("here"));
}
