//! Sinks whose stores are away: what they answer meanwhile, and what stays in a store that a sink has
//! left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use onelog::Node;
use onelog_sinks::{Replay, SinkError, SinkState, Sinks};
use place::{Away, PATIENCE, Place, assert_equal, close, one, order, wait_for_stop, with_orders};
use serde_json::json;

/// A node with a sink that has brought its first row to its store.
fn followed(place: &Place) -> (Node, Sinks) {
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks
        .create(place.definition("search", &json!({})))
        .unwrap();
    assert_equal(&sinks, "search", order(&node, "a", 1, "one"));
    (node, sinks)
}

#[test]
fn a_definition_that_is_declared_while_the_store_is_away_is_in_force_when_it_is_back() {
    // Given a sink whose store is away.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    close(&node, &sinks);
    drop((node, sinks));
    let away = Away::take(place.path("search.db"));
    let (node, sinks) = place.open();
    // When the configuration declares it with another column,
    let mapping = json!({"table": "shop.orders", "into": "orders", "columns": {
        "id": {"from": "$key", "type": "text"},
        "remark": {"from": "/note", "type": "text"}}});
    let declared = place.definition("search", &json!({"mappings": [mapping]}));
    sinks.declare(declared.clone()).unwrap();
    let waiting = |status: &onelog_sinks::SinkStatus| status.state == SinkState::Waiting;
    sinks.wait_for_status("search", PATIENCE, waiting).unwrap();
    assert!(sinks.definition("search").unwrap() == declared);
    away.put_back();
    // then the store has that column as soon as it is back.
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    let remark = one::<String>(&place.store("search.db"), "SELECT remark FROM orders");
    assert_eq!(remark, "one");
    close(&node, &sinks);
}

#[test]
fn a_sink_whose_store_is_away_says_that_it_waits_and_shows_that_it_is_paused() {
    // Given a sink that waits for its store.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    sinks.pause("search").unwrap();
    let away = Away::take(place.path("search.db"));
    sinks
        .replace(place.definition("search", &json!({"keep_log": "1GiB"})))
        .unwrap_err();
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    // When it starts while it is paused, then it shows that, and what is wrong.
    let paused = |status: &onelog_sinks::SinkStatus| {
        status.state == SinkState::Paused && status.last_error.is_some()
    };
    sinks.wait_for_status("search", PATIENCE, paused).unwrap();
    sinks.resume("search").unwrap();
    let waiting = |status: &onelog_sinks::SinkStatus| status.state == SinkState::Waiting;
    sinks.wait_for_status("search", PATIENCE, waiting).unwrap();
    // When keys are replayed meanwhile, then it does not say that it has stopped.
    let error = sinks.replay("search", Replay::All).unwrap_err();
    assert!(matches!(error, SinkError::Waiting { .. }), "{error}");
    assert!(
        error.to_string().contains("tries again by itself"),
        "{error}"
    );
    // When it is paused meanwhile, then the status shows it at once, and so does every attempt after.
    assert_eq!(sinks.pause("search").unwrap().state, SinkState::Paused);
    away.put_back();
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", order(&node, "b", 2, "two"));
    close(&node, &sinks);
}

