use onelog_record::{FieldPath, ValueKind};

use super::*;
use crate::rules::no_further_check;
use crate::{EXISTING, FieldRule, FieldValue, RowForm};

fn tables() -> Vec<TableDefinition> {
    let table = |id, name: &str, kind, value| TableDefinition {
        id: TableId(id),
        name: name.into(),
        kind,
        value,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    vec![
        table(1024, "shop.orders", TableKind::Keyed, ValueKind::Json),
        table(1025, "shop.events", TableKind::Stream, ValueKind::Json),
        table(1026, "shop.blobs", TableKind::Keyed, ValueKind::Bytes),
    ]
}

/// A database without lists.
static PLAIN: MappingRules = MappingRules {
    kind: "plain",
    has_type: |kind| !matches!(kind, ColumnType::List(_)),
    full_text: true,
    folds_names: true,
    options: &[],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

/// A database with every type of column.
static RICH: MappingRules = MappingRules {
    kind: "rich",
    has_type: |_| true,
    full_text: false,
    folds_names: true,
    options: &[FieldRule {
        name: EXISTING,
        help: "the table is there already",
        value: FieldValue::Flag,
    }],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

fn plan_for(rules: &MappingRules, mapping: &str) -> Result<Plan, DefinitionError> {
    let mapping = serde_json::from_str(mapping).unwrap();
    let mapping = Mapping::from_json("mappings[0]", &mapping, rules, &[&PLAIN, &RICH]).unwrap();
    Plan::new(rules, &[mapping], tables().as_slice())
}

fn plan(mapping: &str) -> Result<Plan, DefinitionError> {
    plan_for(&PLAIN, mapping)
}

#[test]
fn what_does_not_fit_the_tables_is_named_with_its_place() {
    for (mapping, expected) in [
        (
            r#"{"table":"shop.order","into":"o"}"#,
            "mappings[0].table: there is no table 'shop.order'; did you mean 'shop.orders'?",
        ),
        (r#"{"table":"shop.events","into":"o"}"#, "is a stream"),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"a":{"from":"$key","type":"text"},"b":{"from":"$key","type":"text"}}}"#,
            "mappings[0].columns.b: a second column",
        ),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"a":{"from":"$key","type":"real"}}}"#,
            "mappings[0].columns.a.type: a column from '$key' cannot be of type 'real'",
        ),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"a":{"from":"/x","type":"blob"}}}"#,
            "cannot be of type 'blob'",
        ),
        (
            r#"{"table":"shop.blobs","into":"o","columns":{"a":{"from":"/x","type":"text"}}}"#,
            "have no fields",
        ),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"_KEY":{"from":"/x","type":"text"}}}"#,
            "choose another name",
        ),
        (
            r#"{"table":"shop.orders","into":"o","full_text":["documents"]}"#,
            "did you mean 'document'?",
        ),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"n":{"from":"/n","type":"real"}},"full_text":["n"]}"#,
            "only 'text' and 'json'",
        ),
        (
            r#"{"table":"shop.orders","into":"o","columns":{"rank":{"from":"/n","type":"text"}},"full_text":["rank"]}"#,
            "reserved",
        ),
    ] {
        let error = plan(mapping).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_column_is_added_where_none_is_chosen() {
    let plan =
        plan(r#"{"table":"shop.orders","into":"o","columns":{"n":{"from":"/n","type":"real"}}}"#)
            .unwrap();
    let names: Vec<&str> = plan.mappings[0].column_names().collect();
    assert_eq!(names, ["_key", "n"]);
    assert_eq!(plan.mappings[0].key, 0);
    assert_eq!(plan.of_table(TableId(1024)), [0]);
    assert!(plan.of_table(TableId(1025)).is_empty());
}

fn row(mapping: &str, key: &[u8], value: &str) -> Result<Vec<Cell>, RowFault> {
    let plan = plan(mapping).unwrap();
    let mut row = Row::default();
    // Whatever stood in the row before must not shine through.
    for _ in 0..2 {
        plan.mappings[0].project(key, Offset(7), value.as_bytes(), &mut row)?;
    }
    Ok(row.cells)
}

const WIDE: &str = r#"{"table":"shop.orders","into":"o","columns":{
    "id":{"from":"$key","type":"text"},"t":{"from":"/a/t","type":"text"},"i":{"from":"i","type":"integer"},
    "r":{"from":"/a/r","type":"real"},"b":{"from":"b","type":"boolean"},"j":{"from":"/j","type":"json"},
    "e":{"from":"/list/1","type":"text"},"v":{"from":"$version","type":"integer"}}}"#;

