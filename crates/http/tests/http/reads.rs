//! Reading keys: one, and pages of them.

use onelog_http::HttpOptions;
use serde_json::{Value, json};

use crate::server::Server;

#[test]
fn a_key_answers_its_value_byte_for_byte_with_version_and_position() {
    let server = Server::with_tables();
    let body = br#"{"writes":[{"op":"put","table":"shop.orders","key":"a","value":{"b":1.0,
        "a" : 1e2}}]}"#;
    let committed = server
        .send("POST", "/v1/transactions", &[], body)
        .expect(200);

    let answer = server.get("/v1/tables/shop.orders/keys/a");

    assert_eq!(answer.text(), "{\"b\":1.0,\n        \"a\" : 1e2}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let offset = committed["offsets"][0].to_string();
    assert_eq!(answer.header("onelog-version"), Some(offset.as_str()));
    assert_eq!(
        answer.header("onelog-position"),
        Some(committed["position"].to_string().as_str())
    );
}

#[test]
fn a_missing_key_says_at_which_position_it_was_missing() {
    let server = Server::with_tables();
    let answer = server.get("/v1/tables/shop.orders/keys/none");
    let body = answer.refused(404, "key_not_found");
    assert_eq!(
        (&body["table"], &body["key"]),
        (&json!("shop.orders"), &json!("none"))
    );
    let position = server.node.position().to_string();
    assert_eq!(answer.header("onelog-position"), Some(position.as_str()));
    assert_eq!(answer.header("onelog-version"), None);
}

#[test]
fn the_empty_key_is_read_like_any_other() {
    let server = Server::with_tables();
    let missing = server.get("/v1/tables/shop.orders/keys/");
    assert_eq!(missing.refused(404, "key_not_found")["key"], "");
    let position = server.put("shop.orders", "", json!({"total": 1}));
    for path in ["keys/", "keys/?encoding=base64", "keys/?encoding=text"] {
        let answer = server.get(&format!("/v1/tables/shop.orders/{path}"));
        assert_eq!(
            (answer.status, answer.text()),
            (200, r#"{"total":1}"#),
            "{path}"
        );
    }
    let before = server.get(&format!("/v1/tables/shop.orders/keys/?at={}", position - 1));
    before.refused(404, "key_not_found");
    let page = server.get("/v1/tables/shop.orders/keys").json();
    assert_eq!(page["rows"][0]["key"], "", "no slash is the list: {page}");
}

#[test]
fn any_bytes_are_a_key_and_a_value() {
    let server = Server::with_tables();
    let write = json!({"op": "put", "table": "shop.blobs", "key": {"base64": "/wA/"}, "value": {"base64": "AP8="}});
    server.commit(&json!({"writes": [write]})).expect(200);

    for key in ["_wA_", "%2FwA%2F"] {
        let answer = server.get(&format!("/v1/tables/shop.blobs/keys/{key}?encoding=base64"));
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, &[0, 255][..]),
            "{key}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
    }
    let listed = server
        .get("/v1/tables/shop.blobs/keys?prefix=_w&encoding=base64")
        .expect(200);
    assert_eq!(listed["rows"][0]["key"], json!({"base64": "/wA/"}));
    assert_eq!(listed["rows"][0]["value"], json!({"base64": "AP8="}));
    let refused = server
        .get("/v1/tables/shop.blobs/keys/%ff")
        .refused(422, "malformed");
    assert_eq!(refused["where"], "key");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("encoding=base64")
    );
}

#[test]
fn a_key_may_hold_what_a_path_must_escape() {
    let server = Server::with_tables();
    for (key, escaped) in [
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("50% + é", "50%25%20+%20%C3%A9"),
        ("..", "%2E%2E"),
        ("keys", "keys"),
    ] {
        server.put("shop.orders", key, json!({"key": key}));
        let answer = server.get(&format!("/v1/tables/shop.orders/keys/{escaped}"));
        assert_eq!(answer.expect(200)["key"], key);
    }
}

#[test]
fn at_reads_the_past_and_after_waits_for_the_future() {
    let server = Server::with_tables();
    let first = server.put("shop.orders", "a", json!(1));
    let second = server.put("shop.orders", "a", json!(2));
    let path = "/v1/tables/shop.orders/keys/a";

    let past = server.get(&format!("{path}?at={first}"));
    assert_eq!(past.expect(200), json!(1));
    assert_eq!(
        past.header("onelog-position"),
        Some(first.to_string().as_str())
    );
    assert_eq!(
        server.get(&format!("{path}?after={second}")).expect(200),
        json!(2)
    );
    server
        .get(&format!("{path}?at={}", first - 1))
        .refused(404, "key_not_found");

    let waited = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| server.get(&format!("{path}?after={}&timeout_ms=60000", second + 1)));
        server.put("shop.orders", "a", json!(3));
        waiting.join().unwrap()
    });
    assert_eq!(waited.expect(200), json!(3));

    let refused = server
        .get(&format!("{path}?after=1000000&timeout_ms=1"))
        .refused(504, "wait_timed_out");
    assert_eq!(refused["position"], server.node.position().get());
    let refused = server
        .get(&format!("{path}?at=1000000"))
        .refused(422, "position_in_future");
    assert_eq!(
        (&refused["where"], &refused["latest"]),
        (&json!("at"), &json!(server.node.position().get()))
    );
    let refused = server
        .get(&format!("{path}?at=1&after=2"))
        .refused(422, "malformed");
    assert_eq!(refused["where"], "after");
}

