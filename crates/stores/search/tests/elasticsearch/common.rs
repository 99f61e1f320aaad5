//! What the stories share.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use onelog_mapping::{Plan, Row};
use onelog_record::{Offset, Position};
use onelog_store::conformance::{self, Model};
use onelog_store::{Batch, Change, Store, StoreReader, Verification};

use crate::search::{Fixture, SearchHarness};

pub(crate) const STANDARD: &str = r#"{"table":"shop.orders","into":"orders","columns":{
  "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
  "note":{"from":"/note","type":"text"}}}"#;

/// The index behind the alias after the first backfill.
pub(crate) const FIRST: &str = "orders-onelog-1";

/// A backfilled store with the orders a, b and c.
pub(crate) fn backfilled(fixture: &Fixture) -> (Box<dyn Store>, Model, Arc<Plan>, SearchHarness) {
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let (store, model) = conformance::backfilled(&harness, &plan);
    (store, model, plan, harness)
}

pub(crate) fn assert_equal(plan: &Plan, model: &Model, store: &mut dyn Store) {
    let verification = model.verify(plan, store);
    assert!(verification.equal, "{verification:#?}");
    assert_eq!(verification.position, model.position());
}

pub(crate) fn keys_that_differ(verification: &Verification) -> Vec<String> {
    let differences = verification.tables.iter().flat_map(|t| &t.differences);
    let mut keys: Vec<String> = differences
        .map(|d| d.key.as_str().unwrap().into())
        .collect();
    keys.sort();
    keys
}

pub(crate) fn apply_all(plan: &Plan, model: &Model, from: Position, store: &mut dyn Store) {
    store.apply(&model.batch(plan, from)).unwrap();
}

/// Writes the rows that differ again, or deletes them, as a repair does.
pub(crate) fn repair(
    plan: &Plan,
    model: &Model,
    rows: &[(&str, Option<&str>)],
    store: &mut dyn Store,
) {
    let changes = rows.iter().map(|(key, value)| Change {
        key: Bytes::copy_from_slice(key.as_bytes()),
        offset: Offset(0),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    });
    let batch = Batch::repair(model.place(), vec![changes.collect()]);
    assert!(batch.is_repair());
    store.apply(&batch).unwrap();
    assert_equal(plan, model, store);
}

pub(crate) fn each_row(reader: &mut dyn StoreReader, mapping: usize, mut each: impl FnMut(&Row)) {
    reader
        .scan(mapping, &mut |row| {
            each(row);
            ControlFlow::Continue(())
        })
        .unwrap();
}

pub(crate) fn count(fixture: &Fixture, name: &str) -> u64 {
    fixture.request("POST", &format!("/{name}/_refresh"), "");
    fixture.request("GET", &format!("/{name}/_count"), "")["count"]
        .as_u64()
        .unwrap()
}
