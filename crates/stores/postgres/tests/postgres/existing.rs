//! Tables that were there before onelog: what fits, what does not, and what stays.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::Position;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS, refused_keys};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

const PEOPLE: &str = r#"{"table":"shop.orders","into":"people","existing":true,"columns":{
  "id":{"from":"$key","type":"integer"},"name":{"from":"/name","type":"text"},
  "balance":{"from":"/balance","type":"numeric"},"age":{"from":"/age","type":"integer"},
  "seen":{"from":"/seen","type":"timestamp"},"extra":{"from":"/extra","type":"json"},
  "mood":{"from":"/mood","type":"text"}}}"#;

const TABLE: &str = "CREATE TYPE mood AS ENUM ('fine', 'so so');
  CREATE TABLE people (id int PRIMARY KEY, name varchar(8) NOT NULL, balance numeric(8,2),
    age smallint, seen timestamp, extra json, mood mood, made timestamptz DEFAULT now(), note text);
  CREATE INDEX people_name ON people (name);";

fn person(name: &str, balance: &str, age: i64) -> String {
    serde_json::json!({"name": name, "balance": balance, "age": age, "mood": "fine",
        "seen": "2026-01-02T03:04:05.678901Z", "extra": {"b": 1, "a": [1.50]}})
    .to_string()
}

fn people(table: &str) -> (Pg, Arc<Plan>) {
    let pg = Pg::new();
    pg.sql(table);
    let plan = conformance::plan(&pg, PEOPLE);
    (pg, plan)
}

fn backfilled(pg: &Pg, plan: &Arc<Plan>, model: &Model) -> Box<dyn Store> {
    let mut store = pg.open(Arc::clone(plan), LOG);
    store.check_target().unwrap();
    store.take_over().unwrap();
    model.rebuild(plan, store.as_mut()).unwrap();
    store
}

