use onelog_record::FieldPath;

use super::*;

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

fn plan(mapping: &str) -> Result<Plan, DefinitionError> {
    let text = format!(r#"{{"name":"s","kind":"sqlite","path":"p","mappings":[{mapping}]}}"#);
    let definition = SinkDefinition::from_slice(text.as_bytes()).unwrap();
    Plan::new(&definition, tables().as_slice())
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
    for (value, column, words) in [
        (r#"{"i":"3"}"#, "i", "text"),
        (r#"{"i":9223372036854775808}"#, "i", "64 bits"),
        (r#"{"i":1.5}"#, "i", "1.5"),
        (r#"{"i":1e300}"#, "i", "1e+300"),
        (r#"{"i":true}"#, "i", "true"),
        (r#"{"a":{"t":[1]}}"#, "t", "a list"),
        (r#"{"a":{"t":{}}}"#, "t", "an object"),
        (r#"{"a":{"r":"2"}}"#, "r", "text"),
        (r#"{"b":1}"#, "b", "1"),
        (r#"{"b":"#, "t", "not JSON"),
    ] {
        let fault = row(WIDE, b"k", value).unwrap_err();
        assert_eq!(fault.column, column, "{value}: {fault}");
        assert!(fault.what.contains(words), "{value}: {fault}");
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
