//! Records that a store refuses are parked, wait, and are replayed; nothing else waits for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use onelog_sinks::{PARKED_MAX, Replay, SinkState, Sinks};
use onelog_store::{SinkDefinition, StoreErrorCode, failpoint};
use place::{
    PATIENCE, Place, assert_equal, close, delete, one, order, parked_records, put, verified, wait,
    wait_for_stop, with_orders,
};
use serde_json::{Value, json};

fn parking(place: &Place, name: &str) -> SinkDefinition {
    place.definition(name, &json!({"on_refused": "park"}))
}

fn keys(sinks: &Sinks, name: &str) -> Vec<String> {
    let parked = sinks.parked(name).unwrap();
    let key = |key: &Value| key.as_str().unwrap().to_owned();
    parked.iter().map(|parked| key(&parked.key)).collect()
}

fn only(key: &str) -> Replay {
    Replay::Keys(vec![(
        "orders".into(),
        Bytes::copy_from_slice(key.as_bytes()),
    )])
}

#[test]
fn a_refused_record_and_the_later_ones_of_its_key_wait_while_all_others_go_on() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "shop")).unwrap();
    order(&node, "a", 1, "one");
    let end = order(&node, "b", 2, "two");
    wait(&sinks, "shop", end);
    let first = put(&node, "b", &json!({"total": "many"}));
    // The store has met it: otherwise the next one might take its place in one batch.
    wait(&sinks, "shop", first);
    order(&node, "b", 3, "fits, but comes behind");
    let end = order(&node, "c", 4, "other");

    // Everything else is there, and the key has its last row before the refusal.
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!(found.tables[0].parked, 1);
    let store = place.store("shop.db");
    let total: i64 = one(&store, "SELECT total FROM orders WHERE id = 'b'");
    assert_eq!(total, 2);
    assert_eq!(one::<i64>(&store, "SELECT count(*) FROM orders"), 3);
    let parked = sinks.parked("shop").unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (&parked[0].key, parked[0].into.as_str()),
        (&json!("b"), "orders")
    );
    assert_eq!(parked[0].first_offset.after(), first);
    assert!(parked[0].newest_offset.unwrap().after() > first);
    assert!(parked[0].what.contains("total"), "{}", parked[0].what);
    let status = sinks.get("shop").unwrap();
    assert_eq!((status.parked, &status.last_error), (1, &None));
    let text = node.metrics_text();
    assert!(
        text.contains("onelog_sink_parked_keys{sink=\"shop\"} 1"),
        "{text}"
    );

    // It is remembered across a restart, and still waits.
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    let end = order(&node, "b", 5, "after the restart");
    assert_equal(&sinks, "shop", end);
    let total: i64 = one(&store, "SELECT total FROM orders WHERE id = 'b'");
    assert_eq!((total, keys(&sinks, "shop")), (2, vec!["b".to_owned()]));

    // A replay writes the newest image, and from then on the key is as every other.
    let done = sinks.replay("shop", Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 0));
    let total: i64 = one(&store, "SELECT total FROM orders WHERE id = 'b'");
    assert_eq!(total, 5);
    let end = order(&node, "b", 6, "as every other");
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!(
        (found.tables[0].parked, sinks.get("shop").unwrap().parked),
        (0, 0)
    );
    assert!(keys(&sinks, "shop").is_empty());
    close(&node, &sinks);
}

#[test]
fn a_record_is_parked_in_the_log_before_the_store_passes_it() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "first")).unwrap();
    let end = order(&node, "a", 1, "one");
    wait(&sinks, "first", end);
    let (seen, sees) = std::sync::mpsc::sync_channel(1);
    let path = place.path("first.db");
    failpoint::set("first:after_park", move || {
        let store = rusqlite::Connection::open(&path).unwrap();
        let _ = seen.try_send(one::<i64>(&store, "SELECT count(*) FROM orders"));
    });
    let done = node.transact(|tx| {
        tx.put_json("shop.orders", "bad", &json!({"total": "many"}))?;
        tx.put_json("shop.orders", "good", &json!({"total": 2}))
    });
    assert_equal(&sinks, "first", done.unwrap().position);
    failpoint::clear("first:after_park");
    assert_eq!(sees.recv().unwrap(), 1);
    assert_eq!(keys(&sinks, "first"), ["bad"]);
    close(&node, &sinks);
}

