//! OpenSearch and Elasticsearch as stores, against real servers: the conformance functions, and
//! what is special about products without transactions.

#![allow(clippy::unwrap_used, clippy::panic)]

mod busy;
mod common;
mod restarts;
mod search;
mod secure;
mod strangers;
mod values;
mod zombies;

use std::sync::Arc;
use std::time::Duration;

use common::{FIRST, STANDARD, apply_all, assert_equal, backfilled, count, each_row};
use onelog_mapping::Cell;
use onelog_record::Position;
use onelog_store::Store;
use onelog_store::Target as _;
use onelog_store::conformance::{self, LOG, Model, ORDERS};
use restarts::*;
use search::{Fixture, SearchHarness, stories};
use secure::*;
use serde_json::json;
use strangers::*;
use values::*;
use zombies::*;

stories! {
    the_conformance_functions_pass,
    hand_edits_are_found_and_mended,
    a_document_that_was_edited_by_hand_still_follows,
    a_document_under_a_false_key_is_found_and_mended,
    a_put_that_comes_late_brings_nothing_back,
    a_zombie_that_already_wrote_is_fenced_and_harms_nothing,
    an_exchange_survives_a_crash_before_and_after_it,
    a_zombie_cannot_exchange_indexes_again,
    a_record_that_the_store_refuses_is_named,
    every_type_comes_back_as_it_was,
    documents_are_kept_as_they_are,
    marks_of_deleted_rows_are_purged,
    a_deleted_document_is_found_by_its_id_alone_and_only_with_its_mark_until_it_is_purged,
    names_of_others_are_not_taken,
    a_changed_index_is_reported,
    many_documents_in_several_shards_are_read,
    an_index_of_a_stranger_can_be_read,
    settings_of_the_mapping_reach_the_index,
    readers_see_what_was_applied_and_no_marks,
    a_server_is_only_talked_to_when_its_certificate_is_trusted,
    a_store_goes_on_when_its_server_was_restarted,
}

fn the_conformance_functions_pass(fixture: &Fixture) {
    conformance::all(&|| {
        fixture.wipe();
        Box::new(fixture.harness())
    });
}

