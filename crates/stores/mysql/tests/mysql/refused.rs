//! Rows that a user's table refuses only when a rebuild is merged into it.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_mysql::MysqlStore;
use onelog_record::Offset;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS, SINK, refused_keys};
use onelog_store::{Refused, Store, StoreError};
use onelog_testkit::{Kind, Server as _, require};

use crate::harness::{Database, server};
use crate::tables::existing_plan;

const KEY: &str = "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";

struct Backfilled {
    database: Database,
    plan: Arc<Plan>,
    store: Box<dyn Store>,
    model: Model,
}

/// A user's tables, which a sink backfills.
fn backfilled(tables: &str, plan: impl Fn(&Database) -> Arc<Plan>, model: Model) -> Backfilled {
    let database = Database::new();
    database.sql(tables);
    let plan = plan(&database);
    let mut store = database.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    Backfilled {
        database,
        plan,
        store,
        model,
    }
}

impl Backfilled {
    /// Begins a rebuild; what its end is refused, by key.
    fn refused(&mut self) -> Vec<Refused> {
        self.model.load(&self.plan, self.store.as_mut()).unwrap();
        self.refused_at_the_end()
    }

    fn refused_at_the_end(&mut self) -> Vec<Refused> {
        let finished = self.store.finish_rebuild(self.model.place());
        let Err(StoreError::Refused(first)) = finished else {
            panic!("{finished:?}");
        };
        let mut all: Vec<Refused> = first.all().cloned().collect();
        all.sort_by_key(|refused| refused.key_bytes.clone());
        all
    }

    fn rebuild(&mut self) {
        let rebuilt = self.model.rebuild(&self.plan, self.store.as_mut());
        rebuilt.unwrap();
    }

    fn finish(&mut self) {
        self.store.finish_rebuild(self.model.place()).unwrap();
        let found = self.store.position().unwrap().unwrap();
        assert_eq!(found.position, self.model.position());
    }

    /// How many rows differ from the log.
    fn differences(&mut self) -> u64 {
        let found = self.model.verify(&self.plan, self.store.as_mut());
        found
            .tables
            .iter()
            .map(|table| table.differences_total)
            .sum()
    }
}

fn keys(refused: &[Refused]) -> Vec<&str> {
    let keys = refused.iter().map(|refused| refused.key.as_str().unwrap());
    keys.collect()
}

const ORDERS_WITH_RULES: &str = "CREATE TABLE notes (note VARCHAR(20) PRIMARY KEY);
  INSERT INTO notes VALUES ('one'), ('two');
  CREATE TABLE orders (id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
    total DECIMAL(10,2), note VARCHAR(20), mine INT DEFAULT 7, onelog_key INT,
    FOREIGN KEY of_note (note) REFERENCES notes (note));
  \nDELIMITER //\nCREATE TRIGGER no_new BEFORE INSERT ON orders FOR EACH ROW
    IF NEW.total < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not below nothing'; END IF//
  CREATE TRIGGER no_change BEFORE UPDATE ON orders FOR EACH ROW
    IF NEW.total < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not below nothing'; END IF//";

#[test]
fn what_a_trigger_or_a_foreign_key_refuses_at_the_end_of_a_rebuild_is_named_and_left_out() {
    require!(Kind::Mariadb);
    // Given a user's table with a trigger and a foreign key, and a log that breaks both
    let mut model = Model::default();
    for n in 0..40 {
        model.order(&format!("k{n:02}"), n, "one");
    }
    let mut backfilled = backfilled(ORDERS_WITH_RULES, existing_plan, model);
    backfilled.database.sql("UPDATE orders SET mine = 42");
    for (key, total, note) in [
        ("k07", -7, "one"),
        ("k08", 8, "none"),
        ("k09", 9, "two"),
        ("new", -1, "two"),
        ("newer", 1, "none"),
        ("newest", 1, "two"),
    ] {
        backfilled.model.order(key, total, note);
    }
    // when a rebuild ends, then each is named with its offset and what the server says,
    let refused = backfilled.refused();
    assert_eq!(keys(&refused), ["k07", "k08", "new", "newer"]);
    for (refused, (offset, says)) in refused.iter().zip([
        (40, "not below nothing"),
        (41, "of_note"),
        (43, "not below nothing"),
        (44, "of_note"),
    ]) {
        assert_eq!(refused.offset, Offset(offset), "{refused}");
        assert_eq!(refused.into.as_deref(), Some("orders"));
        assert!(refused.what.contains(says), "{refused}");
    }
    // nothing was changed,
    assert_eq!(backfilled.differences(), 6);
    // and without them it ends; their rows are as they were, and so is what is the user's.
    backfilled.finish();
    assert_eq!(backfilled.differences(), 4);
    let sql = "SELECT id, total, note FROM orders WHERE id IN ('k07', 'k08') ORDER BY id";
    let kept = "k07\t7.00\tone\nk08\t8.00\tone";
    assert_eq!(backfilled.database.sql(sql), kept);
    let sql = "SELECT count(*) FROM orders WHERE mine = 42";
    assert_eq!(backfilled.database.sql(sql), "40");
}

