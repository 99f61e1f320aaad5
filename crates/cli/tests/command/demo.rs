//! `onelog demo`.

use std::fs;
use std::path::Path;

use onelog_testkit::{Certificates, Kind, Postgres, Server as _, require};
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
    // Part 1 is a race: how many keys differ is reported, not demanded.
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

#[test]
fn the_demonstration_speaks_tls_to_a_server_whose_authority_the_system_trusts() {
    require!(Kind::Postgres);
    // Given a PostgreSQL that speaks TLS, and a system that may trust its authority
    let postgres = Postgres::start_with(&["ssl=on"]);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}?sslmode=require", postgres.url());
    let demo = |authorities: &Path| {
        onelog()
            .args(["demo", "--exit", "--json", "--postgres", &url])
            .env("SSL_CERT_FILE", authorities)
            .env("TMPDIR", folder.path())
            .output()
            .unwrap()
    };
    // When it does, then the demonstration runs there,
    let outcome = Ran::of(demo(&Certificates::shared().root)).json();
    let stores = outcome["stores"].as_array().unwrap();
    assert!(
        stores.len() == 2 && stores.iter().all(|s| s["verified_equal"] == true),
        "{outcome}"
    );
    // else it says that it does not trust the server.
    let nobody = folder.path().join("nobody.pem");
    std::fs::write(&nobody, "").unwrap();
    let ran = Ran::of(demo(&nobody));
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.err.contains("certificate"), "{ran:?}");
}
