//! What keeps a sink right over time: repairs, comparisons on schedule, limits on the log that is
//! kept for it, definitions that change, dry runs, and waiting for it in a commit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use onelog::{CommitRequest, Node, Operation, Options, Position, Write};
use onelog_record::Compression;
use onelog_sinks::{SinkError, SinkState, SinkStatus, Sinks, SubmitError};
use onelog_store::{Kinds, failpoint};
use onelog_stores::KINDS;
use parking_lot::Mutex;
use place::{
    PATIENCE, Place, assert_equal, close, delete, one, open, order, put, verified, wait,
    wait_for_stop, with_orders,
};
use serde_json::json;

/// A figure of the node without a label.
fn gauge(node: &Node, name: &str) -> u64 {
    let text = node.metrics_text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_backlog_that_packs_well_is_unpacked_within_the_bounds_of_a_batch_and_of_all_sinks() {
    const MEMORY: u64 = 4 << 20;
    const HELD: &str = "onelog_sinks_memory_held_bytes";
    // Given 24 MiB that take some kilobytes of log, and among them one transaction that is larger
    // than everything all sinks may hold,
    let place = Place::new();
    let node = Node::open(Options {
        compression: Compression::Zstd,
        ..place.options()
    });
    let node = node.unwrap();
    let sinks = Sinks::start_within(node.clone(), KINDS, MEMORY).unwrap();
    with_orders(&node);
    let names = ["one", "two", "three"];
    for name in names {
        let bounded = json!({"batch_bytes": "2MiB"});
        sinks.create(place.definition(name, &bounded)).unwrap();
        wait(&sinks, name, node.position());
        sinks.pause(name).unwrap();
    }
    let long = json!({"total": 1, "note": "again and again ".repeat(32 << 10)});
    for n in 0..36 {
        put(&node, &format!("k{n}"), &long);
    }
    let large = node.transact(|tx| {
        for n in 0..12 {
            tx.put_json("shop.orders", format!("l{n}"), &long)?;
        }
        Ok(())
    });
    let end = large.unwrap().position;
    assert!(node.log_bytes_from(Position::ZERO) < MEMORY / 8);

    // when three sinks take it at once,
    let seen = Arc::new(Mutex::new(Vec::new()));
    for name in names {
        let (seen, node) = (Arc::clone(&seen), node.clone());
        failpoint::set(&format!("{name}:before_apply"), move || {
            seen.lock().push((name, gauge(&node, HELD)));
        });
    }
    for name in names {
        sinks.resume(name).unwrap();
    }
    for name in names {
        wait(&sinks, name, end);
        failpoint::clear(&format!("{name}:before_apply"));
    }

    // then no moment has more than the bound, each sink came in batches of its own bound, the large
    // transaction passed alone, and nothing is held in the end.
    let seen = seen.lock();
    assert_eq!(gauge(&node, "onelog_sinks_memory_bytes"), MEMORY);
    for name in names {
        let of = seen.iter().filter(|(of, _)| *of == name);
        let held: Vec<u64> = of.map(|(_, held)| *held).collect();
        assert!(held.len() > 9, "18 MiB, at most 2 MiB each: {held:?}");
        assert!(
            held.iter().all(|held| (1..=MEMORY).contains(held)),
            "{held:?}"
        );
        assert!(held.contains(&MEMORY), "the large one: {held:?}");
    }
    for name in names {
        assert_equal(&sinks, name, end);
    }
    sinks.stop();
    assert_eq!(gauge(&node, HELD), 0);
    node.stop().unwrap();
}

/// Collects what all sinks hold whenever a sink comes to this place.
fn watch_memory(node: &Node, place: &str) -> Arc<Mutex<Vec<u64>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (node, seen_there) = (node.clone(), Arc::clone(&seen));
    failpoint::set(place, move || {
        let held = gauge(&node, "onelog_sinks_memory_held_bytes");
        seen_there.lock().push(held);
    });
    seen
}

