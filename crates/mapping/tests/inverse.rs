//! Records that are made of rows: the mapping makes the same rows of them again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use onelog_mapping::{
    Cell, Inverse, KeyForm, Mapping, MappingPlan, MappingRules, Plan, Row, RowForm,
    no_further_check,
};
use onelog_record::{Offset, TableDefinition, TableId, TableKind, ValueKind};
use serde_json::Value;

static RULES: MappingRules = MappingRules {
    kind: "rich",
    has_type: |_| true,
    full_text: false,
    folds_names: true,
    options: &[],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

fn read(mapping: &str) -> (Mapping, Plan) {
    let value: Value = serde_json::from_str(mapping).unwrap();
    let mapping = Mapping::from_json("mappings[0]", &value, &RULES, &[&RULES]).unwrap();
    let table = TableDefinition {
        id: TableId(1024),
        name: "t".to_owned(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    let plan = Plan::new(&RULES, std::slice::from_ref(&mapping), &[table][..]).unwrap();
    (mapping, plan)
}

#[test]
fn a_row_of_every_type_comes_back_as_it_was() {
    let (mapping, plan) = read(
        r#"{"table":"t","into":"rows","key":"row-{$key}","columns":{
            "id":{"from":"$key","type":"text"},"i":{"from":"/numbers/i","type":"integer"},
            "n":{"from":"/numbers/n","type":"numeric"},"r":{"from":"r","type":"real"},
            "b":{"from":"b","type":"boolean"},"t":{"from":"/a~1b","type":"text"},
            "j":{"from":"j","type":"json"},"m":{"from":"m","type":"timestamp"},
            "d":{"from":"d","type":"date"},"u":{"from":"u","type":"uuid"},
            "l":{"from":"l","type":"text[]"},"x":{"from":"/list/0","type":"text"}}}"#,
    );
    let plan = &plan.mappings[0];
    let mut inverse = Inverse::new("mappings[0]", &mapping, plan).unwrap();
    let full = vec![
        Cell::Text("row-ä\"1".into()),
        Cell::Integer(i64::MIN),
        Cell::Numeric("-12345678901234567890123456789.000000000000000001".into()),
        Cell::Real(0.1 + 0.2),
        Cell::Boolean(true),
        Cell::Text("1.50 \u{0}\n'\"".into()),
        Cell::Json(r#"{"wei": 10000000000000000000000001, "n": [1.10]}"#.into()),
        Cell::Timestamp(-62_135_596_800_000_000),
        Cell::Date(-719_162),
        Cell::Uuid([7; 16]),
        Cell::List(vec![Cell::Text("a".into()), Cell::Null]),
        Cell::Text("first".into()),
    ];
    let mut empty = vec![Cell::Null; full.len()];
    empty[0] = full[0].clone();
    for cells in [full, empty] {
        let mut row = Row::new(cells.len());
        row.cells = cells;
        let (key, document) = inverse.document(plan, &row).unwrap();
        assert_eq!(key, "ä\"1".as_bytes());
        let mut again = Row::default();
        plan.project(&key, Offset(7), document.as_bytes(), &mut again)
            .unwrap();
        assert_eq!(again.cells, row.cells, "{document}");
    }
}

#[test]
fn what_has_no_inverse_is_refused_at_its_place() {
    let columns = |more: &str| {
        format!(
            r#"{{"table":"t","into":"rows","columns":{{"id":{{"from":"$key","type":"text"}},{more}}}}}"#
        )
    };
    let whole = |more: &str| format!(r#"{{"table":"t","into":"rows",{more}}}"#);
    for (mapping, place) in [
        (whole(r#""where":".a > 1""#), "where"),
        (whole(r#""transform":"{a}""#), "transform"),
        (whole(r#""fields":["a"]"#), "fields"),
        (
            columns(r#""v":{"from":"$version","type":"integer"}"#),
            "columns.v",
        ),
        (
            columns(r#""v":{"from":"$value","type":"text"}"#),
            "columns.v",
        ),
        (
            columns(r#""a":{"from":"a","type":"json"},"b":{"from":"/a/b","type":"text"}"#),
            "columns.b.from",
        ),
        (
            columns(r#""a":{"from":"a","type":"text"},"b":{"from":"a","type":"json"}"#),
            "columns.b.from",
        ),
    ] {
        let (read, plan) = read(&mapping);
        let error = Inverse::new("mappings[0]", &read, &plan.mappings[0]).unwrap_err();
        assert_eq!(error.place, format!("mappings[0].{place}"), "{mapping}");
    }
    // A key that no template made, a number that JSON has not.
    let (mapping, plan) = read(
        r#"{"table":"t","into":"rows","key":"k-{$key}","columns":{
            "id":{"from":"$key","type":"text"},"r":{"from":"r","type":"real"}}}"#,
    );
    let plan = &plan.mappings[0];
    let mut inverse = Inverse::new("mappings[0]", &mapping, plan).unwrap();
    let mut row = Row::new(2);
    row.cells = vec![Cell::Text("k-1".into()), Cell::Real(f64::NAN)];
    assert_eq!(inverse.document(plan, &row).unwrap_err().column, "r");
    row.cells = vec![Cell::Text("other".into()), Cell::Real(1.0)];
    assert_eq!(inverse.document(plan, &row).unwrap_err().column, "id");
}

const TYPED: &str = r#"{"table":"t","into":"rows","columns":{"id":{"from":"$key","type":"integer"},
            "n":{"from":"n","type":"numeric"},"i":{"from":"i","type":"integer"},
            "r":{"from":"r","type":"real"},"t":{"from":"t","type":"text"},
            "j":{"from":"j","type":"json"},"m":{"from":"m","type":"timestamp"},
            "d":{"from":"d","type":"date"},"l":{"from":"l","type":"date[]"}}}"#;

/// A row with this cell alone.
fn with(plan: &MappingPlan, name: &str, cell: Cell) -> Row {
    let mut row = Row::new(plan.columns.len());
    row.cells[0] = Cell::Integer(7);
    let column = plan.column_names().position(|known| known == name);
    row.cells[column.unwrap()] = cell;
    row
}

#[test]
fn what_no_record_makes_is_refused_with_what_the_column_holds() {
    let (mapping, plan) = read(TYPED);
    let plan = &plan.mappings[0];
    let mut inverse = Inverse::new("mappings[0]", &mapping, plan).unwrap();
    let text = |text: &str| Cell::Text(text.to_owned());
    for (name, cell, held) in [
        ("m", text("infinity"), "\"infinity\""),
        (
            "m",
            Cell::Timestamp(253_402_300_800_000_000),
            "\"+010000-01-01T00:00:00Z\"",
        ),
        (
            "m",
            Cell::Timestamp(i64::MIN),
            "\"-290308-12-21T19:59:05.224192Z\"",
        ),
        ("d", text("-infinity"), "\"-infinity\""),
        ("d", Cell::Date(-719_163), "\"0000-12-31\""),
        ("d", Cell::Timestamp(1), "\"1970-01-01T00:00:00.000001Z\""),
        ("l", Cell::List(vec![text("infinity")]), "[\"infinity\"]"),
        ("n", text("NaN"), "\"NaN\""),
        ("n", Cell::Numeric("9".repeat(1_101)), "\"999"),
        ("i", Cell::Numeric("1.5".into()), "\"1.5\""),
        ("i", text("7"), "\"7\""),
        ("r", Cell::Real(f64::INFINITY), "inf"),
        ("r", Cell::Integer((1 << 53) + 1), "9007199254740993"),
        (
            "t",
            Cell::Integer(5),
            "5, for which the mapping of the type 'text' writes \"5\"",
        ),
        (
            "j",
            Cell::Json("null".into()),
            "the JSON value null, for which the mapping of the type 'json' writes NULL",
        ),
        ("j", Cell::Json("nul".into()), "the JSON value"),
    ] {
        let fault = inverse
            .document(plan, &with(plan, name, cell.clone()))
            .unwrap_err();
        assert_eq!(fault.column, name, "{cell:?}: {fault}");
        let expected = format!("it holds {held}");
        assert!(fault.what.starts_with(&expected), "{cell:?}: {fault}");
    }
}

/// Some stores have columns that take numbers of any type.
#[test]
fn the_same_number_in_another_type_is_the_same() {
    let (mapping, plan) = read(TYPED);
    let plan = &plan.mappings[0];
    let mut inverse = Inverse::new("mappings[0]", &mapping, plan).unwrap();
    for (name, cell) in [
        ("n", Cell::Integer(5)),
        ("n", Cell::Real(0.1)),
        ("n", Cell::Text("1.50".into())),
        ("i", Cell::Real(2.0)),
        ("r", Cell::Integer(1 << 53)),
        ("r", Cell::Numeric("0.1".into())),
        ("j", Cell::Json("{\"a\": null}".into())),
    ] {
        inverse.document(plan, &with(plan, name, cell)).unwrap();
    }
}
