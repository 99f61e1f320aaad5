//! Tables that a removed sink left, and what users put in their place.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_sqlite::SqliteStore;
use onelog_store::conformance::{self, LOG, backfilled};
use onelog_store::{Store, StoreError};

use super::{Sqlite, searched_plan, standard_plan};

/// The tables of the standard plan as earlier versions left them.
const AS_BEFORE: &str = "ALTER TABLE onelog_tables DROP COLUMN definition";

fn other(sqlite: &Sqlite, into: &str) -> (Arc<Plan>, SqliteStore) {
    let columns = r#"{"id":{"from":"$key","type":"text"}}"#;
    let mapping = format!(r#"{{"table":"shop.orders","into":"{into}","columns":{columns}}}"#);
    let plan = conformance::plan(sqlite, &mapping);
    let store = SqliteStore::open(&sqlite.path, "other", LOG, plan.clone()).unwrap();
    (plan, store)
}

#[test]
fn the_bookkeeping_of_a_table_that_files_keep_has_not_changed() {
    let sqlite = Sqlite::new();
    let (_store, _) = backfilled(&sqlite, &standard_plan());
    let sql = "SELECT group_concat(concat_ws('|', name, sink, definition)) FROM onelog_tables";
    let kept: String = sqlite
        .connect()
        .query_row(sql, [], |row| row.get(0))
        .unwrap();
    assert_eq!(
        kept,
        r#"orders|follower|CREATE TABLE "orders" ("id" TEXT PRIMARY KEY NOT NULL, "total" INTEGER, "note" TEXT) STRICT"#
    );
}

#[test]
fn a_table_that_a_user_makes_in_the_place_of_one_that_a_sink_left_is_its_users() {
    for (made, into) in [
        (
            "DROP TABLE orders; CREATE TABLE orders (id INTEGER, mine TEXT); INSERT INTO orders VALUES (1, 'mine')",
            "orders",
        ),
        (
            "ALTER TABLE orders RENAME TO kept; CREATE TABLE Orders AS SELECT * FROM kept",
            "orders",
        ),
        ("ALTER TABLE orders RENAME TO archive", "archive"),
        ("CREATE TABLE archive AS SELECT * FROM orders", "archive"),
    ] {
        for is_before in [true, false] {
            // Given a sink's table that a user renames, copies, or puts another one in the place of,
            // before or after the sink is deleted,
            let sqlite = Sqlite::new();
            let (mut store, model) = backfilled(&sqlite, &standard_plan());
            if is_before {
                sqlite.connect().execute_batch(made).unwrap();
            }
            store.remove().unwrap();
            if !is_before {
                sqlite.connect().execute_batch(made).unwrap();
            }
            let rows = || -> i64 {
                let sql = format!("SELECT count(*) FROM {into}");
                sqlite
                    .connect()
                    .query_row(&sql, [], |row| row.get(0))
                    .unwrap()
            };
            let before = rows();
            // when another sink would make a table of that name, then it is refused.
            let (plan, mut other) = other(&sqlite, into);
            let error = other.check_target().unwrap_err();
            assert!(error.to_string().contains("onelog did not make"), "{error}");
            other.take_over().unwrap();
            let refused = model.rebuild(&plan, &mut other);
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
            assert_eq!(rows(), before);
        }
    }
}

#[test]
fn a_table_that_a_sink_left_is_free_also_of_an_earlier_version_until_another_takes_its_place() {
    for has_index in [false, true] {
        for is_old in [None, Some(true), Some(false)] {
            // Given a table of a sink that is deleted, in a file that an earlier version wrote before
            // that, or behind it, or that none did,
            let sqlite = Sqlite::new();
            let plan = if has_index {
                searched_plan()
            } else {
                standard_plan()
            };
            let (mut store, mut model) = backfilled(&sqlite, &plan);
            if is_old == Some(true) {
                drop(store);
                sqlite.connect().execute_batch(AS_BEFORE).unwrap();
                store = Box::new(
                    SqliteStore::open(&sqlite.path, conformance::SINK, LOG, plan.clone()).unwrap(),
                );
                store.take_over().unwrap();
                model.order("new", 7, "new");
                model.apply(&plan, store.as_mut()).unwrap();
            }
            store.remove().unwrap();
            drop(store);
            if is_old == Some(false) {
                sqlite.connect().execute_batch(AS_BEFORE).unwrap();
            }
            // when another sink needs the name for other columns, then it has it.
            let (plan, mut other) = other(&sqlite, "orders");
            other.check_target().unwrap();
            other.take_over().unwrap();
            model.rebuild(&plan, &mut other).unwrap();
            assert!(model.verify(&plan, &mut other).equal);
        }
    }
}

#[test]
fn a_table_that_a_user_makes_in_the_place_of_a_sinks_own_is_its_users() {
    for made in [
        "DROP TABLE orders",
        "ALTER TABLE orders RENAME TO kept",
        "ALTER TABLE orders RENAME TO kept; DROP TABLE kept",
    ] {
        // Given a sink whose table a user puts another one in the place of,
        let sqlite = Sqlite::new();
        let plan = standard_plan();
        let (mut store, model) = backfilled(&sqlite, &plan);
        let users = sqlite.connect();
        users
            .execute_batch(&format!(
                "{made}; CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT);
                 INSERT INTO orders VALUES ('c1', 'mine')"
            ))
            .unwrap();
        // when the sink is rebuilt, as it is or for columns like those, then it stops before that,
        let error = store.check_shape().unwrap_err().to_string();
        assert!(error.contains("drop or rename what is there"), "{error}");
        let columns = r#"{"id":{"from":"$key","type":"text"}}"#;
        let mapping = format!(r#"{{"table":"shop.orders","into":"orders","columns":{columns}}}"#);
        for plan in [plan.clone(), conformance::plan(&sqlite, &mapping)] {
            let mut store = super::open(&sqlite.path, plan.clone(), LOG).unwrap();
            let refused = store.check_target();
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
            store.take_over().unwrap();
            let refused = model.rebuild(&plan, &mut store);
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
        }
        let sql = "SELECT customer FROM orders";
        let kept: String = users.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "mine");
        // and what helps is what it said.
        users.execute_batch("DROP TABLE orders").unwrap();
        store.take_over().unwrap();
        model.rebuild(&plan, &mut *store).unwrap();
        assert!(model.verify(&plan, &mut *store).equal);
    }
}
