//! Who takes a store over: another log, which may do so once, or the sink itself, where its store was put
//! back to an older copy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use onelog::{Node, Options};
use onelog_sinks::Sinks;
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use place::{Place, assert_equal, close, one, open, order, wait, wait_for_stop, with_orders};
use serde_json::json;

/// A node with orders, and a sink `search` that follows them.
fn following(place: &Place) -> (Node, Sinks) {
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks
        .create(place.definition("search", &json!({})))
        .unwrap();
    (node, sinks)
}

#[test]
fn a_store_is_taken_from_another_log_once_by_one_definition() {
    // Given a store that a second log has taken from a first one, which took it back.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "of the first"));
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    with_orders(&rival);
    let taking = |from: &Node, more: &str| {
        let field = json!({"take_from_log": format!("{:032x}", from.log_id()), "on_refused": more});
        place.definition("search", &field)
    };
    let foretold = |definition: &SinkDefinition| {
        let found = rivals.dry_run(definition, 1).unwrap();
        found.mappings[0].store.clone().unwrap().stop
    };
    let said = foretold(&place.definition("search", &json!({}))).unwrap();
    assert!(said.contains("follows another log"), "{said}");
    assert_eq!(foretold(&taking(&node, "stop")), None);
    rivals.create(taking(&node, "stop")).unwrap();
    assert_equal(&rivals, "search", order(&rival, "z", 1, "of the second"));
    sinks.replace(taking(&rival, "stop")).unwrap();
    assert_equal(&sinks, "search", order(&node, "b", 2, "of the first"));
    order(&rival, "y", 2, "of the second");
    let text = wait_for_stop(&rivals, "search");
    assert!(text.contains("took this sink over"), "{text}");
    // When the second one's sink is resumed, rebuilt, paused and changed otherwise, or its node starts
    // again, then it stops and says so,
    let stops = |rivals: &Sinks| {
        let text = wait_for_stop(rivals, "search");
        assert!(text.contains("follows another log"), "{text}");
        assert!(text.contains("holds once"), "{text}");
    };
    rivals.resume("search").unwrap();
    stops(&rivals);
    rivals.rebuild("search").unwrap();
    stops(&rivals);
    rivals.pause("search").unwrap();
    rivals.resume("search").unwrap();
    stops(&rivals);
    rivals.replace(taking(&node, "park")).unwrap();
    stops(&rivals);
    close(&rival, &rivals);
    drop((rival, rivals));
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    stops(&rivals);
    // also when it moves to another store,
    let mut moved = taking(&node, "park").to_stored();
    moved["path"] = json!(place.path("elsewhere.db"));
    let moved = SinkDefinition::from_json(KINDS, &moved).unwrap();
    rivals.replace(moved).unwrap();
    assert_equal(&rivals, "search", rival.position());
    rivals.replace(taking(&node, "park")).unwrap();
    stops(&rivals);
    // and the first one goes on.
    assert_equal(&sinks, "search", order(&node, "c", 3, "of the first"));
    // When the second one is given the right anew, then it takes the store.
    let without = place.definition(
        "search",
        &json!({"on_refused": "park", "path": place.path("elsewhere.db")}),
    );
    rivals.replace(without).unwrap();
    rivals.replace(taking(&node, "park")).unwrap();
    assert_equal(&rivals, "search", order(&rival, "x", 3, "of the second"));
    close(&node, &sinks);
    close(&rival, &rivals);
}

#[test]
fn a_store_that_was_put_back_to_an_older_copy_is_followed_from_there() {
    // Given a sink that follows, and a copy of its store from before its last two starts.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "in the copy"));
    close(&node, &sinks);
    drop((node, sinks));
    let store = place.store("search.db");
    let file = place.path("search.copy");
    store
        .execute("VACUUM INTO ?1", [file.to_str().unwrap()])
        .unwrap();
    let (node, sinks) = place.open();
    let end = order(&node, "b", 2, "behind the copy");
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    // The comparison writes a record, and then nothing is written any more.
    assert_equal(&sinks, "search", end);
    wait(&sinks, "search", node.position());
    // When the store is put back in place while the sink runs,
    store
        .execute("ATTACH ?1 AS copy", [file.to_str().unwrap()])
        .unwrap();
    let put_back = "BEGIN IMMEDIATE; DELETE FROM orders; DELETE FROM onelog_position;
        INSERT INTO orders SELECT * FROM copy.orders;
        INSERT INTO onelog_position SELECT * FROM copy.onelog_position; COMMIT";
    store.execute_batch(put_back).unwrap();
    let epoch = || one::<i64>(&store, "SELECT epoch FROM onelog_position");
    let before = epoch();
    // then the next write brings it forward, and nobody is asked.
    assert_equal(&sinks, "search", order(&node, "c", 3, "new"));
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 3);
    // Its epoch is above all that came before.
    assert_eq!(epoch(), before + 3);
    close(&node, &sinks);
}
