//! The comments by which onelog knows the tables that it made, and copies of these tables.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_mysql::MysqlStore;
use onelog_store::conformance::{self, LOG, Model, ORDERS, SINK, backfilled, standard_plan};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, require};

use crate::harness::Database;

/// How earlier versions marked the first tables of a sink.
const OLD_MARK: &str = "ALTER TABLE orders COMMENT = 'onelog: sink follower, generation 1'";

fn archive(database: &Database, options: &str) -> Arc<Plan> {
    let columns = r#""columns":{"id":{"from":"$key","type":"text"}}"#;
    conformance::plan(
        database,
        &format!(r#"{{"table":"shop.orders","into":"archive"{options},{columns}}}"#),
    )
}

fn mark(database: &Database, table: &str) -> String {
    database.sql(&format!(
        "SELECT TABLE_COMMENT FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}'"
    ))
}

/// A sink may not have this table, whichever sink it is.
fn assert_foreign(database: &Database, plan: &Arc<Plan>) {
    for sink in [SINK, "other"] {
        let mut store = database.store(sink, LOG, Arc::clone(plan)).unwrap();
        let error = store.check_target().unwrap_err();
        assert!(
            matches!(&error, StoreError::NotOwner { what, .. } if what.contains("onelog did not make")),
            "{sink}: {error}"
        );
    }
}

#[test]
fn a_table_under_another_name_than_onelog_gave_it_is_its_users() {
    require!(Kind::Mariadb);
    for (made, is_old) in [
        (
            "CREATE TABLE archive LIKE orders; INSERT INTO archive SELECT * FROM orders",
            false,
        ),
        (
            "CREATE TABLE archive LIKE orders; INSERT INTO archive SELECT * FROM orders",
            true,
        ),
        ("RENAME TABLE orders TO archive", false),
        ("RENAME TABLE orders TO archive", true),
    ] {
        // Given a sink's table that a user copies, or keeps under another name,
        let database = Database::new();
        let plan = standard_plan(&database);
        let (mut store, model) = backfilled(&database, &plan);
        if is_old {
            database.sql(OLD_MARK);
        }
        database.sql(made);
        let copy = archive(&database, "");
        // when a sink would make a table of that name, then it is refused while the first sink is there
        assert_foreign_to_its_sink(&database, &copy);
        store.remove().unwrap();
        // and when it is gone.
        assert_foreign(&database, &copy);
        let mut other = database.store("other", LOG, Arc::clone(&copy)).unwrap();
        other.take_over().unwrap();
        let refused = model.rebuild(&copy, &mut other);
        assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
        assert_eq!(database.sql("SELECT count(note) FROM archive"), "3");
        // As an existing table it is the user's to give.
        let existing = archive(&database, r#","existing":true"#);
        let mut other = database.store("other", LOG, existing).unwrap();
        other.check_target().unwrap();
    }
}

fn assert_foreign_to_its_sink(database: &Database, plan: &Arc<Plan>) {
    let mut store = database.store(SINK, LOG, Arc::clone(plan)).unwrap();
    let error = store.check_target().unwrap_err();
    assert!(error.to_string().contains("onelog did not make"), "{error}");
}

#[test]
fn a_table_says_for_which_sink_under_which_name_it_was_made_and_is_free_without_that_sink() {
    require!(Kind::Mariadb);
    // Given a sink's table,
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, model) = backfilled(&database, &plan);
    // then its comment is the one that is documented,
    assert_eq!(
        mark(&database, "orders"),
        "onelog: sink follower, table orders, generation 1"
    );
    let mut other = database.store("other", LOG, Arc::clone(&plan)).unwrap();
    let error = other.check_target().unwrap_err().to_string();
    assert!(error.contains("belongs to the sink 'follower'"), "{error}");
    // and when the sink is gone, another one may have it.
    store.remove().unwrap();
    other.take_over().unwrap();
    model.rebuild(&plan, &mut other).unwrap();
    assert!(model.verify(&plan, &mut other).equal);
    assert_eq!(
        mark(&database, "orders"),
        "onelog: sink other, table orders, generation 1"
    );
}

#[test]
fn a_table_that_an_earlier_version_marked_goes_on_and_is_marked_anew_by_its_next_backfill() {
    require!(Kind::Mariadb);
    for owners in [
        "DO 0",
        "DELETE FROM onelog_tables",
        "DROP TABLE onelog_tables",
    ] {
        // Given a table whose mark does not name it, whether or not the bookkeeping does,
        let database = Database::new();
        let plan = standard_plan(&database);
        let (store, mut model) = backfilled(&database, &plan);
        drop(store);
        database.sql(OLD_MARK);
        database.sql(owners);
        // when its sink is followed again, then that goes on,
        let mut store = database.store(SINK, LOG, Arc::clone(&plan)).unwrap();
        store.take_over().unwrap();
        write(&mut model, &plan, &mut store);
        let mut reader = store.reader().unwrap();
        assert!(
            onelog_store::verify(&plan, &model, reader.as_mut())
                .unwrap()
                .equal
        );
        drop(reader);
        // nobody else gets the table,
        let mut other = database.store("other", LOG, Arc::clone(&plan)).unwrap();
        let error = other.check_target().unwrap_err().to_string();
        assert!(error.contains("belongs to the sink 'follower'"), "{error}");
        // and its next backfill replaces it.
        store.check_target().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
        assert_eq!(
            mark(&database, "orders"),
            "onelog: sink follower, table orders, generation 2"
        );
    }
}

fn write(model: &mut Model, plan: &Plan, store: &mut MysqlStore) {
    let from = model.position();
    model.write(ORDERS, b"new", Some(r#"{"total":7,"note":"new"}"#));
    store.apply(&model.batch(plan, from)).unwrap();
    assert!(model.verify(plan, store).equal);
}
