//! Tables that are changed while they are followed: nothing is cut, rounded or merged unnoticed.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

const MAPPING: &str = r#"{"table":"shop.orders","into":"orders","columns":{
  "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"numeric"},
  "note":{"from":"/note","type":"text"}}}"#;

fn order(total: &str, note: &str) -> String {
    serde_json::json!({"total": total, "note": note}).to_string()
}

struct Followed {
    pg: Pg,
    plan: Arc<Plan>,
    store: Box<dyn Store>,
    model: Model,
}

/// A table that was backfilled and gets batches.
fn followed() -> Followed {
    let pg = Pg::new();
    let plan = conformance::plan(&pg, MAPPING);
    let mut model = Model::default();
    model.write(ORDERS, b"a", Some(&order("1.5", "one")));
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.write(ORDERS, b"b", Some(&order("2.5", "two")));
    model.apply(&plan, store.as_mut()).unwrap();
    Followed {
        pg,
        plan,
        store,
        model,
    }
}

impl Followed {
    /// The store as the runner opens it after an error that can pass.
    fn reopened(&self) -> Box<dyn Store> {
        let mut store = self.pg.open(Arc::clone(&self.plan), LOG);
        store.take_over().unwrap();
        store
    }

    fn write(&mut self, key: &str, total: &str, note: &str) -> Result<(), StoreError> {
        self.model
            .write(ORDERS, key.as_bytes(), Some(&order(total, note)));
        self.model.apply(&self.plan, self.store.as_mut())
    }
}