#[test]
fn a_batch_is_never_larger_than_its_definition_says() {
    const BATCH: u64 = 256 << 10;
    // Given a sink with small batches, and much for it to read,
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let small = json!({"batch_bytes": "256KiB"});
    sinks.create(place.definition("small", &small)).unwrap();
    wait(&sinks, "small", node.position());
    sinks.pause("small").unwrap();
    let value = json!({"total": 1, "note": "x".repeat(60 << 10)});
    for n in 0..150 {
        put(&node, &format!("k{n}"), &value);
    }
    // when it reads that, then no batch has more.
    let seen = watch_memory(&node, "small:before_apply");
    sinks.resume("small").unwrap();
    wait(&sinks, "small", node.position());
    failpoint::clear("small:before_apply");
    let seen = seen.lock();
    assert!(
        !seen.is_empty() && seen.iter().all(|held| *held <= BATCH),
        "{seen:?}"
    );
    close(&node, &sinks);
}

#[test]
fn a_backfill_and_a_repair_go_in_steps_of_a_bounded_size() {
    const LOADED: u64 = 4 << 20;
    // Given a table with 24 MiB in few rows,
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let long = json!({"total": 1, "note": "x".repeat(512 << 10)});
    for n in 0..48 {
        put(&node, &format!("k{n}"), &long);
    }
    // when it is loaded into a store, then that takes many steps, each within the memory of all sinks.
    let seen = watch_memory(&node, "steps:attempt");
    sinks.create(place.definition("steps", &json!({}))).unwrap();
    wait(&sinks, "steps", node.position());
    let mut loads = std::mem::take(&mut *seen.lock());
    let put_in_place = loads.pop();
    assert_eq!(put_in_place, Some(0), "what is loaded is in the store");
    assert!(loads.len() >= 5, "{loads:?}");
    assert!(loads.iter().all(|held| *held == LOADED), "{loads:?}");
    // When all of it is repaired, then that takes several steps as well.
    let store = place.store("steps.db");
    store.execute_batch("UPDATE orders SET total = 0").unwrap();
    assert!(sinks.verify_and_repair("steps").unwrap().equal);
    failpoint::clear("steps:attempt");
    let repairs = seen.lock().len();
    assert!(repairs >= 3, "{repairs} steps");
    close(&node, &sinks);
}

#[test]
fn a_repair_undoes_every_kind_of_change_by_hand_while_the_sink_goes_on() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let done = node.transact(|tx| {
        for n in 0..3000 {
            tx.put_json(
                "shop.orders",
                format!("k{n}"),
                &json!({"total": n, "note": "a note"}),
            )?;
        }
        Ok(())
    });
    let end = done.unwrap().position;
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    wait(&sinks, "shop", end);
    let store = place.store("shop.db");
    let vandalise = || {
        store
            .execute_batch(
                "UPDATE orders SET total = total + 1 WHERE total % 2 = 0;
                 UPDATE orders SET note = substr(note, 1, 3) WHERE id = 'k1';
                 DELETE FROM orders WHERE id LIKE 'k29%';
                 INSERT INTO orders VALUES ('extra', 1, 'no commit wrote this'), ('', 2, 'nor this');",
            )
            .unwrap();
    };
    vandalise();
    let found = verified(&sinks, "shop");
    assert!(
        !found.equal && found.tables[0].differences_total > 1500,
        "{}",
        found.tables[0].differences_total
    );
    let missing: i64 = 3000 - one::<i64>(&store, "SELECT count(*) FROM orders WHERE id LIKE 'k%'");

    let repaired = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..200 {
                order(&node, &format!("k{n}"), n + 10_000, "written meanwhile");
            }
        });
        let repaired = sinks.verify_and_repair("shop").unwrap();
        writer.join().unwrap();
        repaired
    });
    assert!(repaired.equal, "{repaired:#?}");
    assert!(
        repaired.repaired.unwrap() > 1000 && missing > 100,
        "{missing}"
    );
    assert_eq!(repaired.tables[0].unrepairable, Some(0));
    let found = assert_equal(&sinks, "shop", node.position());
    assert_eq!((found.tables[0].rows, found.repaired), (3000, None));
    // A second one finds nothing to do.
    assert_eq!(sinks.verify_and_repair("shop").unwrap().repaired, Some(0));
    let last = sinks.get("shop").unwrap().last_verification.unwrap();
    assert!(
        last.equal && last.repaired == 0 && !last.scheduled,
        "{last:?}"
    );
    close(&node, &sinks);
}

