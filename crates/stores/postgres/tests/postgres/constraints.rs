//! Unique and foreign keys of users: the order of the log is kept where the last images alone do
//! not fit.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::TableId;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS, refused_keys};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

const BLOBS: TableId = TableId(1025);
const USERS: &str = r#"{"table":"shop.orders","into":"users","existing":true,"columns":{
  "id":{"from":"$key","type":"text"},"name":{"from":"/name","type":"text"}}}"#;
const CHILDREN: &str = r#"{"table":"shop.orders","into":"children","existing":true,"columns":{
  "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}}"#;
const PARENTS: &str = r#"{"table":"shop.blobs","into":"parents","existing":true,"columns":{
  "id":{"from":"$key","type":"text"}}}"#;

fn named(model: &mut Model, key: &str, name: &str) {
    let document = serde_json::json!({ "name": name }).to_string();
    model.write(ORDERS, key.as_bytes(), Some(&document));
}

fn child(model: &mut Model, key: &str, parent: &str) {
    let document = serde_json::json!({ "parent": parent }).to_string();
    model.write(ORDERS, key.as_bytes(), Some(&document));
}

fn backfilled(pg: &Pg, mappings: &str, model: &Model) -> (Box<dyn Store>, Arc<Plan>) {
    let plan = conformance::plan(pg, mappings);
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    (store, plan)
}

fn apply_and_compare(
    store: &mut dyn Store,
    plan: &Arc<Plan>,
    model: &Model,
    from: onelog_record::Position,
) {
    store.apply(&model.batch(plan, from)).unwrap();
    let found = model.verify(plan, store);
    assert!(found.equal, "{found:#?}");
    assert_eq!(
        store.position().unwrap().unwrap().position,
        model.position()
    );
}

/// Now a row cannot let go of its name for a moment.
const NOT_NULL: &str = "ALTER TABLE users ALTER name SET NOT NULL";

fn users(more: &str) -> (Pg, Model, Box<dyn Store>, Arc<Plan>) {
    let pg = Pg::new();
    pg.sql(&format!(
        "CREATE TABLE users (id text PRIMARY KEY, name text UNIQUE); {more}"
    ));
    let mut model = Model::default();
    named(&mut model, "a", "ada");
    named(&mut model, "b", "bob");
    named(&mut model, "c", "cleo");
    let (store, plan) = backfilled(&pg, USERS, &model);
    (pg, model, store, plan)
}

#[test]
fn a_unique_name_that_moves_on_over_several_transactions_is_followed() {
    require!(Kind::Postgres);
    let (_pg, mut model, mut store, plan) = users("");
    // In the order of the log each step is possible; the last images in the order of keys are not.
    let from = model.position();
    named(&mut model, "b", "bert");
    named(&mut model, "a", "bob");
    named(&mut model, "c", "ada");
    named(&mut model, "0", "cleo");
    apply_and_compare(store.as_mut(), &plan, &model, from);
}

#[test]
fn two_rows_that_exchange_a_unique_name_in_one_transaction_are_followed() {
    require!(Kind::Postgres);
    let (_pg, mut model, mut store, plan) = users("");
    let from = model.position();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "cleo");
    named(&mut model, "c", "ada");
    apply_and_compare(store.as_mut(), &plan, &model, from);
    // A rebuild from a state in which they are exchanged as well.
    named(&mut model, "a", "cleo");
    named(&mut model, "b", "bob");
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn a_refused_row_beside_an_exchange_is_named_alone() {
    require!(Kind::Postgres);
    // Given a table that refuses a name,
    let (pg, mut model, mut store, plan) = users("");
    pg.sql("ALTER TABLE users ADD CHECK (name <> 'nobody')");
    // when two rows exchange a unique value in a batch that has a row with that name,
    let from = model.position();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    named(&mut model, "c", "nobody");
    let refused = store.apply(&model.batch(&plan, from)).unwrap_err();
    // then that row is named and no other one.
    assert_eq!(refused_keys(&refused), [b"c"]);
}

#[test]
fn a_duplicate_beside_an_exchange_is_named_alone() {
    require!(Kind::Postgres);
    // Given rows with unique names,
    let (_pg, mut model, mut store, plan) = users("");
    // when two exchange theirs in a batch that has one with the name of a row that stays, and one with
    // the name of a new row before it,
    let from = model.position();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    named(&mut model, "d", "cleo");
    named(&mut model, "z", "zoe");
    named(&mut model, "y", "zoe");
    let refused = store.apply(&model.batch(&plan, from)).unwrap_err();
    // then these are named and no other one,
    assert_eq!(refused_keys(&refused), [b"d", b"y"]);
    // and the others are written without them.
    model.write(ORDERS, b"d", None);
    model.write(ORDERS, b"y", None);
    apply_and_compare(store.as_mut(), &plan, &model, from);
}