#[test]
fn rows_that_exchange_a_unique_value_are_written_or_named_and_lose_nothing() {
    require!(Kind::Mariadb);
    for mine in ["", ", mine INT DEFAULT 7"] {
        // Given a user's table with a unique column, and perhaps one of the user's own
        let table = format!(
            "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
               note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note){mine})"
        );
        let mut model = Model::default();
        for key in ["a", "b", "c"] {
            model.order(key, 1, key);
        }
        let mut backfilled = backfilled(&table, existing_plan, model);
        // when two rows have exchanged their values in the log,
        backfilled.model.order("a", 2, "b");
        backfilled.model.order("b", 2, "a");
        backfilled.model.order("c", 2, "c");
        if mine.is_empty() {
            // then they are written,
            backfilled.rebuild();
            assert_eq!(backfilled.differences(), 0);
            continue;
        }
        // or, where a row cannot be made anew, named, and stay.
        backfilled.database.sql("UPDATE orders SET mine = 42");
        assert_eq!(keys(&backfilled.refused()), ["a", "b"]);
        backfilled.finish();
        let all = "SELECT id, total, note, mine FROM orders ORDER BY id";
        let rows = "a\t1.00\ta\t42\nb\t1.00\tb\t42\nc\t2.00\tc\t42";
        assert_eq!(backfilled.database.sql(all), rows);
    }
}

#[test]
fn a_refused_row_beside_an_exchange_is_named_alone() {
    require!(Kind::Mariadb);
    // Given a user's table with a unique column, that refuses a value,
    let table = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note), CHECK (total < 100))"
    );
    let mut model = Model::default();
    for key in ["a", "b", "c"] {
        model.order(key, 1, key);
    }
    let mut backfilled = backfilled(&table, existing_plan, model);
    // when two rows exchange theirs in a batch that has a refused one,
    let from = backfilled.model.position();
    backfilled.model.order("a", 2, "b");
    backfilled.model.order("b", 2, "a");
    backfilled.model.order("c", 200, "c");
    let batch = backfilled.model.batch(&backfilled.plan, from);
    let refused = backfilled.store.apply(&batch).unwrap_err();
    // then that row is named and no other one.
    assert_eq!(refused_keys(&refused), [b"c"]);
}

#[test]
fn a_duplicate_beside_an_exchange_is_named_alone() {
    require!(Kind::Mariadb);
    // Given a user's table with a unique column,
    let table = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note))"
    );
    let mut model = Model::default();
    for key in ["a", "b", "c"] {
        model.order(key, 1, key);
    }
    let mut backfilled = backfilled(&table, existing_plan, model);
    // when two rows exchange theirs in a batch that has one with the value of a row that stays, and one
    // with the value of a new row before it,
    let from = backfilled.model.position();
    backfilled.model.order("a", 2, "b");
    backfilled.model.order("b", 2, "a");
    backfilled.model.order("d", 2, "c");
    backfilled.model.order("z", 2, "z");
    backfilled.model.order("y", 2, "z");
    let batch = backfilled.model.batch(&backfilled.plan, from);
    let refused = backfilled.store.apply(&batch).unwrap_err();
    // then these are named and no other one,
    assert_eq!(refused_keys(&refused), [b"d", b"y"]);
    // and the others are written without them.
    backfilled.model.write(ORDERS, b"d", None);
    backfilled.model.write(ORDERS, b"y", None);
    let batch = backfilled.model.batch(&backfilled.plan, from);
    backfilled.store.apply(&batch).unwrap();
    assert_eq!(backfilled.differences(), 0);
}

#[test]
fn what_is_named_is_refused_at_the_end_of_the_batch() {
    require!(Kind::Mariadb);
    // Given rows with unique notes,
    let tables = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note))"
    );
    let mut model = Model::default();
    model.order("a", 1, "a");
    model.order("b", 1, "b");
    let mut backfilled = backfilled(&tables, existing_plan, model);
    // when one is wrong in the middle of a batch and right at its end, beside one that stays wrong,
    let from = backfilled.model.position();
    backfilled.model.order("d", 1, "a");
    backfilled.model.order("e", 1, "b");
    backfilled.model.order("d", 1, "d");
    let batch = backfilled.model.batch(&backfilled.plan, from);
    let error = backfilled.store.apply(&batch).unwrap_err();
    // then only the other one is named.
    let StoreError::Refused(refused) = error else {
        panic!("{error:?}");
    };
    assert_eq!((&refused.key_bytes[..], refused.more.len()), (&b"e"[..], 0));
}

