//! Tables that are changed while they are followed: nothing is cut, rounded or merged unnoticed.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_mysql::MysqlStore;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS, SINK};
use onelog_store::{Store, StoreError, failpoint};
use onelog_testkit::{Kind, require};

use crate::harness::Database;

fn order(total: &str, note: &str) -> String {
    serde_json::json!({"total": total, "note": note}).to_string()
}

struct Followed {
    database: Database,
    plan: Arc<Plan>,
    store: MysqlStore,
    model: Model,
}

/// A table that was backfilled and gets batches: one that onelog made, or a user's own.
fn followed(existing: Option<&str>) -> Followed {
    let database = Database::new();
    let mut mapping = serde_json::json!({"table": "shop.orders", "into": "orders", "columns": {
        "id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "numeric"},
        "note": {"from": "/note", "type": "text"}}});
    if let Some(table) = existing {
        database.sql(table);
        mapping["existing"] = true.into();
    }
    let plan = conformance::plan(&database, &mapping.to_string());
    let mut model = Model::default();
    model.write(ORDERS, b"a", Some(&order("1.5", "one")));
    let mut store = database.store(SINK, LOG, Arc::clone(&plan)).unwrap();
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    model.write(ORDERS, b"b", Some(&order("2.5", "two")));
    model.apply(&plan, &mut store).unwrap();
    Followed {
        database,
        plan,
        store,
        model,
    }
}

impl Followed {
    /// The store as the runner opens it after an error that can pass.
    fn reopened(&self) -> MysqlStore {
        let plan = Arc::clone(&self.plan);
        let mut store = self.database.store(SINK, LOG, plan).unwrap();
        store.take_over().unwrap();
        store
    }

    fn write(&mut self, key: &str, total: &str, note: &str) -> Result<(), StoreError> {
        self.model
            .write(ORDERS, key.as_bytes(), Some(&order(total, note)));
        self.model.apply(&self.plan, &mut self.store)
    }
}

const OWN: &str = "CREATE TABLE orders (
  id varchar(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
  total decimal(30,10), note varchar(100) CHARACTER SET utf8mb4, mine int NULL)";

#[test]
fn a_column_that_is_narrowed_under_a_running_sink_stops_it_by_name_and_takes_no_value() {
    require!(Kind::Mariadb);
    for (existing, change, total, note, was_and_is, back) in [
        (
            None,
            "MODIFY total decimal(10,2)",
            "3.14159",
            "three",
            "'total' is decimal(10,2), and should be decimal(65,30)",
            "total decimal(65,30)",
        ),
        (
            None,
            "MODIFY note varchar(3)",
            "3",
            "too long",
            "'note' is varchar(3), and should be longtext",
            "note longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        ),
        (
            Some(OWN),
            "MODIFY total decimal(10,2)",
            "3.14159",
            "three",
            "'total' was decimal(30,10) when onelog backfilled it and is decimal(10,2) now",
            "total decimal(30,10)",
        ),
        (
            Some(OWN),
            "MODIFY note varchar(3) CHARACTER SET utf8mb4",
            "3",
            "too long",
            "'note' was varchar(100) utf8mb4 when onelog backfilled it and is varchar(3) utf8mb4 now",
            "note varchar(100) CHARACTER SET utf8mb4",
        ),
        (
            Some(OWN),
            "MODIFY total float",
            "3.1415926535",
            "three",
            "'total' is float: decimal is needed",
            "total decimal(30,10)",
        ),
    ] {
        // Given a sink that follows, when a column is made narrower,
        let mut followed = followed(existing);
        followed
            .database
            .sql(&format!("ALTER TABLE orders {change}"));
        // then the next batch writes nothing, and is not blamed on its row: it names the column,
        // what it was and is, and the way out,
        let error = followed.write("c", total, note).unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{change}: {error}"
        );
        assert!(error.to_string().contains(was_and_is), "{change}: {error}");
        assert_eq!(followed.database.sql("SELECT count(*) FROM orders"), "2");
        // and so does every session that opens it again.
        for _ in 0..2 {
            let error = followed.reopened().check_shape().unwrap_err();
            assert!(error.to_string().contains(was_and_is), "{change}: {error}");
        }
        // Nor does it go on with the type put back, until a rebuild backfills the table.
        followed
            .database
            .sql(&format!("ALTER TABLE orders MODIFY {back}"));
        assert_stops_until_a_rebuild(&followed, change);
    }
}

/// A session that begins says that a column had another type; a rebuild writes what it has changed.
fn assert_stops_until_a_rebuild(followed: &Followed, change: &str) {
    let mut store = followed.reopened();
    let error = store.check_shape().unwrap_err().to_string();
    assert!(error.contains("at a later look"), "{change}: {error}");
    assert!(error.contains("onelog sinks rebuild"), "{change}: {error}");
    let Followed { plan, model, .. } = followed;
    model.rebuild(plan, &mut store).unwrap();
    store.check_shape().unwrap();
    assert!(model.verify(plan, &mut store).equal, "{change}");
}