fn keys(page: &Value) -> Vec<&str> {
    let rows = page["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect()
}

#[test]
fn pages_go_up_and_down_and_lose_nothing() {
    let server = Server::with_tables();
    for key in ["a1", "a2", "a3", "b1", "b2"] {
        server.put("shop.orders", key, json!({"k": key}));
    }
    let list = |query: &str| {
        server
            .get(&format!("/v1/tables/shop.orders/keys?{query}"))
            .expect(200)
    };

    let all = list("");
    assert_eq!(keys(&all), ["a1", "a2", "a3", "b1", "b2"]);
    assert_eq!(
        (&all["next"], &all["position"]),
        (&Value::Null, &json!(server.node.position().get()))
    );
    assert_eq!(all["rows"][0]["value"], json!({"k": "a1"}));
    assert!(all["rows"][0]["version"].is_u64());
    assert_eq!(keys(&list("prefix=a")), ["a1", "a2", "a3"]);
    assert_eq!(keys(&list("from=a2&to=b2")), ["a2", "a3", "b1"]);
    assert_eq!(keys(&list("reverse&from=a2")), ["b2", "b1", "a3", "a2"]);
    assert_eq!(keys(&list("from=b&to=a")), Vec::<&str>::new());

    let position = all["position"].as_u64().unwrap();
    server.put("shop.orders", "a9", json!(1));
    for (reverse, cursor, expected) in [
        ("", "from", vec!["a1", "a2", "a3", "b1", "b2"]),
        ("&reverse=true", "to", vec!["b2", "b1", "a3", "a2", "a1"]),
    ] {
        let mut seen = Vec::new();
        let mut more = String::new();
        loop {
            let page = list(&format!("at={position}&limit=2{reverse}{more}"));
            seen.extend(keys(&page).into_iter().map(str::to_owned));
            match page["next"].as_str() {
                Some(next) => more = format!("&{cursor}={next}"),
                None => break,
            }
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_page_is_bounded_in_rows_and_bytes() {
    let server = Server::with_tables();
    let big = "v".repeat(1 << 20);
    for n in 0..10 {
        let write =
            json!({"op": "put", "table": "shop.blobs", "key": format!("{n}"), "value": big});
        server.commit(&json!({"writes": [write]})).expect(200);
    }
    let page = server.get("/v1/tables/shop.blobs/keys").expect(200);
    assert_eq!(page["rows"].as_array().unwrap().len(), 7);
    assert_eq!(page["next"], "7");
    for limit in ["0", "10001", "-1", "x", ""] {
        let refused = server
            .get(&format!("/v1/tables/shop.blobs/keys?limit={limit}"))
            .refused(422, "malformed");
        assert_eq!(refused["where"], "limit");
    }
}

#[test]
fn an_unknown_table_and_a_stream_cannot_be_read() {
    let server = Server::with_tables();
    for path in [
        "/v1/tables/shop.order/keys/a",
        "/v1/tables/shop.order/keys",
        "/v1/tables/shop.order",
        "/v1/log?table=shop.order",
    ] {
        let refused = server.get(path).refused(404, "unknown_table");
        assert_eq!(refused["nearest"], "shop.orders", "{path}");
    }
    for path in [
        "/v1/tables/shop.clicks/keys/a",
        "/v1/tables/shop.clicks/keys",
    ] {
        let refused = server.get(path).refused(409, "wrong_table");
        assert!(
            refused["message"]
                .as_str()
                .unwrap()
                .contains("/v1/log?table=shop.clicks")
        );
    }
    let refused = server
        .get("/v1/tables/shop.orders/keys?lmit=5")
        .refused(422, "malformed");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("did you mean 'limit'")
    );
}

#[test]
fn a_position_that_is_no_longer_kept_names_the_oldest_that_is() {
    let server = Server::with_node(HttpOptions::default(), |options| {
        options.checkpoint_interval_ms = 20;
        options.snapshot_age_ms_max = 1;
    });
    server.make_tables();
    let early = server.put("shop.orders", "a", json!(1));
    let path = format!("/v1/tables/shop.orders/keys/a?at={early}");
    while server.get(&path).status == 200 {
        server.put("shop.orders", "b", json!(1));
    }
    let refused = server.get(&path).refused(410, "snapshot_too_old");
    assert!(refused["floor"].as_u64().unwrap() > early);
    server
        .get(&format!("/v1/tables/shop.orders/keys?at={early}"))
        .refused(410, "snapshot_too_old");

    let read = json!({"read_position": early, "reads": [{"table": "shop.orders", "prefix": ""}], "writes": []});
    let answer = server.commit(&read);
    assert!([409, 410].contains(&answer.status), "{}", answer.text());
}