#[test]
fn what_the_store_itself_refuses_is_parked_with_its_message() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "shop")).unwrap();
    let end = order(&node, "seen", -1, "was there before");
    wait(&sinks, "shop", end);
    let store = place.store("shop.db");
    for event in ["INSERT", "UPDATE"] {
        let sql = format!(
            "CREATE TRIGGER no_{event} BEFORE {event} ON orders WHEN NEW.total < 0
             BEGIN SELECT RAISE(ABORT, 'no negative totals'); END"
        );
        store.execute_batch(&sql).unwrap();
    }
    // Good and bad ones in one transaction: the good ones are in the store.
    let done = node.transact(|tx| {
        for n in -5..5 {
            tx.put_json("shop.orders", format!("k{n}"), &json!({"total": n}))?;
        }
        tx.put_json("shop.orders", "many", &json!({"total": "many"}))
    });
    let end = done.unwrap().position;
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (6, 6));
    let parked = sinks.parked("shop").unwrap();
    assert!(parked[0].what.contains("no negative totals"), "{parked:#?}");

    // Nothing was mended but one key: the others are refused again.
    let end = order(&node, "k-1", 7, "mended");
    wait(&sinks, "shop", end);
    let done = sinks.replay("shop", Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 5));
    assert_eq!(
        one::<i64>(&store, "SELECT total FROM orders WHERE id = 'k-1'"),
        7
    );

    // One key alone can be replayed; a deleted one is deleted in the store.
    store.execute_batch("DROP TRIGGER no_INSERT").unwrap();
    let done = sinks.replay("shop", only("k-2")).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 0));
    let end = delete(&node, "many");
    wait(&sinks, "shop", end);
    let listed = sinks.parked("shop").unwrap();
    let many = listed.iter().find(|parked| parked.key == json!("many"));
    assert_eq!(many.unwrap().newest_offset, None);
    let done = sinks.replay("shop", Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (4, 0));
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (11, 0));
    close(&node, &sinks);
}

#[test]
fn a_backfill_parks_what_the_store_refuses_and_a_rebuild_tries_everything_again() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    for n in 0..20 {
        order(&node, &format!("k{n}"), n, "fine");
    }
    put(&node, "bad", &json!({"total": 0.5}));
    put(&node, "worse", &json!({"total": []}));
    sinks.create(parking(&place, "shop")).unwrap();
    let found = assert_equal(&sinks, "shop", node.position());
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (20, 2));
    assert_eq!(keys(&sinks, "shop"), ["bad", "worse"]);

    // One is mended, another one breaks, and a rebuild finds out.
    order(&node, "bad", 1, "mended");
    let end = put(&node, "k3", &json!({"total": "three"}));
    wait(&sinks, "shop", end);
    assert_eq!(keys(&sinks, "shop"), ["bad", "k3", "worse"]);
    sinks.rebuild("shop").unwrap();
    let status = sinks.wait_for_status("shop", PATIENCE, |status| status.parked == 2);
    assert_eq!(status.unwrap().parked, 2);
    let end = order(&node, "bad", 2, "followed again");
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (20, 2));
    assert_eq!(keys(&sinks, "shop"), ["k3", "worse"]);

    // With the sink goes what it had parked.
    sinks.delete("shop").unwrap();
    assert_eq!(parked_records(&node), 0);
    close(&node, &sinks);
}