#[test]
fn a_users_own_table_is_never_taken_for_one_that_onelog_made() {
    require!(Kind::Postgres);
    let (pg, plan) = people(TABLE);
    let mut model = Model::default();
    model.write(ORDERS, b"1", Some(&person("ada", "10.5", 36)));
    let mut store = backfilled(&pg, &plan, &model);
    // Another definition of the sink that leaves 'existing' out and needs other columns would drop
    // it, and so would a later sink of that kind.
    let other = conformance::plan(&pg, r#"{"table":"shop.orders","into":"people"}"#);
    let is_taken = || {
        let error = pg.open(Arc::clone(&other), LOG).check_target().unwrap_err();
        assert!(
            matches!(&error, StoreError::NotOwner { what, .. } if what.contains("it has rows")),
            "{error}"
        );
    };
    is_taken();
    store.remove().unwrap();
    assert_eq!(pg.sql("SELECT count(*) FROM onelog_tables"), "0");
    is_taken();
    assert_eq!(pg.sql("SELECT name FROM people"), "ada");
}

#[test]
fn a_users_own_table_is_backfilled_and_keeps_what_is_his() {
    require!(Kind::Postgres);
    let (pg, plan) = people(TABLE);
    pg.sql(
        "INSERT INTO people (id, name, note) VALUES (1, 'old', 'his note'), (7, 'nobody', 'gone')",
    );
    let mut model = Model::default();
    model.write(ORDERS, b"1", Some(&person("ada", "10.5", 36)));
    model.write(ORDERS, b"2", Some(&person("grace", "-0.25", 85)));
    let mut store = backfilled(&pg, &plan, &model);
    store.check_shape().unwrap();
    let found = model.verify(&plan, store.as_mut());
    assert!(found.equal, "{found:#?}");
    // Columns that the mapping does not fill are the user's; rows are the log's.
    assert_eq!(
        pg.sql("SELECT id, name, note FROM people ORDER BY id"),
        "1|ada|his note\n2|grace|"
    );
    let from = model.position();
    model.write(ORDERS, b"1", Some(&person("ada l", "99.99", 37)));
    model.write(ORDERS, b"2", None);
    model.write(ORDERS, b"3", Some(&person("édith aa", "1", -1)));
    store.apply(&model.batch(&plan, from)).unwrap();
    let found = model.verify(&plan, store.as_mut());
    assert!(found.equal, "{found:#?}");
    assert_eq!(pg.sql("SELECT note FROM people WHERE id = 1"), "his note");
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_eq!(
        pg.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname = 'people_name'"),
        "1"
    );
}

#[test]
fn a_first_backfill_of_children_before_their_parents_says_which_order_does_it() {
    require!(Kind::Postgres);
    const CHILDREN: &str = r#"{"table":"shop.orders","into":"children","existing":true,"where":".kind == \"child\"","columns":{
      "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}}"#;
    const PARENTS: &str = r#"{"table":"shop.orders","into":"parents","existing":true,"where":".kind == \"parent\"","columns":{
      "id":{"from":"$key","type":"text"}}}"#;
    // Given two empty tables of the user, one of which refers to the other
    let pg = Pg::new();
    pg.sql(
        "CREATE TABLE parents (id text COLLATE \"C\" PRIMARY KEY);
         CREATE TABLE children (id text COLLATE \"C\" PRIMARY KEY, parent text REFERENCES parents)",
    );
    let mut model = Model::default();
    model.write(ORDERS, b"p1", Some(r#"{"kind":"parent"}"#));
    model.write(ORDERS, b"c1", Some(r#"{"kind":"child","parent":"p1"}"#));
    let backfill = |mappings: &str| {
        let plan = conformance::plan(&pg, mappings);
        let mut store = pg.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut())
    };
    // When the mapping of the children is first, the refusal says what to do,
    let said = backfill(&format!("{CHILDREN},{PARENTS}"))
        .unwrap_err()
        .to_string();
    assert!(said.contains("put its mapping first"), "{said}");
    // and done so, it works.
    backfill(&format!("{PARENTS},{CHILDREN}")).unwrap();
    assert_eq!(pg.sql("SELECT parent FROM children"), "p1");
}

#[test]
fn two_tables_whose_names_differ_in_case_are_two_tables() {
    require!(Kind::Postgres);
    // Given one sink with a table `order` and another beside it, `Order`
    let pg = Pg::new();
    let plan = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"order"},{"table":"shop.orders","into":"Order"}"#,
    );
    let mut model = Model::default();
    model.order("a", 1, "one");
    // When both are backfilled and written, each has every row.
    let mut store = backfilled(&pg, &plan, &model);
    let from = model.position();
    model.order("b", 2, "two");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_eq!(pg.sql("SELECT count(*) FROM \"Order\""), "2");
    assert_eq!(pg.sql("SELECT count(*) FROM \"order\""), "2");
}

#[test]
fn what_a_users_column_cannot_hold_is_refused_by_name_and_never_rounded_or_cut() {
    require!(Kind::Postgres);
    let (pg, plan) = people(TABLE);
    let mut model = Model::default();
    model.write(ORDERS, b"1", Some(&person("ada", "10.5", 36)));
    let mut store = backfilled(&pg, &plan, &model);
    for (key, document, message) in [
        ("2", person("nine char", "1", 1), "9 characters"),
        ("3", person("trailing  ", "1", 1), "10 characters"),
        ("4", person("x", "0.001", 1), "numeric(8,2)"),
        ("5", person("x", "1000000", 1), "numeric(8,2)"),
        ("6", person("x", "1", 32_768), "out of range"),
        ("3000000000", person("x", "1", 1), "out of range"),
        (
            "8",
            person("x", "1", 1).replace("fine", "sad"),
            "invalid input value for enum",
        ),
        ("9", r#"{"age":1}"#.to_owned(), "null value in column"),
    ] {
        for backfills in [false, true] {
            let mut more = model.clone();
            more.write(ORDERS, b"100", Some(&person("good", "1", 1)));
            more.write(ORDERS, key.as_bytes(), Some(&document));
            let error = if backfills {
                more.rebuild(&plan, store.as_mut()).unwrap_err()
            } else {
                let batch = more.batch(&plan, model.position());
                store.apply(&batch).unwrap_err()
            };
            let text = error.to_string();
            assert!(text.contains(message), "{text}");
            assert!(!error.is_retryable(), "{text}");
            assert!(
                matches!(&error, StoreError::Refused(refused) if refused.key == key),
                "{text}"
            );
            assert!(model.verify(&plan, store.as_mut()).equal);
        }
    }
}

#[test]
fn a_rebuild_that_is_refused_rows_can_end_without_them() {
    require!(Kind::Postgres);
    // Given a user's table with a rule of each kind, and rows in it that are equal to the log's
    let (pg, plan) = people(&format!(
        "{TABLE} ALTER TABLE people ADD CHECK (age < 150), ADD UNIQUE (name);
         ALTER TABLE people ADD boss int REFERENCES people DEFERRABLE INITIALLY DEFERRED;"
    ));
    let mut model = Model::default();
    for n in 0..20 {
        let name = format!("p{n}");
        model.write(
            ORDERS,
            format!("{n}").as_bytes(),
            Some(&person(&name, "1", n)),
        );
    }
    let mut store = backfilled(&pg, &plan, &model);
    pg.sql("UPDATE people SET note = 'kept'");
    // When the log has rows that it refuses
    let good = model.clone();
    for (key, name, age) in [
        ("100", "old", 150),
        ("101", "p7", 1),
        ("102", "big", 99_999),
    ] {
        model.write(ORDERS, key.as_bytes(), Some(&person(name, "1", age)));
    }
    model.load(&plan, store.as_mut()).unwrap();
    // then all of them are named at once, and nothing is changed
    let refused = store.finish_rebuild(model.place()).unwrap_err();
    let mut keys = refused_keys(&refused);
    keys.sort_unstable();
    assert_eq!(keys, [b"100", b"101", b"102"]);
    assert!(good.verify(&plan, store.as_mut()).equal);
    // and the same rebuild ends without them.
    store.finish_rebuild(model.place()).unwrap();
    let left = "SELECT count(*), count(note), max(id) FROM people";
    assert_eq!(pg.sql(left), "20|20|19");
    let staged = "SELECT count(*) FROM pg_tables
        WHERE schemaname = current_schema() AND tablename LIKE 'onelog_new%'";
    assert_eq!(pg.sql(staged), "0");
}

#[test]
fn everything_that_does_not_fit_is_said_at_once() {
    require!(Kind::Postgres);
    let (pg, plan) = people(
        "CREATE TABLE parents (id int PRIMARY KEY);
         CREATE UNLOGGED TABLE people (id int UNIQUE DEFERRABLE, name char(8), balance numeric(8,-2),
           age text, seen timestamptz(3), extra text, mood text GENERATED ALWAYS AS ('x') STORED,
           needed int NOT NULL, parent int REFERENCES parents ON DELETE CASCADE)",
    );
    let mut store = pg.open(Arc::clone(&plan), LOG);
    let error = store.check_target().unwrap_err();
    assert!(matches!(error, StoreError::SchemaMismatch { .. }));
    let text = error.to_string();
    for part in [
        "'id' has no primary key or unique index",
        "'name' is character(8), and should be text, because it pads",
        "'age' is text, and should be bigint",
        "'seen' is timestamp(3) with time zone, and should be timestamp with time zone, because it would round",
        "'extra' is text, and should be jsonb",
        "'mood' is generated",
        "'needed' is NOT NULL without a default",
        "ON DELETE CASCADE would change rows",
        "UNLOGGED",
        "change the table, then have it backfilled again",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A rebuild alone does not mend a table of the user's own.
    assert_eq!(text.matches("rebuild").count(), 1, "{text}");
    let (pg, plan) = people("");
    let error = pg.open(plan, LOG).check_target().unwrap_err().to_string();
    assert!(error.contains("it is not there"), "{error}");
}

#[test]
fn a_merge_rewrites_only_what_differs() {
    require!(Kind::Postgres);
    let (pg, plan) = people(TABLE);
    let mut model = Model::default();
    for n in 0..50 {
        model.write(
            ORDERS,
            n.to_string().as_bytes(),
            Some(&person(&format!("p{n}"), "1.10", n)),
        );
    }
    let mut store = backfilled(&pg, &plan, &model);
    pg.sql("UPDATE people SET name = 'forged' WHERE id = 7; DELETE FROM people WHERE id = 8; INSERT INTO people (id, name) VALUES (900, 'extra')");
    let before = pg.sql(
        "SELECT string_agg(ctid::text, ' ' ORDER BY id) FROM people WHERE id NOT IN (7, 8, 900)",
    );
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_eq!(
        pg.sql(
            "SELECT string_agg(ctid::text, ' ' ORDER BY id) FROM people WHERE id NOT IN (7, 8, 900)"
        ),
        before
    );
}

#[test]
fn a_row_without_a_key_belongs_to_no_record_and_goes() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    pg.sql("CREATE TABLE t (id text UNIQUE, document jsonb); INSERT INTO t VALUES (NULL, '{}')");
    let plan = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"t","existing":true,"columns":{
          "id":{"from":"$key","type":"text"},"document":{"from":"$value","type":"json"}}}"#,
    );
    let mut model = Model::default();
    model.write(ORDERS, b"a", Some("{}"));
    let mut store = backfilled(&pg, &plan, &model);
    assert!(model.verify(&plan, store.as_mut()).equal);
    pg.sql("INSERT INTO t VALUES (NULL, '{}')");
    assert_eq!(
        model.verify(&plan, store.as_mut()).tables[0].differences_total,
        1
    );
    assert_eq!(
        store.position().unwrap().unwrap().position,
        Position(model.position().get())
    );
}

