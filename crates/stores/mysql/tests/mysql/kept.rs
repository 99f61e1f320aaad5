//! Rows of refused keys, which a rebuild leaves as they are.

use onelog_store::conformance::{backfilled, refused_keys};
use onelog_store::{Guard, StoreError};
use onelog_testkit::{Kind, require};

use crate::harness::Database;
use crate::tables::{FITTING, existing_plan};

#[test]
fn rows_of_refused_keys_stay_whatever_their_number() {
    require!(Kind::Mariadb);
    // Given a user's table with as many rows as a sink parks, and more
    let database = Database::new();
    database.sql(FITTING);
    let plan = existing_plan(&database);
    let (mut store, model) = backfilled(&database, &plan);
    database.sql(
        "INSERT INTO orders SELECT concat('k', seq), seq, concat('n', seq), 42 FROM seq_1_to_10001",
    );
    let keys: Vec<String> = (1..=10_001).map(|n| format!("k{n}")).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    for refused in [10_000, 10_001] {
        // When a rebuild is refused all records of theirs, or all but one
        model.load(&plan, store.as_mut()).unwrap();
        assert!(store.keep(0, &keys[..refused]).unwrap());
        store.guard(&[Guard::Deletes(0)]);
        let finished = store.finish_rebuild(model.place());
        // then the other one is counted as deleted, which is not allowed,
        let guarded = matches!(&finished, Err(StoreError::Guarded { deletes: 1, .. }));
        assert_eq!(guarded, refused == 10_000, "{finished:?}");
        assert!(guarded || finished.is_ok(), "{finished:?}");
        // and all stay as they were.
        let left = "SELECT count(*), sum(mine), sum(total) FROM orders WHERE id LIKE 'k%'";
        assert_eq!(database.sql(left), "10001\t420042\t50015001.00");
    }
    // Where one of these has a unique value that another row is to get, that one is refused by name.
    let mut model = model.clone();
    model.order("a", 1, "n5");
    model.load(&plan, store.as_mut()).unwrap();
    store.keep(0, &keys).unwrap();
    let error = store.finish_rebuild(model.place()).unwrap_err();
    assert_eq!(refused_keys(&error), [b"a"], "{error}");
    store.finish_rebuild(model.place()).unwrap();
}
