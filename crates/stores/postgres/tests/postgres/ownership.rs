//! Which names onelog takes, and what stays when tables are backfilled.

use std::sync::Arc;

use onelog_store::conformance::{
    self, Harness as _, LOG, Model, ORDERS, SINK, backfilled, standard_plan,
};
use onelog_store::{StoreError, verify};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

#[test]
fn a_table_that_onelog_did_not_make_is_never_replaced() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    pg.sql("CREATE TABLE orders (id text, total real, extra int NOT NULL); INSERT INTO orders VALUES ('mine', 1, 2)");
    let plan = standard_plan(&pg);
    let mut store = pg.open(Arc::clone(&plan), LOG);
    let error = store.check_target().unwrap_err();
    let text = error.to_string();
    for part in [
        "it has rows",
        "'id' has no primary key or unique index",
        "'total' is real, and should be bigint",
        "'note' is missing",
        "'extra' is NOT NULL without a default",
        "\"existing\": true",
    ] {
        assert!(text.contains(part), "{text}");
    }
    store.take_over().unwrap();
    assert!(matches!(
        store.begin_rebuild(),
        Err(StoreError::NotOwner { .. })
    ));
    assert_eq!(pg.sql("SELECT count(*) FROM orders"), "1");
}

#[test]
fn an_empty_table_that_fits_is_backfilled_and_a_view_is_not() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    pg.sql("CREATE TABLE orders (id text PRIMARY KEY, total bigint, note text, mood text)");
    let plan = standard_plan(&pg);
    let (mut store, model) = backfilled(&pg, &plan);
    assert!(model.verify(&plan, store.as_mut()).equal);

    let pg = Pg::new();
    pg.sql("CREATE VIEW orders AS SELECT 1");
    let error = pg.open(standard_plan(&pg), LOG).check_target().unwrap_err();
    assert!(error.to_string().contains("a view"), "{error}");
}

#[test]
fn two_sinks_share_a_schema_but_not_a_table() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, model) = backfilled(&pg, &plan);
    let mut other = pg.open_as("other", &plan, LOG).unwrap();
    let error = other.check_target().unwrap_err().to_string();
    assert!(error.contains("belongs to the sink 'follower'"), "{error}");
    other.take_over().unwrap();
    assert!(other.begin_rebuild().is_err());
    let elsewhere = conformance::plan(&pg, r#"{"table":"shop.orders","into":"elsewhere"}"#);
    let mut other = pg.open_as("other", &elsewhere, LOG).unwrap();
    other.take_over().unwrap();
    model.rebuild(&elsewhere, other.as_mut()).unwrap();
    assert!(model.verify(&elsewhere, other.as_mut()).equal);
    assert!(model.verify(&plan, store.as_mut()).equal);
    // Once its sink is removed, the name is free.
    store.remove().unwrap();
    pg.open_as("third", &plan, LOG)
        .unwrap()
        .check_target()
        .unwrap();
}

#[test]
fn of_two_first_backfills_of_one_table_the_first_that_ends_has_it_to_itself() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut first, mut second) = (
        pg.open_as("first", &plan, LOG).unwrap(),
        pg.open_as("second", &plan, LOG).unwrap(),
    );
    let (mut model, mut theirs) = (Model::default(), Model::default());
    model.order("a", 1, "first");
    theirs.order("b", 2, "second");
    // Given two sinks that load the rows of their own into a table that is not there yet,
    for (store, model) in [(&mut first, &model), (&mut second, &theirs)] {
        store.take_over().unwrap();
        model.load(&plan, store.as_mut()).unwrap();
    }
    // when the first ends and the second goes on,
    first.finish_rebuild(model.place()).unwrap();
    let error = second.finish_rebuild(theirs.place()).unwrap_err();
    assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
    // then the table has the first one's rows alone.
    assert!(model.verify(&plan, first.as_mut()).equal);
}

#[test]
fn a_sink_whose_table_has_another_owner_notices_it_while_it_follows() {
    require!(Kind::Postgres);
    // Given a sink that follows, and bookkeeping that gives its table to another one,
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, _) = backfilled(&pg, &plan);
    store.check_shape().unwrap();
    pg.sql("UPDATE onelog_tables SET sink = 'other'");
    // when it looks at its tables again, then it stops by name.
    let error = store.check_shape().unwrap_err();
    assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
    assert!(error.to_string().contains("the sink 'other'"), "{error}");
}

