//! What keeps a store and its rows safe: other logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use onelog::Options;
use place::{Place, assert_equal, close, one, open, order, wait_for_stop, with_orders};
use serde_json::json;

#[test]
fn a_store_that_another_log_writes_is_not_taken_over_without_saying_so() {
    // Given a sink that follows, and a second log with the same sink, or one with another column.
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let definition = place.definition("search", &json!({}));
    sinks.create(definition.clone()).unwrap();
    let end = order(&node, "a", 1, "one");
    assert_equal(&sinks, "search", end);
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    with_orders(&rival);
    let wider = json!({"mappings": [{"table": "shop.orders", "into": "orders"}]});
    // When the second log is given that sink, then it is refused and says what to do,
    for more in [json!({}), wider] {
        let error = rivals
            .create(place.definition("search", &more))
            .unwrap_err()
            .to_string();
        let log = format!("{:032x}", node.log_id());
        assert!(error.contains("follows another log"), "{error}");
        assert!(
            error.contains(&format!("\"take_from_log\": \"{log}\"")),
            "{error}"
        );
    }
    // and the first goes on.
    let end = order(&node, "b", 2, "two");
    assert_equal(&sinks, "search", end);
    // When the second log takes it in so many words, then the first one stops.
    let mut taking = definition.clone();
    taking.take_from_log = Some(format!("{:032x}", node.log_id()));
    rivals.create(taking).unwrap();
    let end = order(&rival, "z", 1, "of the other log");
    assert_equal(&rivals, "search", end);
    order(&node, "c", 3, "three");
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("took this sink over"), "{text}");
    sinks.resume("search").unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("follows another log"), "{text}");
    // When the first one gives it up, then the second one's bookkeeping is as it was.
    sinks.delete("search").unwrap();
    let end = order(&rival, "y", 2, "of the other log");
    assert_equal(&rivals, "search", end);
    close(&node, &sinks);
    close(&rival, &rivals);
}

#[test]
fn a_sink_that_was_made_while_its_store_was_away_does_not_take_it_over_later() {
    // Given a store that a first log has written, which is away when a second one is given its sink.
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let definition = place.definition("search", &json!({}));
    sinks.create(definition.clone()).unwrap();
    let end = order(&node, "a", 1, "one");
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
    drop((node, sinks));
    let (away, back) = (place.path("away"), place.path("search.db"));
    std::fs::rename(&back, &away).unwrap();
    std::fs::create_dir(&back).unwrap();
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    with_orders(&rival);
    rivals.create_ahead(definition).unwrap();
    // When the store is back
    std::fs::remove_dir(&back).unwrap();
    std::fs::rename(&away, &back).unwrap();
    rivals.resume("search").unwrap();
    // Then the sink stops, and neither a rebuild nor its end changes anything.
    for _ in 0..2 {
        let text = wait_for_stop(&rivals, "search");
        assert!(text.contains("follows another log"), "{text}");
        rivals.rebuild("search").unwrap();
    }
    wait_for_stop(&rivals, "search");
    rivals.delete("search").unwrap();
    let store = place.store("search.db");
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 1);
    assert_eq!(one::<i64>(&store, "SELECT epoch FROM onelog_position"), 1);
    close(&rival, &rivals);
}
