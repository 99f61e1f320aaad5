//! Every type there and back, by both ways of writing.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::Position;
use onelog_store::conformance::{self, Harness as _, LOG, Model, ORDERS};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, must_run, require};
use proptest::prelude::*;

use super::harness::Pg;

const ALL: &str = r#"{"table":"shop.orders","into":"orders","columns":{
  "id":{"from":"$key","type":"text"},"version":{"from":"$version","type":"integer"},
  "whole":{"from":"$value","type":"json"},"raw":{"from":"$value","type":"blob"},
  "text":{"from":"/text","type":"text"},"integer":{"from":"/integer","type":"integer"},
  "real":{"from":"/real","type":"real"},"boolean":{"from":"/boolean","type":"boolean"},
  "json":{"from":"/json","type":"json"},"numeric":{"from":"/numeric","type":"numeric"},
  "timestamp":{"from":"/timestamp","type":"timestamp"},"date":{"from":"/date","type":"date"},
  "uuid":{"from":"/uuid","type":"uuid"},
  "texts":{"from":"/texts","type":"text[]"},"integers":{"from":"/integers","type":"integer[]"},
  "reals":{"from":"/reals","type":"real[]"},"booleans":{"from":"/booleans","type":"boolean[]"},
  "numerics":{"from":"/numerics","type":"numeric[]"},
  "timestamps":{"from":"/timestamps","type":"timestamp[]"},"dates":{"from":"/dates","type":"date[]"},
  "uuids":{"from":"/uuids","type":"uuid[]"}}}"#;

const DOCUMENTS: [&str; 6] = [
    r#"{"text":"é\n'\"\\","integer":-9223372036854775808,"real":1.7976931348623157e308,"boolean":true,
        "json":{"b":[1,2.50,1e3,{"a":null}],"a":"x","a":"y"},"numeric":"-12345678901234567890.000123",
        "timestamp":"2026-11-22T19:15:00.123456Z","date":"2024-02-29",
        "uuid":"01234567-89ab-cdef-0123-456789abcdef",
        "texts":["a","","null","NULL",null,"{\"\\,}"," "],"integers":[1,-9223372036854775808,null],
        "reals":[5e-324,-1.5,1.7976931348623157e308,0],"booleans":[true,null,false],
        "numerics":["0.0001","99999999999999999999",null,-3],
        "timestamps":["0001-01-01T00:00:00Z","9999-12-30T21:59:59.999999Z",null],
        "dates":["0001-01-01","9999-12-31",null],"uuids":["ffffffff-ffff-ffff-ffff-ffffffffffff",null]}"#,
    r#"{"text":"","integer":9223372036854775807,"real":5e-324,"boolean":false,"json":[],"numeric":0,
        "timestamp":"0001-01-01T00:00:00Z","date":"0001-01-01","uuid":"00000000000000000000000000000000",
        "texts":[],"integers":[],"reals":[],"booleans":[],"numerics":[],"timestamps":[],"dates":[],"uuids":[]}"#,
    r#"{"real":-0.0,"numeric":"1e-20","timestamp":"9999-12-30T21:59:59.9999999+00:00","date":"9999-12-31","json":"text","texts":[null]}"#,
    r#"{"real":1e-7,"numeric":1e30,"timestamp":"1969-12-31T23:59:59.999999-12:00","json":1e-10}"#,
    r#"{"numeric":10000.0001,"json":123456789012345678901234567890.5}"#,
    "{}",
];

fn backfilled_by(pg: &Pg, plan: &Arc<Plan>, model: &Model, applied: bool) -> Box<dyn Store> {
    let mut store = pg.open(Arc::clone(plan), LOG);
    store.take_over().unwrap();
    if applied {
        Model::default().rebuild(plan, store.as_mut()).unwrap();
        store.apply(&model.batch(plan, Position::ZERO)).unwrap();
    } else {
        model.rebuild(plan, store.as_mut()).unwrap();
    }
    store
}

fn assert_equal(plan: &Arc<Plan>, model: &Model, store: &mut dyn Store) {
    let found = model.verify(plan, store);
    assert!(found.equal, "{found:#?}");
}

#[test]
fn every_type_comes_back_from_arrays_and_from_a_copy() {
    require!(Kind::Postgres);
    for applied in [true, false] {
        let pg = Pg::new();
        let plan = conformance::plan(&pg, ALL);
        let mut model = Model::default();
        for (n, document) in DOCUMENTS.iter().enumerate() {
            model.write(ORDERS, format!("k{n}").as_bytes(), Some(document));
        }
        let mut store = backfilled_by(&pg, &plan, &model, applied);
        assert_equal(&plan, &model, store.as_mut());
        let types = pg.sql(
            "SELECT string_agg(DISTINCT data_type, ',' ORDER BY data_type) FROM information_schema.columns WHERE table_name = 'orders' AND table_schema = current_schema()",
        );
        assert_eq!(
            types,
            "ARRAY,bigint,boolean,bytea,date,double precision,jsonb,numeric,text,timestamp with time zone,uuid"
        );
        // A merge finds them equal as well, and rewrites nothing.
        let before = pg.sql("SELECT array_agg(ctid ORDER BY id) FROM orders");
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert_equal(&plan, &model, store.as_mut());
        assert_eq!(
            pg.sql("SELECT array_agg(ctid ORDER BY id) FROM orders"),
            before
        );
    }
}

