//! What would delete many rows of a store stops until that is allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use onelog::Node;
use onelog_sinks::{Lost, SinkError, Sinks};
use onelog_store::failpoint;
use place::{Place, assert_equal, close, one, order, wait, wait_for_stop, with_orders};
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
fn a_backfill_that_would_empty_a_table_stops_and_says_how_many_rows_until_it_is_allowed() {
    // Given a store with a thousand rows.
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    node.transact(|tx| {
        (0..1000).try_for_each(|n| {
            let value = json!({"total": n, "note": "a note"});
            tx.put_json("shop.orders", format!("k{n}"), &value)
        })
    })
    .unwrap();
    sinks
        .create(place.definition("search", &json!({})))
        .unwrap();
    assert_equal(&sinks, "search", node.position());
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    // When its definition leaves nearly all of them out,
    let mapping = |filter: &str| {
        json!({"mappings": [{"table": "shop.orders", "into": "orders", "where": filter, "columns": {
            "id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "integer"},
            "note": {"from": "/note", "type": "text"}}}]})
    };
    let few = mapping(".total < 10");
    sinks.replace(place.definition("search", &few)).unwrap();
    // then the sink stops with the number, also when it is resumed, rebuilt or started again,
    let says = "would delete 990 of the 1000 rows of 'orders'";
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains(says), "{text}");
    sinks.resume("search").unwrap();
    assert!(wait_for_stop(&sinks, "search").contains(says));
    sinks.rebuild("search").unwrap();
    assert!(wait_for_stop(&sinks, "search").contains(says));
    let (node, sinks) = restart(&place, node, sinks);
    assert!(wait_for_stop(&sinks, "search").contains(says));
    assert_eq!(rows(), 1000);
    // and goes on with a definition that keeps most of them, or allows it.
    let most = mapping(".total < 900");
    sinks.replace(place.definition("search", &most)).unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(rows(), 900);
    let mut allowed = mapping(".total < 500");
    allowed["max_deletes"] = json!(399);
    sinks.replace(place.definition("search", &allowed)).unwrap();
    assert!(wait_for_stop(&sinks, "search").contains("would delete 400 of the 900 rows"));
    allowed["max_deletes"] = json!(400);
    sinks.replace(place.definition("search", &allowed)).unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(rows(), 500);
    // When the user says so, then it deletes them, but only this once.
    sinks.replace(place.definition("search", &few)).unwrap();
    wait_for_stop(&sinks, "search");
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(rows(), 10);
    sinks.rebuild("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
}

#[test]
fn rows_that_others_write_while_a_table_is_made_anew_are_not_dropped_unasked() {
    // Given a sink whose table is made anew,
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", node.position());
    let file = place.path("search.db");
    failpoint::set("search:before_finish", move || {
        // when another process writes many rows to it meanwhile,
        failpoint::clear("search:before_finish");
        let store = rusqlite::Connection::open(&file).unwrap();
        store
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO orders (id, total) SELECT 'mine' || i, i FROM n",
            )
            .unwrap();
    });
    sinks.rebuild("search").unwrap();
    // then the sink stops with their number, and they are there until it is allowed.
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("would delete 500 of the"), "{text}");
    let mine = "SELECT count(*) FROM orders WHERE id LIKE 'mine%'";
    assert_eq!(one::<i64>(&place.store("search.db"), mine), 500);
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(one::<i64>(&place.store("search.db"), mine), 0);
    close(&node, &sinks);
}

/// A node with a thousand orders, and a sink `search` that has them.
fn with_a_thousand_orders(place: &Place) -> (Node, Sinks) {
    let (node, sinks) = following(place);
    node.transact(|tx| {
        (0..1000).try_for_each(|n| {
            let value = json!({"total": n, "note": "a note"});
            tx.put_json("shop.orders", format!("k{n}"), &value)
        })
    })
    .unwrap();
    assert_equal(&sinks, "search", node.position());
    (node, sinks)
}

/// Orders with a small total, by another name of the key's column.
fn few_by_another_key() -> serde_json::Value {
    json!({"mappings": [{"table": "shop.orders", "into": "orders", "where": ".total < 10", "columns": {
        "order_id": {"from": "$key", "type": "text"},
        "total": {"from": "/total", "type": "integer"}}}]})
}

