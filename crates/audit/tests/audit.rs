//! Two stores that were written by other programs, compared.

#![allow(clippy::unwrap_used)] // a test may fail by it

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_audit::{Audit, AuditDefinition, AuditOptions, DifferenceKind, audit};
use onelog_sqlite::SqliteTarget;
use onelog_store::Target;
use rusqlite::Connection;
use serde_json::{Value, json};

struct Stores {
    _folder: tempfile::TempDir,
    left: PathBuf,
    right: PathBuf,
}

impl Stores {
    /// Two databases with the same thousand orders, under different names and in different forms.
    fn equal() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stores = Self {
            left: folder.path().join("shop.db"),
            right: folder.path().join("report.db"),
            _folder: folder,
        };
        run(
            &stores.left,
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, total TEXT, state TEXT, note TEXT);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
             INSERT INTO orders SELECT n, n || '.50', 'paid', 'only here' FROM n",
        );
        run(
            &stores.right,
            "CREATE TABLE report (ref TEXT, amount REAL, status TEXT);
             WITH RECURSIVE n(n) AS (SELECT 1000 UNION ALL SELECT n - 1 FROM n WHERE n > 1)
             INSERT INTO report SELECT 'order-' || n, n + 0.5, 'paid' FROM n",
        );
        stores
    }

    fn audit(&self, show: usize) -> Audit {
        let target =
            |path: &Path| -> Arc<dyn Target> { Arc::new(SqliteTarget { path: path.into() }) };
        let (left, right) = (target(&self.left), target(&self.right));
        let definition =
            AuditDefinition::from_json(&definition(), left.kind(), right.kind()).unwrap();
        let mut options = AuditOptions { show, again: None };
        audit(&definition, &left, &right, &mut options).unwrap()
    }
}

fn definition() -> Value {
    json!({"compare": [{
        "name": "orders",
        "left": {"table": "orders", "key": "id", "key_type": "integer"},
        "right": {"table": "report", "key": "ref", "key_template": "order-{$key}"},
        "columns": [
            {"name": "total", "type": "numeric", "left_type": "text", "right": "amount", "right_type": "real"},
            {"name": "status", "type": "text", "left": "state"},
        ],
    }]})
}