#[test]
fn a_table_that_is_gone_leaves_no_claim_to_its_name() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, _model) = backfilled(&pg, &plan);
    pg.sql("DROP TABLE orders");
    store.remove().unwrap();
    pg.sql("CREATE TABLE orders (mine int); INSERT INTO orders VALUES (1)");
    let error = pg.open(plan, LOG).check_target().unwrap_err();
    assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
}

#[test]
fn a_table_that_a_user_makes_in_the_place_of_one_that_a_sink_left_is_its_users() {
    require!(Kind::Postgres);
    for (made, into) in [
        (
            "DROP TABLE orders; CREATE TABLE orders (id int, mine int); INSERT INTO orders VALUES (1, 2)",
            "orders",
        ),
        (
            "ALTER TABLE orders RENAME TO kept; CREATE TABLE orders (LIKE kept INCLUDING ALL);
             INSERT INTO orders SELECT * FROM kept",
            "orders",
        ),
        ("ALTER TABLE orders RENAME TO archive", "archive"),
        (
            "CREATE TABLE archive (LIKE orders INCLUDING ALL); INSERT INTO archive SELECT * FROM orders",
            "archive",
        ),
    ] {
        for is_before in [true, false] {
            // Given a sink's table that a user renames, copies, or puts another one in the place of,
            // before or after the sink is deleted,
            let pg = Pg::new();
            let plan = standard_plan(&pg);
            let (mut store, model) = backfilled(&pg, &plan);
            if is_before {
                pg.sql(made);
            }
            store.remove().unwrap();
            if !is_before {
                pg.sql(made);
            }
            let rows = || pg.sql(&format!("SELECT * FROM {into} ORDER BY id"));
            let before = rows();
            // when another sink would make a table of that name, then it is refused.
            let mapping = format!(
                r#"{{"table":"shop.orders","into":"{into}","columns":{{"id":{{"from":"$key","type":"text"}}}}}}"#
            );
            let plan = conformance::plan(&pg, &mapping);
            let mut other = pg.open_as("other", &plan, LOG).unwrap();
            let error = other.check_target().unwrap_err();
            assert!(error.to_string().contains("onelog did not make"), "{error}");
            other.take_over().unwrap();
            let refused = model.rebuild(&plan, other.as_mut());
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
            assert_eq!(rows(), before);
        }
    }
}