#[test]
fn json_numbers_to_the_ends_of_the_range_of_jsonb_compare_equal() {
    require!(Kind::Postgres);
    // Given numbers of which jsonb shows all digits,
    let ends = [
        "1e-1200".to_owned(),
        "-1.50e-16381".to_owned(),
        "1e-16383".to_owned(),
        "1e131071".to_owned(),
        "0e99999".to_owned(),
        format!("0.{}", "7".repeat(16_383)),
        "7".repeat(131_072),
    ];
    let mut model = Model::default();
    for (n, number) in ends.iter().enumerate() {
        let document = format!(r#"{{"json":[{number}]}}"#);
        model.write(ORDERS, format!("k{n}").as_bytes(), Some(&document));
    }
    for applied in [true, false] {
        // when they are written, then they are the log's own,
        let pg = Pg::new();
        let plan = conformance::plan(&pg, ALL);
        let mut store = backfilled_by(&pg, &plan, &model, applied);
        assert_equal(&plan, &model, store.as_mut());
        // and another number is a difference.
        let found = pg.by_hand(
            &model,
            store.as_mut(),
            &plan,
            "UPDATE orders SET json = '[1e-1201]' WHERE id = 'k0'",
        );
        assert_eq!(found.tables[0].differences_total, 1, "{found:#?}");
        let shown = &found.tables[0].differences[0];
        assert_eq!(
            shown.log.as_ref().unwrap().as_str(),
            r#"{"json":[1e-1200]}"#
        );
    }
}

#[test]
fn json_numbers_that_could_not_be_read_again_are_refused_by_name() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = conformance::plan(&pg, ALL);
    for (number, said) in [
        ("1e-16384", "value overflows numeric format"),
        ("1e131072", "value overflows numeric format"),
        (&"1e131071,".repeat(10_000), "longer than 16 MiB"),
    ] {
        let mut store = backfilled_by(&pg, &plan, &Model::default(), true);
        let mut model = Model::default();
        let document = format!(r#"{{"json":[{}]}}"#, number.trim_end_matches(','));
        model.write(ORDERS, b"k", Some(&document));
        let error = store
            .apply(&model.batch(&plan, Position::ZERO))
            .unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused(refused) if refused.key == "k"),
            "{error}"
        );
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn keys_of_every_type_are_found_again() {
    require!(Kind::Postgres);
    let keys: [(&str, [&str; 2]); 3] = [
        ("integer", ["-5", "9223372036854775807"]),
        (
            "uuid",
            [
                "01234567-89ab-cdef-0123-456789abcdef",
                "00000000-0000-0000-0000-000000000000",
            ],
        ),
        ("blob", ["\u{0}", "ü"]),
    ];
    for (kind, keys) in keys {
        let pg = Pg::new();
        let plan = conformance::plan(
            &pg,
            &format!(
                r#"{{"table":"shop.orders","into":"o","columns":{{"id":{{"from":"$key","type":"{kind}"}},"n":{{"from":"/n","type":"integer"}}}}}}"#
            ),
        );
        let mut model = Model::default();
        for key in keys {
            model.write(ORDERS, key.as_bytes(), Some(r#"{"n":1}"#));
        }
        let mut store = backfilled_by(&pg, &plan, &model, true);
        assert_equal(&plan, &model, store.as_mut());
        model.rebuild(&plan, store.as_mut()).unwrap();
        let from = model.position();
        model.write(ORDERS, keys[0].as_bytes(), Some(r#"{"n":2}"#));
        model.write(ORDERS, keys[1].as_bytes(), None);
        store.apply(&model.batch(&plan, from)).unwrap();
        assert_equal(&plan, &model, store.as_mut());
    }
}

#[test]
fn a_key_that_no_index_can_hold_is_refused_by_name() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = conformance::standard_plan(&pg);
    let (mut store, mut model) = conformance::backfilled(&pg, &plan);
    let from = model.position();
    model.order("short", 1, "fits");
    // Nothing repeats in it, so that it cannot be compressed.
    let key: String = (0..1000_u32)
        .map(|n| blake3::hash(&n.to_le_bytes()).to_hex()[..4].to_owned())
        .collect();
    model.order(&key, 1, "too long for a page of the index");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(refused) if refused.key.as_str().is_some_and(|k| k.starts_with(&key[..100]))),
        "{error}"
    );
    assert!(error.to_string().contains("index row size"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_decimal_number_is_the_servers_own(
        numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,40})(\\.[0-9]{0,30}[1-9])?", 1..20),
    ) {
        if !must_run("any decimal number", &[Kind::Postgres]) {
            return Ok(());
        }
        static SCHEMA: std::sync::OnceLock<(Pg, Arc<Plan>)> = std::sync::OnceLock::new();
        let (pg, plan) = SCHEMA.get_or_init(|| {
            let pg = Pg::new();
            let plan = conformance::plan(&pg, r#"{"table":"shop.orders","into":"n","columns":{
                "id":{"from":"$key","type":"text"},"n":{"from":"/n","type":"numeric"},
                "l":{"from":"/l","type":"numeric[]"},"text":{"from":"/n","type":"text"}}}"#);
            (pg, plan)
        });
        let mut model = Model::default();
        for (n, number) in numbers.iter().enumerate() {
            let document = serde_json::json!({"n": number, "l": numbers}).to_string();
            model.write(ORDERS, format!("{n}").as_bytes(), Some(&document));
        }
        for applied in [true, false] {
            let mut store = backfilled_by(pg, plan, &model, applied);
            assert_equal(plan, &model, store.as_mut());
            // The server reads the same number from its text.
            prop_assert_eq!(pg.sql("SELECT count(*) FROM n WHERE n <> text::numeric"), "0");
        }
    }
}
