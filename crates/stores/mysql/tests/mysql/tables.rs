//! Whose tables are whose, tables that were there before, and rows that conflict with each other.

use std::path::PathBuf;
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_mysql::{MysqlStore, MysqlTarget};
use onelog_record::{Offset, TableId};
use onelog_store::conformance::{
    self, Harness as _, LOG, Model, ORDERS, SINK, backfilled, standard_plan,
};
use onelog_store::{Address, ServerAddress, Store, StoreError};
use onelog_testkit::{Certificates, Kind, Mariadb, Server as _, require};

use crate::harness::{Database, server};

#[test]
fn what_onelog_did_not_make_is_never_replaced() {
    require!(Kind::Mariadb);
    for (made, expected) in [
        ("CREATE TABLE orders (id INT)", "a table of this name"),
        (
            "CREATE VIEW orders AS SELECT 1 AS id",
            "a view of this name",
        ),
    ] {
        let database = Database::new();
        database.sql(made);
        let mut store = database.store(SINK, LOG, standard_plan(&database)).unwrap();
        let error = store.check_target().unwrap_err();
        assert!(matches!(error, StoreError::NotOwner { .. }));
        assert!(error.to_string().contains(expected), "{error}");
        store.take_over().unwrap();
        assert!(matches!(
            store.begin_rebuild(),
            Err(StoreError::NotOwner { .. })
        ));
    }
}

#[test]
fn a_name_that_a_user_takes_during_a_rebuild_stays_theirs() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let mut store = database.store(SINK, LOG, standard_plan(&database)).unwrap();
    store.take_over().unwrap();
    store.begin_rebuild().unwrap();
    database.sql("CREATE TABLE orders (mine INT); INSERT INTO orders VALUES (1)");
    let error = store
        .finish_rebuild(onelog_record::Position(3).into())
        .unwrap_err();
    assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
    assert_eq!(database.sql("SELECT mine FROM orders"), "1");
    assert_eq!(store.position().unwrap(), None);
}

#[test]
fn two_sinks_share_a_database_but_not_a_table() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, model) = backfilled(&database, &plan);
    let mut other = database.store("other", LOG, Arc::clone(&plan)).unwrap();
    let error = other.check_target().unwrap_err().to_string();
    assert!(error.contains("belongs to the sink 'follower'"), "{error}");
    let elsewhere = conformance::plan(&database, r#"{"table":"shop.orders","into":"elsewhere"}"#);
    let mut other = database
        .store("other", LOG, Arc::clone(&elsewhere))
        .unwrap();
    other.take_over().unwrap();
    model.rebuild(&elsewhere, &mut other).unwrap();
    assert!(model.verify(&elsewhere, &mut other).equal);
    assert!(model.verify(&plan, store.as_mut()).equal);
    // Once its sink is removed, the name is free, and nothing but the rows is left of it: the table of
    // owners is every sink's, and names none of the two.
    store.remove().unwrap();
    database
        .store("third", LOG, plan)
        .unwrap()
        .check_target()
        .unwrap();
    other.remove().unwrap();
    assert_eq!(
        database.sql("SHOW TABLES"),
        "elsewhere\nonelog_tables\norders"
    );
    assert_eq!(database.sql("SELECT count(*) FROM onelog_tables"), "0");
}

#[test]
fn a_table_that_was_altered_is_described() {
    require!(Kind::Mariadb);
    for (sql, expected) in [
        (
            "ALTER TABLE orders ADD COLUMN mood TEXT",
            "'mood' is not in the mapping",
        ),
        (
            "ALTER TABLE orders MODIFY total INT",
            "'total' is int(11), and should be bigint",
        ),
        (
            "ALTER TABLE orders MODIFY note LONGTEXT COLLATE utf8mb4_general_ci",
            "collation utf8mb4_general_ci",
        ),
        ("ALTER TABLE orders DROP COLUMN note", "'note' is missing"),
        (
            "ALTER TABLE orders DROP PRIMARY KEY",
            "'id' is not its primary key",
        ),
        ("DROP TABLE orders", "it is not there"),
    ] {
        let database = Database::new();
        let plan = standard_plan(&database);
        let (mut store, model) = backfilled(&database, &plan);
        database.sql(sql);
        let error = store.check_shape().unwrap_err();
        assert!(matches!(error, StoreError::SchemaMismatch { .. }));
        assert!(error.to_string().contains(expected), "{error}");
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

pub fn existing_plan(database: &Database) -> Arc<Plan> {
    conformance::plan(
        database,
        r#"{"table":"shop.orders","into":"orders","existing":true,"columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"numeric"},
            "note":{"from":"/note","type":"text"}}}"#,
    )
}

