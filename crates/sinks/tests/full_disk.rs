//! What a sink does while the disk of its node is full, and the node takes no commits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use onelog::{Node, Options};
use onelog_log::SimulatedDisk;
use onelog_sinks::{Replay, Sinks};
use onelog_stores::KINDS;
use place::{PATIENCE, Place, assert_equal, close, order, parked_records, put, wait, with_orders};
use serde_json::json;

const RESERVE_BYTES: u64 = 8 << 20;

/// A log that is cut soon.
fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        retain_bytes: Some(1 << 20),
        checkpoint_interval_ms: 200,
        disk_reserve_bytes: RESERVE_BYTES,
        ..Options::new("in memory")
    }
}

#[test]
fn a_sink_with_records_of_parked_rows_to_remove_follows_while_the_disk_is_full() {
    // Given a sink that has parked a row and replayed it, and a log that was cut behind that,
    let place = Place::new();
    let disk = SimulatedDisk::new(1);
    disk.set_free_bytes(1 << 30);
    let state = Arc::new(SimulatedDisk::new(2));
    let node = Node::open_on(Arc::new(disk.clone()), state, options()).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    with_orders(&node);
    let definition = place.definition("shop", &json!({"on_refused": "park"}));
    sinks.create(definition).unwrap();
    let at = put(&node, "bad", &json!({"total": "many"}));
    wait(&sinks, "shop", at);
    let at = order(&node, "bad", 1, "fits");
    wait(&sinks, "shop", at);
    assert_eq!(sinks.replay("shop", Replay::All).unwrap().replayed, 1);
    let at = node.position();
    let note = "x".repeat(20_000);
    for n in 0.. {
        if node.log_start() > at {
            break;
        }
        order(&node, &format!("k{}", n % 30), n, &note);
    }
    sinks.stop();
    let end = order(&node, "last", 1, "written while no sink runs");
    assert_eq!(
        parked_records(&node),
        1,
        "it is removed at a start of the sink"
    );
    // when the disk is full at the start of the sink,
    disk.set_free_bytes(RESERVE_BYTES - 1);
    let begun = Instant::now();
    while !node.status().disk.unwrap().read_only {
        assert!(begun.elapsed() < PATIENCE, "the node never notices it");
        thread::yield_now();
    }
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    // then it follows all the same,
    assert_equal(&sinks, "shop", end);
    assert_eq!(sinks.get("shop").unwrap().last_error, None);
    assert_eq!(parked_records(&node), 1);
    // and removes the record at its next start with room.
    sinks.stop();
    disk.set_free_bytes(1 << 30);
    let begun = Instant::now();
    while node.status().disk.unwrap().read_only {
        assert!(begun.elapsed() < PATIENCE, "the node never notices it");
        thread::yield_now();
    }
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    let end = order(&node, "last", 2, "with room");
    assert_equal(&sinks, "shop", end);
    assert_eq!(parked_records(&node), 0);
    close(&node, &sinks);
}