#[test]
fn a_rebuild_accepts_the_narrower_column_and_says_which_record_does_not_fit() {
    require!(Kind::Mariadb);
    let mut followed = followed(Some(OWN));
    followed
        .database
        .sql("ALTER TABLE orders MODIFY note varchar(3) CHARACTER SET utf8mb4");
    let mut store = followed.reopened();
    followed.model.rebuild(&followed.plan, &mut store).unwrap();
    store.check_shape().unwrap();
    followed.store = store;
    let error = followed.write("c", "3", "four").unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

#[test]
fn a_key_whose_collation_merges_texts_is_noticed_before_two_keys_become_one() {
    require!(Kind::Mariadb);
    for existing in [None, Some(OWN)] {
        let mut followed = followed(existing);
        followed.database.sql(
            "ALTER TABLE orders MODIFY id varchar(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
        );
        for key in ["A", "á"] {
            let error = followed.write(key, "3", "three").unwrap_err();
            assert!(
                matches!(error, StoreError::SchemaMismatch { .. }),
                "{error}"
            );
        }
        assert_eq!(
            followed
                .database
                .sql("SELECT note FROM orders ORDER BY note"),
            "one\ntwo"
        );
        let error = followed.reopened().check_shape().unwrap_err().to_string();
        assert!(
            error.contains("'id'") && error.contains("utf8mb4_general_ci"),
            "{error}"
        );
    }
}

#[test]
fn what_keeps_every_value_is_looked_at_and_goes_on() {
    require!(Kind::Mariadb);
    for change in [
        "ALTER TABLE orders ADD COLUMN more int NULL",
        "CREATE INDEX orders_note ON orders (note(10))",
        "CREATE UNIQUE INDEX orders_total ON orders (total)",
        "OPTIMIZE TABLE orders",
        "ALTER TABLE orders MODIFY note longtext CHARACTER SET utf8mb4",
        "ALTER TABLE orders MODIFY total decimal(40,10)",
    ] {
        for is_reopened in [false, true] {
            let mut followed = followed(Some(OWN));
            followed.database.sql(change);
            if is_reopened {
                followed.store = followed.reopened();
                followed.store.check_shape().unwrap();
            }
            followed.write("c", "3.14159", "three").unwrap();
            let Followed {
                plan, store, model, ..
            } = &mut followed;
            assert!(model.verify(plan, store).equal, "{change}");
        }
    }
}

#[test]
fn a_table_that_is_narrowed_during_its_backfill_is_backfilled_again() {
    require!(Kind::Mariadb);
    let mut followed = followed(Some(OWN));
    followed
        .model
        .write(ORDERS, b"c", Some(&order("3.14159", "three")));
    let Followed {
        database,
        plan,
        store,
        model,
    } = &mut followed;
    model.load(plan, store).unwrap();
    database.sql("ALTER TABLE orders MODIFY total decimal(10,2)");
    let error = store.finish_rebuild(model.place()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(database.sql("SELECT count(*) FROM orders"), "2");
    // Begun again it is the record that does not fit.
    let error = model.rebuild(plan, store).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

/// Its sink stops, and says so, however often it begins again.
fn assert_renewed(followed: &Followed) {
    for _ in 0..2 {
        let error = followed.reopened().check_shape().unwrap_err();
        assert!(
            matches!(&error, StoreError::SchemaMismatch { what, .. } if what.contains("made anew")),
            "{error}"
        );
    }
}

#[test]
fn a_users_own_table_that_is_made_anew_between_sessions_is_noticed() {
    require!(Kind::Mariadb);
    for has_followed in [false, true] {
        let mut followed = followed(Some(OWN));
        let Followed {
            plan, store, model, ..
        } = &mut followed;
        model.rebuild(plan, store).unwrap();
        if has_followed {
            for key in [b"a", b"b"] {
                model.write(ORDERS, key, None);
            }
            model.write(ORDERS, b"c", Some(&order("3", "three")));
            model.apply(plan, store).unwrap();
        }
        // A user makes it by copying the definition.
        followed.database.make_table_anew("orders");
        assert_renewed(&followed);
    }
}

#[test]
fn bookkeeping_of_an_earlier_version_goes_on_and_knows_its_tables_from_then_on() {
    require!(Kind::Mariadb);
    for existing in [None, Some(OWN)] {
        // Given bookkeeping that knows nothing of the tables,
        let mut followed = followed(existing);
        let database = &followed.database;
        let position = database.sql("SHOW TABLES LIKE 'onelog\\_position%'");
        database.sql(&format!("ALTER TABLE {position} DROP COLUMN witnesses"));
        // when it is followed again, then that goes on, as a first batch without a look does,
        followed.store = followed.reopened();
        followed.write("c", "3.14159", "three").unwrap();
        followed.reopened().check_shape().unwrap();
        // and what is made anew from then on is noticed.
        followed.database.make_table_anew("orders");
        assert_renewed(&followed);
    }
}

#[test]
fn a_table_that_is_made_anew_while_the_connection_breaks_behind_the_swap_is_noticed() {
    require!(Kind::Mariadb);
    for existing in [None, Some(OWN)] {
        // Given a backfill whose connection breaks when its last step has just taken place,
        let mut followed = followed(existing);
        let name = followed.database.name.clone();
        let place = format!("{SINK}:after_swap");
        let thread = std::thread::current().id();
        failpoint::set(&place, move || {
            // Other tests of this process come here too.
            if std::thread::current().id() != thread {
                return;
            }
            let database = Database {
                name: name.clone(),
                many_rows: false,
            };
            // when the table is made anew in that moment,
            database.make_table_anew("orders");
            let sessions = "SELECT id FROM information_schema.PROCESSLIST WHERE db = DATABASE() AND id <> CONNECTION_ID()";
            for session in database.sql(sessions).lines() {
                database.sql(&format!("KILL {session}"));
            }
        });
        let Followed {
            plan, store, model, ..
        } = &mut followed;
        model.load(plan, store).unwrap();
        let finished = store.finish_rebuild(model.place());
        failpoint::clear(&place);
        let is_passing = finished.as_ref().err().is_none_or(StoreError::is_retryable);
        assert!(is_passing, "{finished:?}");
        // then the sessions behind it notice.
        assert_renewed(&followed);
    }
}