#[test]
fn a_store_restored_from_before_a_replay_gets_the_replayed_rows_again() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "shop")).unwrap();
    let end = order(&node, "a", 1, "one");
    wait(&sinks, "shop", end);
    let bad = put(&node, "a", &json!({"total": "many"}));
    wait(&sinks, "shop", bad);
    order(&node, "a", 2, "two");
    let end = order(&node, "b", 3, "three");
    wait(&sinks, "shop", end);
    close(&node, &sinks);
    drop((node, sinks));
    std::fs::copy(place.path("shop.db"), place.path("old.db")).unwrap();

    let (node, sinks) = place.open();
    let end = order(&node, "b", 4, "later");
    wait(&sinks, "shop", end);
    assert_eq!(sinks.replay("shop", Replay::All).unwrap().replayed, 1);
    let end = order(&node, "c", 5, "later still");
    assert_equal(&sinks, "shop", end);
    close(&node, &sinks);
    drop((node, sinks));

    // The log alone does not bring the row back: its records were left out of this copy for good.
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("shop.db{suffix}")));
    }
    std::fs::rename(place.path("old.db"), place.path("shop.db")).unwrap();
    let (node, sinks) = place.open();
    wait(&sinks, "shop", end);
    let status = sinks.wait_for_status("shop", PATIENCE, |status| status.parked == 0);
    assert_eq!(status.unwrap().parked, 0);
    let found = assert_equal(&sinks, "shop", end);
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (3, 0));
    close(&node, &sinks);
}

#[test]
fn a_sink_that_parks_too_much_stops_with_a_message() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "shop")).unwrap();
    for part in 0..3 {
        let done = node.transact(|tx| {
            for n in 0..PARKED_MAX / 2 - 1 + part {
                tx.put_json("shop.orders", format!("{part}/{n}"), &json!({"total": "x"}))?;
            }
            Ok(())
        });
        done.unwrap();
    }
    let message = wait_for_stop(&sinks, "shop");
    assert!(
        message.contains("10000") && message.contains("rebuild"),
        "{message}"
    );
    assert!(sinks.get("shop").unwrap().parked <= PARKED_MAX as u64);
    close(&node, &sinks);
}

#[test]
fn without_the_policy_nothing_is_parked_but_what_was_stays_so() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "shop")).unwrap();
    let end = put(&node, "a", &json!({"total": "many"}));
    wait(&sinks, "shop", end);
    sinks
        .replace(place.definition("shop", &json!({"on_refused": "stop"})))
        .unwrap();
    let end = order(&node, "a", 1, "parked all the same");
    wait(&sinks, "shop", end);
    assert_eq!(verified(&sinks, "shop").tables[0].parked, 1);
    put(&node, "b", &json!({"total": "many"}));
    assert!(wait_for_stop(&sinks, "shop").contains("total"));
    let error = sinks.replay("shop", Replay::All).unwrap_err();
    assert!(error.to_string().contains("has stopped"), "{error}");
    close(&node, &sinks);
}

#[test]
fn many_refusals_in_one_batch_cost_one_attempt_more() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "many")).unwrap();
    let end = order(&node, "first", 1, "one");
    wait(&sinks, "many", end);
    let store = place.store("many.db");
    store
        .execute_batch("CREATE UNIQUE INDEX one_of_each ON orders (total)")
        .unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    failpoint::set("many:attempt", move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let done = node.transact(|tx| {
        for n in 0..6000 {
            let total = n - i64::from(n % 10 == 9) + 10;
            tx.put_json(
                "shop.orders",
                format!("k{n:04}"),
                &json!({ "total": total }),
            )?;
        }
        Ok(())
    });
    let found = assert_equal(&sinks, "many", done.unwrap().position);
    failpoint::clear("many:attempt");
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (5401, 600));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    close(&node, &sinks);
}

#[test]
fn a_file_that_another_process_writes_is_not_writable_now_and_followed_again_by_itself() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(parking(&place, "held")).unwrap();
    let end = order(&node, "a", 1, "one");
    wait(&sinks, "held", end);
    let other = place.store("held.db");
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let end = order(&node, "a", 2, "two");
    let status = sinks.wait_for_status("held", PATIENCE, |status| status.last_error.is_some());
    let status = status.unwrap();
    let fault = status.last_error.unwrap();
    assert_eq!(fault.code, Some(StoreErrorCode::NotWritable), "{fault:?}");
    assert_eq!(status.state, SinkState::Waiting);
    assert!(keys(&sinks, "held").is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    assert_equal(&sinks, "held", end);
    assert_eq!(sinks.get("held").unwrap().state, SinkState::Running);
    close(&node, &sinks);
}
