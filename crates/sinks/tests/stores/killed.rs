//! A process that dies around parking and replaying: the test's own program.

use std::process::Command;

use onelog::Node;
use onelog_sinks::Replay;
use onelog_store::failpoint;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::world::{PATIENCE, World, open, order, put};

const LOG: &str = "ONELOG_TEST_LOG";
const EVENT: &str = "ONELOG_TEST_EVENT";
const REFUSED: &str = "ONELOG_TEST_REFUSED";
const SINK: &str = "killed";
/// Before a place that counts from the replay on.
const REPLAYING: &str = "replaying:";

/// Good and bad records in turn.
fn write(node: &Node, refused: &Value) {
    for n in 0..10 {
        order(node, &format!("good{n}"), n);
        put(node, &format!("bad{}", n % 3), refused);
    }
}

/// Every key that was bad is good.
fn mend(node: &Node) {
    for n in 0..3 {
        order(node, &format!("bad{n}"), 1000 + n);
    }
}

/// The part of the process that dies.
pub fn live_and_die() {
    let value = |name| std::env::var(name).ok();
    let (Some(log), Some(event), Some(refused)) = (value(LOG), value(EVENT), value(REFUSED)) else {
        return;
    };
    let (node, sinks) = open(log.as_ref());
    let wait = |position| sinks.wait_blocking(SINK, position, PATIENCE).unwrap();
    wait(order(&node, "before", 0));
    let die_at = |event: &str| {
        failpoint::set(&format!("{SINK}:{event}"), || std::process::abort());
    };
    if !event.starts_with(REPLAYING) {
        die_at(&event);
    }
    write(&node, &serde_json::from_str(&refused).unwrap());
    // The store has met the bad ones before good ones take their places in a batch.
    wait(node.position());
    mend(&node);
    wait(node.position());
    // Nothing comes here but those who die while they replay.
    if let Some(event) = event.strip_prefix(REPLAYING) {
        die_at(event);
    }
    let _ = sinks.replay(SINK, Replay::All);
    panic!("the process should have died at {event}");
}

pub fn a_process_that_dies_while_it_parks_or_replays_loses_nothing(rig: &dyn Rig) {
    let mut world = World::new(rig, SINK);
    world.create(&json!({"on_refused": "park"}));
    world.order("first", 0);
    world.wait();
    rig.forbid(&world.table("orders"));
    for event in [
        "after_park",
        "before_commit",
        "after_commit",
        "replaying:before_commit",
        "after_replay",
    ] {
        world.close();
        let victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_victim", "--nocapture"])
            .env(LOG, world.log())
            .env(EVENT, event)
            .env(REFUSED, rig.refused().to_string())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&victim.stderr);
        assert!(!victim.status.success(), "{event}: {message}");
        assert!(!message.contains("panicked"), "{event}: {message}");

        world.reopen();
        // Before anything is written again, which would hide a row that was lost.
        world.assert_equal();
        write(world.node(), &rig.refused());
        mend(world.node());
        world.wait();
        // As long as a key waits, the comparison leaves exactly that one out.
        let waiting = world.sinks().get(SINK).unwrap().parked;
        let found = world.assert_equal();
        assert_eq!(found.tables[0].parked, waiting, "{event}");
        world.sinks().replay(SINK, Replay::All).unwrap();
        let found = world.assert_equal();
        let table = &found.tables[0];
        assert_eq!((table.rows, table.parked), (15, 0), "{event}: {found:#?}");
        for n in 0..3 {
            world.assert_total(&format!("bad{n}"), 1000 + n);
        }
    }
    world.end();
}