#[test]
fn rows_that_a_deleted_sink_left_are_counted_also_where_their_key_has_another_column() {
    // Given a table with a thousand rows that a deleted sink left,
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    sinks.delete("search").unwrap();
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    let before = rows();
    // when another sink is to backfill it whose key has another column,
    let few = place.definition("search", &few_by_another_key());
    sinks.create(few).unwrap();
    // then it stops with the number.
    let text = wait_for_stop(&sinks, "search");
    let says = format!("would delete {before} of the {before} rows of 'orders'");
    assert!(text.contains(&says), "{text}");
    assert_eq!(rows(), before);
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
}

#[test]
fn rows_are_counted_also_where_the_definition_gives_their_key_another_column() {
    // Given a store with a thousand rows.
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    // When its definition leaves nearly all out, and names the key's column differently,
    let few = few_by_another_key();
    sinks.replace(place.definition("search", &few)).unwrap();
    // then the sink stops with the number, also after the next start and the next definition.
    let says = "would delete 990 of the 1000 rows of 'orders'";
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains(says), "{text}");
    let (node, sinks) = restart(&place, node, sinks);
    assert!(wait_for_stop(&sinks, "search").contains(says));
    let mut fewer = few;
    fewer["keep_log"] = json!("1GiB");
    sinks.replace(place.definition("search", &fewer)).unwrap();
    assert!(wait_for_stop(&sinks, "search").contains(says));
    assert_eq!(rows(), 1000);
    // When the user says so, then they are deleted.
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(rows(), 10);
    close(&node, &sinks);
}

#[test]
fn rows_of_refused_records_are_counted_where_new_tables_take_the_place_of_the_old() {
    // Given a store with a thousand rows, and a quarter of them parked as they were before.
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    let parks = place.definition("search", &json!({"on_refused": "park"}));
    sinks.replace(parks).unwrap();
    node.transact(|tx| {
        (0..250).try_for_each(|n| {
            tx.put_json("shop.orders", format!("k{n}"), &json!({"total": "many"}))
        })
    })
    .unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!((sinks.get("search").unwrap().parked, rows()), (250, 1000));
    // When the store is rebuilt, then the sink stops with their number.
    sinks.rebuild("search").unwrap();
    let text = wait_for_stop(&sinks, "search");
    let says = "would delete 250 of the 1000 rows of 'orders'";
    assert!(text.contains(says), "{text}");
    assert_eq!(rows(), 1000);
    // When the user says so, then they are deleted, and they are parked still.
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!((sinks.get("search").unwrap().parked, rows()), (250, 750));
    close(&node, &sinks);
}

#[test]
fn a_dry_run_shows_what_would_be_deleted() {
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    let run = |definition: &onelog_store::SinkDefinition| {
        let found = sinks.dry_run(definition, 1).unwrap();
        found.mappings[0].store.clone().unwrap()
    };
    // When a definition would delete nearly all rows, then the dry run says how many.
    let found = run(&place.definition("search", &few_by_another_key()));
    assert_eq!((found.rows, found.deletes), (1000, 990), "{found:?}");
    assert!(found.is_too_much && found.counted_all, "{found:?}");
    // The definition in force deletes none, and one of a store that is not there has nothing to delete.
    let found = run(&place.definition("search", &json!({})));
    assert_eq!((found.rows, found.deletes), (1000, 0), "{found:?}");
    let away = json!({"path": place.path("nowhere/there.db")});
    let found = run(&place.definition("other", &away));
    assert!(found.why.is_some(), "{found:?}");
    // Nothing was written.
    let store = place.store("search.db");
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 1000);
    assert!(!place.path("nowhere").exists());
    close(&node, &sinks);
}

