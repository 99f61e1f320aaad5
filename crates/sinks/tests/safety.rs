//! What keeps a store and its rows safe: other logs, and other histories of the same log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::path::Path;

use onelog::{Node, Options};
use onelog_sinks::Sinks;
use onelog_store::Kinds;
use place::{Away, Place, assert_equal, close, one, open, order, wait, wait_for_stop, with_orders};
use rusqlite::Connection;
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

fn restart(place: &Place, node: Node, sinks: Sinks) -> (Node, Sinks) {
    close(&node, &sinks);
    drop((node, sinks));
    place.open()
}

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
fn a_sink_of_another_log_is_forgotten_only_where_that_is_said_and_then_stops() {
    // Given a sink that follows, and a second log.
    let place = Place::new();
    let (node, sinks) = following(&place);
    let end = order(&node, "a", 1, "one");
    assert_equal(&sinks, "search", end);
    // The comparison has written a record.
    let at = node.position();
    wait(&sinks, "search", at);
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    with_orders(&rival);
    let log = format!("{:032x}", node.log_id());
    let mut theirs = place.definition("search", &json!({}));
    theirs.take_from_log = Some(log.clone());
    let store = place.store("search.db");
    let epoch = || one::<i64>(&store, "SELECT epoch FROM onelog_position");
    let epoch_before = epoch();
    // When the store is to forget it by order of the second log, then that is refused with what would
    // be released, and nothing is changed.
    let error = rivals.forget(&theirs).unwrap_err().to_string();
    for part in [
        &log,
        "'search'",
        &format!("position {at},"),
        "--release-other-log",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let end = order(&node, "b", 2, "two");
    assert_equal(&sinks, "search", end);
    assert_eq!(epoch(), epoch_before);
    // When that is said, then the table is free, and the first log's sink stops instead of beginning
    // again.
    assert!(rivals.forget_of_other_log(&theirs).unwrap());
    let path = json!({"path": place.path("search.db")});
    rivals.create(place.definition("heir", &path)).unwrap();
    let end = order(&rival, "z", 1, "of the other log");
    assert_equal(&rivals, "heir", end);
    order(&node, "c", 3, "three");
    // A batch meets the other epoch; where the sink has looked at its store before, the other log.
    let text = wait_for_stop(&sinks, "search");
    let reasons = ["took this sink over", "follows another log"];
    assert!(reasons.iter().any(|why| text.contains(why)), "{text}");
    sinks.resume("search").unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("follows another log"), "{text}");
    assert_equal(&rivals, "heir", end);
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
    let epoch_of = |store: &Connection| one::<i64>(store, "SELECT epoch FROM onelog_position");
    let epoch_before = epoch_of(&place.store("search.db"));
    let away = Away::take(place.path("search.db"));
    let (rival, rivals) = open(Options::new(place.path("another-log")));
    with_orders(&rival);
    rivals.create_ahead(definition).unwrap();
    // When the store is back
    away.put_back();
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
    assert_eq!(epoch_of(&store), epoch_before);
    close(&rival, &rivals);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => std::fs::copy(entry.path(), to).map(drop).unwrap(),
        }
    }
}

#[test]
fn a_log_that_was_put_back_and_grew_again_does_not_pass_for_the_one_that_the_store_followed() {
    // Given a store that followed five orders which a copy of the log's folder does not have.
    let place = Place::new();
    let (node, sinks) = following(&place);
    let end = order(&node, "kept", 1, "in both");
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
    drop((node, sinks));
    copy(&place.path("log"), &place.path("copy"));
    let (node, sinks) = place.open();
    for n in 0..5 {
        order(&node, &format!("lost{n}"), n, "in the store alone");
    }
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
    drop((node, sinks));
    // When the copy is put back
    std::fs::remove_dir_all(place.path("log")).unwrap();
    std::fs::rename(place.path("copy"), place.path("log")).unwrap();
    let (node, sinks) = place.open();
    // Then the sink stops, because the store is ahead,
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("but the log ends at"), "{text}");
    // and it stops as well however long the log has become, at every start.
    for round in 0..2 {
        for n in 0..20 {
            order(&node, &format!("new{round}-{n}"), n, "in the log alone");
        }
        sinks.resume("search").unwrap();
        let text = wait_for_stop(&sinks, "search");
        assert!(text.contains("of another history of this log"), "{text}");
        assert_eq!(sinks.get("search").unwrap().position, None);
    }
    let found = sinks.verify("search").unwrap();
    assert!(!found.equal, "{found:#?}");
    let store = place.store("search.db");
    let lost = "SELECT count(*) FROM orders WHERE id LIKE 'lost%'";
    assert_eq!(one::<i64>(&store, lost), 5);
    // When the user has seen that and rebuilds the sink, then the store equals the log.
    sinks.rebuild("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    let store = place.store("search.db");
    assert_eq!(one::<i64>(&store, lost), 0);
    close(&node, &sinks);
}