#[test]
fn a_row_that_cannot_be_inserted_again_is_not_to_blame_for_an_exchange() {
    require!(Kind::Mariadb);
    // Given a user's table with a unique column, that takes a row's changes and not the row anew,
    let table = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note))"
    );
    let mut model = Model::default();
    for key in ["a", "b", "x"] {
        model.order(key, 1, key);
    }
    let mut backfilled = backfilled(&table, existing_plan, model);
    backfilled.database.sql(
        "CREATE TRIGGER no_x BEFORE INSERT ON orders FOR EACH ROW
           SET NEW.note = IF(NEW.id = 'x', REPEAT('x', 99), NEW.note)",
    );
    // when two rows exchange theirs in a batch that changes this one,
    let from = backfilled.model.position();
    backfilled.model.order("a", 2, "b");
    backfilled.model.order("b", 2, "a");
    backfilled.model.order("x", 2, "x");
    let batch = backfilled.model.batch(&backfilled.plan, from);
    let refused = backfilled.store.apply(&batch).unwrap_err();
    // then the two are named.
    assert_eq!(refused_keys(&refused), [b"a", b"b"]);
}

#[test]
fn an_exchange_never_runs_triggers_for_deleted_rows() {
    require!(Kind::Mariadb);
    // Given a user's table with a trigger for rows that are deleted,
    let table = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note));
         CREATE TABLE gone (id VARCHAR(40));
         CREATE TRIGGER follows AFTER DELETE ON orders FOR EACH ROW INSERT INTO gone VALUES (OLD.id)"
    );
    let mut model = Model::default();
    for key in ["a", "b", "c"] {
        model.order(key, 1, key);
    }
    let mut backfilled = backfilled(&table, existing_plan, model);
    // when two rows exchange a unique value,
    let from = backfilled.model.position();
    backfilled.model.order("a", 2, "b");
    backfilled.model.order("b", 2, "a");
    let batch = backfilled.model.batch(&backfilled.plan, from);
    let refused = backfilled.store.apply(&batch).unwrap_err();
    // then they are refused, and nothing was deleted for a moment.
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    assert_eq!(backfilled.database.sql("SELECT count(*) FROM gone"), "0");
}

#[test]
fn an_exchange_takes_no_rows_of_tables_that_its_user_cannot_see() {
    require!(Kind::Mariadb);
    // Given a sink whose user has rights on one database, and a table of another one that refers to it,
    let (database, hidden) = (Database::new(), Database::new());
    let rights =
        "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, CREATE TEMPORARY TABLES, TRIGGER";
    database.sql(&format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note));
         CREATE USER blind@localhost IDENTIFIED BY 'pw';
         GRANT {rights} ON {}.* TO blind@localhost",
        database.name
    ));
    let target = database.target_at(&server().url().replace("onelog:onelog@", "blind:pw@"));
    let plan = existing_plan(&database);
    let mut store = MysqlStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    for key in ["a", "b", "c"] {
        model.order(key, 1, key);
    }
    model.rebuild(&plan, &mut store).unwrap();
    hidden.sql(&format!(
        "CREATE TABLE mine (id {KEY}, FOREIGN KEY (id) REFERENCES {}.orders (id) ON DELETE CASCADE);
         INSERT INTO mine VALUES ('a'), ('b'), ('c')",
        database.name
    ));
    // when two rows exchange a unique value, in a batch and in a rebuild,
    let from = model.position();
    model.order("a", 2, "b");
    model.order("b", 2, "a");
    store.apply(&model.batch(&plan, from)).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    model.order("a", 3, "a");
    model.order("b", 3, "b");
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    // then no row of the other table is gone; a row that the log deletes takes its own with it.
    assert_eq!(hidden.sql("SELECT count(*) FROM mine"), "3");
    let from = model.position();
    model.write(ORDERS, b"c", None);
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_eq!(hidden.sql("SELECT count(*) FROM mine"), "2");
}