#[test]
fn a_row_that_no_key_of_the_log_makes_is_reported_with_what_to_do() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let end = order(&node, "a", 1, "one");
    let mut definition = place.definition("shop", &json!({}));
    let key =
        json!({"mappings": [{"table": "shop.orders", "into": "orders", "key": "order:{$key}"}]});
    definition.mappings = place.definition("shop", &key).mappings;
    sinks.create(definition).unwrap();
    wait(&sinks, "shop", end);
    let store = place.store("shop.db");
    store
        .execute_batch("INSERT INTO orders SELECT 'invoice:7', document FROM orders; DELETE FROM orders WHERE key = 'order:a'")
        .unwrap();
    let repaired = sinks.verify_and_repair("shop").unwrap();
    let table = &repaired.tables[0];
    assert!(!repaired.equal);
    assert_eq!(
        (table.repaired, table.unrepairable, table.differences_total),
        (Some(1), Some(1), 1)
    );
    assert!(
        table.advice.as_ref().unwrap().contains("invoice:7"),
        "{:?}",
        table.advice
    );
    store
        .execute_batch("DELETE FROM orders WHERE key = 'invoice:7'")
        .unwrap();
    assert_equal(&sinks, "shop", end);
    close(&node, &sinks);
}

#[test]
fn a_store_is_compared_on_its_schedule_and_the_finding_is_shown() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let end = order(&node, "a", 1, "one");
    sinks
        .create(place.definition("shop", &json!({"verify_every": "1s"})))
        .unwrap();
    wait(&sinks, "shop", end);
    let verified = |equal: bool| {
        sinks
            .wait_for_status("shop", PATIENCE, |status| {
                let last = status.last_verification.as_ref();
                last.is_some_and(|last| last.equal == equal)
            })
            .unwrap()
    };
    let status = verified(true);
    assert!(status.last_verification.unwrap().scheduled);
    place
        .store("shop.db")
        .execute_batch("UPDATE orders SET total = 2")
        .unwrap();
    let status = verified(false);
    let last = status.last_verification.unwrap();
    assert_eq!(last.differences_total, 1);
    let text = node.metrics_text();
    for line in [
        "onelog_sink_differing_rows{sink=\"shop\"} 1".to_owned(),
        format!(
            "onelog_sink_verified_position{{sink=\"shop\"}} {}",
            last.position
        ),
        "onelog_sink_last_verify_timestamp_seconds{sink=\"shop\"} ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    // Mended, the next one on the schedule says so.
    assert_eq!(sinks.verify_and_repair("shop").unwrap().repaired, Some(1));
    verified(true);
    close(&node, &sinks);
}

/// Holds a sink's thread before its next batch until it is released.
fn hang(place: &str) -> impl FnOnce() {
    let (hanging, hangs) = sync_channel::<()>(1);
    let (go, wait_to_go) = sync_channel::<()>(0);
    let wait_to_go = Arc::new(Mutex::new(wait_to_go));
    failpoint::set(place, move || {
        let _ = hanging.try_send(());
        // The sender is dropped when the thread may go on.
        let _ = wait_to_go.lock().recv();
    });
    let place = place.to_owned();
    move || {
        hangs.recv().unwrap();
        failpoint::clear(&place);
        drop(go);
    }
}

#[test]
fn a_store_that_hangs_delays_no_other_and_holds_the_log_only_so_far() {
    let place = Place::new();
    let mut options = place.options();
    options.segment_bytes = 256 << 10;
    options.retain_bytes = Some(1 << 20);
    options.checkpoint_interval_ms = 200;
    let (node, sinks) = open(options);
    with_orders(&node);
    sinks.create(place.definition("quick", &json!({}))).unwrap();
    sinks
        .create(place.definition("slow", &json!({"keep_log": "2MiB"})))
        .unwrap();
    let kept = order(&node, "gone", 1, "deleted while the store hangs");
    wait(&sinks, "slow", kept);
    wait(&sinks, "quick", kept);

    let release = hang("slow:before_apply");
    delete(&node, "gone");
    let note = "x".repeat(20_000);
    let mut n = 0;
    // The log is cut in spite of the sink that needs it, and not before its limit.
    while node.log_start() <= kept {
        let end = order(&node, &format!("k{}", n % 30), n, &note);
        wait(&sinks, "quick", end);
        n += 1;
    }
    assert!(sinks.get("slow").unwrap().left_behind);
    let text = node.metrics_text();
    assert!(
        text.contains("onelog_sink_left_behind{sink=\"slow\"} 1"),
        "{text}"
    );
    assert_equal(&sinks, "quick", node.position());

    // When it comes back it is backfilled from a snapshot.
    release();
    let end = order(&node, "back", 1, "again");
    let found = assert_equal(&sinks, "slow", end);
    assert_eq!(found.tables[0].rows, 31);
    let status = sinks.wait_for_status("slow", PATIENCE, |status| !status.left_behind);
    assert!(!status.unwrap().left_behind);
    close(&node, &sinks);
}

