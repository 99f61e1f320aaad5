//! Values there and back, and what the store refuses.

use onelog_mapping::Cell;
use onelog_record::{Offset, Position, TableId};
use onelog_store::conformance::{self, Model, ORDERS};
use onelog_store::{Store, StoreError};
use serde_json::json;

use crate::common::{STANDARD, apply_all, assert_equal, each_row, keys_that_differ};
use crate::search::Fixture;

pub(crate) fn a_record_that_the_store_refuses_is_named(fixture: &Fixture) {
    let harness = fixture.harness();
    let plan = harness.plan(r#"{"table":"shop.orders","into":"whole"}"#);
    let (mut store, mut model) = conformance::backfilled(&harness, &plan);
    let from = model.position();
    model.write(ORDERS, b"object", Some(r#"{"place":{"city":"Berlin"}}"#));
    model.write(ORDERS, b"text", Some(r#"{"place":"Berlin"}"#));
    model.write(ORDERS, b"ours", Some(r#"{"_onelog":1}"#));
    let StoreError::Refused(refused) = store.apply(&model.batch(&plan, from)).unwrap_err() else {
        panic!("a field cannot be an object and a text");
    };
    assert_eq!(refused.offset, Offset(from.get() + 1), "{refused}");
    assert_eq!(refused.key, "text");
    assert!(refused.what.contains("place"), "{refused}");
    assert_eq!(store.position().unwrap().unwrap().position, from);
    // Without these records the batch goes through.
    let mut batch = model.batch(&plan, from);
    batch.changes[0].retain(|change| &change.key[..] == b"object");
    store.apply(&batch).unwrap();
    assert_eq!(
        store.position().unwrap().unwrap().position,
        model.position()
    );
    // A key that no document can have is found before anything is sent.
    let from = model.position();
    model.write(ORDERS, b"fine", Some("{}"));
    model.write(ORDERS, &[b'k'; 513], Some("{}"));
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(error.to_string().contains("512"), "{error}");
    let found = fixture.request(
        "POST",
        "/whole/_search",
        r#"{"query":{"ids":{"values":["fine"]}}}"#,
    );
    assert_eq!(found["hits"]["hits"], json!([]));
}

pub(crate) fn every_type_comes_back_as_it_was(fixture: &Fixture) {
    let harness = fixture.harness();
    let columns = [
        "text",
        "integer",
        "real",
        "boolean",
        "json",
        "numeric",
        "timestamp",
        "date",
        "uuid",
    ];
    let mut fields = vec![r#""k":{"from":"$key","type":"uuid"}"#.to_owned()];
    for kind in columns {
        fields.push(format!(r#""{kind}":{{"from":"/{kind}","type":"{kind}"}}"#));
        if kind != "json" {
            fields.push(format!(
                r#""{kind}s":{{"from":"/{kind}s","type":"{kind}[]"}}"#
            ));
        }
    }
    let mapping = format!(
        r#"{{"table":"shop.orders","into":"types","columns":{{{}}}}},
           {{"table":"shop.blobs","into":"numbers","columns":{{"k":{{"from":"$key","type":"integer"}}}}}}"#,
        fields.join(",")
    );
    let plan = harness.plan(&mapping);
    let mut model = Model::default();
    let mut store = harness.store(&plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    let key = |n: u32| format!("0192f0c1-2345-7abc-8def-00000000{n:04}");
    let long = "x".repeat(40_000);
    let documents = [
        json!({"text": long, "integer": i64::MIN, "real": 1e300, "boolean": true,
            "json": {"a": [1, null, {"b": "\n"}]}, "timestamp": "9999-12-30T21:59:59.999999Z",
            "date": "0001-01-01", "uuid": key(1), "numeric": format!("1{}.5", "0".repeat(400)),
            "texts": ["", null, "a\u{0}\r\nb"], "integers": [], "reals": [null, -1.5],
            "booleans": [true, null], "numerics": ["0.10", "-7"], "dates": ["2024-02-29"],
            "timestamps": ["1969-12-31T23:59:59.5+01:00"], "uuids": [key(2)]}),
        json!({"text": null, "json": [], "texts": null, "real": 5, "integers": [i64::MAX],
            "timestamp": "0001-01-01T00:00:00Z", "date": "9999-12-31"}),
        json!({}),
    ];
    for (n, document) in (0..).zip(&documents) {
        model.write(ORDERS, key(n).as_bytes(), Some(&document.to_string()));
    }
    // Digits that no floating-point number has.
    let exact = r#"{"numeric":123456789012345678901234567890.12345678901234567890,"json":{"n":0.10000000000000000001}}"#;
    model.write(ORDERS, key(9).as_bytes(), Some(exact));
    model.write(TableId(1025), b"-9223372036854775808", Some("x"));
    apply_all(&plan, &model, Position::ZERO, &mut store);
    assert_equal(&plan, &model, &mut store);
    let mut numerics = Vec::new();
    let column = plan.mappings[0]
        .columns
        .iter()
        .position(|c| c.name == "numeric")
        .unwrap();
    let mut reader = store.reader().unwrap();
    each_row(reader.as_mut(), 0, |row| {
        numerics.push(row.cells[column].clone())
    });
    let digits = "123456789012345678901234567890.1234567890123456789";
    assert!(
        numerics.contains(&Cell::Numeric(digits.into())),
        "{numerics:?}"
    );
    // What was loaded is what is applied, and both can be searched by value.
    model.rebuild(&plan, &mut store).unwrap();
    assert_equal(&plan, &model, &mut store);
    for query in [
        json!({"range": {"numeric": {"gt": 1e29, "lt": 1e30}}}),
        json!({"term": {"numeric.exact": digits}}),
        json!({"term": {"texts.keyword": ""}}),
        json!({"range": {"timestamp": {"gte": "9999-01-01"}}}),
        json!({"term": {"uuids": key(2)}}),
        json!({"term": {"date": "0001-01-01"}}),
    ] {
        let body = json!({ "query": query }).to_string();
        let found = fixture.request("POST", "/types/_search", &body);
        assert_eq!(
            found["hits"]["hits"].as_array().unwrap().len(),
            1,
            "{query}"
        );
    }
}

pub(crate) fn documents_are_kept_as_they_are(fixture: &Fixture) {
    let harness = fixture.harness();
    let plan = harness
        .plan(r#"{"table":"shop.orders","into":"whole"},{"table":"shop.blobs","into":"blobs"}"#);
    let mut model = Model::default();
    let mut store = harness.store(&plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    let documents = [
        "{}",
        " { } ",
        "{\n \"a\" : 1.50,\r\n \"b\": {\"c\": [ ]}\n}\n",
        r#"{"a":12345678901234567890123,"\u00fc\"":null,"day":"2024-01-01"}"#,
        r#"{"a":"not a number","day":"no day"}"#,
        "[1,2]",
        "null",
        "\"text\"",
        "1e2",
    ];
    for (n, document) in documents.iter().enumerate() {
        model.write(ORDERS, format!("{n}").as_bytes(), Some(document));
    }
    model.write(TableId(1025), b"bytes", Some("\u{0}\u{1}\n"));
    apply_all(&plan, &model, Position::ZERO, &mut store);
    assert_equal(&plan, &model, &mut store);
    model.rebuild(&plan, &mut store).unwrap();
    assert_equal(&plan, &model, &mut store);
    // A field that is added by hand is a difference.
    fixture.request("POST", "/whole/_update/0", r#"{"doc":{"added":1}}"#);
    let verification = model.verify(&plan, &mut store);
    assert_eq!(keys_that_differ(&verification), ["0"]);
}

pub(crate) fn many_documents_in_several_shards_are_read(fixture: &Fixture) {
    let harness = fixture.harness();
    let mapping = STANDARD.replacen('{', r#"{"settings":{"number_of_shards":3},"#, 1);
    let plan = harness.plan(&mapping);
    let mut model = Model::default();
    for n in 0..6000 {
        model.order(&format!("key {n}"), n, &"a note ".repeat(n as usize % 40));
    }
    let mut store = harness.store(&plan);
    store.take_over().unwrap();
    store.begin_rebuild().unwrap();
    let batch = model.batch(&plan, Position::ZERO);
    for part in batch.changes[0].chunks(2000) {
        store.load(0, part).unwrap();
    }
    store.finish_rebuild(model.place()).unwrap();
    let mut snapshot = store.reader().unwrap();
    let from = model.position();
    for n in 0..6000 {
        model.order(&format!("key {n}"), -n, "changed during the reading");
    }
    apply_all(&plan, &model, from, &mut store);
    let (mut rows, mut total) = (0, 0);
    each_row(snapshot.as_mut(), 0, |row| {
        rows += 1;
        let Cell::Integer(number) = row.cells[1] else {
            panic!()
        };
        total += number;
    });
    assert_eq!((rows, total), (6000, (0..6000).sum()));
    drop(snapshot);
    assert_equal(&plan, &model, &mut store);
}