#[test]
fn an_exchange_never_takes_others_rows_with_it() {
    require!(Kind::Postgres);
    let (pg, mut model, mut store, plan) =
        users("CREATE TABLE letters (id int, user_id text REFERENCES users ON DELETE CASCADE)");
    pg.sql(&format!("{NOT_NULL}; INSERT INTO letters VALUES (1, 'a')"));
    let before = model.clone();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    let error = store
        .apply(&model.batch(&plan, before.position()))
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("letters") && text.contains("exchange a unique value"),
        "{text}"
    );
    assert!(!error.is_retryable());
    assert_eq!(pg.sql("SELECT count(*) FROM letters"), "1");
    assert!(before.verify(&plan, store.as_mut()).equal);
}

#[test]
fn an_exchange_takes_no_rows_that_refer_to_a_partition() {
    require!(Kind::Postgres);
    // Given a user's partitioned table, and a table that refers to one of its partitions,
    let pg = Pg::new();
    pg.sql(
        "CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL) PARTITION BY HASH (id);
         CREATE TABLE only_part PARTITION OF users FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE UNIQUE INDEX ON only_part (name);
         CREATE TABLE letters (user_id text REFERENCES only_part ON DELETE CASCADE)",
    );
    let mut model = Model::default();
    named(&mut model, "a", "ada");
    named(&mut model, "b", "bob");
    let (mut store, plan) = backfilled(&pg, USERS, &model);
    pg.sql("INSERT INTO letters VALUES ('a'), ('b')");
    // when two rows exchange a unique value,
    let from = model.position();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    // then they are refused, and nothing is deleted.
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert_eq!(pg.sql("SELECT count(*) FROM letters"), "2");
}

#[test]
fn an_exchange_never_runs_triggers_for_deleted_rows() {
    require!(Kind::Postgres);
    // Given a user's table with a trigger that takes rows of others with those that are deleted,
    let (pg, mut model, mut store, plan) = users(
        "CREATE TABLE letters (user_id text);
         CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN EXECUTE format('DELETE FROM %I.letters WHERE user_id = $1', TG_TABLE_SCHEMA)
                USING OLD.id; RETURN NULL; END $$;
         CREATE TRIGGER follows AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION follow()",
    );
    pg.sql(&format!("{NOT_NULL}; INSERT INTO letters VALUES ('a')"));
    let before = model.clone();
    // when two rows exchange a unique value,
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    let error = store
        .apply(&model.batch(&plan, before.position()))
        .unwrap_err();
    // then they are refused with the reason, and nothing was deleted;
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert!(error.to_string().contains("the trigger follows"), "{error}");
    assert_eq!(pg.sql("SELECT count(*) FROM letters"), "1");
    assert!(before.verify(&plan, store.as_mut()).equal);
    // a row that the log deletes is deleted, as the user wants it.
    let mut model = before.clone();
    model.write(ORDERS, b"a", None);
    apply_and_compare(store.as_mut(), &plan, &model, before.position());
    assert_eq!(pg.sql("SELECT count(*) FROM letters"), "0");
}

#[test]
fn a_duplicate_in_a_table_that_rows_of_others_follow_is_named_alone() {
    require!(Kind::Postgres);
    let (_pg, mut model, mut store, plan) =
        users("CREATE TABLE letters (id int, user_id text REFERENCES users ON DELETE CASCADE)");
    let from = model.position();
    named(&mut model, "d", "ada");
    named(&mut model, "e", "eve");
    let refused = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert_eq!(refused_keys(&refused), [b"d"]);
}

#[test]
fn a_child_of_a_row_in_an_exchange_is_written_with_it() {
    require!(Kind::Postgres);
    // Given people with unique names and their pets, both of the log,
    let pg = Pg::new();
    pg.sql(
        "CREATE TABLE users (id text PRIMARY KEY, name text UNIQUE);
         CREATE TABLE pets (id text PRIMARY KEY, person text REFERENCES users)",
    );
    let mappings = r#"{"table":"shop.orders","into":"users","existing":true,
        "where":".name != null","columns":{
          "id":{"from":"$key","type":"text"},"name":{"from":"/name","type":"text"}}},
      {"table":"shop.orders","into":"pets","existing":true,
        "where":".person != null","columns":{
          "id":{"from":"$key","type":"text"},"person":{"from":"/person","type":"text"}}}"#;
    let mut model = Model::default();
    named(&mut model, "q", "quentin");
    let (mut store, plan) = backfilled(&pg, mappings, &model);
    // when a new row takes the name of one that changes, and another new one refers to it,
    let from = model.position();
    named(&mut model, "p", "quentin");
    named(&mut model, "q", "quincy");
    model.write(ORDERS, b"k", Some(r#"{"person":"p"}"#));
    // then all are written.
    apply_and_compare(store.as_mut(), &plan, &model, from);
}

#[test]
fn an_exchange_never_takes_columns_of_the_user_with_it() {
    require!(Kind::Postgres);
    // Given a user's table with a column of his own, and a name in every row
    let (pg, mut model, mut store, plan) = users("ALTER TABLE users ADD note text");
    pg.sql(NOT_NULL);
    pg.sql("UPDATE users SET note = id");
    let before = model.clone();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    // When two rows exchange a unique value, in a batch or a rebuild, then a record is refused,
    let applied = store.apply(&model.batch(&plan, before.position()));
    let rebuilt = model.rebuild(&plan, store.as_mut());
    for outcome in [applied, rebuilt] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
    }
    // and no row was deleted for a moment.
    assert_eq!(pg.sql("SELECT count(*) FROM users WHERE note = id"), "3");
    assert!(before.verify(&plan, store.as_mut()).equal);
}