#[test]
fn a_table_that_a_user_makes_in_the_place_of_a_sinks_own_is_its_users() {
    require!(Kind::Postgres);
    for (made, says) in [
        (
            "DROP TABLE orders; CREATE TABLE orders (id text PRIMARY KEY, customer text)",
            "made anew",
        ),
        (
            "ALTER TABLE orders RENAME TO kept; CREATE TABLE orders (LIKE kept INCLUDING ALL)",
            "made anew",
        ),
        (
            "ALTER TABLE orders RENAME TO kept; CREATE TABLE own (id text); CREATE VIEW orders AS SELECT * FROM own",
            "a view has its name",
        ),
    ] {
        // Given a sink whose table a user puts something else in the place of,
        let pg = Pg::new();
        let plan = standard_plan(&pg);
        let (mut store, model) = backfilled(&pg, &plan);
        pg.sql(&format!("{made}; INSERT INTO orders (id) VALUES ('mine')"));
        // when the sink is rebuilt, as it is or for other columns, then it stops before that,
        let error = store.check_shape().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("drop or rename"), "{error}");
        let mapping = r#"{"table":"shop.orders","into":"orders"}"#;
        for plan in [plan.clone(), conformance::plan(&pg, mapping)] {
            let mut store = pg.open(plan.clone(), LOG);
            let refused = store.check_target();
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
            store.take_over().unwrap();
            let refused = model.rebuild(&plan, store.as_mut());
            assert!(matches!(refused, Err(StoreError::NotOwner { .. })));
        }
        assert_eq!(pg.sql("SELECT string_agg(id, ',') FROM orders"), "mine");
        // and what helps is what it said.
        let kind = if says.contains("view") {
            "VIEW"
        } else {
            "TABLE"
        };
        pg.sql(&format!("DROP {kind} orders"));
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn what_a_sink_left_is_free_also_in_a_restored_database_and_of_an_earlier_version() {
    require!(Kind::Postgres);
    let anew = |table: &str| {
        format!(
            "CREATE TABLE restored (LIKE {table} INCLUDING ALL); INSERT INTO restored SELECT * FROM {table};
             DROP TABLE {table}; ALTER TABLE restored RENAME TO {table};"
        )
    };
    let restored = anew("orders") + &anew("onelog_tables");
    for changed in [&restored, "UPDATE onelog_tables SET shape = NULL"] {
        // Given a table that a deleted sink left, of which the bookkeeping does not know the number,
        let pg = Pg::new();
        let (mut store, model) = backfilled(&pg, &standard_plan(&pg));
        store.remove().unwrap();
        pg.sql(changed);
        // when another sink needs the name for other columns, then it has it.
        let plan = conformance::plan(&pg, r#"{"table":"shop.orders","into":"orders"}"#);
        let mut other = pg.open_as("other", &plan, LOG).unwrap();
        other.check_target().unwrap();
        other.take_over().unwrap();
        model.rebuild(&plan, other.as_mut()).unwrap();
        assert!(model.verify(&plan, other.as_mut()).equal);
    }
}

#[test]
fn views_rights_and_indexes_of_users_survive_a_rebuild() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, mut model) = backfilled(&pg, &plan);
    let reader = pg.new_role("reader");
    pg.sql(&format!(
        "CREATE VIEW dear AS SELECT id FROM orders WHERE total > 1;
         CREATE INDEX by_note ON orders (note);
         ALTER TABLE orders ADD COLUMN words tsvector GENERATED ALWAYS AS (to_tsvector('simple', note)) STORED;
         GRANT SELECT ON orders TO {reader}"
    ));
    model.order("d", 9, "nine");
    model.write(ORDERS, b"a", None);
    store.check_shape().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_eq!(pg.sql("SELECT count(*) FROM dear"), "3");
    assert_eq!(
        pg.sql("SELECT id FROM orders WHERE words @@ 'nine'::tsquery"),
        "d"
    );
    assert_eq!(
        pg.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname = 'by_note'"),
        "1"
    );
    assert_eq!(
        pg.sql(&format!(
            "SELECT has_table_privilege('{reader}', 'orders', 'SELECT')"
        )),
        "t"
    );
}

