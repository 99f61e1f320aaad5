//! A real process that is killed while it parks records and while it replays them: nothing is
//! lost, whatever the place. The test runs itself again as the victim.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::process::Command;

use onelog::Node;
use onelog_sinks::{Replay, Sinks};
use onelog_store::failpoint;
use place::{PATIENCE, Place, assert_equal, close, one, order, put, wait, with_orders};
use serde_json::json;

const LOG: &str = "ONELOG_TEST_LOG";
const EVENT: &str = "ONELOG_TEST_EVENT";
const ROUNDS: usize = 3;

/// Good and bad records in turn.
fn write(node: &Node) {
    for n in 0..20 {
        order(node, &format!("good{n}"), n, "fine");
        put(node, &format!("bad{}", n % 5), &json!({"total": "many"}));
    }
}

/// Every key that was bad is good.
fn mend(node: &Node) {
    for n in 0..5 {
        order(node, &format!("bad{n}"), 1000 + n, "mended");
    }
}

/// Does nothing unless it was started by the other test.
#[test]
fn the_victim() {
    let (Ok(log), Ok(event)) = (std::env::var(LOG), std::env::var(EVENT)) else {
        return;
    };
    let (node, sinks) = place::open(onelog::Options::new(log));
    let end = order(&node, "before", 0, "the end");
    wait(&sinks, "shop", end);
    failpoint::set(&format!("shop:{event}"), || std::process::abort());
    write(&node);
    // The store has met the bad ones before good ones take their places in a batch.
    wait(&sinks, "shop", node.position());
    mend(&node);
    wait(&sinks, "shop", node.position());
    // Nothing comes here but those who die while they replay.
    let _ = sinks.replay("shop", Replay::All);
    panic!("the process should have died at {event}");
}

fn finish(sinks: &Sinks, node: &Node) {
    wait(sinks, "shop", node.position());
    // As long as a key waits, the comparison leaves exactly that one out.
    let waiting = sinks.get("shop").unwrap().parked;
    let found = assert_equal(sinks, "shop", node.position());
    assert_eq!(found.tables[0].parked, waiting);
    sinks.replay("shop", Replay::All).unwrap();
    let done = sinks.wait_for_status("shop", PATIENCE, |status| status.parked == 0);
    assert_eq!(done.unwrap().parked, 0);
}

#[test]
fn a_process_killed_while_it_parks_records_or_replays_them_loses_nothing() {
    for round in 0..ROUNDS {
        for event in [
            "after_park",
            "before_commit",
            "after_commit",
            "after_replay",
        ] {
            let place = Place::new();
            let (node, sinks) = place.open();
            with_orders(&node);
            let definition = place.definition("shop", &json!({"on_refused": "park"}));
            sinks.create(definition).unwrap();
            let end = order(&node, "first", 0, "of all");
            wait(&sinks, "shop", end);
            close(&node, &sinks);
            drop((sinks, node));

            let victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "the_victim", "--nocapture"])
                .env(LOG, place.path("log"))
                .env(EVENT, event)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&victim.stderr);
            assert!(!victim.status.success(), "{event} {round}: {stderr}");
            assert!(
                !stderr.contains("should have died"),
                "{event} {round}: {stderr}"
            );

            let (node, sinks) = place.open();
            write(&node);
            mend(&node);
            finish(&sinks, &node);
            let found = assert_equal(&sinks, "shop", node.position());
            let table = &found.tables[0];
            assert_eq!((table.rows, table.parked), (27, 0), "{event}: {found:#?}");
            let sum = "SELECT sum(total) FROM orders WHERE id LIKE 'bad%'";
            assert_eq!(one::<i64>(&place.store("shop.db"), sum), 5010);
            close(&node, &sinks);
        }
    }
}