#[test]
fn an_existing_table_that_does_not_fit_is_described() {
    require!(Kind::Mariadb);
    let database = Database::new();
    database.sql(
        "CREATE TABLE parent (id INT PRIMARY KEY);
         CREATE TABLE orders (
           id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci,
           total FLOAT, note CHAR(5), must INT NOT NULL, of_parent INT,
           FOREIGN KEY behind (of_parent) REFERENCES parent (id) ON DELETE CASCADE);",
    );
    let mut store = database.store(SINK, LOG, existing_plan(&database)).unwrap();
    let text = store.check_target().unwrap_err().to_string();
    for part in [
        "a key must be NOT NULL",
        "'total' is float: decimal is needed",
        "'note' is char(5): char loses blanks",
        "'must' is NOT NULL, has no default",
        "'id' has no unique index",
        "changes its rows when those of another table change",
    ] {
        assert!(text.contains(part), "{text}");
    }
    database.sql("DROP TABLE orders; CREATE TABLE orders (id VARCHAR(40) COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY) CHARACTER SET utf8mb4 ENGINE=MyISAM");
    let text = store.check_target().unwrap_err().to_string();
    assert!(text.contains("MyISAM") && text.contains("InnoDB"), "{text}");
    database.sql("ALTER TABLE orders ENGINE=InnoDB");
    let text = store.check_target().unwrap_err().to_string();
    assert!(text.contains("COLLATE utf8mb4_nopad_bin"), "{text}");
}

pub const FITTING: &str = "CREATE TABLE orders (
    id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY,
    total DECIMAL(10,2), note VARCHAR(20) CHARACTER SET utf8mb4, mine INT DEFAULT 7, UNIQUE KEY one_note (note));
  INSERT INTO orders VALUES ('a', 1, 'mine', 42), ('old', 2, 'old', 43);";

