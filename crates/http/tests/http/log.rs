//! `GET /v1/log`: lines and events.

use onelog_http::HttpOptions;
use serde_json::{Value, json};

use crate::server::Server;

fn put(table: &str, key: &str) -> Value {
    json!({"op": "put", "table": table, "key": key, "value": {"k": key}})
}

fn offsets(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["offset"].as_u64().unwrap())
        .collect()
}

#[test]
fn every_record_is_one_line_in_order() {
    let server = Server::with_tables();
    let first = server.node.position().get();
    let body = b"{\"writes\":[{\"op\":\"put\",\"table\":\"shop.orders\",\"key\":\"a\",\"value\":[1,\n2]},{\"op\":\"delete\",\"table\":\"shop.orders\",\"key\":\"b\"}]}";
    let committed = server
        .send("POST", "/v1/transactions", &[], body)
        .expect(200);

    let answer = server.get(&format!("/v1/log?from={first}"));

    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let lines = answer.lines();
    assert_eq!(offsets(&lines), [first, first + 1]);
    for line in &lines {
        assert_eq!(line["id"], committed["id"]);
        assert_eq!(line["position"], committed["position"]);
        assert_eq!(line["table"], "shop.orders");
        assert!(line["timestamp_ms"].as_u64().unwrap() > 1_600_000_000_000);
    }
    assert_eq!(
        (&lines[0]["op"], &lines[0]["value"]),
        (&json!("put"), &json!([1, 2]))
    );
    assert_eq!(
        (&lines[1]["op"], lines[1].get("value")),
        (&json!("delete"), None)
    );
    assert_eq!(
        server.get("/v1/log?from=latest").lines(),
        Vec::<Value>::new()
    );
    assert_eq!(server.get("/v1/log").lines()[0]["offset"], 0);
}

#[test]
fn lines_go_on_behind_any_offset() {
    let server = Server::with_tables();
    let first = server.node.position().get();
    for n in 0..5 {
        let writes = [
            put("shop.orders", &format!("{n}a")),
            put("shop.clicks", &format!("{n}b")),
        ];
        server.commit(&json!({"writes": writes})).expect(200);
    }
    let mut seen = Vec::new();
    let mut from = first;
    loop {
        let lines = server.get(&format!("/v1/log?from={from}&limit=3")).lines();
        assert!(lines.len() <= 3);
        let Some(last) = offsets(&lines).last().copied() else {
            break;
        };
        seen.extend(offsets(&lines));
        from = last + 1;
    }
    assert_eq!(seen, (first..first + 10).collect::<Vec<_>>());
    let orders = server
        .get(&format!("/v1/log?from={first}&table=shop.orders"))
        .lines();
    assert_eq!(
        offsets(&orders),
        (0..5).map(|n| first + 2 * n).collect::<Vec<_>>()
    );
}

#[test]
fn a_log_of_many_batches_is_streamed_whole() {
    let server = Server::with_tables();
    let first = server.node.position().get();
    let value = "v".repeat(50_000);
    for n in 0..60 {
        server.put("shop.orders", &format!("{n}"), json!(value));
    }
    let lines = server.get(&format!("/v1/log?from={first}")).lines();
    assert_eq!(offsets(&lines), (first..first + 60).collect::<Vec<_>>());
}

#[test]
fn a_deleted_table_still_has_its_name() {
    let server = Server::with_tables();
    server.put("shop.orders", "a", json!(1));
    server
        .send("DELETE", "/v1/tables/shop.orders", &[], b"")
        .expect(200);
    let lines = server.get("/v1/log").lines();
    assert!(
        lines
            .iter()
            .any(|line| line["table"] == "shop.orders" && line["key"] == "a")
    );
}

