//! What is known of a table between sessions: with which bookkeeping, and what is no other table.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{Harness as _, LOG, Model, ORDERS, backfilled};
use onelog_store::{Store, StoreError};

use super::{Sqlite, standard_plan};

/// A new session of the sink.
fn reopened(sqlite: &Sqlite, plan: &Arc<Plan>) -> Box<dyn Store> {
    let mut store = sqlite.open(Arc::clone(plan), LOG);
    store.take_over().unwrap();
    store
}

fn assert_renewed(store: &mut dyn Store) {
    let error = store.check_shape().unwrap_err();
    assert!(
        matches!(&error, StoreError::SchemaMismatch { what, .. } if what.contains("made anew")),
        "{error}"
    );
}

fn assert_goes_on(model: &mut Model, plan: &Plan, store: &mut dyn Store) {
    store.check_shape().unwrap();
    model.order("later", 9, "later");
    model.apply(plan, store).unwrap();
    assert!(model.verify(plan, store).equal);
}

#[test]
fn a_file_of_an_earlier_version_goes_on_and_its_tables_are_known_from_then_on() {
    // Given a file whose bookkeeping knows nothing of the tables,
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (store, mut model) = backfilled(&sqlite, &plan);
    drop(store);
    sqlite
        .connect()
        .execute_batch("ALTER TABLE onelog_position DROP COLUMN witnesses")
        .unwrap();
    // when it is followed again, then that goes on, as a first batch without a look does,
    let mut store = reopened(&sqlite, &plan);
    model.order("d", 4, "four");
    model.apply(&plan, store.as_mut()).unwrap();
    assert_goes_on(&mut model, &plan, store.as_mut());
    // and what is made anew from then on is noticed.
    drop(store);
    sqlite.make_table_anew("orders");
    assert_renewed(reopened(&sqlite, &plan).as_mut());
}

#[test]
fn other_changes_of_the_file_between_sessions_stop_nothing() {
    for change in [
        "CREATE TABLE mine (n INTEGER)",
        "VACUUM",
        "CREATE INDEX dear ON orders (total)",
        "DELETE FROM orders WHERE id = 'a'; CREATE TABLE mine (n INTEGER); INSERT INTO orders VALUES ('a', 1, 'one')",
        "BEGIN; ALTER TABLE orders RENAME TO before;
         CREATE TABLE orders (id TEXT PRIMARY KEY NOT NULL, total INTEGER, note TEXT) STRICT;
         INSERT INTO orders SELECT * FROM before; DROP TABLE before; COMMIT",
    ] {
        let sqlite = Sqlite::new();
        let plan = standard_plan();
        let (store, mut model) = backfilled(&sqlite, &plan);
        drop(store);
        sqlite.connect().execute_batch(change).unwrap();
        assert_goes_on(&mut model, &plan, reopened(&sqlite, &plan).as_mut());
    }
}

#[test]
fn a_table_that_lost_nothing_may_be_made_anew() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, mut model) = backfilled(&sqlite, &plan);
    for key in [b"a", b"b", b"c"] {
        model.write(ORDERS, key, None);
    }
    model.apply(&plan, store.as_mut()).unwrap();
    drop(store);
    sqlite.make_table_anew("orders");
    assert_goes_on(&mut model, &plan, reopened(&sqlite, &plan).as_mut());
}

#[test]
fn a_batch_that_fails_does_not_change_what_is_known() {
    // Given a batch that deletes every row and is refused,
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let mut failing = model.clone();
    for key in [b"a", b"b", b"c"] {
        failing.write(ORDERS, key, None);
    }
    failing.write(ORDERS, b"d", Some(r#"{"total":"many"}"#));
    let error = failing.apply(&plan, store.as_mut()).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    // when the table is made anew behind it, then that is noticed in the session and in the next.
    sqlite.make_table_anew("orders");
    assert_renewed(store.as_mut());
    assert_renewed(reopened(&sqlite, &plan).as_mut());
}