#[test]
fn an_existing_table_is_backfilled_as_it_is_and_keeps_what_is_the_users() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        let database = Database {
            many_rows,
            ..Database::new()
        };
        database.sql(FITTING);
        let plan = existing_plan(&database);
        let (mut store, mut model) = backfilled(&database, &plan);
        assert!(model.verify(&plan, store.as_mut()).equal);
        store.check_shape().unwrap();
        assert_eq!(
            database.sql("SELECT id, mine FROM orders ORDER BY id"),
            "a\t42\nb\t7\nc\t7"
        );
        let mut snapshot = store.reader().unwrap();
        let before = model.clone();
        let from = model.position();
        model.order("a", 5, "changed");
        model.write(ORDERS, b"b", None);
        model.write(ORDERS, b"d", Some(r#"{"total":0.25,"note":null}"#));
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        assert!(
            onelog_store::verify(&plan, &before, snapshot.as_mut())
                .unwrap()
                .equal
        );
        assert_eq!(database.sql("SELECT mine FROM orders WHERE id = 'a'"), "42");
        assert!(
            database
                .sql("SHOW CREATE TABLE orders")
                .contains("one_note")
        );
        // What the user's types do not hold is refused: too long, and too exact.
        for (document, expected) in [
            (
                r#"{"total":1,"note":"more than twenty characters"}"#,
                "too long",
            ),
            (r#"{"total":0.001,"note":"x"}"#, "behind the point"),
        ] {
            let mut model = model.clone();
            let from = model.position();
            model.write(ORDERS, b"e", Some(document));
            let error = store.apply(&model.batch(&plan, from)).unwrap_err();
            assert!(matches!(error, StoreError::Refused(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(model.verify(&plan, store.as_mut()).equal);
        // Values that must be unique wander through the rows in the order of the log.
        let from = model.position();
        model.order("a", 1, "free");
        model.order("c", 1, "changed");
        model.order("a", 1, "three");
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        assert_eq!(database.sql("SELECT mine FROM orders WHERE id = 'a'"), "42");
        store.remove().unwrap();
        assert_eq!(database.sql("SELECT count(*) FROM orders"), "3");
    }
}

#[test]
fn a_unique_value_changes_hands_and_never_changes_another_row() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        let database = Database {
            many_rows,
            ..Database::new()
        };
        let plan = standard_plan(&database);
        let (mut store, mut model) = backfilled(&database, &plan);
        // Nothing tells the store: it has looked at the tables before.
        let from = model.position();
        model.order("a", 1, "one");
        store.apply(&model.batch(&plan, from)).unwrap();
        database.sql("ALTER TABLE orders ADD UNIQUE KEY one_note (note(20))");
        for reopened in [false, true] {
            if reopened {
                store = database.open(Arc::clone(&plan), LOG);
                store.take_over().unwrap();
            }
            // Exchanged at once, as one transaction does.
            let from = model.position();
            let notes: Vec<String> = database
                .sql("SELECT note FROM orders WHERE id IN ('a', 'b') ORDER BY id")
                .lines()
                .map(str::to_owned)
                .collect();
            model.order("a", 1, &notes[1]);
            model.order("b", 2, &notes[0]);
            store.apply(&model.batch(&plan, from)).unwrap();
            assert!(model.verify(&plan, store.as_mut()).equal);
            // Given up by one row, taken by a new one that comes before it.
            let from = model.position();
            let note = format!("three{}", u8::from(reopened));
            model.order("c", 3, &note);
            model.write(ORDERS, b"c", None);
            model.order("aa", 4, &note);
            store.apply(&model.batch(&plan, from)).unwrap();
            assert!(model.verify(&plan, store.as_mut()).equal);
            // Two rows with one value: no order helps, the second is refused.
            let before = model.clone();
            let from = model.position();
            let mut wrong = model.clone();
            wrong.order("new", 5, "twice");
            wrong.order("newer", 5, "twice");
            match store.apply(&wrong.batch(&plan, from)).unwrap_err() {
                StoreError::Refused(refused) => {
                    assert_eq!(
                        (refused.key.as_str(), refused.offset),
                        (Some("newer"), Offset(from.get() + 1))
                    );
                    assert!(refused.what.contains("one_note"), "{refused}");
                }
                other => panic!("{other}"),
            }
            assert!(before.verify(&plan, store.as_mut()).equal);
        }
    }
}

#[test]
fn parents_and_children_come_and_go_together() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let key = "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";
    database.sql(&format!(
        "CREATE TABLE parents (id {key} NOT NULL PRIMARY KEY, total BIGINT);
         CREATE TABLE children (id {key} NOT NULL PRIMARY KEY, parent {key},
           FOREIGN KEY of_parent (parent) REFERENCES parents (id));"
    ));
    // The children's mapping comes first, so the plain order is wrong for puts.
    let plan = conformance::plan(
        &database,
        r#"{"table":"shop.orders","into":"children","existing":true,"where":".kind == \"child\"","columns":{
             "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}},
           {"table":"shop.orders","into":"parents","existing":true,"where":".kind == \"parent\"","columns":{
             "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"}}}"#,
    );
    let mut model = Model::default();
    let mut store = database.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    let from = model.position();
    model.write(ORDERS, b"p1", Some(r#"{"kind":"parent","total":1}"#));
    model.write(ORDERS, b"c1", Some(r#"{"kind":"child","parent":"p1"}"#));
    model.write(TableId(9999), b"x", Some("{}"));
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_eq!(database.sql("SELECT parent FROM children"), "p1");
    let from = model.position();
    model.write(ORDERS, b"c1", None);
    model.write(ORDERS, b"p1", None);
    model.write(ORDERS, b"p2", Some(r#"{"kind":"parent","total":2}"#));
    model.write(ORDERS, b"c2", Some(r#"{"kind":"child","parent":"p2"}"#));
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_eq!(database.sql("SELECT id, parent FROM children"), "c2\tp2");
    let from = model.position();
    model.write(ORDERS, b"c3", Some(r#"{"kind":"child","parent":"nobody"}"#));
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(refused) if refused.key.as_str() == Some("c3")),
        "{error}"
    );
}

#[test]
fn a_first_backfill_of_children_before_their_parents_says_which_order_does_it() {
    require!(Kind::Mariadb);
    const CHILDREN: &str = r#"{"table":"shop.orders","into":"children","existing":true,"where":".kind == \"child\"","columns":{
      "id":{"from":"$key","type":"text"},"parent":{"from":"/parent","type":"text"}}}"#;
    const PARENTS: &str = r#"{"table":"shop.orders","into":"parents","existing":true,"where":".kind == \"parent\"","columns":{
      "id":{"from":"$key","type":"text"}}}"#;
    // Given two empty tables of the user, one of which refers to the other
    let database = Database::new();
    let key = "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";
    database.sql(&format!(
        "CREATE TABLE parents (id {key} NOT NULL PRIMARY KEY);
         CREATE TABLE children (id {key} NOT NULL PRIMARY KEY, parent {key},
           FOREIGN KEY of_parent (parent) REFERENCES parents (id));"
    ));
    let mut model = Model::default();
    model.write(ORDERS, b"p1", Some(r#"{"kind":"parent"}"#));
    model.write(ORDERS, b"c1", Some(r#"{"kind":"child","parent":"p1"}"#));
    let backfill = |mappings: &str, sink: &str| {
        let plan = conformance::plan(&database, mappings);
        let mut store = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store)
    };
    // When the mapping of the children is first, the refusal says what to do,
    let error = backfill(&format!("{CHILDREN},{PARENTS}"), SINK).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("put its mapping first"), "{said}");
    assert!(!said.contains("empty the table"), "{said}");
    // and done so, it works.
    backfill(&format!("{PARENTS},{CHILDREN}"), SINK).unwrap();
    assert_eq!(database.sql("SELECT parent FROM children"), "p1");
}

#[test]
fn a_wrong_password_a_missing_database_and_a_missing_right_are_distinguished() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let name = &database.name;
    server().sql(&format!(
        "CREATE USER reader_{name}@'%' IDENTIFIED BY 'right'; GRANT SELECT ON {name}.* TO reader_{name}@'%'"
    ));
    let open = |login: &str, database: &str| {
        let (_, place) = server()
            .url()
            .rsplit_once('@')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let (host, _) = place.split_once('/').unwrap();
        let target = MysqlTarget {
            server: ServerAddress::from(format!("mysql://{login}@{host}/{database}").as_str()),
        };
        let error = MysqlStore::open(&target, SINK, LOG, Arc::clone(&plan))
            .and_then(|mut store| store.take_over().map(drop))
            .unwrap_err();
        (error.is_retryable(), error.to_string())
    };
    let reader = format!("reader_{name}:right");
    let (passes, wrong) = open(&format!("reader_{name}:hunter2"), name);
    assert!(passes && wrong.contains("the password is wrong"), "{wrong}");
    assert!(
        !wrong.contains("rights") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    let (passes, missing) = open("onelog:onelog", "missing");
    assert!(
        passes && missing.contains("there is no such database: make it"),
        "{missing}"
    );
    // To a user without rights the server hides whether the database is there.
    let (passes, hidden) = open(&reader, "missing");
    assert!(passes, "{hidden}");
    assert!(
        hidden.contains("there is no such database, or the user has no rights in it"),
        "{hidden}"
    );
    let (passes, without) = open(&reader, name);
    assert!(
        !passes && without.contains("the user lacks a right"),
        "{without}"
    );
}

#[test]
fn what_is_in_the_way_is_reported_without_the_password() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let url = server().url();
    let (address, _) = url.rsplit_once('/').unwrap();
    let port = format!(":{}/", server().port());
    for (url, expected) in [
        (
            url.replace("onelog:onelog@", "nobody:hunter2@"),
            "the password is wrong, or there is no such user",
        ),
        (address.to_owned(), "names no database"),
        (
            format!("{address}/missing"),
            "there is no such database: make it",
        ),
        (url.replace(&port, ":1/"), "connecting to"),
    ] {
        let target = MysqlTarget {
            server: ServerAddress::from(url.as_str()),
        };
        let error = MysqlStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("onelog:onelog"),
            "{text}"
        );
        let is_of_the_definition = expected == "names no database";
        assert_eq!(error.is_retryable(), !is_of_the_definition, "{text}");
    }
}

#[test]
fn the_connection_is_encrypted_and_the_servers_certificate_is_checked() {
    require!(Kind::Mariadb);
    let made = Certificates::shared();
    let server = Mariadb::start_with(&[
        &format!("ssl-cert={}", made.certificate.display()),
        &format!("ssl-key={}", made.key.display()),
        "require-secure-transport=on",
    ]);
    let plan = standard_plan(&Database {
        name: "onelog".into(),
        many_rows: false,
    });
    let open = |url: String, ca_file: Option<PathBuf>| {
        let target = MysqlTarget {
            server: ServerAddress {
                url: Address::from(url.as_str()),
                ca_file,
            },
        };
        MysqlStore::open(&target, SINK, LOG, Arc::clone(&plan))
    };
    let mut store = open(server.url(), Some(made.root.clone())).unwrap();
    store.take_over().unwrap();
    Model::default().rebuild(&plan, &mut store).unwrap();
    assert!(Model::default().verify(&plan, &mut store).equal);
    // Not in the clear, and not with a server that no trusted authority has signed.
    assert!(open(server.url(), None).is_err());
    let url = format!("{}?require_ssl=true", server.url());
    let error = open(url, None).unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("ca_file"),
        "{error}"
    );
    let missing = open(server.url(), Some(made.root.with_extension("missing"))).unwrap_err();
    assert!(missing.to_string().contains("root.missing"), "{missing}");
}

#[test]
fn a_replica_is_not_written_to() {
    require!(Kind::Mariadb);
    let server = Mariadb::start_with(&["read-only=1"]);
    let database = Database {
        name: "onelog".into(),
        many_rows: false,
    };
    let target = database.target_at(&server.url());
    let plan = standard_plan(&database);
    let error = MysqlStore::open(&target, SINK, LOG, plan).unwrap_err();
    assert!(
        error.to_string().contains("the address of the primary"),
        "{error}"
    );
    assert_eq!(error.code().as_str(), "not_writable", "{error}");
}

#[test]
fn the_rights_that_the_page_lists_suffice() {
    require!(Kind::Mariadb);
    let page = include_str!("../../../../../docs/sinks/mysql.md");
    let grant = conformance::line_of(page, "GRANT SELECT, INSERT");
    let database = Database::new();
    let (rights, _) = grant.split_once(" ON ").unwrap();
    database.sql(&format!(
        "CREATE USER modest@localhost IDENTIFIED BY 'pw'; {rights} ON {}.* TO modest@localhost;",
        database.name
    ));
    database.sql(
        "CREATE TABLE people (id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY, note VARCHAR(90), UNIQUE KEY one (note))",
    );
    let target = database.target_at(&server().url().replace("onelog:onelog@", "modest:pw@"));
    let own = standard_plan(&database);
    let existing = conformance::plan(
        &database,
        r#"{"table":"shop.orders","into":"people","existing":true,"columns":{
            "id":{"from":"$key","type":"text"},"note":{"from":"/note","type":"text"}}}"#,
    );
    for (sink, plan) in [("own", own), ("existing", existing)] {
        let mut store = MysqlStore::open(&target, sink, LOG, Arc::clone(&plan)).unwrap();
        conformance::the_rights_suffice(&plan, &mut store);
    }
}

#[test]
fn a_foreign_key_onto_a_table_of_onelog_is_reported_before_a_rebuild_would_carry_it_away() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, mut model) = backfilled(&database, &plan);
    database.sql(
        "CREATE TABLE follows (id VARCHAR(768) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin,
           CONSTRAINT to_orders FOREIGN KEY (id) REFERENCES orders (id) ON DELETE CASCADE);
         INSERT INTO follows VALUES ('a'), ('b'); ALTER TABLE orders ADD UNIQUE KEY one_note (note(20))",
    );
    let error = store.begin_rebuild().unwrap_err().to_string();
    assert!(
        error.contains("'to_orders' of the table 'follows'"),
        "{error}"
    );
    // Two rows cannot exchange a unique value then: deleting them would delete what refers to them.
    store.check_shape().unwrap();
    let before = model.clone();
    let from = model.position();
    model.order("a", 1, "two");
    model.order("b", 2, "one");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert_eq!(database.sql("SELECT count(*) FROM follows"), "2");
    assert!(before.verify(&plan, store.as_mut()).equal);
}
