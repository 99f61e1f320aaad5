//! What comes back as it was, what is refused, and what a comparison finds.

use onelog_record::Offset;
use onelog_store::Target as _;
use onelog_store::conformance::{
    self, Harness as _, LOG, Model, ORDERS, SINK, backfilled, standard_plan,
};
use onelog_store::{Batch, Change, Store as _, StoreError};
use onelog_testkit::{Kind, Server as _, require};

use crate::harness::Database;

fn change(key: &str, offset: u64, value: Option<&str>) -> Change {
    Change {
        key: key.to_owned().into(),
        offset: Offset(offset),
        value: value.map(|text| text.to_owned().into()),
    }
}

#[test]
fn every_kind_of_planted_difference_is_found_named_and_mended() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, model) = backfilled(&database, &plan);
    let found = database.by_hand(
        &model,
        store.as_mut(),
        &plan,
        "UPDATE orders SET total = 7, note = LEFT(note, 1) WHERE id = 'a';
         DELETE FROM orders WHERE id = 'b';
         UPDATE orders SET note = NULL WHERE id = 'c';
         INSERT INTO orders VALUES ('x', 1, 'extra'), ('a ', 1, 'blank');",
    );
    let table = &found.tables[0];
    assert!(!found.equal && !table.equal);
    assert_eq!(
        (table.rows, table.store_rows, table.differences_total),
        (3, 4, 5)
    );
    assert_eq!(
        serde_json::to_value(&table.differences).unwrap(),
        serde_json::json!([
            {"key": "a ", "log": null, "store": {"id": "a ", "total": 1, "note": "blank"}},
            {"key": "a", "log": {"total": 1, "note": "one"}, "store": {"total": 7, "note": "o"}},
            {"key": "b", "log": {"id": "b", "total": 2, "note": "two"}, "store": null},
            {"key": "c", "log": {"note": "three"}, "store": {"note": null}},
            {"key": "x", "log": null, "store": {"id": "x", "total": 1, "note": "extra"}},
        ])
    );
    let repair = Batch::repair(
        model.place(),
        vec![vec![
            change("a", 0, Some(r#"{"total":1,"note":"one"}"#)),
            change("a ", 0, None),
            change("b", 1, Some(r#"{"total":2,"note":"two"}"#)),
            change("c", 2, Some(r#"{"total":3,"note":"three"}"#)),
            change("x", 0, None),
        ]],
    );
    store.apply(&repair).unwrap();
    let found = model.verify(&plan, store.as_mut());
    assert!(found.equal, "{found:#?}");
}

#[test]
fn keys_that_differ_in_case_or_in_blanks_are_different_rows() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        let database = Database {
            many_rows,
            ..Database::new()
        };
        let plan = standard_plan(&database);
        let (mut store, mut model) = backfilled(&database, &plan);
        let from = model.position();
        for key in ["A", "a ", "a  ", "ä", "a\u{308}", "ß", "ss", "", " ", "\t"] {
            model.order(key, 1, key);
        }
        model.write(ORDERS, b"a", None);
        model.write(ORDERS, b"a  ", None);
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        assert_eq!(database.sql("SELECT count(*) FROM orders"), "11");
    }
}

const TYPES: &str = r#"{"table":"shop.orders","into":"typed","columns":{
    "id":{"from":"$key","type":"text"},"n":{"from":"/n","type":"numeric"},
    "t":{"from":"/t","type":"timestamp"},"d":{"from":"/d","type":"date"},
    "u":{"from":"/u","type":"uuid"},"j":{"from":"/j","type":"json"},"r":{"from":"/r","type":"real"}}}"#;

#[test]
fn extremes_of_every_type_come_back() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        let database = Database {
            many_rows,
            ..Database::new()
        };
        let plan = conformance::plan(&database, TYPES);
        let mut store = database.open(plan.clone(), LOG);
        store.take_over().unwrap();
        let mut model = Model::default();
        model.rebuild(&plan, store.as_mut()).unwrap();
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        for (n, document) in [
            r#"{"n":99999999999999999999999999999999999.999999999999999999999999999999,"t":"1000-01-01T00:00:00Z","d":"1000-01-01","u":"00000000-0000-0000-0000-000000000000"}"#,
            r#"{"n":"-0.000000000000000000000000000001","t":"9999-12-30T21:59:59.999999Z","d":"9999-12-31","u":"ffffffff-ffff-ffff-ffff-ffffffffffff"}"#,
            r#"{"n":1.50,"t":"2024-02-29T12:00:00.000001+02:00","d":"2024-02-29","j":{"b":1e400,"a":[1.10,"ü"]},"r":0.1}"#,
            r#"{"n":null,"t":null,"d":null,"u":null,"j":"","r":4.9e-324}"#,
        ]
        .into_iter()
        .enumerate()
        {
            model.write(ORDERS, format!("k{n}").as_bytes(), Some(document));
        }
        model.write(ORDERS, b"deep", Some(&format!(r#"{{"j":{deep}}}"#)));
        store
            .apply(&model.batch(&plan, onelog_record::Position::ZERO))
            .unwrap();
        let found = model.verify(&plan, store.as_mut());
        assert!(found.equal, "{found:#?}");
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        store.check_shape().unwrap();
        assert_eq!(
            database.sql("SELECT t, d FROM typed WHERE id = 'k2'"),
            "2024-02-29 10:00:00.000001\t2024-02-29"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_message_and_never_changed() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = conformance::plan(&database, TYPES);
    let long_key = "ü".repeat(769);
    for (key, document, expected) in [
        (
            "k",
            r#"{"n":"0.0000000000000000000000000000001"}"#,
            "behind the point",
        ),
        (
            "k",
            r#"{"n":123456789012345678901234567890123456}"#,
            "36 digits",
        ),
        ("k", r#"{"t":"0999-12-31T23:59:59Z"}"#, "years 1000 to 9999"),
        ("k", r#"{"d":"0001-01-01"}"#, "years 1000 to 9999"),
        (long_key.as_str(), "{}", "769 characters"),
    ] {
        let mut store = database.open(plan.clone(), LOG);
        store.take_over().unwrap();
        let mut model = Model::default();
        model.rebuild(&plan, store.as_mut()).unwrap();
        model.write(ORDERS, b"good", Some("{}"));
        model.write(ORDERS, key.as_bytes(), Some(document));
        let error = store
            .apply(&model.batch(&plan, onelog_record::Position::ZERO))
            .unwrap_err();
        match error {
            StoreError::Refused(refused) => {
                assert_eq!(refused.offset, Offset(1));
                assert!(refused.what.contains(expected), "{refused}");
            }
            other => panic!("{other}"),
        }
        assert_eq!(database.sql("SELECT count(*) FROM typed"), "0");
        // A key that no row can have is deleted in peace.
        let mut model = Model::default();
        model.write(ORDERS, long_key.as_bytes(), None);
        store
            .apply(&model.batch(&plan, onelog_record::Position::ZERO))
            .unwrap();
    }
}

#[test]
fn columns_that_are_empty_for_thousands_of_rows_get_the_right_type_later() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, mut model) = backfilled(&database, &plan);
    let from = model.position();
    for n in 0..9000 {
        let value = match n {
            0..8500 => "{}".to_owned(),
            _ => format!(r#"{{"total":{n},"note":"number {n}"}}"#),
        };
        model.write(ORDERS, format!("k{n:05}").as_bytes(), Some(&value));
    }
    store.apply(&model.batch(&plan, from)).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    let from = model.position();
    for n in (0..9000).step_by(2) {
        model.write(ORDERS, format!("k{n:05}").as_bytes(), None);
    }
    store.apply(&model.batch(&plan, from)).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn the_message_of_the_server_is_kept_when_it_refuses_a_row() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        let database = Database {
            many_rows,
            ..Database::new()
        };
        let plan = standard_plan(&database);
        let (mut store, mut model) = backfilled(&database, &plan);
        let before = model.clone();
        database.sql(
            "\nDELIMITER //\nCREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW IF NEW.total > 100 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too dear'; END IF//",
        );
        let from = model.position();
        for n in 0..50 {
            model.order(&format!("k{n}"), n, "cheap");
        }
        model.order("d", 1000, "gold");
        model.write(ORDERS, b"a", None);
        match store.apply(&model.batch(&plan, from)).unwrap_err() {
            StoreError::Refused(refused) => {
                assert!(refused.what.contains("too dear"), "{refused}");
                assert_eq!(
                    (refused.key.as_str(), refused.offset),
                    (Some("d"), Offset(from.get() + 50))
                );
            }
            other => panic!("{other}"),
        }
        assert!(before.verify(&plan, store.as_mut()).equal);
        database.sql("DROP TRIGGER no");
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn tables_are_read_as_they_are_without_any_bookkeeping() {
    require!(Kind::Mariadb);
    let database = Database::new();
    database.sql(
        "CREATE TABLE orders (id VARCHAR(20) PRIMARY KEY, total INT, note TEXT, mine INT);
         INSERT INTO orders VALUES ('a', 1, 'one', 9), ('b', 2, 'two', 9), ('c', 3, 'three', 9);
         CREATE USER reader_only@localhost IDENTIFIED BY 'pw';",
    );
    database.sql(&format!(
        "GRANT SELECT ON {}.* TO reader_only@localhost",
        database.name
    ));
    let plan = standard_plan(&database);
    let url = crate::harness::server()
        .url()
        .replace("onelog:onelog@", "reader_only:pw@");
    let mut reader = database.target_at(&url).open_reader(&plan).unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.order("b", 2, "two");
    model.order("c", 3, "three");
    assert!(
        onelog_store::verify(&plan, &model, reader.as_mut())
            .unwrap()
            .equal
    );
    // A user who may only read cannot be a sink, and the error says why.
    let mut store =
        onelog_mysql::MysqlStore::open(&database.target_at(&url), SINK, LOG, plan).unwrap();
    let error = store.take_over().unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("the user lacks a right"),
        "{error}"
    );
}