#[test]
fn a_changed_definition_does_not_let_a_log_that_was_put_back_pass() {
    // Given a store that followed records which a copy of the log's folder does not have.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "kept", 1, "in both"));
    close(&node, &sinks);
    drop((node, sinks));
    copy(&place.path("log"), &place.path("copy"));
    let (node, sinks) = place.open();
    for n in 0..5 {
        order(&node, &format!("lost{n}"), n, "in the store alone");
    }
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
    drop((node, sinks));
    std::fs::remove_dir_all(place.path("log")).unwrap();
    std::fs::rename(place.path("copy"), place.path("log")).unwrap();
    let (node, sinks) = place.open();
    let lost = "SELECT count(*) FROM orders WHERE id LIKE 'lost%'";
    let with_column = |column: &str| {
        let mut columns = json!({
            "id": {"from": "$key", "type": "text"},
            "total": {"from": "/total", "type": "integer"},
            "note": {"from": "/note", "type": "text"}});
        columns[column] = json!({"from": "/note", "type": "text"});
        let mapping = json!({"table": "shop.orders", "into": "orders", "columns": columns});
        place.definition("search", &json!({"mappings": [mapping]}))
    };
    // When the definition is changed while the store is ahead of the log that was put back,
    sinks.replace(with_column("first")).unwrap();
    // then the sink stops as it would have under the former one, also after a restart,
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("but the log ends at"), "{text}");
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("but the log ends at"), "{text}");
    // and under one more definition after the log has become longer than the store's position.
    for n in 0..20 {
        order(&node, &format!("new{n}"), n, "in the log alone");
    }
    sinks.replace(with_column("second")).unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("of another history of this log"), "{text}");
    assert_eq!(one::<i64>(&place.store("search.db"), lost), 5);
    // When the user rebuilds the sink, then the store equals the log.
    sinks.rebuild("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(one::<i64>(&place.store("search.db"), lost), 0);
    // And a change of the definition on the same history needs nobody's permission.
    sinks.replace(with_column("third")).unwrap();
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
}

#[test]
fn a_store_that_becomes_one_of_another_history_is_noticed_while_nothing_is_written() {
    // Given a sink at the end of the log, and no writers.
    let place = Place::new();
    let (node, sinks) = following(&place);
    let end = order(&node, "a", 1, "one");
    sinks.wait_blocking("search", end, place::PATIENCE).unwrap();
    // When its store becomes one of another history, at the same position,
    let store = place.store("search.db");
    store.busy_timeout(place::PATIENCE).unwrap();
    let other = "UPDATE onelog_position SET chain = (chain + 1) % 4294967296";
    store.execute_batch(other).unwrap();
    // then the sink stops when it looks.
    sinks.resume("search").unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("of another history of this log"), "{text}");
    close(&node, &sinks);
}

#[test]
fn a_node_of_a_backup_leaves_the_stores_of_the_first_alone_until_it_may_take_them() {
    // Given a node with a store, and a backup of it.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "kept", 1, "in both"));
    node.backup(&place.path("backup")).unwrap();
    assert_equal(&sinks, "search", order(&node, "lost", 2, "in the first"));
    // When a node starts from the backup, and its log becomes longer than the first one's,
    let (copy, copies) = open(Options::new(place.path("backup")));
    for n in 0..20 {
        order(&copy, &format!("new{n}"), n, "in the copy");
    }
    // then its sink stops, also when it is resumed or rebuilt, and the first one goes on.
    for _ in 0..2 {
        let text = wait_for_stop(&copies, "search");
        assert!(text.contains("follows another log"), "{text}");
        copies.rebuild("search").unwrap();
    }
    wait_for_stop(&copies, "search");
    assert_equal(&sinks, "search", order(&node, "more", 3, "in the first"));
    // When the copy may take the store, then the store equals the copy.
    let take = json!({"take_from_log": format!("{:032x}", node.log_id())});
    copies.replace(place.definition("search", &take)).unwrap();
    let end = order(&copy, "last", 4, "in the copy");
    assert_equal(&copies, "search", end);
    let store = place.store("search.db");
    let lost = "SELECT count(*) FROM orders WHERE id IN ('lost', 'more')";
    assert_eq!(one::<i64>(&store, lost), 0);
    close(&copy, &copies);
    close(&node, &sinks);
}