#[test]
fn rows_that_cannot_be_deleted_for_a_moment_exchange_what_may_be_null() {
    require!(Kind::Postgres);
    // Given users' tables whose rows cannot be deleted for a moment: for a column, for rows that
    // would follow, for a trigger; and keys that are checked late,
    for more in [
        "ALTER TABLE users ADD mine text DEFAULT 'mine'",
        "CREATE TABLE letters (user_id text REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER never BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION no()",
        "ALTER TABLE users ADD mine text DEFAULT 'mine', DROP CONSTRAINT users_name_key,
           ADD UNIQUE (name) DEFERRABLE, ADD CHECK (name <> 'nobody')",
    ] {
        let (pg, mut model, mut store, plan) = users(more);
        // when two rows exchange a unique value beside rows that are refused,
        let from = model.position();
        named(&mut model, "a", "bob");
        named(&mut model, "b", "ada");
        named(&mut model, "d", "cleo");
        let error = store.apply(&model.batch(&plan, from)).unwrap_err();
        let StoreError::Refused(refused) = error else {
            panic!("{more}: {error:?}");
        };
        // then these alone are named, and the others are written without them.
        assert_eq!((&refused.key_bytes[..], refused.more.len()), (&b"d"[..], 0));
        model.write(ORDERS, b"d", None);
        apply_and_compare(store.as_mut(), &plan, &model, from);
        if more.contains("mine") {
            assert_eq!(
                pg.sql("SELECT count(*) FROM users WHERE mine = 'mine'"),
                "3"
            );
        }
    }
}

#[test]
fn a_row_that_another_one_refers_to_does_not_hinder_the_exchange_of_others() {
    require!(Kind::Postgres);
    // Given a row that cannot be deleted, because another one refers to it,
    let (pg, mut model, mut store, plan) =
        users("CREATE TABLE letters (user_id text REFERENCES users)");
    pg.sql("INSERT INTO letters VALUES ('c')");
    // when it changes beside two that exchange a unique value, then all are written.
    let from = model.position();
    named(&mut model, "a", "bob");
    named(&mut model, "b", "ada");
    named(&mut model, "c", "carla");
    apply_and_compare(store.as_mut(), &plan, &model, from);
}

#[test]
fn what_is_named_is_refused_at_the_end_of_the_batch() {
    require!(Kind::Postgres);
    // Given rows with unique names,
    let (_pg, mut model, mut store, plan) = users("");
    // when one is wrong in the middle of a batch and right at its end, beside one that stays wrong,
    let from = model.position();
    named(&mut model, "d", "ada");
    named(&mut model, "e", "bob");
    named(&mut model, "d", "dora");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    // then only the other one is named.
    let StoreError::Refused(refused) = error else {
        panic!("{error:?}");
    };
    assert_eq!((&refused.key_bytes[..], refused.more.len()), (&b"e"[..], 0));
    model.write(ORDERS, b"e", None);
    apply_and_compare(store.as_mut(), &plan, &model, from);
}

#[test]
fn a_name_that_two_records_hold_is_refused_and_the_record_named() {
    require!(Kind::Postgres);
    let (_pg, mut model, mut store, plan) = users("");
    let before = model.clone();
    named(&mut model, "d", "dora");
    named(&mut model, "e", "ada");
    named(&mut model, "f", "fay");
    let error = store
        .apply(&model.batch(&plan, before.position()))
        .unwrap_err();
    let StoreError::Refused(refused) = &error else {
        panic!("{error}");
    };
    assert_eq!(refused.key, "e");
    assert!(refused.what.contains("duplicate key"), "{error}");
    assert!(before.verify(&plan, store.as_mut()).equal);
}

