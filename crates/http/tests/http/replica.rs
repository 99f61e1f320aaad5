//! What a read replica requests of the server that it follows. `crates/cli/tests/nodes/following.rs`
//! has whole read replicas.

use serde_json::{Value, json};

use crate::server::Server;

const NO_LOG: &str = "00000000000000000000000000000001";

fn log(log_id: &str, index: u64, checksum: u64) -> String {
    format!("/v1/replica/log?log_id={log_id}&index={index}&checksum={checksum}")
}

#[test]
fn a_log_that_cannot_be_followed_is_refused_with_the_reason() {
    let server = Server::with_tables();
    server.put("shop.orders", "a", json!(1));
    let status: Value = server.get("/v1/status").expect(200);
    let log_id = status["log_id"].as_str().unwrap();
    for (path, status, code) in [
        (log(NO_LOG, 0, 0), 409, "other_log"),
        (log(log_id, 1, 7), 409, "other_history"),
        (log(log_id, 1_000, 0), 409, "source_behind"),
        (log(log_id, u64::MAX, 0), 409, "source_behind"),
        (log(log_id, 0, 1 << 32), 422, "malformed"),
        (log("1", 0, 0), 422, "malformed"),
        (
            log("+0000000000000000000000000000001", 0, 0),
            422,
            "malformed",
        ),
        ("/v1/replica/log".to_owned(), 422, "malformed"),
        ("/v1/replica/state".to_owned(), 404, "no_checkpoint"),
        ("/v1/replica/state?index=7".to_owned(), 422, "malformed"),
        (
            "/v1/replica/state?index=7&cursor=0g".to_owned(),
            422,
            "malformed",
        ),
        (
            "/v1/replica/state?index=7&cursor=01".to_owned(),
            410,
            "state_gone",
        ),
    ] {
        server.get(&path).refused(status, code);
    }
}

#[test]
fn the_position_is_that_of_a_read_barrier() {
    let server = Server::with_tables();
    let position = server.put("shop.orders", "a", json!(1));
    let found: Value = server.get("/v1/replica/position").expect(200);
    assert!(found["position"].as_u64().unwrap() >= position);
}

#[test]
fn a_checkpoint_is_kept_while_it_is_fetched() {
    // Given a server that makes checkpoints often,
    let server = Server::with_node(Default::default(), |options| {
        options.checkpoint_interval_ms = 20;
    });
    server.make_tables();
    server.put("shop.orders", "a", json!(1));
    let rows = |head: &[u8]| u64::from_le_bytes(head[48..56].try_into().unwrap());
    let has_rows = || {
        let pinned = server.node.pin_state().unwrap();
        pinned.is_some_and(|pinned| rows(&pinned.head()) > 0)
    };
    while !has_rows() {
        std::thread::yield_now();
    }
    let answer = server.get("/v1/replica/state");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let head = answer.body;
    assert!(head.starts_with(b"OLSH"));
    let index = u64::from_le_bytes(head[16..24].try_into().unwrap());
    // when others have taken its place, then its pieces are still there.
    for n in 0..20 {
        server.put("shop.orders", &format!("k{n}"), json!(1));
    }
    let piece = format!("/v1/replica/state?index={index}&cursor=01");
    for _ in 0..2 {
        let answer = server.get(&piece);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body.starts_with(b"OLSC"));
    }
    let nothing_behind = format!("/v1/replica/state?index={index}&cursor=02ffffffffffffffff");
    server.get(&nothing_behind).refused(422, "malformed");
}
