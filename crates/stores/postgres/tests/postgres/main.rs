//! PostgreSQL against the contract of every store, and what is its own: whose tables are whose,
//! tables that were there before, unique and foreign keys, planted damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod constraints;
mod existing;
mod foretold;
mod harness;
mod ownership;
mod pool;
mod protection;
mod redefined;
mod refused;
mod server;
mod types;

use std::sync::Arc;

use onelog_record::Offset;
use onelog_store::conformance::{
    self, Harness as _, LOG, Model, ORDERS, backfilled, standard_plan,
};
use onelog_store::{Batch, Change, StoreError};
use onelog_testkit::{Kind, must_run, require};

use self::harness::Pg;

#[test]
fn postgres_keeps_the_contract_of_every_store() {
    require!(Kind::Postgres);
    conformance::all(&|| Box::new(Pg::new()));
}

fn change(key: &str, offset: u64, value: Option<&str>) -> Change {
    Change {
        key: key.to_owned().into(),
        offset: Offset(offset),
        value: value.map(|text| text.to_owned().into()),
    }
}

#[test]
fn every_kind_of_planted_difference_is_found_named_and_mended() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, model) = backfilled(&pg, &plan);
    let found = pg.by_hand(
        &model,
        store.as_mut(),
        &plan,
        "UPDATE orders SET total = 7, note = left(note, 1) WHERE id = 'a';
         DELETE FROM orders WHERE id = 'b';
         UPDATE orders SET note = NULL WHERE id = 'c';
         INSERT INTO orders VALUES ('x', 1, 'extra');",
    );
    let table = &found.tables[0];
    assert!(!found.equal && !table.equal);
    assert_eq!(
        (table.rows, table.store_rows, table.differences_total),
        (3, 3, 4)
    );
    assert_eq!(
        serde_json::to_value(&table.differences).unwrap(),
        serde_json::json!([
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
            change("b", 1, Some(r#"{"total":2,"note":"two"}"#)),
            change("c", 2, Some(r#"{"total":3,"note":"three"}"#)),
            change("x", 3, None),
        ]],
    );
    store.apply(&repair).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_eq!(
        store.position().unwrap().unwrap().position,
        model.position()
    );
    // A repair is checked as every batch is.
    let mut late = repair;
    late.from = onelog_record::Position(model.position().get() - 1);
    late.to = late.from;
    assert!(matches!(
        store.apply(&late),
        Err(StoreError::PositionMismatch { .. })
    ));
}

#[test]
fn what_no_mapping_can_write_is_found_as_a_difference() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"text"},"r":{"from":"/r","type":"real"},
            "n":{"from":"/n","type":"numeric"},"t":{"from":"/t","type":"timestamp"},
            "d":{"from":"/d","type":"date"},"l":{"from":"/l","type":"integer[]"}}}"#,
    );
    let mut model = Model::default();
    for key in ["a", "b", "c", "d", "e", "f"] {
        model.write(
            ORDERS,
            key.as_bytes(),
            Some(r#"{"r":1,"n":1,"t":"2020-01-01T00:00:00Z","d":"2020-01-01","l":[1,2]}"#),
        );
    }
    let mut store = pg.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    let found = pg.by_hand(
        &model,
        store.as_mut(),
        &plan,
        "UPDATE orders SET r = 'NaN' WHERE id = 'a'; UPDATE orders SET n = 'NaN' WHERE id = 'b';
         UPDATE orders SET t = 'infinity' WHERE id = 'c'; UPDATE orders SET d = '-infinity' WHERE id = 'd';
         UPDATE orders SET l = '{{1},{2}}' WHERE id = 'e'; UPDATE orders SET t = '4000-01-01 BC' WHERE id = 'f'",
    );
    assert_eq!(found.tables[0].differences_total, 6, "{found:#?}");
}

#[test]
fn a_large_batch_is_one_step_and_its_one_bad_row_is_named() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, mut model) = backfilled(&pg, &plan);
    let from = model.position();
    for n in 0..12_345 {
        model.order(&format!("k{n:06}"), n, "a note");
    }
    store.apply(&model.batch(&plan, from)).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);

    pg.sql("ALTER TABLE orders ADD CHECK (total <> 424242)");
    let from = model.position();
    let before = model.clone();
    for n in 0..12_345 {
        if n % 3 == 0 {
            model.write(ORDERS, format!("k{n:06}").as_bytes(), None);
        } else {
            model.order(&format!("k{n:06}"), n + 1, "changed");
        }
    }
    model.order("k011111", 424_242, "refused");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    let StoreError::Refused(refused) = &error else {
        panic!("{error}");
    };
    assert_eq!(refused.key, "k011111");
    assert_eq!(refused.offset.after(), model.position());
    assert!(refused.what.contains("check constraint"), "{error}");
    assert!(before.verify(&plan, store.as_mut()).equal);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64, String),
    Delete(u8),
    Apply,
    Rebuild,
    Reopen,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        6 => (0..12u8, any::<i64>(), "[ab'\" \\\\ü\n{}]{0,12}").prop_map(|(k, n, t)| Step::Put(k, n, t)),
        3 => (0..12u8).prop_map(Step::Delete),
        3 => Just(Step::Apply),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Reopen),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12))]
    #[test]
    fn any_history_in_any_batches_ends_equal(steps in proptest::collection::vec(step(), 1..40)) {
        if !must_run("any history in any batches", &[Kind::Postgres]) {
            return Ok(());
        }
        let pg = Pg::new();
        let plan = standard_plan(&pg);
        let (mut store, mut model) = backfilled(&pg, &plan);
        let mut at = model.position();
        for step in steps.into_iter().chain([Step::Apply]) {
            match step {
                Step::Put(key, total, note) => model.order(&format!("k{key}"), total, &note),
                Step::Delete(key) => model.write(ORDERS, format!("k{key}").as_bytes(), None),
                Step::Apply => {
                    store.apply(&model.batch(&plan, at)).unwrap();
                    at = model.position();
                }
                Step::Rebuild => {
                    model.rebuild(&plan, store.as_mut()).unwrap();
                    at = model.position();
                }
                Step::Reopen => {
                    store = pg.open(Arc::clone(&plan), LOG);
                    store.take_over().unwrap();
                    at = store.position().unwrap().unwrap().position;
                }
            }
        }
        let found = model.verify(&plan, store.as_mut());
        proptest::prop_assert!(found.equal, "{found:#?}");
    }
}
