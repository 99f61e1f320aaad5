//! `onelog demo`.

use std::fs;

use serde_json::Value;

use crate::server::{Ran, onelog};

#[test]
fn through_onelog_no_key_differs_and_nothing_is_oversold() {
    let folder = tempfile::tempdir().unwrap();
    let ran = onelog()
        .args(["demo", "--exit", "--json"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let outcome: Value = Ran::of(ran).json();
    // Part 1 is a race: how many keys differ is told, not demanded.
    println!("two writes: {}", outcome["two_writes_to_two_stores"]);
    assert!(outcome["two_writes_to_two_stores"]["differing_keys"].is_u64());

    let through = &outcome["one_write_to_onelog"];
    assert_eq!(through["differing_keys"], 0, "{outcome}");
    assert_eq!(through["differing_from_the_log"], 0, "{outcome}");
    assert_eq!(through["records"], 2_000, "{outcome}");
    assert_eq!(through["applied_by_killed_store"], 2_000, "{outcome}");
    assert!(
        through["killed_at_position"].as_u64() < through["restarted_at_position"].as_u64(),
        "the process was away for a while: {outcome}"
    );

    let shop = &outcome["two_tables_in_one_transaction"];
    for nothing in ["oversold", "half_done", "lost"] {
        assert_eq!(shop[nothing], 0, "{outcome}");
    }
    assert!(shop["orders"].as_u64().unwrap() > 0);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "the temporary folder is gone: {left:?}");
}