#[test]
fn rows_are_exchanged_beside_a_table_whose_rows_cannot_be_made_anew() {
    require!(Kind::Mariadb);
    // Given two tables of users, one of which has a column of theirs,
    let plan = |database: &Database| {
        let mappings = r#"{"table":"shop.orders","into":"orders","existing":true,
            "where":".note != null","columns":{
              "id":{"from":"$key","type":"text"},"note":{"from":"/note","type":"text"}}},
          {"table":"shop.orders","into":"pets","existing":true,"where":".pet != null","columns":{
              "id":{"from":"$key","type":"text"},"pet":{"from":"/pet","type":"text"}}}"#;
        conformance::plan(database, mappings)
    };
    let text = "VARCHAR(20) CHARACTER SET utf8mb4";
    let tables = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, note {text}, UNIQUE KEY one_note (note));
         CREATE TABLE pets (id {KEY} PRIMARY KEY, pet {text}, mine INT)"
    );
    let mut model = Model::default();
    model.order("a", 1, "a");
    model.order("b", 1, "b");
    let mut backfilled = backfilled(&tables, plan, model);
    // when rows of the other one exchange a unique value,
    let from = backfilled.model.position();
    backfilled.model.order("a", 2, "b");
    backfilled.model.order("b", 2, "a");
    // then they are written.
    let batch = backfilled.model.batch(&backfilled.plan, from);
    backfilled.store.apply(&batch).unwrap();
    let found = backfilled
        .model
        .verify(&backfilled.plan, backfilled.store.as_mut());
    assert!(found.equal, "{found:?}");
}

#[test]
fn a_row_that_stays_is_in_the_way_of_one_record_alone() {
    require!(Kind::Mariadb);
    // Given a row whose record is refused, and a new record that is to get its unique value
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.order("b", 2, "two");
    let table = format!(
        "CREATE TABLE orders (id {KEY} PRIMARY KEY, total DECIMAL(10,2),
           note VARCHAR(20) CHARACTER SET utf8mb4, UNIQUE KEY one_note (note))"
    );
    let mut backfilled = backfilled(&table, existing_plan, model);
    backfilled.model.write(ORDERS, b"a", None);
    backfilled.model.order("c", 3, "one");
    backfilled.model.order("d", 4, "four");
    backfilled
        .model
        .load(&backfilled.plan, backfilled.store.as_mut())
        .unwrap();
    assert!(backfilled.store.keep(0, &[b"a"]).unwrap());
    // when the rebuild ends, then that record is named, and all others get in.
    let refused = backfilled.refused_at_the_end();
    assert_eq!(keys(&refused), ["c"]);
    assert!(refused[0].what.contains("one_note"), "{}", refused[0]);
    backfilled.finish();
    let all = "SELECT id, note FROM orders ORDER BY id";
    assert_eq!(backfilled.database.sql(all), "a\tone\nb\ttwo\nd\tfour");
}

fn parents_and_children(database: &Database) -> Arc<Plan> {
    conformance::plan(
        database,
        r#"{"table":"shop.orders","into":"parents","existing":true,"where":".kind == \"parent\"","columns":{
             "id":{"from":"$key","type":"text"}}},
           {"table":"shop.orders","into":"children","existing":true,"where":".kind == \"child\"","columns":{
             "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}}"#,
    )
}

#[test]
fn a_parent_that_is_gone_is_deleted_unless_a_row_that_stays_needs_it() {
    require!(Kind::Mariadb);
    // Given parents and children
    let mut model = Model::default();
    let child = |parent: &str| format!(r#"{{"kind":"child","parent":"{parent}"}}"#);
    for n in 1..=3 {
        model.write(
            ORDERS,
            format!("p{n}").as_bytes(),
            Some(r#"{"kind":"parent"}"#),
        );
        model.write(
            ORDERS,
            format!("c{n}").as_bytes(),
            Some(&child(&format!("p{n}"))),
        );
    }
    let tables = format!(
        "CREATE TABLE parents (id {KEY} NOT NULL PRIMARY KEY);
         CREATE TABLE children (id {KEY} NOT NULL PRIMARY KEY, parent {KEY},
           FOREIGN KEY of_parent (parent) REFERENCES parents (id))"
    );
    let mut backfilled = backfilled(&tables, parents_and_children, model);
    // when one parent goes and its child moves to another, then that is written;
    backfilled.model.write(ORDERS, b"p1", None);
    backfilled.model.write(ORDERS, b"c1", Some(&child("p2")));
    backfilled.rebuild();
    assert_eq!(backfilled.differences(), 0);
    // when one goes and its child's new record is refused, then both are named and stay.
    backfilled.model.write(ORDERS, b"p3", None);
    backfilled
        .model
        .write(ORDERS, b"c3", Some(&child("nobody")));
    let refused = backfilled.refused();
    assert_eq!(keys(&refused), ["c3", "p3"]);
    let last = Offset(backfilled.model.position().get() - 1);
    assert_eq!((refused[0].offset, refused[1].offset), (last, last));
    assert!(refused[1].what.contains("of_parent"), "{}", refused[1]);
    backfilled.finish();
    let all = "SELECT id, parent FROM children ORDER BY id";
    assert_eq!(backfilled.database.sql(all), "c1\tp2\nc2\tp2\nc3\tp3");
    assert_eq!(
        backfilled
            .database
            .sql("SELECT id FROM parents ORDER BY id"),
        "p2\np3"
    );
}
