//! What others do to the indexes, and names that are theirs.

use onelog_store::conformance::{LOG, ORDERS};
use onelog_store::{Store, StoreError};
use serde_json::{Value, json};

use crate::common::{
    FIRST, STANDARD, apply_all, assert_equal, backfilled, keys_that_differ, repair,
};
use crate::search::Fixture;

pub(crate) fn hand_edits_are_found_and_mended(fixture: &Fixture) {
    let (mut store, mut model, plan, _) = backfilled(fixture);
    let from = model.position();
    model.order("d", 4, "four");
    model.order("e", 5, "a long text that is cut later");
    model.order("f", 6, "six");
    apply_all(&plan, &model, from, store.as_mut());
    assert_equal(&plan, &model, store.as_mut());

    // By a new document under the same id, by an update, by deletion, by an extra document; through
    // the alias that all readers use, and past it.
    fixture.request(
        "PUT",
        "/orders/_doc/a",
        r#"{"id":"a","total":1,"note":"ONE"}"#,
    );
    let update = r#"{"doc":{"total":2.5}}"#;
    fixture.request("POST", &format!("/{FIRST}/_update/b"), update);
    fixture.request("DELETE", "/orders/_doc/c", "");
    fixture.request(
        "PUT",
        "/orders/_doc/x",
        r#"{"id":"x","total":1,"note":"extra"}"#,
    );
    fixture.request(
        "POST",
        "/orders/_update/e",
        r#"{"doc":{"note":"a long text"}}"#,
    );
    let hide = r#"{"doc":{"_onelog":{"deleted":true}}}"#;
    fixture.request("POST", "/orders/_update/f", hide);

    let verification = model.verify(&plan, store.as_mut());
    assert_eq!(
        keys_that_differ(&verification),
        ["a", "b", "c", "e", "f", "x"]
    );
    let shown = json!(verification.tables[0].differences[1]);
    assert_eq!(shown["store"]["total"], 2.5, "{shown}");

    let long = r#"{"total":5,"note":"a long text that is cut later"}"#;
    let rows = [
        ("a", Some(r#"{"total":1,"note":"one"}"#)),
        ("b", Some(r#"{"total":2,"note":"two"}"#)),
        ("c", Some(r#"{"total":3,"note":"three"}"#)),
        ("e", Some(long)),
        ("f", Some(r#"{"total":6,"note":"six"}"#)),
        ("x", None),
    ];
    repair(&plan, &model, &rows, store.as_mut());
    // What was mended follows the log again.
    let from = model.position();
    for key in ["a", "b", "c", "e", "f", "x"] {
        model.order(key, 7, "after the repair");
    }
    apply_all(&plan, &model, from, store.as_mut());
    assert_equal(&plan, &model, store.as_mut());
}

pub(crate) fn a_document_that_was_edited_by_hand_still_follows(fixture: &Fixture) {
    let (mut store, mut model, plan, _) = backfilled(fixture);
    // Many edits raise the versions far above the offsets that are to come.
    for n in 0..20 {
        fixture.request(
            "POST",
            "/orders/_update/a",
            &json!({"doc": {"total": n + 100}}).to_string(),
        );
        fixture.request("PUT", "/orders/_doc/b", &json!({"total": n}).to_string());
        fixture.request("PUT", "/orders/_doc/c", "{}");
        fixture.request("DELETE", "/orders/_doc/c", "");
    }
    for round in 0..3 {
        let from = model.position();
        model.order("a", round, "from the log");
        model.order("b", round, "from the log");
        model.order("c", round, "from the log");
        apply_all(&plan, &model, from, store.as_mut());
        assert_equal(&plan, &model, store.as_mut());
        let from = model.position();
        model.write(ORDERS, b"a", None);
        model.write(ORDERS, b"c", None);
        apply_all(&plan, &model, from, store.as_mut());
        assert_equal(&plan, &model, store.as_mut());
    }
}

pub(crate) fn a_document_under_a_false_key_is_found_and_mended(fixture: &Fixture) {
    let (mut store, model, plan, _) = backfilled(fixture);
    fixture.request("POST", "/orders/_update/a", r#"{"doc":{"id":"b"}}"#);
    fixture.request(
        "PUT",
        "/orders/_doc/other",
        r#"{"id":"c","total":3,"note":"three"}"#,
    );
    let verification = model.verify(&plan, store.as_mut());
    assert_eq!(keys_that_differ(&verification), ["a", "other"]);
    let one = Some(r#"{"total":1,"note":"one"}"#);
    repair(
        &plan,
        &model,
        &[("a", one), ("other", None)],
        store.as_mut(),
    );
}

pub(crate) fn a_changed_index_is_reported(fixture: &Fixture) {
    let (mut store, mut model, plan, _) = backfilled(fixture);
    store.check_shape().unwrap();
    let alias = |actions: Value| {
        fixture.request(
            "POST",
            "/_aliases",
            &json!({ "actions": actions }).to_string(),
        );
    };
    // Without the filter deleted documents would show.
    alias(json!([{"add": {"index": FIRST, "alias": "orders", "filter": {"match_all": {}}}}]));
    let error = store.check_shape().unwrap_err();
    assert!(error.to_string().contains("filter"), "{error}");
    fixture.request("PUT", "/more", "");
    alias(json!([{"add": {"index": "more", "alias": "orders"}}]));
    let error = store.check_shape().unwrap_err();
    assert!(error.to_string().contains("'more'"), "{error}");
    fixture.request("DELETE", "/more", "");
    fixture.request("DELETE", &format!("/{FIRST}"), "");
    assert!(store.check_shape().unwrap_err().to_string().contains(FIRST));
    let from = model.position();
    model.order("d", 4, "four");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        matches!(error, StoreError::SchemaMismatch { .. }),
        "{error}"
    );
    assert!(store.reader().is_err());
    // Nothing was made anew by writing to it.
    let found = fixture.request("GET", "/_alias", "");
    assert_eq!(found.as_object().unwrap().len(), 1, "{found}");
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_equal(&plan, &model, store.as_mut());
    store.check_shape().unwrap();
}

pub(crate) fn names_of_others_are_not_taken(fixture: &Fixture) {
    let (mut store, model, plan, harness) = backfilled(fixture);
    // Another sink's.
    let mut other = harness.open_as("other", &plan, LOG);
    let error = other.check_target().unwrap_err();
    assert!(error.to_string().contains("'follower'"), "{error}");
    other.take_over().unwrap();
    let error = other.begin_rebuild().unwrap_err();
    assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
    // An index of another application, and its alias.
    fixture.request("PUT", "/theirs", r#"{"aliases":{"their-alias":{}}}"#);
    for name in ["theirs", "their-alias"] {
        let plan = harness.plan(&STANDARD.replace("\"orders\"", &format!("\"{name}\"")));
        let mut store = harness.open_as("third", &plan, LOG);
        let error = store.check_target().unwrap_err();
        assert!(matches!(error, StoreError::NotOwner { .. }), "{error}");
    }
    // Names that cannot be.
    for name in ["Orders", "_orders", "or ders", "a*", ".hidden"] {
        let plan = harness.plan(&STANDARD.replace("\"orders\"", &format!("\"{name}\"")));
        let error = harness.store(&plan).check_target().unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{name}: {error}"
        );
    }
    assert_equal(&plan, &model, store.as_mut());
}