#[test]
fn a_column_that_is_narrowed_under_a_running_sink_stops_it_by_name_and_takes_no_value() {
    require!(Kind::Postgres);
    for (change, total, note, was_and_is) in [
        (
            "ALTER COLUMN total TYPE numeric(10,2)",
            "3.14159",
            "three",
            "'total' was numeric when onelog backfilled it and is numeric(10,2) now",
        ),
        (
            "ALTER COLUMN note TYPE varchar(3)",
            "3",
            "too long",
            "'note' was text when onelog backfilled it and is character varying(3) now",
        ),
        (
            "ALTER COLUMN total TYPE real",
            "3.14159265358979",
            "three",
            "'total' is real, and should be numeric",
        ),
    ] {
        // Given a sink that follows, when a column is made narrower,
        let mut followed = followed();
        followed.pg.sql(&format!("ALTER TABLE orders {change}"));
        // then the next batch writes nothing, and is not blamed on its row: it names the column,
        // what it was and is, and the way out,
        let error = followed.write("c", total, note).unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{change}: {error}"
        );
        assert!(error.to_string().contains(was_and_is), "{change}: {error}");
        assert_eq!(followed.pg.sql("SELECT count(*) FROM orders"), "2");
        // and looked at again, the table names the column, what it was and is, and the way out,
        // however often it is opened.
        for _ in 0..2 {
            let error = followed.reopened().check_shape().unwrap_err();
            assert!(
                matches!(error, StoreError::SchemaMismatch { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(was_and_is), "{change}: {error}");
        }
        // Nor does it go on where the column has its type back, until a rebuild backfills the
        // table.
        followed
            .pg
            .sql("ALTER TABLE orders ALTER COLUMN total TYPE numeric, ALTER COLUMN note TYPE text");
        let mut store = followed.reopened();
        let error = store.check_shape().unwrap_err().to_string();
        assert!(error.contains("at a later look"), "{change}: {error}");
        assert!(error.contains("onelog sinks rebuild"), "{change}: {error}");
        let Followed { plan, model, .. } = &followed;
        model.rebuild(plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        assert!(model.verify(plan, store.as_mut()).equal, "{change}");
    }
}

#[test]
fn what_every_table_has_become_is_kept_where_one_of_them_stops_the_sink() {
    require!(Kind::Postgres);
    // Given a sink with two tables, of which the second is narrowed and the first does not fit,
    let pg = Pg::new();
    let archive = MAPPING.replace(r#""into":"orders""#, r#""into":"archive""#);
    let plan = conformance::plan(&pg, &format!("{MAPPING},{archive}"));
    for by_a_batch in [true, false] {
        let mut model = Model::default();
        model.write(ORDERS, b"a", Some(&order("3.14159", "one")));
        let mut store = pg.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        pg.sql(
            "ALTER TABLE archive ALTER total TYPE numeric(10,2); ALTER TABLE orders SET UNLOGGED",
        );
        // when the first stops the sink, and both are put back,
        model.write(ORDERS, b"b", Some(&order("1", "two")));
        let error = match by_a_batch {
            true => model.apply(&plan, store.as_mut()),
            false => store.check_shape(),
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains("UNLOGGED"), "{error}");
        pg.sql("ALTER TABLE archive ALTER total TYPE numeric; ALTER TABLE orders SET LOGGED");
        // then the second still does.
        let error = store.check_shape().unwrap_err().to_string();
        assert!(
            error.contains("'archive'") && error.contains("at a later look"),
            "{error}"
        );
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
    }
}

#[test]
fn a_rebuild_accepts_the_narrower_column_and_says_which_record_does_not_fit() {
    require!(Kind::Postgres);
    let mut followed = followed();
    followed
        .pg
        .sql("ALTER TABLE orders ALTER COLUMN note TYPE varchar(3)");
    let mut store = followed.reopened();
    followed
        .model
        .rebuild(&followed.plan, store.as_mut())
        .unwrap();
    store.check_shape().unwrap();
    followed.store = store;
    let error = followed.write("c", "3", "four").unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

#[test]
fn a_key_whose_collation_merges_texts_is_noticed_before_two_keys_become_one() {
    require!(Kind::Postgres);
    let mut followed = followed();
    followed.pg.sql(
        "CREATE COLLATION merging (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
         ALTER TABLE orders ALTER COLUMN id TYPE text COLLATE merging",
    );
    let error = followed.write("A", "3", "three").unwrap_err();
    assert!(
        matches!(error, StoreError::SchemaMismatch { .. }),
        "{error}"
    );
    assert_eq!(
        followed.pg.sql("SELECT note FROM orders ORDER BY note"),
        "one\ntwo"
    );
    let error = followed.reopened().check_shape().unwrap_err().to_string();
    assert!(
        error.contains("'id'") && error.contains("collation"),
        "{error}"
    );
}

#[test]
fn what_keeps_every_value_is_looked_at_and_goes_on() {
    require!(Kind::Postgres);
    for change in [
        "ALTER TABLE orders ADD COLUMN mine int",
        "CREATE INDEX orders_note ON orders (note)",
        "CLUSTER orders USING orders_pkey",
        "ANALYZE orders",
        "GRANT SELECT ON orders TO PUBLIC",
        "ALTER TABLE orders ALTER COLUMN note TYPE varchar",
    ] {
        let mut followed = followed();
        followed.pg.sql(change);
        followed.write("c", "3.14159", "three").unwrap();
        let Followed {
            plan, store, model, ..
        } = &mut followed;
        assert!(model.verify(plan, store.as_mut()).equal, "{change}");
    }
}

#[test]
fn a_table_that_is_narrowed_during_its_backfill_is_backfilled_again() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    pg.sql("CREATE TABLE orders (id text COLLATE \"C\" PRIMARY KEY, total numeric, note text)");
    let plan = conformance::plan(&pg, MAPPING);
    let mut model = Model::default();
    model.write(ORDERS, b"a", Some(&order("3.14159", "one")));
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.load(&plan, store.as_mut()).unwrap();
    pg.sql("ALTER TABLE orders ALTER COLUMN total TYPE numeric(10,2)");
    let error = store.finish_rebuild(model.place()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(pg.sql("SELECT count(*) FROM orders"), "0");
    // Begun again it is the record that does not fit.
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    let error = model.rebuild(&plan, store.as_mut()).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

#[test]
fn a_table_that_was_made_anew_is_noticed_after_a_restart_and_a_restored_database_goes_on() {
    require!(Kind::Postgres);
    // Given a table that is made anew while nothing is connected, when the sink comes back, then it
    // says so;
    let anew = |table: &str| {
        format!(
            "CREATE TABLE anew (LIKE {table} INCLUDING ALL); INSERT INTO anew SELECT * FROM {table};
             DROP TABLE {table}; ALTER TABLE anew RENAME TO {table};"
        )
    };
    let lost = followed();
    lost.pg.sql(&anew("orders"));
    let error = lost.reopened().check_shape().unwrap_err();
    assert!(error.to_string().contains("made anew"), "{error}");
    // where its bookkeeping came out of the same copy, it goes on;
    let mut restored = followed();
    restored.pg.sql(&anew("orders"));
    restored.pg.sql(&anew("onelog_tables"));
    restored.store = restored.reopened();
    restored.store.check_shape().unwrap();
    restored.write("c", "3", "three").unwrap();
    // and what an earlier version recorded is completed, and then compared.
    restored
        .pg
        .sql(r#"UPDATE onelog_tables SET shape = '{"id":"text","total":"numeric","note":"text"}'"#);
    restored.reopened().check_shape().unwrap();
    restored.pg.sql(&anew("orders"));
    restored.reopened().check_shape().unwrap_err();
}

#[test]
fn no_values_of_a_batch_are_copied_into_the_plan_of_its_statement() {
    require!(Kind::Postgres);
    // Given a sink that follows into a table that notes how a row's statement was planned,
    let mut followed = followed();
    followed.pg.sql(
        "ALTER TABLE orders ADD COLUMN planned text DEFAULT current_setting('plan_cache_mode')",
    );
    // when a batch is written, then it was planned without its values.
    followed.write("c", "3", "three").unwrap();
    let planned = followed.pg.sql("SELECT planned FROM orders WHERE id = 'c'");
    assert_eq!(planned, "force_generic_plan");
}