#[test]
fn a_store_of_an_earlier_version_goes_on_and_learns_the_checksum() {
    // Given a store whose bookkeeping has no checksum.
    let place = Place::new();
    let (node, sinks) = following(&place);
    let end = order(&node, "a", 1, "one");
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
    drop((node, sinks));
    let store = place.store("search.db");
    let marked = "UPDATE orders SET note = 'not written again'";
    store
        .execute_batch(&format!(
            "ALTER TABLE onelog_position DROP COLUMN chain; {marked}"
        ))
        .unwrap();
    // When it is followed again
    let (node, sinks) = place.open();
    let end = order(&node, "b", 2, "two");
    sinks.wait_blocking("search", end, place::PATIENCE).unwrap();
    // Then it was not backfilled, and has the checksum from now on.
    let kept = "SELECT count(*) FROM orders WHERE note = 'not written again'";
    assert_eq!(one::<i64>(&store, kept), 1);
    let chain: Option<u32> = one(&store, "SELECT chain FROM onelog_position");
    assert_eq!(chain, node.chain_at(end).unwrap());
    assert!(chain.is_some());
    close(&node, &sinks);
}

#[test]
fn a_table_that_a_sink_of_an_unknown_kind_follows_is_not_deleted() {
    // Given a sink, and a program that does not have its kind of store.
    let place = Place::new();
    let (node, sinks) = following(&place);
    close(&node, &sinks);
    drop((node, sinks));
    let node = Node::open(place.options()).unwrap();
    let sinks = Sinks::start(node.clone(), Kinds::new(&[])).unwrap();
    assert!(sinks.list().is_empty());
    // When its table is to be deleted, then the sink is named all the same.
    let refused = sinks.drop_table("shop.orders").unwrap_err();
    assert!(
        refused.to_string().contains("the sink 'search'"),
        "{refused}"
    );
    close(&node, &sinks);
}

#[test]
fn a_table_that_was_made_again_does_not_empty_the_store_of_the_former_one() {
    // Given a store that follows a table, which is then deleted and made again.
    let place = Place::new();
    let (node, sinks) = following(&place);
    for n in 0..50 {
        order(&node, &format!("k{n}"), n, "of the former table");
    }
    assert_equal(&sinks, "search", node.position());
    node.drop_table_blocking("shop.orders").unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("was deleted from the log"), "{text}");
    with_orders(&node);
    let end = order(&node, "new", 1, "of the new table");
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    // When the sink is resumed, or the node is started again, or its definition changes,
    sinks.resume("search").unwrap();
    let text = wait_for_stop(&sinks, "search");
    assert!(
        text.contains("is not the one that this sink followed"),
        "{text}"
    );
    let (node, sinks) = restart(&place, node, sinks);
    let text = wait_for_stop(&sinks, "search");
    assert!(
        text.contains("is not the one that this sink followed"),
        "{text}"
    );
    let wider =
        json!({"keep_log": "10GiB", "mappings": [{"table": "shop.orders", "into": "orders"}]});
    for more in [json!({"keep_log": "1GiB"}), wider, json!({})] {
        sinks.replace(place.definition("search", &more)).unwrap();
        let text = wait_for_stop(&sinks, "search");
        assert!(
            text.contains("is not the one that this sink followed"),
            "{text}"
        );
    }
    sinks.pause("search").unwrap();
    sinks.resume("search").unwrap();
    wait_for_stop(&sinks, "search");
    // then the rows are all there.
    assert_eq!(rows(), 50);
    // When it is rebuilt, then it follows the new table, also after the next start.
    sinks.rebuild("search").unwrap();
    assert_equal(&sinks, "search", end);
    assert_eq!(rows(), 1);
    let (node, sinks) = restart(&place, node, sinks);
    let end = order(&node, "newer", 2, "of the new table");
    assert_equal(&sinks, "search", end);
    assert_eq!(rows(), 2);
    close(&node, &sinks);
}

#[test]
fn what_the_last_comparison_found_survives_a_restart() {
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "one"));
    let before = sinks.get("search").unwrap().last_verification;
    assert!(before.as_ref().unwrap().equal);
    let (node, sinks) = restart(&place, node, sinks);
    assert_eq!(sinks.get("search").unwrap().last_verification, before);
    // A change of the definition and a pause leave it as well.
    sinks
        .replace(place.definition("search", &json!({"keep_log": "1GiB"})))
        .unwrap();
    sinks.pause("search").unwrap();
    let (node, sinks) = restart(&place, node, sinks);
    assert_eq!(sinks.get("search").unwrap().last_verification, before);
    close(&node, &sinks);
}

#[test]
fn a_comparison_with_a_table_that_was_dropped_says_so() {
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "one"));
    place
        .store("search.db")
        .execute_batch("DROP TABLE orders")
        .unwrap();
    let text = sinks.verify("search").unwrap_err().to_string();
    assert!(
        text.contains("'orders'") && text.contains("dropped or renamed"),
        "{text}"
    );
    close(&node, &sinks);
}