fn marks_of_deleted_rows_are_purged(fixture: &Fixture) {
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let mut model = Model::default();
    let mut store = harness.store(&plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    for n in 0..2500 {
        model.order(&format!("k{n}"), n, "a note");
    }
    for n in 1..2500 {
        model.write(ORDERS, format!("k{n}").as_bytes(), None);
    }
    apply_all(&plan, &model, Position::ZERO, &mut store);
    assert_eq!((count(fixture, "orders"), count(fixture, FIRST)), (1, 2500));
    assert_eq!(store.purge_deleted(Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(store.purge_deleted(Duration::ZERO).unwrap(), 2499);
    assert_eq!((count(fixture, "orders"), count(fixture, FIRST)), (1, 1));
    assert_equal(&plan, &model, &mut store);
    let from = model.position();
    model.order("k1", 1, "again");
    apply_all(&plan, &model, from, &mut store);
    assert_equal(&plan, &model, &mut store);
}

/// What the store's page tells readers to do.
fn a_deleted_document_is_found_by_its_id_alone_and_only_with_its_mark_until_it_is_purged(
    fixture: &Fixture,
) {
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let mut model = Model::default();
    model.order("a", 1, "one");
    let mut store = harness.store(&plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    model.write(ORDERS, b"a", None);
    model.apply(&plan, &mut store).unwrap();
    store.publish().unwrap();
    let by_id = || {
        let body = r#"{"docs":[{"_index":"orders","_id":"a"}]}"#;
        fixture.request("POST", "/_mget", body)["docs"][0].clone()
    };
    // An alias's filter is no matter of requests by id: these see the mark, and nothing of the row.
    let found = by_id();
    assert_eq!(found["found"], true);
    let own = found["_source"].as_object().unwrap();
    assert_eq!(own.keys().collect::<Vec<_>>(), ["_onelog"]);
    assert_eq!(own["_onelog"]["deleted"], true);
    // A search by the id through the alias does not find it.
    let query = r#"{"query":{"ids":{"values":["a"]}}}"#;
    let searched = fixture.request("POST", "/orders/_search", query);
    assert_eq!(searched["hits"]["hits"], json!([]));
    // An idle sink purges it, when it is old enough.
    store.set_purging(Duration::ZERO, Duration::from_secs(3600));
    store.check_shape().unwrap();
    assert_eq!(by_id()["found"], true);
    store.set_purging(Duration::ZERO, Duration::ZERO);
    store.check_shape().unwrap();
    assert_eq!(by_id()["found"], false);
    assert_equal(&plan, &model, &mut store);
}

fn an_index_of_a_stranger_can_be_read(fixture: &Fixture) {
    fixture.request(
        "PUT",
        "/shop",
        r#"{"settings":{"number_of_shards":2},
        "aliases":{"big":{"filter":{"range":{"total":{"gte":10}}}}}}"#,
    );
    for n in 0..20 {
        let document = json!({"id": format!("key {n}"), "total": n, "note": "theirs"});
        fixture.request("POST", "/shop/_doc?refresh=true", &document.to_string());
    }
    let harness = fixture.harness();
    for (name, expected) in [("shop", 20), ("big", 10)] {
        let plan = harness.plan(&STANDARD.replace("\"orders\"", &format!("\"{name}\"")));
        let mut reader = harness.target().open_reader(&plan).unwrap();
        assert_eq!(reader.position(), Position::ZERO);
        let mut keys = Vec::new();
        each_row(reader.as_mut(), 0, |row| keys.push(row.cells[0].clone()));
        assert_eq!(keys.len(), expected);
        assert!(keys.contains(&Cell::Text("key 19".into())));
    }
    let plan = harness.plan(STANDARD);
    assert!(harness.target().open_reader(&plan).is_err());
}

fn settings_of_the_mapping_reach_the_index(fixture: &Fixture) {
    let harness = fixture.harness();
    let settings = r#"{"settings":{"index":{"number_of_shards":2,"refresh_interval":"7s"},
        "number_of_replicas":0,
        "mappings":{"properties":{"note":{"type":"keyword"}}}},"#;
    let plan = harness.plan(&STANDARD.replacen('{', settings, 1));
    let (mut store, model) = conformance::backfilled(&harness, &plan);
    let found = fixture.request("GET", "/orders", "");
    let index = &found[FIRST];
    for (name, value) in [
        ("number_of_shards", "2"),
        ("number_of_replicas", "0"),
        ("refresh_interval", "7s"),
    ] {
        assert_eq!(index["settings"]["index"][name], value, "{index}");
    }
    let durability = &index["settings"]["index"]["translog"]["durability"];
    assert_eq!(durability.as_str().unwrap().to_lowercase(), "request");
    assert_eq!(
        index["mappings"]["properties"]["note"],
        json!({"type": "keyword"})
    );
    store.check_shape().unwrap();
    assert_equal(&plan, &model, store.as_mut());
    let settings = r#"{"settings":{"translog":{"durability":"async"}},"#;
    let plan = harness.plan(&STANDARD.replacen('{', settings, 1));
    let error = harness.store(&plan).check_target().unwrap_err();
    assert!(error.to_string().contains("durability"), "{error}");
}

fn readers_see_what_was_applied_and_no_marks(fixture: &Fixture) {
    let (mut store, mut model, plan, harness) = backfilled(fixture);
    let from = model.position();
    model.order("d", 4, "seen");
    model.write(ORDERS, b"a", None);
    apply_all(&plan, &model, from, store.as_mut());
    assert!(store.publishes());
    store.publish().unwrap();
    // Without a refresh of their own.
    let found = fixture.request("GET", "/orders/_search?q=note:seen", "");
    assert_eq!(found["hits"]["hits"][0]["_id"], "d");
    let found = fixture.request("GET", "/orders/_search?size=100", "");
    let mut ids: Vec<&str> = found["hits"]["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["_id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "c", "d"]);
    // A takeover shows what the predecessor applied and did not show.
    let from = model.position();
    model.order("e", 5, "unseen");
    apply_all(&plan, &model, from, store.as_mut());
    drop(store);
    harness.store(&plan).take_over().unwrap();
    let found = fixture.request("GET", "/orders/_search?q=note:unseen", "");
    assert_eq!(found["hits"]["hits"][0]["_id"], "e");
}

#[test]
fn a_password_is_in_no_error() {
    let harness = SearchHarness {
        // Nothing listens on the port for discarding.
        url: "http://user:s3cret@127.0.0.1:9/?api_key=s3cret".into(),
    };
    let plan = harness.plan(STANDARD);
    let open = |url: &str| {
        let mut target = harness.target();
        target.server.url = url.into();
        let error = onelog_search::ElasticsearchStore::open(&target, "s", LOG, Arc::clone(&plan))
            .unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("s3cret"), "{text}");
        error
    };
    open(&harness.url);
    let error = open("http://user:s3cret@127.0.0.1:9");
    assert!(error.is_retryable(), "{error}");
    open("http://127.0.0.1:9/?api_key=s3cret");
    open("http://user:s3cret@[broken");
    assert!(!open("ftp://user:s3cret@127.0.0.1:9").is_retryable());
}