fn families(mappings: &str, foreign: &str) -> (Pg, Model, Box<dyn Store>, Arc<Plan>) {
    let pg = Pg::new();
    pg.sql(&format!(
        "CREATE TABLE parents (id text PRIMARY KEY);
         CREATE TABLE children (id text PRIMARY KEY, parent text REFERENCES parents {foreign})"
    ));
    let mut model = Model::default();
    model.write(BLOBS, b"p1", Some("x"));
    child(&mut model, "c1", "p1");
    let (store, plan) = backfilled(&pg, mappings, &model);
    (pg, model, store, plan)
}

#[test]
fn children_and_parents_come_and_go_in_any_order_of_mappings() {
    require!(Kind::Postgres);
    for mappings in [
        format!("{PARENTS},{CHILDREN}"),
        format!("{CHILDREN},{PARENTS}"),
    ] {
        // With the children first nothing can be backfilled but what is there already.
        let pg = Pg::new();
        pg.sql(
            "CREATE TABLE parents (id text PRIMARY KEY);
             CREATE TABLE children (id text PRIMARY KEY, parent text REFERENCES parents)",
        );
        let mut model = Model::default();
        let (mut store, plan) = backfilled(&pg, &mappings, &model);
        let from = model.position();
        model.write(BLOBS, b"p1", Some("x"));
        child(&mut model, "c1", "p1");
        apply_and_compare(store.as_mut(), &plan, &model, from);
        let from = model.position();
        model.write(BLOBS, b"p2", Some("x"));
        child(&mut model, "c2", "p2");
        child(&mut model, "c1", "p2");
        model.write(BLOBS, b"p1", None);
        apply_and_compare(store.as_mut(), &plan, &model, from);
        let from = model.position();
        model.write(ORDERS, b"c1", None);
        model.write(ORDERS, b"c2", None);
        model.write(BLOBS, b"p2", None);
        apply_and_compare(store.as_mut(), &plan, &model, from);
    }
}

#[test]
fn a_child_without_a_parent_is_refused() {
    require!(Kind::Postgres);
    for foreign in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let (_pg, mut model, mut store, plan) = families(&format!("{PARENTS},{CHILDREN}"), foreign);
        let before = model.clone();
        child(&mut model, "orphan", "nobody");
        let error = store
            .apply(&model.batch(&plan, before.position()))
            .unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused(refused) if refused.key == "orphan"),
            "{error}"
        );
        assert!(error.to_string().contains("foreign key"), "{error}");
        assert!(before.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn a_rebuild_names_the_missing_parent_and_not_the_order_where_that_is_not_the_cause() {
    require!(Kind::Postgres);
    for (foreign, is_missing) in [
        ("DEFERRABLE INITIALLY DEFERRED", true),
        ("DEFERRABLE", true),
        ("", false),
    ] {
        // Given children whose mapping is first, one of which has no parent in the log,
        let pg = Pg::new();
        pg.sql(&format!(
            "CREATE TABLE parents (id text PRIMARY KEY);
             CREATE TABLE children (id text PRIMARY KEY, parent text REFERENCES parents {foreign})"
        ));
        let mut model = Model::default();
        model.write(BLOBS, b"p1", Some("x"));
        child(&mut model, "c1", "p1");
        child(&mut model, "orphan", "nobody");
        let plan = conformance::plan(&pg, &format!("{CHILDREN},{PARENTS}"));
        let mut store = pg.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        // when they are backfilled, then the key that is checked at the end names that parent,
        let error = model.rebuild(&plan, store.as_mut()).unwrap_err();
        let text = error.to_string();
        assert_eq!(text.contains("(parent)=(nobody)"), is_missing, "{text}");
        assert_eq!(
            text.contains("put its mapping first"),
            !is_missing,
            "{text}"
        );
        // and without that child they are backfilled in this order.
        model.write(ORDERS, b"orphan", None);
        let filled = model.rebuild(&plan, store.as_mut());
        assert_eq!(filled.is_ok(), is_missing, "{filled:?}");
    }
}

#[test]
fn what_a_users_trigger_refuses_is_reported_with_its_message() {
    require!(Kind::Postgres);
    let (pg, mut model, mut store, plan) = users("");
    pg.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF new.name = 'gold' THEN RAISE EXCEPTION 'too dear: %', new.id; END IF; RETURN new; END $$;
         CREATE TRIGGER no BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let before = model.clone();
    for n in 0..600 {
        named(&mut model, &format!("k{n}"), &format!("n{n}"));
    }
    named(&mut model, "k300", "gold");
    let error = store
        .apply(&model.batch(&plan, before.position()))
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(refused) if refused.key == "k300"),
        "{error}"
    );
    assert!(error.to_string().contains("too dear: k300"), "{error}");
    assert!(before.verify(&plan, store.as_mut()).equal);
}
