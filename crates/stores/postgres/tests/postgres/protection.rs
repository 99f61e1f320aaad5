//! Who may read a table stays as it was when another table takes its place.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{
    self, Harness as _, LOG, Model, ORDERS, backfilled, standard_plan,
};
use onelog_store::{Guard, StoreError};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

/// A mapping that needs a table with other columns than the standard one.
fn other_columns(pg: &Pg) -> Arc<Plan> {
    conformance::plan(
        pg,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"text"},
            "more":{"from":"/more","type":"text"}}}"#,
    )
}

fn seen_by(pg: &Pg, role: &str, statement: &str) -> String {
    pg.sql(&format!("SET ROLE {role}; {statement}"))
}

fn may(pg: &Pg, role: &str, right: &str) -> String {
    pg.sql(&format!(
        "SELECT has_table_privilege('{role}', 'orders', '{right}')"
    ))
}

#[test]
fn policies_rights_of_columns_and_what_was_revoked_are_those_of_the_table_that_takes_the_place() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let [reader, clerk, barred] = ["reader", "clerk", "barred"].map(|name| pg.new_role(name));
    let schema = pg.quoted();
    // Given a table of onelog's of which a policy shows one row, of which another role may read one
    // column, and which a third one may not read though it may read every new table,
    pg.sql(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {reader}, {clerk}, {barred};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {barred}"
    ));
    let plan = standard_plan(&pg);
    let (store, mut model) = backfilled(&pg, &plan);
    drop(store);
    assert_eq!(may(&pg, &barred, "SELECT"), "t");
    pg.sql(&format!(
        "REVOKE SELECT ON orders FROM {barred};
         GRANT SELECT ON orders TO {reader};
         GRANT SELECT (id), UPDATE (id) ON orders TO {clerk};
         CREATE POLICY \"only b\" ON orders FOR SELECT TO {reader} USING (id = 'b');
         CREATE POLICY rest ON orders AS RESTRICTIVE FOR ALL USING (true) WITH CHECK (id <> 'x');
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
    ));
    assert_eq!(
        seen_by(&pg, &reader, "SELECT string_agg(id, ',') FROM orders"),
        "b"
    );
    let rules = "SELECT string_agg(concat_ws(' ', policyname, permissive, roles, cmd, qual, with_check), '; ' ORDER BY policyname)
         FROM pg_policies WHERE schemaname = current_schema()";
    let before = pg.sql(rules);
    // when a table with other columns takes its place,
    let other = other_columns(&pg);
    let mut store = pg.open(Arc::clone(&other), LOG);
    store.take_over().unwrap();
    model.rebuild(&other, store.as_mut()).unwrap();
    // then each of them sees what it saw, and the sink writes all of it.
    assert_eq!(pg.sql(rules), before);
    assert_eq!(
        seen_by(&pg, &reader, "SELECT string_agg(id, ',') FROM orders"),
        "b"
    );
    assert_eq!(may(&pg, &barred, "SELECT"), "f");
    assert_eq!(may(&pg, &clerk, "SELECT"), "f");
    for (column, right, is) in [
        ("id", "SELECT", "t"),
        ("id", "UPDATE", "t"),
        ("total", "SELECT", "f"),
    ] {
        let has =
            format!("SELECT has_column_privilege('{clerk}', 'orders', '{column}', '{right}')");
        assert_eq!(pg.sql(&has), is, "{column} {right}");
    }
    model.write(ORDERS, b"z", Some(r#"{"total":9}"#));
    model.apply(&other, store.as_mut()).unwrap();
    assert!(model.verify(&other, store.as_mut()).equal);
    pg.sql(&format!("DROP OWNED BY {barred}"));
}

#[test]
fn rows_that_others_write_until_the_end_of_a_backfill_are_not_dropped_with_the_table_unasked() {
    require!(Kind::Postgres);
    // Given a table that another one with other columns is to take the place of,
    let pg = Pg::new();
    let (store, model) = backfilled(&pg, &standard_plan(&pg));
    drop(store);
    let other = other_columns(&pg);
    let mut store = pg.open(Arc::clone(&other), LOG);
    store.take_over().unwrap();
    model.load(&other, store.as_mut()).unwrap();
    // when rows come that nothing has counted,
    pg.sql("INSERT INTO orders (id) SELECT 'mine' || g FROM generate_series(1, 50) g");
    store.guard(&[Guard::Deletes(49), Guard::Anything]);
    let error = store.finish_rebuild(model.place()).unwrap_err();
    // then the table is dropped only where so many may be deleted.
    assert!(
        matches!(error, StoreError::Guarded { deletes: 50, .. }),
        "{error}"
    );
    let mine = "SELECT count(*) FROM orders WHERE id LIKE 'mine%'";
    assert_eq!(pg.sql(mine), "50");
    model.load(&other, store.as_mut()).unwrap();
    store.guard(&[Guard::Deletes(50), Guard::Anything]);
    store.finish_rebuild(model.place()).unwrap();
    assert_eq!(pg.sql(mine), "0");
}

#[test]
fn a_policy_that_the_new_columns_do_not_allow_stops_the_sink_by_name() {
    require!(Kind::Postgres);
    // Given a policy over a column that a new definition has no longer,
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (store, model) = backfilled(&pg, &plan);
    drop(store);
    pg.sql("CREATE POLICY noted ON orders USING (note <> 'secret'); ALTER TABLE orders ENABLE ROW LEVEL SECURITY");
    let rows = pg.sql("SELECT count(note) FROM orders");
    // when its table is to take the place,
    let other = other_columns(&pg);
    let rebuild = |model: &Model| {
        let mut store = pg.open(Arc::clone(&other), LOG);
        store.take_over().unwrap();
        model.rebuild(&other, store.as_mut())
    };
    let error = rebuild(&model).unwrap_err();
    // then the sink stops, the policy is named, and the table is as it was,
    let text = error.to_string();
    assert!(matches!(error, StoreError::SchemaMismatch { .. }), "{text}");
    assert!(
        text.contains("policy 'noted'") && text.contains("note"),
        "{text}"
    );
    assert_eq!(pg.sql("SELECT count(note) FROM orders"), rows);
    // until the policy is gone.
    pg.sql("DROP POLICY noted ON orders");
    rebuild(&model).unwrap();
}
