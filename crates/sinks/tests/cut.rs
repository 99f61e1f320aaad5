//! What a sink does whose store the log no longer reaches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use onelog::{Node, Options, Position};
use onelog_sinks::{Replay, Sinks};
use onelog_stores::KINDS;
use place::{
    PATIENCE, Place, assert_equal, close, delete, one, open, order, put, wait, with_orders,
};
use serde_json::json;

/// A log that is cut past its sinks.
fn cutting(place: &Place) -> Options {
    let mut options = place.options();
    options.segment_bytes = 256 << 10;
    options.retain_bytes = Some(1 << 20);
    options.retain_past_followers = true;
    options.checkpoint_interval_ms = 200;
    options
}

/// Writes until the log begins above `position`, while no sink runs.
fn cut_above(place: &Place, position: Position, first: impl FnOnce(&Node)) -> Position {
    let node = Node::open(cutting(place)).unwrap();
    first(&node);
    let note = "x".repeat(20_000);
    for n in 0.. {
        if node.log_start() > position {
            break;
        }
        order(&node, &format!("k{}", n % 30), n, &note);
    }
    let end = node.position();
    node.stop().unwrap();
    end
}

#[test]
fn a_store_that_a_starting_sink_finds_below_the_logs_start_is_backfilled() {
    // Given a store that followed, and a log that was cut above it while the sink did not run,
    let place = Place::new();
    let (node, sinks) = open(cutting(&place));
    with_orders(&node);
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    order(&node, "kept", 1, "stays as it is");
    let at = order(&node, "gone", 2, "deleted meanwhile");
    assert_equal(&sinks, "shop", at);
    close(&node, &sinks);
    drop((node, sinks));
    let end = cut_above(&place, at, |node| {
        delete(node, "gone");
    });
    let before: i64 = one(
        &place.store("shop.db"),
        "SELECT position FROM onelog_position",
    );
    // when the sink starts, then the store is made equal from a snapshot, without an error,
    let node = Node::open(cutting(&place)).unwrap();
    assert!(before < node.log_start().get().cast_signed());
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    assert_equal(&sinks, "shop", end);
    assert_eq!(sinks.get("shop").unwrap().last_error, None);
    let store = place.store("shop.db");
    assert_eq!(
        one::<i64>(&store, "SELECT count(*) FROM orders WHERE id = 'gone'"),
        0
    );
    assert_eq!(
        one::<i64>(&store, "SELECT total FROM orders WHERE id = 'kept'"),
        1
    );
    // and it follows from there.
    let end = order(&node, "kept", 3, "followed");
    assert_equal(&sinks, "shop", end);
    close(&node, &sinks);
}

#[test]
fn a_store_right_at_the_logs_start_whose_history_cannot_be_compared_is_backfilled() {
    // Given a store at the position where the log begins now: what vouches for it was cut,
    let place = Place::new();
    let (node, sinks) = open(cutting(&place));
    with_orders(&node);
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    let at = order(&node, "kept", 1, "stays as it is");
    assert_equal(&sinks, "shop", at);
    close(&node, &sinks);
    drop((node, sinks));
    let end = cut_above(&place, at, |_| {});
    let node = Node::open(cutting(&place)).unwrap();
    let start = node.log_start();
    let store = place.store("shop.db");
    store
        .execute(
            "UPDATE onelog_position SET position = ?1",
            [start.get().cast_signed()],
        )
        .unwrap();
    store.execute("DELETE FROM orders", []).unwrap();
    // when the sink starts, then it does not go on from there.
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    assert_equal(&sinks, "shop", end);
    assert_eq!(
        one::<i64>(&store, "SELECT total FROM orders WHERE id = 'kept'"),
        1
    );
    close(&node, &sinks);
}

#[test]
fn what_was_parked_before_the_log_was_cut_waits_behind_the_backfill_as_well() {
    // Given keys that are parked: one whose record is still refused, one that was mended and one that
    // was deleted while the sink did not run and the log was cut above them all,
    let place = Place::new();
    let (node, sinks) = open(cutting(&place));
    with_orders(&node);
    let definition = place.definition("shop", &json!({"on_refused": "park"}));
    sinks.create(definition).unwrap();
    let end = order(&node, "a", 1, "one");
    wait(&sinks, "shop", end);
    for key in ["bad", "deleted", "mended"] {
        order(&node, key, 2, "as it was");
        let end = node.position();
        wait(&sinks, "shop", end);
        put(&node, key, &json!({"total": "many"}));
    }
    let at = node.position();
    wait(&sinks, "shop", at);
    let keys = |sinks: &Sinks| {
        let parked = sinks.parked("shop").unwrap().into_iter();
        parked.map(|parked| parked.key).collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&sinks),
        [json!("bad"), json!("deleted"), json!("mended")]
    );
    close(&node, &sinks);
    drop((node, sinks));
    let end = cut_above(&place, at, |node| {
        delete(node, "deleted");
        order(node, "mended", 3, "fits again");
    });
    // when the sink starts, then the backfill parks what is refused now, and nothing else,
    let node = Node::open(cutting(&place)).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    wait(&sinks, "shop", end);
    let status = sinks.wait_for_status("shop", PATIENCE, |status| status.parked == 1);
    assert_eq!(status.unwrap().last_error, None);
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!(found.tables[0].parked, 1);
    assert_eq!(keys(&sinks), [json!("bad")]);
    let store = place.store("shop.db");
    let rows = "SELECT count(*) FROM orders WHERE id IN ('bad', 'deleted')";
    assert_eq!(one::<i64>(&store, rows), 0);
    assert_eq!(
        one::<i64>(&store, "SELECT total FROM orders WHERE id = 'mended'"),
        3
    );
    // and what it parked is replayed, although the log no longer has the record.
    let first = sinks.parked("shop").unwrap()[0].first_offset;
    assert!(node.log_start().sees(first));
    order(&node, "bad", 4, "fits again");
    let end = node.position();
    wait(&sinks, "shop", end);
    assert_eq!(sinks.replay("shop", Replay::All).unwrap().replayed, 1);
    let end = order(&node, "bad", 5, "as every other");
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!(found.tables[0].parked, 0);
    close(&node, &sinks);
}