fn run(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn stores_that_say_the_same_in_their_own_words_are_equal() {
    let found = Stores::equal().audit(20);
    assert!(found.equal, "{found:?}");
    let orders = &found.compared[0];
    assert_eq!((orders.rows_left, orders.rows_right), (1000, 1000));
    assert_eq!(orders.differences_total, 0);
    assert_eq!(orders.settled, None);
}

#[test]
fn what_two_writes_to_two_stores_left_behind_is_counted_and_named() {
    // Given a lost write on each side, two that came in another order, and a row of something else.
    let stores = Stores::equal();
    run(&stores.left, "DELETE FROM orders WHERE id = 7");
    run(
        &stores.right,
        "DELETE FROM report WHERE ref IN ('order-8', 'order-9');
         UPDATE report SET status = 'open' WHERE ref = 'order-10';
         UPDATE report SET amount = 11.51 WHERE ref = 'order-11';
         UPDATE report SET status = NULL WHERE ref = 'order-12';
         INSERT INTO report VALUES ('invoice-1', 1, 'paid')",
    );
    // When they are compared
    let found = stores.audit(20);
    // Then each is counted as what it is, and named with what both sides have.
    assert!(!found.equal);
    let orders = &found.compared[0];
    assert_eq!((orders.rows_left, orders.rows_right), (999, 998));
    assert_eq!(orders.missing_left, 1);
    assert_eq!(orders.missing_right, 2);
    assert_eq!(orders.different, 3);
    assert_eq!(orders.differences_total, 6);
    assert_eq!((orders.other_keys_left, orders.other_keys_right), (0, 1));
    assert!(orders.counted_all);
    let named = |key: &str| {
        let mut all = orders.differences.iter();
        all.find(|difference| difference.key == key)
            .unwrap()
            .clone()
    };
    assert_eq!(named("7").kind, DifferenceKind::MissingLeft);
    assert_eq!(
        named("7").right,
        Some(json!({"total": "7.5", "status": "paid"}).into())
    );
    assert_eq!(named("8").kind, DifferenceKind::MissingRight);
    assert_eq!(named("8").right, None);
    assert_eq!(named("10").left, Some(json!({"status": "paid"}).into()));
    assert_eq!(named("10").right, Some(json!({"status": "open"}).into()));
    assert_eq!(named("11").right, Some(json!({"total": "11.51"}).into()));
    assert_eq!(named("12").right, Some(json!({"status": null}).into()));
}

#[test]
fn a_column_of_bytes_is_compared_byte_by_byte() {
    // Given two tables with bytes, of which one byte of one row is another.
    let stores = Stores::equal();
    let table = "CREATE TABLE thumbs (id TEXT, image BLOB);
        INSERT INTO thumbs VALUES ('a', x'00ff10'), ('b', x'');";
    run(&stores.left, table);
    run(&stores.right, table);
    run(
        &stores.right,
        "UPDATE thumbs SET image = x'00ff11' WHERE id = 'a'",
    );
    let target = |path: &Path| -> Arc<dyn Target> { Arc::new(SqliteTarget { path: path.into() }) };
    let (left, right) = (target(&stores.left), target(&stores.right));
    let place = json!({"table": "thumbs", "key": "id"});
    let compared = json!({"compare": [{"name": "thumbs", "left": place, "right": place,
        "columns": [{"name": "image", "type": "blob"}]}]});
    // When they are compared
    let definition = AuditDefinition::from_json(&compared, left.kind(), right.kind()).unwrap();
    let mut options = AuditOptions {
        show: 5,
        again: None,
    };
    let found = audit(&definition, &left, &right, &mut options).unwrap();
    // Then that row differs, and no other.
    assert_eq!(found.compared[0].rows_left, 2);
    assert_eq!(found.compared[0].different, 1);
    assert_eq!(found.compared[0].differences[0].key, "a");
}

#[test]
fn only_so_many_differences_are_shown_but_all_are_counted() {
    let stores = Stores::equal();
    run(&stores.right, "UPDATE report SET status = 'gone'");
    let found = stores.audit(5);
    assert_eq!(found.compared[0].different, 1000);
    assert_eq!(found.compared[0].differences.len(), 5);
}

#[test]
fn a_column_that_is_no_key_is_reported() {
    let stores = Stores::equal();
    run(
        &stores.right,
        "INSERT INTO report SELECT * FROM report WHERE ref = 'order-3'",
    );
    let found = stores.audit(5);
    assert_eq!(found.compared[0].keys_twice, 1);
    let difference = &found.compared[0].differences[0];
    assert_eq!(difference.key, "3");
    assert_eq!((difference.rows_left, difference.rows_right), (1, 2));
    assert!(!found.equal);
}

#[test]
fn a_column_that_is_no_key_is_reported_also_where_both_sides_have_the_same_rows() {
    // Given two stores that have two rows for one key, the same ones, and one of them two more,
    let stores = Stores::equal();
    run(
        &stores.left,
        "ALTER TABLE orders RENAME TO before; CREATE TABLE orders AS SELECT * FROM before;
         INSERT INTO orders SELECT * FROM orders WHERE id = 3;
         INSERT INTO orders SELECT 123456789, total, state, note FROM orders WHERE id IN (3, 4)",
    );
    run(
        &stores.right,
        "INSERT INTO report SELECT * FROM report WHERE ref = 'order-3'",
    );
    // when they are compared, then both keys are reported.
    let found = stores.audit(5);
    assert!(!found.equal);
    assert_eq!(found.compared[0].keys_twice, 2);
    let rows = |key: &str| {
        let all = &found.compared[0].differences;
        let one = all.iter().find(|one| one.key == key).unwrap();
        (one.rows_left, one.rows_right)
    };
    assert_eq!(rows("3"), (2, 2));
    assert_eq!(rows("123456789"), (3, 0));
}

#[test]
fn a_column_that_a_table_does_not_have_is_named_with_those_that_it_has() {
    // Given two stores,
    let stores = Stores::equal();
    let target = |path: &Path| -> Arc<dyn Target> { Arc::new(SqliteTarget { path: path.into() }) };
    let (left, right) = (target(&stores.left), target(&stores.right));
    for (place, name) in [("/left/key", "idd"), ("/columns/1/left", "sate")] {
        // when a column of one of them is misspelt,
        let mut misspelt = definition();
        let compare = &mut misspelt["compare"][0];
        *compare.pointer_mut(place).unwrap() = json!(name);
        let definition = AuditDefinition::from_json(&misspelt, left.kind(), right.kind()).unwrap();
        let mut options = AuditOptions {
            show: 5,
            again: None,
        };
        let error = audit(&definition, &left, &right, &mut options).unwrap_err();
        // then it is named, with the table and the columns that are there.
        let text = error.to_string();
        let listed = format!("it has no column '{name}'; its columns are id, total, state, note");
        assert!(
            text.contains("'orders'") && text.contains(&listed),
            "{text}"
        );
    }
}

#[test]
fn a_write_on_its_way_is_no_difference_when_it_is_looked_at_again() {
    // Given two stores of which one is a write behind, and stays another one behind.
    let stores = Stores::equal();
    run(
        &stores.right,
        "UPDATE report SET status = 'new' WHERE ref = 'order-5';
         UPDATE report SET status = 'new' WHERE ref = 'order-6'",
    );
    let target = |path: &Path| -> Arc<dyn Target> { Arc::new(SqliteTarget { path: path.into() }) };
    let (left, right) = (target(&stores.left), target(&stores.right));
    let definition = AuditDefinition::from_json(&definition(), left.kind(), right.kind()).unwrap();
    // When the write arrives between the two looks
    let mut looked_again = Vec::new();
    let mut pause = |name: &str, differing: u64| {
        looked_again.push((name.to_owned(), differing));
        run(&stores.left, "UPDATE orders SET state = 'new' WHERE id = 5");
    };
    let mut options = AuditOptions {
        show: 20,
        again: Some(&mut pause),
    };
    let found = audit(&definition, &left, &right, &mut options).unwrap();
    // Then only the other one still differs, and the report says that one did.
    assert_eq!(looked_again, [("orders".to_owned(), 2)]);
    let orders = &found.compared[0];
    assert_eq!(orders.differences_total, 1);
    assert_eq!(orders.settled, Some(1));
    assert_eq!(orders.differences[0].key, "6");
}

#[test]
fn nothing_is_written_and_a_place_that_is_not_there_is_named() {
    let stores = Stores::equal();
    let before = std::fs::read(&stores.left).unwrap();
    stores.audit(5);
    assert_eq!(std::fs::read(&stores.left).unwrap(), before);

    run(&stores.right, "DROP TABLE report");
    let target = |path: &Path| -> Arc<dyn Target> { Arc::new(SqliteTarget { path: path.into() }) };
    let (left, right) = (target(&stores.left), target(&stores.right));
    let definition = AuditDefinition::from_json(&definition(), left.kind(), right.kind()).unwrap();
    let mut options = AuditOptions {
        show: 5,
        again: None,
    };
    let error = audit(&definition, &left, &right, &mut options).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("'orders', right side") && said.contains("report"),
        "{said}"
    );
    // It may never have been there: nothing is advised that a sink alone can do.
    assert!(
        said.contains("there is no such table in this file") && !said.contains("rebuild"),
        "{said}"
    );
}
