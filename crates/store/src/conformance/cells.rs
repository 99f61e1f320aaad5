//! What goes into a store comes out again, or is refused by name.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::{Cell, Plan};
use onelog_record::{Position, TableId};

use super::{Capabilities, Harness, LOG, Model, ORDERS, plan};
use crate::{Store, StoreError};

/// Extremes of every type, hostile texts and hostile names survive the way there and back.
pub fn every_cell_comes_back_as_it_was(harness: &dyn Harness) {
    let plan = plan_of_every_type(harness);
    let mut model = Model::default();
    let mut store = harness.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    let capabilities = harness.capabilities();
    if !capabilities.nul_in_text {
        u0000_is_refused(&plan, store.as_mut(), &model);
    }
    write_extremes(&mut model, capabilities);
    if !capabilities.empty_keys {
        empty_keys_are_refused(&plan, store.as_mut(), &model);
    }
    store.apply(&model.batch(&plan, Position::ZERO)).unwrap();
    model.assert_equal(&plan, store.as_mut());
    let mut keys = Vec::new();
    let mut reader = store.reader().unwrap();
    reader
        .scan(1, &mut |row| {
            keys.push(row.cells[0].clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(keys.contains(&Cell::Blob(vec![0xff, 0xfe])));
    // Loading writes the same cells as applying, and deleting finds every key.
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
    let from = model.position();
    for (table, key) in model.rows.keys().cloned().collect::<Vec<_>>() {
        model.write(table, &key, None);
    }
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

fn plan_of_every_type(harness: &dyn Harness) -> Arc<Plan> {
    let hostile = r#""into":"or\"de'rs; --""#;
    let mappings = r#"{"table":"shop.orders","into":"or\"de'rs; --","columns":{
            "select":{"from":"$key","type":"text"},"a b":{"from":"/t","type":"text"},
            "\"":{"from":"/i","type":"integer"},"r'":{"from":"/r","type":"real"},
            "b":{"from":"/b","type":"boolean"},"j":{"from":"/j","type":"json"},
            "v":{"from":"$version","type":"integer"},"raw":{"from":"$value","type":"json"},
            "bytes":{"from":"$value","type":"blob"}}},
           {"table":"shop.blobs","into":"blobs","columns":{
            "k":{"from":"$key","type":"blob"},"v":{"from":"$value","type":"blob"}}},
           {"table":"shop.orders","into":"keys_only","columns":{"k":{"from":"$key","type":"text"}}}"#;
    assert!(mappings.contains(hostile));
    if harness.capabilities().any_name {
        return plan(harness, mappings);
    }
    let mut store = harness.open(plan(harness, mappings), LOG);
    store.check_target().unwrap_err();
    plan(harness, &mappings.replace(hostile, r#""into":"orders""#))
}

fn write_extremes(model: &mut Model, capabilities: Capabilities) {
    let documents = [
        r#"{"t":"aNULb'\";-- \ud83d\ude00","i":-9223372036854775808,"r":-0.0,"b":true,"j":{"b":1,"a":[null]}}"#,
        r#"{"t":"","i":9223372036854775807,"r":1.7976931348623157e308,"b":false,"j":""}"#,
        r#"{"t":"1","i":0,"r":5e-324,"j":false}"#,
        r#"{"t":null,"i":null,"r":9007199254740993,"j":null}"#,
        "[]",
        "null",
    ];
    let (escaped, plain) = if capabilities.nul_in_text {
        ("\\u0000", "\0")
    } else {
        ("\\u0001", "\u{1}")
    };
    for (n, document) in documents.iter().enumerate() {
        model.write(
            ORDERS,
            format!("key {n} {plain}'\"ü").as_bytes(),
            Some(&document.replace("NUL", escaped)),
        );
    }
    if capabilities.empty_keys {
        model.write(ORDERS, b"", Some("{}"));
        model.write(TableId(1025), b"", Some("\u{0}\u{1}"));
    }
    for key in [&[0][..], &[0xff, 0xfe], b"text"] {
        model.write(TableId(1025), key, Some("\u{0}\u{1}"));
    }
}

/// What the store cannot hold is not changed silently.
fn u0000_is_refused(plan: &Arc<Plan>, store: &mut dyn Store, before: &Model) {
    for (key, document) in [
        ("a key \0", "{}"),
        ("text", r#"{"t":"a\u0000b"}"#),
        ("json", r#"{"j":["\u0000"]}"#),
    ] {
        let mut model = before.clone();
        model.write(ORDERS, key.as_bytes(), Some(document));
        let error = store
            .apply(&model.batch(plan, before.position()))
            .unwrap_err();
        let StoreError::Refused(refused) = error else {
            panic!("U+0000 in {key:?}: {error}");
        };
        assert_eq!(refused.key, key);
        before.assert_equal(plan, store);
    }
}

fn empty_keys_are_refused(plan: &Arc<Plan>, store: &mut dyn Store, before: &Model) {
    for table in [ORDERS, TableId(1025)] {
        let mut model = before.clone();
        model.write(table, b"", Some("{}"));
        let error = store.apply(&model.batch(plan, Position::ZERO)).unwrap_err();
        let StoreError::Refused(refused) = error else {
            panic!("an empty key: {error}");
        };
        assert_eq!(refused.key, "");
        Model::default().assert_equal(plan, store);
    }
}
