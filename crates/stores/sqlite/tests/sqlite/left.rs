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

#[test]
fn what_is_no_table_under_a_sinks_name_is_refused_with_what_helps() {
    let as_table = "ALTER TABLE orders RENAME TO kept";
    for (kind, made, help) in [
        (
            "a view",
            format!("{as_table}; CREATE VIEW orders AS SELECT * FROM kept"),
            "DROP VIEW orders",
        ),
        (
            "a virtual table",
            format!("{as_table}; CREATE VIRTUAL TABLE orders USING fts5(id, total, note)"),
            "DROP TABLE orders",
        ),
        (
            "an index",
            format!("{as_table}; CREATE INDEX orders ON kept (note)"),
            "DROP INDEX orders",
        ),
    ] {
        // Given a sink in whose table's place a user puts something else, with the same columns,
        let sqlite = Sqlite::new();
        let plan = standard_plan();
        let (mut store, model) = backfilled(&sqlite, &plan);
        let users = sqlite.connect();
        users.execute_batch(&made).unwrap();
        // when the sink looks at it, or is rebuilt, then it says what is there, and what helps,
        let error = store.check_shape().unwrap_err().to_string();
        let said = format!("{kind} has its name: drop or rename it, then run");
        assert!(error.contains(&said), "{error}");
        let error = store.check_target().unwrap_err();
        assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
        let said =
            format!("{kind} of this name is there that onelog did not make: drop or rename it");
        assert!(error.to_string().contains(&said), "{error}");
        store.take_over().unwrap();
        let refused = model.rebuild(&plan, &mut *store).unwrap_err();
        assert!(matches!(refused, StoreError::NotOwner { .. }), "{refused}");
        // and that does help.
        users.execute_batch(help).unwrap();
        model.rebuild(&plan, &mut *store).unwrap();
        assert!(model.verify(&plan, &mut *store).equal);
    }
}

#[test]
fn what_a_user_puts_in_the_place_of_a_full_text_index_is_its_users() {
    for made in [
        "DROP TABLE orders_fts; CREATE TABLE orders_fts (mine TEXT)",
        "DROP TABLE orders_fts; CREATE VIEW orders_fts AS SELECT 1 AS mine",
    ] {
        // Given a sink whose full-text index a user replaces,
        let sqlite = Sqlite::new();
        let (mut store, model) = backfilled(&sqlite, &searched_plan());
        let users = sqlite.connect();
        users.execute_batch(made).unwrap();
        // when it is rebuilt, with the index or without it, then it is refused, and nothing is dropped.
        for plan in [searched_plan(), standard_plan()] {
            let mut store = super::open(&sqlite.path, plan.clone(), LOG).unwrap();
            let error = store.check_target().unwrap_err().to_string();
            assert!(error.contains("drop or rename it"), "{error}");
            store.take_over().unwrap();
            let refused = model.rebuild(&plan, &mut store);
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
        }
        users.prepare("SELECT mine FROM orders_fts").unwrap();
        assert!(store.check_shape().is_err());
    }
}

#[test]
fn a_users_table_with_the_name_of_an_index_that_the_mapping_does_not_have_is_not_touched() {
    for made in [
        "CREATE TABLE orders_fts (mine TEXT)",
        "CREATE VIEW orders_fts AS SELECT 1 AS mine",
    ] {
        // Given something of a user's whose name an index would have,
        let sqlite = Sqlite::new();
        let users = sqlite.connect();
        users.execute_batch(made).unwrap();
        // when a sink without an index is backfilled, then it is there still.
        let plan = standard_plan();
        let (mut store, model) = backfilled(&sqlite, &plan);
        users.prepare("SELECT mine FROM orders_fts").unwrap();
        assert!(model.verify(&plan, &mut *store).equal);
    }
}

#[test]
fn triggers_that_go_with_a_renamed_table_stop_a_rebuild_until_they_are_dropped() {
    // Given a table with a full-text index that a user renames, which takes its triggers along,
    let sqlite = Sqlite::new();
    let plan = searched_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let users = sqlite.connect();
    users
        .execute_batch("ALTER TABLE orders RENAME TO kept")
        .unwrap();
    // when it is rebuilt, then what is in the way is named,
    store.take_over().unwrap();
    let refused = model.rebuild(&plan, &mut *store).unwrap_err();
    assert!(matches!(refused, StoreError::NotOwner { .. }), "{refused}");
    let said = "drop 'orders_fts_insert' of 'kept', 'orders_fts_delete' of 'kept', 'orders_fts_update' of 'kept',";
    assert!(refused.to_string().contains(said), "{refused}");
    // and that it is dropped helps.
    users
        .execute_batch(
            "DROP TRIGGER orders_fts_insert; DROP TRIGGER orders_fts_update; DROP TRIGGER orders_fts_delete",
        )
        .unwrap();
    model.rebuild(&plan, &mut *store).unwrap();
    assert!(model.verify(&plan, &mut *store).equal);
}

#[test]
fn what_sqlite_cannot_do_as_the_file_is_stops_the_sink() {
    // Given a trigger of a user's that names a table that is not there,
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, mut model) = backfilled(&sqlite, &plan);
    let users = sqlite.connect();
    users
        .execute_batch(
            "CREATE TRIGGER mine AFTER INSERT ON orders BEGIN INSERT INTO gone VALUES (new.id); END",
        )
        .unwrap();
    // when a row is written, then no retry is promised,
    model.order("new", 7, "new");
    let error = model.apply(&plan, &mut *store).unwrap_err();
    assert_eq!(error.code().as_str(), "broken", "{error}");
    assert!(error.to_string().contains("no such table"), "{error}");
    // and the sink goes on once the trigger is mended.
    users.execute_batch("CREATE TABLE gone (id TEXT)").unwrap();
    model.apply(&plan, &mut *store).unwrap();
    assert!(model.verify(&plan, &mut *store).equal);
    // A view under the name of the new table does so, too,
    users
        .execute_batch("CREATE VIEW onelog_new_orders AS SELECT 1")
        .unwrap();
    let error = model.rebuild(&plan, &mut *store).unwrap_err();
    assert_eq!(error.code().as_str(), "broken", "{error}");
    // and bookkeeping that is gone does not: opening the file again makes it anew.
    users.execute_batch("DROP TABLE onelog_position").unwrap();
    let error = model.apply(&plan, &mut *store).unwrap_err();
    assert_eq!(error.code().as_str(), "unavailable", "{error}");
}