#[test]
fn the_log_of_a_batch_is_kept_until_the_store_has_it() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(place.definition("keeps", &json!({}))).unwrap();
    let end = order(&node, "a", 1, "one");
    wait(&sinks, "keeps", end);
    let held = |sinks: &onelog_sinks::Sinks| sinks.get("keeps").unwrap().held_log_bytes;
    assert_eq!(held(&sinks), 0);
    let (seen, sees) = sync_channel(1);
    let looking = sinks.clone();
    failpoint::set("keeps:before_apply", move || {
        let _ = seen.try_send(held(&looking));
    });
    let end = order(&node, "b", 2, &"x".repeat(10_000));
    let before = sees.recv().unwrap();
    failpoint::clear("keeps:before_apply");
    wait(&sinks, "keeps", end);
    assert!(before > 0, "the log of a batch that the store has not");
    close(&node, &sinks);
}

#[test]
fn a_definition_changes_without_a_restart() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    let end = order(&node, "a", 1, "one");
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    wait(&sinks, "shop", end);
    // What does not concern the rows leaves them alone: a mark made by hand stays.
    let store = place.store("shop.db");
    store
        .execute_batch("UPDATE orders SET note = 'a mark'")
        .unwrap();
    let lax = place.definition("shop", &json!({"on_refused": "park", "verify_every": "1d"}));
    let status = sinks.replace(lax.clone()).unwrap();
    assert_eq!(status.definition, lax);
    let end = order(&node, "b", 2, "two");
    wait(&sinks, "shop", end);
    assert_eq!(
        one::<String>(&store, "SELECT note FROM orders WHERE id = 'a'"),
        "a mark"
    );
    assert_eq!(sinks.replace(lax.clone()).unwrap().definition, lax);

    // With other columns the store is backfilled; waiters for the sink wait on.
    let columns = json!({"mappings": [{"table": "shop.orders", "into": "orders", "columns": {
        "sum": {"from": "/total", "type": "integer"}}}]});
    let changed = place.definition("shop", &columns);
    std::thread::scope(|scope| {
        let far = Position(node.position().get() + 2);
        let sinks = &sinks;
        let waiting = scope.spawn(move || sinks.wait_blocking("shop", far, PATIENCE));
        sinks.replace(changed.clone()).unwrap();
        order(&node, "c", 3, "three");
        order(&node, "d", 4, "four");
        waiting.join().unwrap().unwrap();
    });
    let found = assert_equal(&sinks, "shop", node.position());
    assert_eq!(found.tables[0].rows, 4);
    assert_eq!(one::<i64>(&store, "SELECT sum(sum) FROM orders"), 10);

    // It is what a restart finds, and what cannot be is refused without changing anything.
    let unknown = sinks.replace(place.definition("shopp", &json!({})));
    assert!(matches!(unknown, Err(SinkError::Unknown { .. })));
    let mut wrong = changed.clone();
    wrong.mappings[0].table = "shop.order".into();
    let error = sinks.replace(wrong).unwrap_err().to_string();
    assert!(error.contains("did you mean 'shop.orders'?"), "{error}");
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    assert_eq!(sinks.definition("shop").unwrap(), changed);
    assert_equal(&sinks, "shop", node.position());
    close(&node, &sinks);
}

#[test]
fn a_stopped_sink_goes_on_with_a_better_definition() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    put(&node, "a", &json!({"total": "many"}));
    let end = order(&node, "b", 1, "one");
    wait_for_stop(&sinks, "shop");
    sinks
        .replace(place.definition("shop", &json!({"on_refused": "park"})))
        .unwrap();
    wait(&sinks, "shop", end);
    let goes_on = |status: &SinkStatus| status.state == SinkState::Running && status.parked == 1;
    sinks.wait_for_status("shop", PATIENCE, goes_on).unwrap();
    close(&node, &sinks);
}

