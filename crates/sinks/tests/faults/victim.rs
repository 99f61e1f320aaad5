//! A process of onelog that dies at a place around the store's commit: the test's own program.

use std::path::Path;
use std::process::Command;

use onelog_store::failpoint;

use crate::world::{PATIENCE, SINK, open, transfer};

const FOLDER: &str = "ONELOG_TEST_VICTIM_FOLDER";
const PLACE: &str = "ONELOG_TEST_VICTIM_PLACE";
const SEED: &str = "ONELOG_TEST_VICTIM_SEED";

/// The part of the process that dies.
pub fn live_and_die() {
    let value = |name| std::env::var(name).ok();
    let (Some(folder), Some(place), Some(seed)) = (value(FOLDER), value(PLACE), value(SEED)) else {
        return;
    };
    let seed: u64 = seed.parse().unwrap();
    let (node, sinks) = open(Path::new(&folder));
    let end = transfer(&node, seed, 5 + seed % 20);
    sinks.wait_blocking(SINK, end, PATIENCE).unwrap();
    failpoint::set(&format!("{SINK}:{place}"), || std::process::abort());
    let end = transfer(&node, seed + 100, 50);
    sinks.wait_blocking(SINK, end, PATIENCE).unwrap();
    panic!("the process should have died at {place}");
}

/// Runs a process that dies at `place`.
pub fn kill_at(place: &str, log: &Path, seed: u64) {
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_victim", "--nocapture"])
        .env(FOLDER, log)
        .env(PLACE, place)
        .env(SEED, seed.to_string())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&victim.stderr);
    assert!(!victim.status.success(), "{place}: {message}");
    assert!(!message.contains("should have died"), "{place}: {message}");
    assert!(!message.contains("panicked"), "{place}: {message}");
}