#[test]
fn a_document_becomes_a_row() {
    let value = r#"{"j": {"z": [1,  2.50], "a": null}, "b": true, "i": -3, "a": {"r": 2, "t": "tü\n"}, "list": [1, "one"]}"#;
    assert_eq!(
        row(WIDE, b"k", value).unwrap(),
        [
            Cell::Text("k".into()),
            Cell::Text("tü\n".into()),
            Cell::Integer(-3),
            Cell::Real(2.0),
            Cell::Boolean(true),
            Cell::Json(r#"{"z": [1,  2.50], "a": null}"#.into()),
            Cell::Text("one".into()),
            Cell::Integer(7),
        ]
    );
    let empty = row(WIDE, b"k", r#"{"a": 5, "i": null, "list": {"1": null}}"#).unwrap();
    assert!(
        empty[1..7].iter().all(|cell| *cell == Cell::Null),
        "{empty:?}"
    );
}

#[test]
fn the_last_of_doubled_fields_counts_as_everywhere_else() {
    let cells = row(WIDE, b"k", r#"{"a":{"t":"old","r":1},"a":{"r":2}}"#).unwrap();
    assert_eq!((&cells[1], &cells[3]), (&Cell::Null, &Cell::Real(2.0)));
}

#[test]
fn a_value_that_does_not_fit_its_type_is_refused_with_its_column() {
    for (value, column, message) in [
        (r#"{"i":"3"}"#, "i", "text"),
        (r#"{"i":9223372036854775808}"#, "i", "64 bits"),
        (r#"{"i":1.5}"#, "i", "1.5"),
        (r#"{"i":1e300}"#, "i", "1e300"),
        (r#"{"i":true}"#, "i", "true"),
        (r#"{"a":{"t":[1]}}"#, "t", "a list"),
        (r#"{"a":{"t":{}}}"#, "t", "an object"),
        (r#"{"a":{"r":"2"}}"#, "r", "text"),
        (r#"{"b":1}"#, "b", "1"),
        (r#"{"b":"#, "t", "not JSON"),
    ] {
        let fault = row(WIDE, b"k", value).unwrap_err();
        assert_eq!(fault.column, column, "{value}: {fault}");
        assert!(fault.what.contains(message), "{value}: {fault}");
    }
    let fault = row(WIDE, &[0xff], "{}").unwrap_err();
    assert!(fault.what.contains("'blob'"), "{fault}");
}

#[test]
fn numbers_have_defined_projections() {
    let cells = row(
        WIDE,
        b"k",
        r#"{"i":3.0,"a":{"t":12.5,"r":9007199254740993},"list":[0,true]}"#,
    )
    .unwrap();
    assert_eq!(cells[2], Cell::Integer(3));
    assert_eq!(cells[1], Cell::Text("12.5".into()));
    assert_eq!(cells[3], Cell::Real(9_007_199_254_740_992.0));
    assert_eq!(cells[6], Cell::Text("true".into()));
}

#[test]
fn a_text_is_the_number_as_it_was_written_and_an_integer_is_exact_or_refused() {
    for number in [
        "12345678901234567890123456789",
        "1.10",
        "9007199254740993.0",
        "1E+2",
        "-0.0",
    ] {
        let cells = row(
            WIDE,
            b"k",
            &format!(r#"{{"a":{{"t":{number}}},"list":[0,{number}]}}"#),
        );
        let text = Cell::Text(number.into());
        let cells = cells.unwrap();
        assert_eq!((&cells[1], &cells[6]), (&text, &text));
    }
    for (number, whole) in [
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("9223372036854775807.000", i64::MAX),
        ("-9.223372036854775808e18", i64::MIN),
        ("12e3", 12_000),
        ("-0", 0),
    ] {
        let cells = row(WIDE, b"k", &format!(r#"{{"i":{number}}}"#)).unwrap();
        assert_eq!(cells[2], Cell::Integer(whole), "{number}");
    }
    for (number, message) in [
        ("9223372036854775808.0", "64 bits"),
        ("12345678901234567890123456789", "64 bits"),
        ("12345678901234567.5", "12345678901234567.5 does not fit"),
        ("1e-1", "1e-1 does not fit"),
    ] {
        let fault = row(WIDE, b"k", &format!(r#"{{"i":{number}}}"#)).unwrap_err();
        assert!(fault.what.contains(message), "{number}: {fault}");
    }
    let long = "9".repeat(100_000);
    let fault = row(WIDE, b"k", &format!(r#"{{"i":{long}}}"#)).unwrap_err();
    assert!(fault.what.len() < 200, "{fault}");
}

#[test]
fn overlapping_paths_and_the_whole_document_are_projected_too() {
    let mapping = r#"{"table":"shop.orders","into":"o","columns":{
        "all":{"from":"","type":"json"},"a":{"from":"/a","type":"json"},"b":{"from":"/a/b","type":"integer"},"raw":{"from":"$value","type":"json"}}}"#;
    let cells = row(mapping, b"k", r#"{ "a": {"b": 1} }"#).unwrap();
    assert_eq!(
        cells[1..],
        [
            Cell::Json(r#"{ "a": {"b": 1} }"#.into()),
            Cell::Json(r#"{"b": 1}"#.into()),
            Cell::Integer(1),
            Cell::Json(r#"{ "a": {"b": 1} }"#.into()),
        ]
    );
    assert_eq!(row(mapping, b"k", " null ").unwrap()[4], Cell::Null);
}

#[test]
fn keys_can_be_whole_numbers_and_bytes() {
    let integer = r#"{"table":"shop.blobs","into":"o","columns":{"id":{"from":"$key","type":"integer"},"v":{"from":"$value","type":"blob"}}}"#;
    assert_eq!(
        row(integer, b"-42", "x").unwrap(),
        [Cell::Integer(-42), Cell::Blob(b"x".to_vec())]
    );
    for bad in ["042", "+1", "", "9223372036854775808", "1 "] {
        assert!(row(integer, bad.as_bytes(), "x").is_err(), "{bad}");
    }
    let blob = integer.replace("\"type\":\"integer\"", "\"type\":\"blob\"");
    assert_eq!(row(&blob, &[0xff], "x").unwrap()[0], Cell::Blob(vec![0xff]));
}

proptest::proptest! {
    #[test]
    fn reading_in_passing_equals_reading_the_parsed_document(
        value in json_value(), paths in proptest::collection::vec("(/?[ab01]){0,3}", 1..5),
    ) {
        let columns: Vec<ColumnPlan> = paths.iter().enumerate().map(|(n, path)| ColumnPlan {
            name: format!("c{n}"),
            from: Source::Field(FieldPath::parse(path).unwrap()),
            kind: if n % 2 == 0 { ColumnType::Json } else { ColumnType::Text },
        }).collect();
        let text = value.to_string();
        let (mut one, mut other) = (Row::new(columns.len()), Row::new(columns.len()));
        let passing = Extractor::new(&columns).extract(&columns, text.as_bytes(), &mut one);
        let parsed = Extractor::one_by_one(&columns).extract(&columns, text.as_bytes(), &mut other);
        proptest::prop_assert_eq!(passing.is_ok(), parsed.is_ok());
        if parsed.is_ok() {
            proptest::prop_assert_eq!(one.cells, other.cells);
        }
    }
}

fn json_value() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::prelude::*;
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab\"\\\\\n ü]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[ab01]", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn exact_types_are_taken_from_the_documents_text() {
    let mapping = r#"{"table":"shop.orders","into":"o","columns":{
        "n":{"from":"n","type":"numeric"},"m":{"from":"m","type":"numeric"},
        "at":{"from":"at","type":"timestamp"},"day":{"from":"day","type":"date"},"id":{"from":"id","type":"uuid"}}}"#;
    let document = r#"{"n": 12345678901234567890.10, "m": "-0.50", "at": "2024-05-01T14:00:00.1234567+02:00",
        "day": "2024-02-29", "id": "00112233-4455-6677-8899-AABBCCDDEEFF"}"#;
    let cells = row(mapping, b"k", document).unwrap();
    assert_eq!(cells[1], Cell::Numeric("12345678901234567890.1".into()));
    assert_eq!(cells[2], Cell::Numeric("-0.5".into()));
    assert_eq!(cells[3].show_key(), "2024-05-01T12:00:00.123456Z");
    assert_eq!(cells[4].show_key(), "2024-02-29");
    assert_eq!(cells[5].show_key(), "00112233-4455-6677-8899-aabbccddeeff");
    for (field, wrong) in [
        ("n", r#""12 apples""#),
        ("n", "true"),
        ("n", "1e9999"),
        ("at", r#""2024-05-01""#),
        ("at", "1714564800"),
        ("day", r#""2024-02-30""#),
        ("id", r#""00112233""#),
    ] {
        let fault = row(mapping, b"k", &format!(r#"{{"{field}":{wrong}}}"#)).unwrap_err();
        assert_eq!(fault.column, field, "{wrong}: {fault}");
    }
}

#[test]
fn lists_keep_their_elements_and_their_order() {
    let mapping = r#"{"table":"shop.orders","into":"o","columns":{
        "t":{"from":"t","type":"text[]"},"n":{"from":"n","type":"numeric[]"}}}"#;
    let plan = plan_for(&RICH, mapping).unwrap();
    let mut row = Row::default();
    let mut project = |value: &str| {
        let outcome = plan.mappings[0].project(b"k", Offset(7), value.as_bytes(), &mut row);
        outcome.map(|()| row.cells.clone())
    };
    let cells = project(r#"{"t": ["b", null, "a", 1.50], "n": [0.10, "2"]}"#).unwrap();
    let text = |text: &str| Cell::Text(text.into());
    let number = |text: &str| Cell::Numeric(text.into());
    assert_eq!(
        cells[1],
        Cell::List(vec![text("b"), Cell::Null, text("a"), text("1.50")])
    );
    assert_eq!(cells[2], Cell::List(vec![number("0.1"), number("2")]));
    assert_eq!(project(r#"{"t": []}"#).unwrap()[1], Cell::List(Vec::new()));
    let fault = project(r#"{"t": ["a", {}]}"#).unwrap_err();
    assert!(fault.what.contains("element 1"), "{fault}");
    assert!(project(r#"{"t": "a"}"#).is_err());
}

#[test]
fn a_store_without_a_type_says_which_ones_it_has() {
    let error =
        plan(r#"{"table":"shop.orders","into":"o","columns":{"a":{"from":"a","type":"text[]"}}}"#);
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("mappings[0].columns.a.type: a sink of the kind plain has no columns of the type 'text[]'; it has: text, integer"),
        "{error}"
    );
}

#[test]
fn chosen_fields_keep_their_text_and_absent_ones_stay_absent() {
    let mapping = r#"{"table":"shop.orders","into":"o","fields":{"id":"id","city":"/address/city","first":"/lines/0","all":""}}"#;
    let plan = plan(mapping).unwrap();
    let transform = |value: &str| {
        let value = bytes::Bytes::copy_from_slice(value.as_bytes());
        plan.mappings[0].transform(b"k", Offset(1), &value)
    };
    let transformed = transform(r#"{"id": 1.50, "lines": [{"a" : 1}, 2]}"#)
        .unwrap()
        .unwrap();
    assert_eq!(
        transformed,
        r#"{"id":1.50,"first":{"a" : 1},"all":{"id": 1.50, "lines": [{"a" : 1}, 2]}}"#
    );
    assert_eq!(
        transform(r#"{"address":{"city":null}}"#).unwrap().unwrap(),
        r#"{"city":null,"all":{"address":{"city":null}}}"#
    );
    assert!(transform("[1]").is_err());
}

#[test]
fn a_keys_template_makes_the_key_and_finds_the_record_again() {
    let mapping = r#"{"table":"shop.orders","into":"o","key":"order:{$key}/v1","columns":{"id":{"from":"$key","type":"text"}}}"#;
    assert_eq!(
        row(mapping, b"7", "{}").unwrap()[0],
        Cell::Text("order:7/v1".into())
    );
    let plan = plan(mapping).unwrap();
    let row_of = |text: &str| {
        let mut row = Row::new(1);
        row.cells[0] = Cell::Text(text.into());
        plan.mappings[0].key_of_row(&row)
    };
    assert_eq!(row_of("order:7/v1").as_deref(), Some(&b"7"[..]));
    assert_eq!(row_of("7"), None);
    let error =
        self::plan(&mapping.replace(r#""$key","type":"text""#, r#""$key","type":"integer""#));
    assert!(error.unwrap_err().to_string().contains("mappings[0].key"));
}

#[test]
fn an_older_definitions_fingerprint_has_not_changed() {
    let plan =
        plan(r#"{"table":"shop.orders","into":"o","columns":{"n":{"from":"/n","type":"real"}}}"#)
            .unwrap();
    assert_eq!(
        plan.fingerprint(),
        r#"[[1024,"o",[["_key","$key","text"],["n","/n","real"]],[]]]"#
    );
}

#[test]
fn a_fingerprint_holds_programs_with_the_version_of_their_language_and_options() {
    let mapping = r#"{"table":"shop.orders","into":"o","where":".n > 1","existing":true,"columns":{"n":{"from":"/n","type":"real"}}}"#;
    let plan = plan_for(&RICH, mapping).unwrap();
    assert_eq!(
        plan.fingerprint(),
        format!(
            r#"[[1024,"o",[["_key","$key","text"],["n","/n","real"]],[],{{"language":{},"where":".n > 1","options":{{"existing":true}}}}]]"#,
            onelog_jq::LANGUAGE_VERSION
        )
    );
    let default = mapping.replace(r#""existing":true"#, r#""existing":false"#);
    let without = plan_for(&RICH, &default).unwrap().fingerprint();
    assert!(!without.contains("options"), "{without}");
}