#[test]
fn a_dry_run_shows_rows_and_touches_no_store() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    for n in 0..10 {
        order(&node, &format!("k{n}"), n, "a note");
    }
    put(&node, "a bad one", &json!({"total": "many"}));
    let definition = json!({"kind": "sqlite", "mappings": [{
        "table": "shop.orders", "into": "orders", "where": ".total != 1",
        "columns": {"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "integer"}}}]});
    let dry_run = sinks.dry_run_json(&definition, 3).unwrap();
    assert_eq!(dry_run.position, node.position());
    let mapping = &dry_run.mappings[0];
    assert_eq!(
        (mapping.looked_at, mapping.left_out, mapping.rows.len()),
        (5, 1, 3)
    );
    assert_eq!(
        mapping.rows[1].columns,
        Some(json!({"id": "k2", "total": 2}).into())
    );
    assert_eq!(mapping.refused[0].key, json!("a bad one"));
    assert!(mapping.refused[0].what.contains("total"));
    let documents = json!({"kind": "redis", "mappings": [{
        "table": "shop.orders", "into": "orders", "fields": {"sum": "/total"}, "key": "order:{$key}"}]});
    let dry_run = sinks.dry_run_json(&documents, 100).unwrap();
    let row = &dry_run.mappings[0].rows[1];
    assert_eq!(
        (&row.key, &row.document),
        (&json!("order:k0"), &Some(json!({"sum": 0}).into()))
    );
    assert_eq!(dry_run.mappings[0].rows.len(), 11);
    let mut wrong = definition;
    wrong["mappings"][0]["where"] = json!(".total ==");
    let error = sinks.dry_run_json(&wrong, 3).unwrap_err().to_string();
    assert!(error.contains("mappings[0].where"), "{error}");
    assert!(sinks.list().is_empty() && !place.path("try.db").exists());
    close(&node, &sinks);
}

#[test]
fn a_commit_can_wait_for_stores() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(place.definition("quick", &json!({}))).unwrap();
    sinks
        .create(place.definition("still", &json!({"paused": true})))
        .unwrap();
    let table = node.catalog().by_name("shop.orders").unwrap().id;
    let request = |key: &'static str| CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::from_static(key.as_bytes()),
            operation: Operation::Put(Bytes::from_static(br#"{"total":1}"#)),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    };
    let names = ["quick".to_owned()];
    let (committed, waited) = sinks
        .submit_and_wait(request("a"), &names, PATIENCE)
        .unwrap();
    assert!(waited["quick"].reached && waited["quick"].position >= Some(committed.position));
    let rows: i64 = one(&place.store("quick.db"), "SELECT count(*) FROM orders");
    assert_eq!(rows, 1);
    // One that is paused is reported, and the transaction stays.
    let names = ["quick".to_owned(), "still".to_owned()];
    let short = std::time::Duration::from_millis(200);
    let (committed, waited) = sinks.submit_and_wait(request("b"), &names, short).unwrap();
    assert!(
        !waited["still"].reached && waited["still"].reason.is_some(),
        "{waited:?}"
    );
    assert!(node.position() >= committed.position);
    // An unknown one is refused before anything is committed.
    let before = node.position();
    let refused = sinks.submit_and_wait(request("c"), &["qick".to_owned()], short);
    assert!(matches!(
        refused,
        Err(SubmitError::Sink(SinkError::Unknown { .. }))
    ));
    assert_eq!(node.position(), before);
    close(&node, &sinks);
}

#[test]
fn the_log_is_kept_for_a_sink_whose_kind_this_program_does_not_know() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_orders(&node);
    sinks.create(place.definition("shop", &json!({}))).unwrap();
    wait(&sinks, "shop", order(&node, "a", 1, "one"));
    close(&node, &sinks);
    drop((node, sinks));

    let node = Node::open(place.options()).unwrap();
    let sinks = Sinks::start(node.clone(), Kinds::new(&[])).unwrap();
    assert!(sinks.list().is_empty());
    let kept = node.status().slowest_follower.unwrap();
    assert_eq!(
        (kept.name.as_str(), kept.position),
        ("sink shop", node.log_start())
    );
    close(&node, &sinks);
    drop((node, sinks));

    let (node, sinks) = place.open();
    assert_equal(&sinks, "shop", order(&node, "b", 2, "two"));
    close(&node, &sinks);
}