#[test]
fn a_dry_run_names_what_users_have_added_to_a_table_that_is_replaced() {
    // Given a table of onelog's to which a user has added an index and a column,
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    let lost = |definition: &onelog_store::SinkDefinition| {
        let found = sinks.dry_run(definition, 1).unwrap();
        found.mappings[0].store.clone().unwrap().lost
    };
    let another = place.definition("search", &few_by_another_key());
    assert_eq!(lost(&another), [""; 0]);
    let store = place.store("search.db");
    store
        .execute_batch("CREATE INDEX mine ON orders (id); ALTER TABLE orders ADD COLUMN mood TEXT")
        .unwrap();
    // when a definition is tried whose backfill makes the table anew, then both are named,
    let added = ["the column 'mood'", "the index 'mine'"];
    assert_eq!(lost(&another), added);
    // and so many that the answer would be long, are counted.
    for n in 0..25 {
        store
            .execute_batch(&format!("CREATE INDEX i{n:02} ON orders (id)"))
            .unwrap();
    }
    let found = lost(&another);
    assert_eq!((found.len(), &*found[20]), (21, "7 more"), "{found:?}");
    // When the sink gets that definition, then the answer names them too, and not where nothing is
    // made anew.
    let mut same = sinks.definition("search").unwrap();
    same.max_deletes = Some(5);
    assert_eq!(sinks.replace_and_leave(same).unwrap().lost, []);
    let replaced = sinks.replace_and_leave(another.clone()).unwrap();
    let into = "orders".to_owned();
    assert_eq!(replaced.lost, [Lost { into, lost: found }]);
    close(&node, &sinks);
}

#[test]
fn a_repair_that_would_delete_many_rows_stops_and_says_how_many_until_it_is_allowed() {
    // Given a store with a few rows that the log does not have, or with many.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "one"));
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    let add = |count: u32| {
        let sql = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
             INSERT INTO orders (id) SELECT 'extra' || n FROM n"
        );
        store.execute_batch(&sql).unwrap();
    };
    // When a few are repaired, then they are gone.
    add(50);
    assert!(sinks.verify_and_repair("search").unwrap().equal);
    assert_eq!(rows(), 1);
    // When many would be, then none is, and the number is said,
    add(500);
    let error = sinks.verify_and_repair("search").unwrap_err();
    assert!(matches!(error, SinkError::TooManyDeletes { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("would delete 500 of the 501 rows of 'orders'"),
        "{text}"
    );
    assert_eq!(rows(), 501);
    // until it is asked for.
    assert!(sinks.verify_and_repair_deleting("search").unwrap().equal);
    assert_eq!(rows(), 1);
    close(&node, &sinks);
}

#[test]
fn a_sink_that_stopped_in_a_rebuild_names_the_one_command_that_helps() {
    // Given a rebuild that would delete many rows, and stopped before that.
    let place = Place::new();
    let (node, sinks) = following(&place);
    assert_equal(&sinks, "search", order(&node, "a", 1, "one"));
    let store = place.store("search.db");
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    store
        .execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500)
             INSERT INTO orders (id) SELECT 'extra' || n FROM n",
        )
        .unwrap();
    sinks.rebuild("search").unwrap();
    let remedy = "onelog sinks rebuild search --delete-rows";
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains(remedy), "{text}");
    // When it is to be repaired, then nothing is named that a stopped sink refuses.
    for error in [
        sinks.verify_and_repair("search").unwrap_err(),
        sinks.verify_and_repair_deleting("search").unwrap_err(),
    ] {
        assert!(matches!(error, SinkError::Stopped { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(remedy), "{text}");
    }
    assert_eq!(rows(), 501);
    // When that command is given, then it does what was said.
    sinks.rebuild_deleting("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    assert_eq!(rows(), 1);
    close(&node, &sinks);
}

#[test]
fn a_rebuild_that_has_stopped_goes_on_when_resumed_and_is_given_up_by_a_pause() {
    // Given a sink that follows, and rows in its store that the log does not have.
    let place = Place::new();
    let (node, sinks) = with_a_thousand_orders(&place);
    let store = place.store("search.db");
    store
        .execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300)
             INSERT INTO orders SELECT 'extra' || n, n, '' FROM n",
        )
        .unwrap();
    let rows = || one::<i64>(&store, "SELECT count(*) FROM orders");
    let says = "would delete 300 of the 1300 rows of 'orders'";
    // When a rebuild stops because of them, then a resumed sink begins it again.
    sinks.rebuild("search").unwrap();
    assert!(wait_for_stop(&sinks, "search").contains(says));
    sinks.resume("search").unwrap();
    assert!(wait_for_stop(&sinks, "search").contains(says));
    // When it is given up, then the sink follows again, and nothing was deleted.
    sinks.pause("search").unwrap();
    sinks.resume("search").unwrap();
    let position = order(&node, "one more", 1, "a note");
    wait(&sinks, "search", position);
    assert_eq!(rows(), 1301);
    // Then another rebuild asks again.
    sinks.rebuild("search").unwrap();
    assert!(wait_for_stop(&sinks, "search").contains("would delete 300 of the 1301 rows"));
    close(&node, &sinks);
}