#[test]
fn a_comparison_of_a_sink_that_has_stopped_says_what_is_in_its_store() {
    // Given a sink that has stopped, and whose store was then emptied.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    order(&node, "refused", i64::MAX, "a note");
    place::put(&node, "wrong", &json!({"total": "many"}));
    wait_for_stop(&sinks, "search");
    let store = place.store("search.db");
    store.execute("DELETE FROM onelog_position", []).unwrap();
    // When it is compared, then it says that the store has nothing of it, and why it has stopped.
    let error = sinks.verify("search").unwrap_err();
    assert!(matches!(error, SinkError::NothingThere { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("emptied or replaced") && text.contains("total"),
        "{text}"
    );
    // When the store follows another log, then it says so.
    store
        .execute(
            "INSERT INTO onelog_position (sink, log_id, position, epoch, plan) VALUES ('search', 'another', 5, 1, '')",
            [],
        )
        .unwrap();
    let text = sinks.verify("search").unwrap_err().to_string();
    assert!(text.contains("follows another log"), "{text}");
    close(&node, &sinks);
}

#[test]
fn what_a_deleted_sink_leaves_in_a_store_that_is_away_is_said_and_can_be_released() {
    // Given a sink that is deleted while its store is away.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    let former = place.definition("search", &json!({}));
    let away = Away::take(place.path("search.db"));
    let remains = sinks.delete("search").unwrap().unwrap();
    assert!(remains.store.contains("search.db"), "{remains:?}");
    away.put_back();
    // When another sink wants the table, then it is refused, and says what to do.
    let path = json!({"path": place.path("search.db")});
    let other = place.definition("other", &path);
    let error = sinks.create(other.clone()).unwrap_err();
    assert!(
        matches!(&error, SinkError::Definition(error) if error.place == "mappings[0].into"),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("belongs to the sink 'search'"), "{text}");
    assert!(text.contains("onelog sinks forget"), "{text}");
    // When that is done, then the other one has the table, and there is nothing more to forget.
    assert!(sinks.forget(&former).unwrap());
    sinks.create(other).unwrap();
    assert_equal(&sinks, "other", node.position());
    assert!(!sinks.forget(&former).unwrap());
    close(&node, &sinks);
}

#[test]
fn a_sink_that_is_deleted_while_its_file_is_away_makes_none() {
    // Given a sink that has stopped, whose file is moved away,
    let place = Place::new();
    let (node, sinks) = followed(&place);
    let former = place.definition("search", &json!({}));
    place
        .store("search.db")
        .execute_batch("DROP TABLE orders")
        .unwrap();
    order(&node, "b", 2, "two");
    wait_for_stop(&sinks, "search");
    let (file, moved) = (place.path("search.db"), place.path("moved.db"));
    std::fs::rename(&file, &moved).unwrap();
    // when it is deleted, then it is said what could not be cleaned, and no file is made there,
    let remains = sinks.delete("search").unwrap().unwrap();
    assert!(remains.why.contains("there is no file"), "{remains:?}");
    assert!(!file.exists());
    // nor when it is to be forgotten, which it can be once the file is back.
    sinks.forget(&former).unwrap_err();
    assert!(!file.exists());
    std::fs::rename(&moved, &file).unwrap();
    assert!(sinks.forget(&former).unwrap());
    close(&node, &sinks);
}

#[test]
fn what_another_log_has_taken_is_its_own_whatever_becomes_of_the_sink() {
    // Given a sink whose store another log has taken meanwhile,
    let place = Place::new();
    let (node, sinks) = followed(&place);
    let store = place.store("search.db");
    let taken = "UPDATE onelog_position SET log_id = 'another', epoch = epoch + 1";
    store.execute_batch(taken).unwrap();
    // when it is deleted, then nothing of it remains there,
    assert_eq!(sinks.delete("search").unwrap(), None);
    assert_eq!(
        one::<String>(&store, "SELECT log_id FROM onelog_position"),
        "another"
    );
    // and when another sink of this log wants the table, then it is said whose it is, and of which log.
    let path = json!({"path": place.path("search.db")});
    let error = sinks.create(place.definition("other", &path)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("belongs to the sink 'search'"), "{text}");
    assert!(text.contains("belongs to another log, another,"), "{text}");
    close(&node, &sinks);
}

#[test]
fn a_sink_that_moves_takes_what_it_had_in_its_former_store_along() {
    // Given a sink that follows.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    // When it moves, then its former store forgets it, and keeps the rows.
    let there = json!({"path": place.path("there.db")});
    let moved = sinks
        .replace_and_leave(place.definition("search", &there))
        .unwrap();
    assert_eq!(moved.remains, None);
    assert_equal(&sinks, "search", node.position());
    let store = place.store("search.db");
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 1);
    assert_eq!(
        one::<i64>(&store, "SELECT count(*) FROM onelog_position"),
        0
    );
    drop(store);
    // When it moves back while that store is away, then it is said what stays there.
    let away = Away::take(place.path("there.db"));
    sinks.create(place.definition("other", &json!({}))).unwrap();
    let moved = sinks
        .replace_and_leave(place.definition("search", &json!({"path": place.path("third.db")})))
        .unwrap();
    assert!(moved.remains.unwrap().store.contains("there.db"));
    away.put_back();
    // When what it writes to now is to be forgotten, by whichever name, then that is refused.
    let link = place.path("link.db");
    std::os::unix::fs::symlink(place.path("third.db"), &link).unwrap();
    assert_equal(&sinks, "search", node.position());
    for path in [place.path("third.db"), link] {
        let now = place.definition("search", &json!({"path": path}));
        let error = sinks.forget(&now).unwrap_err();
        assert!(matches!(error, SinkError::StillThere { .. }), "{error}");
    }
    assert!(sinks.forget(&place.definition("search", &there)).unwrap());
    let end = order(&node, "b", 2, "two");
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
}

#[test]
fn a_sink_of_a_table_that_is_gone_is_forgotten_by_its_store_as_well() {
    let place = Place::new();
    let (node, sinks) = followed(&place);
    node.drop_table_blocking("shop.orders").unwrap();
    wait_for_stop(&sinks, "search");
    assert_eq!(sinks.delete("search").unwrap(), None);
    let store = place.store("search.db");
    assert_eq!(
        one::<i64>(&store, "SELECT count(*) FROM onelog_position"),
        0
    );
    close(&node, &sinks);
}

#[test]
fn a_sink_leaves_between_two_transforms_of_a_large_transaction() {
    // Given a sink whose transform takes its time, and a transaction with many rows for it.
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let slow = json!({"mappings": [{"table": "shop.orders", "into": "orders",
        "transform": "{n: (if .n > 0 then [range(300000)] | length else 0 end)}"}]});
    sinks.create(place.definition("search", &slow)).unwrap();
    place::put(&node, "first", &json!({"n": 0}));
    place::wait(&sinks, "search", node.position());
    sinks.pause("search").unwrap();
    let before = node.position();
    node.transact(|tx| {
        let mut keys = 0..500;
        keys.try_for_each(|n| tx.put_json("shop.orders", format!("{n}"), &json!({"n": 1})))
    })
    .unwrap();
    // When it is stopped in the middle of it, then nothing of it is in the store,
    sinks.resume("search").unwrap();
    let runs = |status: &onelog_sinks::SinkStatus| status.state == SinkState::Running;
    sinks.wait_for_status("search", PATIENCE, runs).unwrap();
    close(&node, &sinks);
    let store = place.store("search.db");
    let position: i64 = one(&store, "SELECT position FROM onelog_position");
    assert!(position as u64 <= before.get(), "{position} and {before}");
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 1);
}

#[test]
fn a_file_is_not_written_by_two_of_its_names() {
    // Given a sink, and a second name of its file.
    let place = Place::new();
    let (node, sinks) = followed(&place);
    let link = place.path("link.db");
    std::fs::hard_link(place.path("search.db"), &link).unwrap();
    // When another sink is to write to that, into a table of its own, then it is refused by name.
    let other = json!({"path": link, "mappings": [{"table": "shop.orders", "into": "others"}]});
    let error = sinks.create(place.definition("other", &other)).unwrap_err();
    assert!(
        matches!(&error, SinkError::Definition(error) if error.place == "path"),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("'search'") && text.contains("hard link") && text.contains("search.db"),
        "{text}"
    );
    // By the same name, or through a symbolic link, it is not.
    let symbolic = place.path("symbolic.db");
    std::os::unix::fs::symlink(place.path("search.db"), &symbolic).unwrap();
    let other = json!({"path": symbolic, "mappings": [{"table": "shop.orders", "into": "others"}]});
    sinks.create(place.definition("other", &other)).unwrap();
    assert_equal(&sinks, "other", node.position());
    close(&node, &sinks);
}