const PARENTS_AND_CHILDREN: &str = r#"
  {"table":"shop.orders","into":"parents","existing":true,"where":".kind == \"parent\"","columns":{
    "id":{"from":"$key","type":"text"}}},
  {"table":"shop.orders","into":"children","existing":true,"where":".kind == \"child\"","columns":{
    "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}}"#;

#[test]
fn a_parent_that_is_gone_is_deleted_unless_a_row_that_stays_needs_it() {
    require!(Kind::Postgres);
    // Given parents and children, of which the parents are in two partitions
    let pg = Pg::new();
    pg.sql(
        "CREATE TABLE parents (id text COLLATE \"C\" PRIMARY KEY) PARTITION BY HASH (id);
         CREATE TABLE one PARTITION OF parents FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE two PARTITION OF parents FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE children (id text COLLATE \"C\" PRIMARY KEY,
           parent text COLLATE \"C\" REFERENCES parents)",
    );
    let plan = conformance::plan(&pg, PARENTS_AND_CHILDREN);
    let mut model = Model::default();
    let child = |parent: &str| format!(r#"{{"kind":"child","parent":"{parent}"}}"#);
    for n in 1..=9 {
        let (key, parent) = (format!("c{n}"), format!("p{n}"));
        model.write(ORDERS, parent.as_bytes(), Some(r#"{"kind":"parent"}"#));
        model.write(ORDERS, key.as_bytes(), Some(&child(&parent)));
    }
    let mut store = backfilled(&pg, &plan, &model);
    // when parents go and their children move to another, then that is written;
    for n in 2..=8 {
        model.write(ORDERS, format!("p{n}").as_bytes(), None);
        model.write(ORDERS, format!("c{n}").as_bytes(), Some(&child("p1")));
    }
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    // when one goes and its child's new record is refused, then both are named, and stay.
    model.write(ORDERS, b"p9", None);
    model.write(ORDERS, b"c9", Some(&child("nobody")));
    model.load(&plan, store.as_mut()).unwrap();
    let refused = store.finish_rebuild(model.place()).unwrap_err();
    let mut keys = refused_keys(&refused);
    keys.sort_unstable();
    assert_eq!(keys, [b"c9", b"p9"]);
    assert!(refused.to_string().contains("foreign key"), "{refused}");
    store.finish_rebuild(model.place()).unwrap();
    assert_eq!(pg.sql("SELECT id FROM parents ORDER BY id"), "p1\np9");
    let stays = "SELECT parent FROM children WHERE id = 'c9'";
    assert_eq!(pg.sql(stays), "p9");
}

#[test]
fn an_index_that_does_not_make_the_key_unique_is_named_with_why_and_the_remedy_helps() {
    require!(Kind::Postgres);
    // Given a table whose unique indexes are not of the key alone, for each row and at once,
    let (pg, plan) = people(
        "CREATE TABLE people (id bigint, name text, balance numeric, age bigint, seen timestamptz,
           extra jsonb, mood text);
         ALTER TABLE people ADD CONSTRAINT later UNIQUE (id) DEFERRABLE;
         CREATE UNIQUE INDEX part ON people (id) WHERE age > 0;
         CREATE UNIQUE INDEX expr ON people ((id + 1));
         CREATE UNIQUE INDEX pair ON people (id, name);
         CREATE UNIQUE INDEX others ON people (name)",
    );
    // when a mapping is to backfill it, then each is named with why it does not count,
    let error = pg
        .open(Arc::clone(&plan), LOG)
        .check_target()
        .unwrap_err()
        .to_string();
    for part in [
        "'later' is DEFERRABLE",
        "'part' holds only WHERE (age > 0)",
        "'expr' is of an expression",
        "'pair' has other columns as well",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("'others'"), "{error}");
    // and what is said helps.
    let helps = "CREATE UNIQUE INDEX ON \"people\" (\"id\")";
    assert!(error.contains(helps), "{error}");
    pg.sql(helps);
    pg.open(plan, LOG).check_target().unwrap();
}