#[test]
fn what_cannot_be_requested_of_the_log_says_why() {
    let server = Server::with_tables();
    for (query, place) in [
        ("from=x", "from"),
        ("from=-1", "from"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("form=1", "query"),
    ] {
        let refused = server
            .get(&format!("/v1/log?{query}"))
            .refused(422, "malformed");
        assert_eq!(refused["where"], place, "{query}");
    }
    let refused = server
        .get("/v1/log?from=1000000")
        .refused(422, "position_in_future");
    assert_eq!(refused["latest"], server.node.position().get());
    let events = [("accept", "text/event-stream"), ("last-event-id", "x")];
    let refused = server
        .send("GET", "/v1/log", &events, b"")
        .refused(422, "malformed");
    assert_eq!(refused["where"], "Last-Event-ID");
}

#[test]
fn events_follow_the_log_as_it_grows() {
    let server = Server::with_tables();
    let first = server.put("shop.orders", "a", json!(1));
    let mut events = server.follow(&format!("/v1/log?from={}", first - 1), &[]);
    assert_eq!(events.status, 200);
    assert!(
        events
            .headers
            .contains(&("content-type".into(), "text/event-stream".into()))
    );

    let (id, data) = events.transaction();
    assert_eq!(id, first);
    assert_eq!(
        data["records"],
        json!([{"offset": first - 1, "table": "shop.orders", "op": "put", "key": "a", "value": 1}])
    );

    let committed = server
        .commit(&json!({"writes": [put("shop.orders", "b"), put("shop.clicks", "c")]}))
        .expect(200);
    let (id, data) = events.transaction();
    assert_eq!(id, committed["position"]);
    assert_eq!(data["id"], committed["id"]);
    assert_eq!(data["records"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stream_that_breaks_at_any_event_goes_on_without_loss_or_repeat() {
    let server = Server::with_tables();
    let start = server.node.position().get();
    let mut expected = Vec::new();
    for n in 0..12 {
        let writes: Vec<Value> = (0..=n % 3)
            .map(|m| put("shop.orders", &format!("{n}-{m}")))
            .collect();
        let committed = server.commit(&json!({"writes": writes})).expect(200);
        expected.push(committed["id"].clone());
    }
    let mut seen = Vec::new();
    let mut id = start;
    for take in [1, 2, 1, 3, 5] {
        let last = id.to_string();
        let mut events = server.follow("/v1/log?from=0", &[("last-event-id", &last)]);
        for _ in 0..take {
            let (next, data) = events.transaction();
            seen.push(data["id"].clone());
            id = next;
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_limited_stream_ends_behind_a_whole_transaction_and_its_last_id_leads_on() {
    let server = Server::with_tables();
    let start = server.node.position().get();
    for n in 0..4 {
        let writes = [
            put("shop.orders", &format!("{n}a")),
            put("shop.orders", &format!("{n}b")),
        ];
        server.commit(&json!({"writes": writes})).expect(200);
    }
    let mut last = start;
    for expected in [start + 4, start + 8] {
        let mut events = server.follow("/v1/log?limit=3", &[("last-event-id", &last.to_string())]);
        let mut records = 0;
        while let Some(event) = events.any() {
            last = event.id;
            records += event
                .data
                .map_or(0, |data| data["records"].as_array().unwrap().len());
        }
        assert_eq!((last, records), (expected, 4));
    }
}

#[test]
fn a_quiet_stream_shows_that_it_lives_and_moves_its_id_on() {
    let server = Server::with(HttpOptions {
        heartbeat_ms: 20,
        ..HttpOptions::default()
    });
    server.make_tables();
    let start = server.node.position().get();
    let mut events = server.follow(&format!("/v1/log?from={start}&table=shop.clicks"), &[]);
    assert_eq!(events.any().unwrap().id, start);

    let position = server.put("shop.orders", "a", json!(1));

    loop {
        let event = events.any().unwrap();
        assert_eq!(event.data, None, "nothing happened to the table");
        if event.id == position {
            break;
        }
    }
}

#[test]
fn the_readers_of_the_log_are_bounded() {
    let server = Server::with(HttpOptions {
        log_streams_max: 2,
        ..HttpOptions::default()
    });
    let mut one = server.follow("/v1/log", &[]);
    let mut two = server.follow("/v1/log", &[]);
    assert_eq!(
        (one.any().map(|_| one.status), two.any().map(|_| two.status)),
        (Some(200), Some(200))
    );

    let refused = server.get("/v1/log");

    assert!(
        refused
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    let body = refused.refused(503, "overloaded");
    assert!(body["retry_after_ms"].as_u64().unwrap() >= 1);
}

#[test]
fn a_log_that_was_cut_names_its_start() {
    let server = Server::with_node(HttpOptions::default(), |options| {
        options.segment_bytes = 1 << 20;
        options.retain_bytes = Some(1);
        options.checkpoint_interval_ms = 50;
    });
    server.make_tables();
    let value = "v".repeat(500_000);
    let cut = (0..2_000).any(|n| {
        server.put("shop.orders", &format!("{}", n % 10), json!(value));
        server.node.log_start().get() > 0
    });
    assert!(cut, "retention cuts the log");
    for headers in [&[][..], &[("accept", "text/event-stream")]] {
        let refused = server
            .send("GET", "/v1/log?from=0", headers, b"")
            .refused(410, "log_cut");
        assert!(refused["log_start"].as_u64().unwrap() > 0);
    }
    assert!(!server.get("/v1/log?from=start&limit=1").lines().is_empty());
}
