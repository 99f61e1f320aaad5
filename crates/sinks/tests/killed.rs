//! A real process that is killed at each place around the store's commit, and what a restart makes
//! of it. The test runs itself again as the victim.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onelog::{NewTable, Node, Options};
use onelog_sinks::Sinks;
use onelog_store::{SinkDefinition, failpoint};
use onelog_stores::KINDS;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const FOLDER: &str = "ONELOG_TEST_FOLDER";
const PLACE: &str = "ONELOG_TEST_PLACE";

fn open(folder: &Path) -> (Node, Sinks) {
    let node = Node::open(Options::new(folder.join("log"))).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

fn write(node: &Node, from: i64, to: i64) -> onelog::Position {
    for n in from..to {
        node.transact(|tx| {
            tx.put_json(
                "t.left",
                format!("{}", n % 25),
                &json!({"n": n, "words": format!("number {n}")}),
            )?;
            tx.put_json("t.right", "sum", &json!({"n": n}))
        })
        .unwrap();
    }
    node.position()
}

/// Does nothing unless it was started by the other test.
#[test]
fn the_victim() {
    let (Ok(folder), Ok(place)) = (std::env::var(FOLDER), std::env::var(PLACE)) else {
        return;
    };
    let (node, sinks) = open(Path::new(&folder));
    let end = write(&node, 100, 150);
    sinks.wait_blocking("follower", end, PATIENCE).unwrap();
    failpoint::set(&format!("follower:{place}"), || std::process::abort());
    if place.starts_with("before_finish") || place.starts_with("before_swap") {
        sinks.rebuild("follower").unwrap();
    }
    let end = write(&node, 150, 400);
    sinks.wait_blocking("follower", end, PATIENCE).unwrap();
    panic!("the process should have died at {place}");
}

#[test]
fn a_process_killed_at_any_place_of_a_sink_goes_on_exactly_at_the_position_of_the_store() {
    for place in [
        "before_apply",
        "before_commit",
        "after_commit",
        "before_finish",
        "before_swap",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (node, sinks) = open(folder.path());
        node.create_table_blocking(NewTable::keyed("t.left"))
            .unwrap();
        node.create_table_blocking(NewTable::keyed("t.right"))
            .unwrap();
        let definition = json!({
            "name": "follower", "kind": "sqlite", "path": folder.path().join("store.db"),
            "mappings": [
                {"table": "t.left", "into": "left", "full_text": ["words"], "columns": {
                    "id": {"from": "$key", "type": "integer"}, "n": {"from": "n", "type": "integer"},
                    "words": {"from": "words", "type": "text"}, "at": {"from": "$version", "type": "integer"}}},
                {"table": "t.right", "into": "right"}]
        });
        sinks
            .create(SinkDefinition::from_json(KINDS, &definition).unwrap())
            .unwrap();
        write(&node, 0, 100);
        sinks.stop();
        node.stop().unwrap();
        drop((sinks, node));

        let victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_victim", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(PLACE, place)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&victim.stderr);
        assert!(!victim.status.success(), "{place}: {stderr}");
        assert!(!stderr.contains("should have died"), "{place}: {stderr}");

        let (node, sinks) = open(folder.path());
        let end = write(&node, 400, 410);
        sinks.wait_blocking("follower", end, PATIENCE).unwrap();
        let found = sinks.verify("follower").unwrap();
        assert!(
            found.equal && found.tables[0].rows == 25,
            "{place}: {found:#?}"
        );
        sinks.stop();
        node.stop().unwrap();
    }
}
