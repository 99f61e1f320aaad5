//! Rows that others write to a table until another one takes its place are not dropped unasked.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{self, Harness as _, LOG, backfilled};
use onelog_store::{Guard, Store, StoreError};

use super::{Sqlite, searched_plan, standard_plan};

/// A mapping of the same table with another name for its key.
fn other_key(sqlite: &Sqlite) -> Arc<Plan> {
    conformance::plan(
        sqlite,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "number":{"from":"$key","type":"text"},"total":{"from":"/total","type":"text"}}}"#,
    )
}

fn assert_guarded(store: &mut dyn Store, most: u64, place: onelog_store::LogPlace, rows: u64) {
    store.guard(&[Guard::Deletes(most), Guard::Anything]);
    let error = store.finish_rebuild(place).unwrap_err();
    assert!(
        matches!(&error, StoreError::Guarded { into, rows: all, deletes, changes: 0 }
            if into == "orders" && *all == rows && *deletes == most + 1),
        "{error}"
    );
}

#[test]
fn rows_that_others_write_until_the_exchange_are_counted_in_its_transaction() {
    let sqlite = Sqlite::new();
    for (plan, next) in [
        (standard_plan(), standard_plan()),
        (searched_plan(), searched_plan()),
        (standard_plan(), other_key(&sqlite)),
    ] {
        // Given a backfill that has loaded all of its rows, one more than there were,
        let sqlite = Sqlite::new();
        let (store, mut model) = backfilled(&sqlite, &plan);
        drop(store);
        let mut store = sqlite.open(Arc::clone(&next), LOG);
        store.take_over().unwrap();
        let is_same_key = next.mappings[0].columns[0].name == "id";
        if is_same_key {
            // A text that is also a number is compared as the text that it is.
            model.order("07", 7, "seven");
        }
        model.load(&next, store.as_mut()).unwrap();
        // when others write rows, one of them with a key of the log's,
        let mut sql = String::from("INSERT INTO orders (id, total) VALUES ('07', 7)");
        for n in 0..50 {
            sql.push_str(&format!(", ('mine{n}', 1)"));
        }
        sqlite.connect().execute_batch(&sql).unwrap();
        // then the table is dropped only where so many may be deleted.
        let deletes = if is_same_key { 50 } else { 51 };
        assert_guarded(store.as_mut(), deletes - 1, model.place(), 54);
        let mine = |n: i64| {
            let sql = "SELECT count(*) FROM orders WHERE total = 1";
            let found: i64 = sqlite
                .connect()
                .query_row(sql, [], |row| row.get(0))
                .unwrap();
            assert_eq!(found, n);
        };
        mine(51);
        store.guard(&[Guard::Deletes(deletes), Guard::Anything]);
        store.finish_rebuild(model.place()).unwrap();
        mine(1);
        assert!(model.verify(&next, store.as_mut()).equal);
    }
}