#[test]
fn another_shape_takes_the_name_and_keeps_the_rights() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (store, model) = backfilled(&pg, &plan);
    drop(store);
    let reader = pg.new_role("reader");
    pg.sql(&format!("GRANT SELECT, UPDATE ON orders TO {reader}"));
    let wider = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"text"}}}"#,
    );
    let mut store = pg.open(Arc::clone(&wider), LOG);
    store.take_over().unwrap();
    model.rebuild(&wider, store.as_mut()).unwrap();
    assert!(model.verify(&wider, store.as_mut()).equal);
    for right in ["SELECT", "UPDATE"] {
        assert_eq!(
            pg.sql(&format!(
                "SELECT has_table_privilege('{reader}', 'orders', '{right}')"
            )),
            "t"
        );
    }
    // What depends on it is not dropped with it.
    let target = pg.definition("dry").target;
    target.check_backfill(SINK, &plan, 0).unwrap();
    pg.sql("CREATE VIEW totals AS SELECT total FROM orders");
    let foretold = target.check_backfill(SINK, &plan, 0).unwrap_err();
    let text = foretold.to_string();
    assert!(
        text.contains("totals") && text.contains("drop what depends on the table"),
        "{text}"
    );
    target.check_backfill(SINK, &wider, 0).unwrap();
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    let error = model.rebuild(&plan, store.as_mut()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("totals") && text.contains("drop what depends on the table"),
        "{text}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_table_that_was_altered_is_described_and_a_rebuild_mends_it() {
    require!(Kind::Postgres);
    for (sql, expected) in [
        (
            "ALTER TABLE orders ADD COLUMN mood text NOT NULL DEFAULT ''; ALTER TABLE orders ALTER mood DROP DEFAULT",
            "the column 'mood' is NOT NULL without a default",
        ),
        ("DROP TABLE orders", "it is not there"),
        (
            "ALTER TABLE orders ALTER total TYPE text",
            "the column 'total' is text, and should be bigint",
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
            "'id' has no primary key",
        ),
        ("ALTER TABLE orders SET UNLOGGED", "it is UNLOGGED"),
    ] {
        let pg = Pg::new();
        let plan = standard_plan(&pg);
        let (mut store, model) = backfilled(&pg, &plan);
        pg.sql(sql);
        let error = store.check_shape().unwrap_err();
        assert!(matches!(error, StoreError::SchemaMismatch { .. }));
        let said = error.to_string();
        assert!(said.contains(expected), "{said}");
        assert!(said.ends_with("onelog sinks rebuild"), "{said}");
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn names_that_postgresql_would_cut_are_refused() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let long = "n".repeat(64);
    for mapping in [
        format!(r#"{{"table":"shop.orders","into":"{long}"}}"#),
        format!(
            r#"{{"table":"shop.orders","into":"t","columns":{{"id":{{"from":"$key","type":"text"}},"{long}":{{"from":"a","type":"text"}}}}}}"#
        ),
        r#"{"table":"shop.orders","into":"t","columns":{"ctid":{"from":"$key","type":"text"}}}"#
            .to_owned(),
    ] {
        let plan = conformance::plan(&pg, &mapping);
        let error = pg.open(plan, LOG).check_target().unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{error}"
        );
        let said = error.to_string();
        assert!(said.contains("; choose "), "{said}");
        assert!(!said.contains("rebuild"), "{said}");
    }
    // The longest name that is whole has a staging table of its own.
    let mapping = format!(r#"{{"table":"shop.orders","into":"{}"}}"#, &long[..63]);
    let plan = conformance::plan(&pg, &mapping);
    let (mut store, model) = backfilled(&pg, &plan);
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn any_role_that_may_read_a_table_can_compare_it() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (_store, model) = backfilled(&pg, &plan);
    let auditor = pg.new_role("auditor");
    pg.sql(&format!(
        "CREATE TABLE theirs AS SELECT id::varchar(10), total::int, note FROM orders;
         GRANT USAGE ON SCHEMA {} TO {auditor}; GRANT SELECT ON theirs TO {auditor}",
        pg.quoted()
    ));
    let theirs = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"theirs","columns":{
          "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
          "note":{"from":"/note","type":"text"}}}"#,
    );
    let target = pg.as_user(&auditor).definition("audit").target;
    let mut reader = target.open_reader(&theirs).unwrap();
    assert!(verify(&theirs, &model, reader.as_mut()).unwrap().equal);
    drop(reader);
    pg.sql("UPDATE theirs SET note = 'by hand' WHERE id = 'b'");
    let mut reader = target.open_reader(&theirs).unwrap();
    let found = verify(&theirs, &model, reader.as_mut()).unwrap();
    assert_eq!(found.tables[0].differences_total, 1);
    // What is not there, or may not be read, is said.
    let error = target.open_reader(&plan).err().unwrap().to_string();
    assert!(error.contains("permission denied"), "{error}");
    let absent = conformance::plan(&pg, r#"{"table":"shop.orders","into":"absent"}"#);
    let error = target.open_reader(&absent).err().unwrap().to_string();
    assert!(error.contains("no such table"), "{error}");
    let more = conformance::plan(&pg, r#"{"table":"shop.orders","into":"theirs"}"#);
    let error = target.open_reader(&more).err().unwrap().to_string();
    let columns = "'document'; its columns are id, total, note";
    assert!(
        error.contains("'theirs'") && error.contains(columns),
        "{error}"
    );
}

#[test]
fn a_table_whose_rows_are_those_of_another_table_is_refused_by_name() {
    require!(Kind::Postgres);
    // Given a sink that backfills a user's partitioned table
    let pg = Pg::new();
    // (before it, nothing of onelog's is there for the dry run)
    pg.sql("CREATE TABLE early (id text); CREATE RULE all_gone AS ON DELETE TO early DO NOTHING");
    let early = conformance::plan(&pg, r#"{"table":"shop.orders","into":"early"}"#);
    let target = pg.definition("dry").target;
    let foretold = target.check_backfill("first", &early, 0).unwrap_err();
    let text = foretold.to_string();
    assert!(text.contains("the rule all_gone rewrites"), "{text}");
    assert!(text.contains("drop it, or disable it"), "{text}");
    pg.sql(
        "CREATE TABLE parent (id text COLLATE \"C\" PRIMARY KEY) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parent FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE base (id text COLLATE \"C\" PRIMARY KEY);
         CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (base);
         CREATE TABLE ruled (id text COLLATE \"C\" PRIMARY KEY);
         CREATE RULE elsewhere AS ON DELETE TO ruled DO ALSO DELETE FROM base WHERE id = OLD.id;
         CREATE VIEW seen AS SELECT id FROM base",
    );
    let plan = |into: &str| {
        let mapping = format!(
            r#"{{"table":"shop.orders","into":"{into}","existing":true,"columns":{{"id":{{"from":"$key","type":"text"}}}}}}"#
        );
        conformance::plan(&pg, &mapping)
    };
    let mut model = Model::default();
    model.write(ORDERS, b"a", Some("{}"));
    let parent = plan("parent");
    let mut store = pg.open_as("first", &parent, LOG).unwrap();
    store.take_over().unwrap();
    model.rebuild(&parent, store.as_mut()).unwrap();
    // When another sink is to backfill what has the same rows, then it is refused, and says why.
    for (into, why) in [
        ("part", "it is a partition of"),
        ("heir", "it inherits from"),
        ("base", "inherits from it"),
        ("ruled", "the rule elsewhere rewrites"),
        ("seen", "a view of this name"),
    ] {
        let plan = plan(into);
        let target = pg.definition("dry").target;
        let foretold = target.check_backfill("second", &plan, 0).unwrap_err();
        let mut store = pg.open_as("second", &plan, LOG).unwrap();
        let error = store.check_target().unwrap_err();
        let text = error.to_string();
        assert_eq!(foretold.to_string(), text);
        assert!(text.contains(why) && text.contains(into), "{text}");
        assert!(!error.is_retryable(), "{text}");
        store.take_over().unwrap();
        assert!(store.begin_rebuild().is_err(), "{into}");
    }
    let from = model.position();
    model.write(ORDERS, b"b", Some("{}"));
    store.apply(&model.batch(&parent, from)).unwrap();
    assert!(model.verify(&parent, store.as_mut()).equal);
}

#[test]
fn a_table_of_another_sink_that_becomes_a_partition_is_not_backfilled_through_its_parent() {
    require!(Kind::Postgres);
    // Given two sinks with a table of the user for each, one of them partitioned
    let pg = Pg::new();
    pg.sql(
        "CREATE TABLE parent (id text COLLATE \"C\" PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parent FOR VALUES FROM (MINVALUE) TO ('m');
         CREATE TABLE high (id text COLLATE \"C\" PRIMARY KEY)",
    );
    let plan = |into: &str| {
        let mapping = format!(
            r#"{{"table":"shop.orders","into":"{into}","existing":true,"columns":{{"id":{{"from":"$key","type":"text"}}}}}}"#
        );
        conformance::plan(&pg, &mapping)
    };
    let (of_parent, of_high) = (plan("parent"), plan("high"));
    let (mut ours, mut theirs) = (Model::default(), Model::default());
    ours.write(ORDERS, b"a", Some("{}"));
    theirs.write(ORDERS, b"z", Some("{}"));
    let mut store = pg.open_as("ours", &of_parent, LOG).unwrap();
    store.take_over().unwrap();
    ours.rebuild(&of_parent, store.as_mut()).unwrap();
    let mut other = pg.open_as("theirs", &of_high, LOG).unwrap();
    other.take_over().unwrap();
    theirs.rebuild(&of_high, other.as_mut()).unwrap();
    store.check_shape().unwrap();
    // when the one becomes a partition of the other, then neither sink writes into it,
    pg.sql("ALTER TABLE parent ATTACH PARTITION high FOR VALUES FROM ('m') TO (MAXVALUE)");
    for error in [
        store.check_shape().unwrap_err(),
        store.check_target().unwrap_err(),
        ours.rebuild(&of_parent, store.as_mut()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
        let named = "its partition 'high' belongs to the sink 'theirs'";
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = other.check_shape().unwrap_err();
    assert!(
        error.to_string().contains("it is a partition of"),
        "{error}"
    );
    assert_eq!(pg.sql("SELECT id FROM high"), "z");
    // until the other sink is gone.
    other.remove().unwrap();
    ours.rebuild(&of_parent, store.as_mut()).unwrap();
    assert_eq!(pg.sql("SELECT id FROM parent"), "a");
}
