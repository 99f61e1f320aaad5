//! What a schema costs is counted: to be compiled, and to check a document. No valid request holds
//! up the others by either.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use onelog::{
    CommitRequest, FieldPath, NewTable, Node, Operation, Options, Refusal, TableError, TableId,
    Write,
};
use onelog_log::SimulatedDisk;
use serde_json::{Value, json};

fn opened() -> Node {
    let disks = [1, 2].map(|seed| Arc::new(SimulatedDisk::new(seed)));
    let [log, state] = disks;
    let options = Options {
        segment_bytes: 4 << 20,
        ..Options::new("in memory")
    };
    Node::open_on(log, state, options).unwrap()
}

fn make(node: &Node, name: &str, schema: Value) -> Result<TableId, TableError> {
    let table = NewTable {
        schema: Some(schema),
        ..NewTable::keyed(format!("t.{name}"))
    };
    Ok(node.create_table_blocking(table)?.0.id)
}

fn write(node: &Node, table: TableId, operation: Operation) -> Result<(), Refusal> {
    let write = Write {
        table,
        key: Bytes::from_static(b"k"),
        operation,
        headers: Vec::new(),
    };
    let request = CommitRequest {
        writes: vec![write],
        ..CommitRequest::default()
    };
    node.submit(request).wait().map(|_| ())
}

fn put(node: &Node, table: TableId, document: &Value) -> Result<(), Refusal> {
    write(
        node,
        table,
        Operation::Put(Bytes::from(document.to_string())),
    )
}

/// Whether a document is refused because checking it would take too many steps.
fn is_too_costly(schema: Value, document: &Value) -> bool {
    let node = opened();
    let table = make(&node, "costly", schema).unwrap();
    match put(&node, table, document) {
        Ok(()) => false,
        Err(Refusal::TooLarge(fault)) => {
            assert_eq!(fault.limit, "SCHEMA_STEPS_MAX");
            true
        }
        Err(refusal) => panic!("{refusal}"),
    }
}

/// A schema for the list `/l` that says this so often, each time a little different.
fn often(times: usize, keyword: impl Fn(usize) -> Value) -> Value {
    let all: Vec<_> = (0..times).map(keyword).collect();
    json!({"properties": {"l": {"allOf": all}}})
}

#[test]
fn the_digits_of_numbers_that_are_divided_count() {
    let schema = |times| {
        let all = vec![json!({"multipleOf": 0.001}); times];
        json!({"properties": {"l": {"items": {"allOf": all}}}})
    };
    let document = json!({"n": 1, "l": vec![123_456_789.125; 60_000]});
    assert!(is_too_costly(schema(64), &document));
    assert!(!is_too_costly(schema(4), &document));
}

#[test]
fn what_must_be_unique_counts_each_time_that_it_is_compared() {
    let schema = |times| {
        often(
            times,
            |n| json!({"uniqueItems": true, "maxItems": 1_000_000 + n}),
        )
    };
    let objects: Vec<_> = (0..60_000).map(|n| json!({"a": n})).collect();
    let objects = json!({"n": 1, "l": objects});
    let numbers = json!({"n": 1, "l": (0..100_000).collect::<Vec<_>>()});
    let texts: Vec<_> = (0..18_000)
        .map(|n| format!("{}{n}", "x".repeat(40)))
        .collect();
    for document in [objects, numbers, json!({"n": 1, "l": texts})] {
        assert!(is_too_costly(schema(256), &document));
        assert!(!is_too_costly(schema(1), &document));
    }
}

#[test]
fn the_bytes_of_a_text_count_for_each_pattern() {
    let schema = |times| {
        let patterns = (0..times).map(|n| {
            let last = char::from(b'a' + u8::try_from(n % 26).unwrap());
            json!({"pattern": format!("^(?:[a-y]|[b-z])*{last}?$")})
        });
        json!({"properties": {"s": {"allOf": patterns.collect::<Vec<_>>()}}})
    };
    let document = json!({"n": 1, "s": "a".repeat(1_000_000)});
    assert!(is_too_costly(schema(250), &document));
    assert!(!is_too_costly(schema(16), &document));
}

#[test]
fn a_pattern_whose_states_are_too_many_to_keep_counts_for_them() {
    let schema = json!({"properties": {"s": {"pattern": "[ab]*a[ab]{40}c|b?"}}});
    let document = json!({"n": 1, "s": "ab".repeat(500_000)});
    assert!(is_too_costly(schema.clone(), &document));
    assert!(!is_too_costly(
        schema,
        &json!({"n": 1, "s": "ab".repeat(500)})
    ));
}

#[test]
fn the_names_of_fields_count_for_each_pattern() {
    let schema = |times| {
        let patterns = (0..times).map(|n| (format!("x{n}y.*z"), json!(true)));
        json!({"patternProperties": patterns.collect::<serde_json::Map<_, _>>()})
    };
    let fields = (0..60_000).map(|n| (format!("f{n:06}"), json!(1)));
    let mut document: serde_json::Map<_, _> = fields.collect();
    document.insert("n".into(), json!(1));
    assert!(is_too_costly(schema(128), &document.clone().into()));
    assert!(!is_too_costly(schema(8), &document.into()));
}

#[test]
fn names_that_are_demanded_count_where_they_are_missing_too() {
    // Each branch looks up many names and then does not hold.
    let names: Vec<_> = (0..1_000).map(|n| format!("f{n}")).collect();
    let demanded: Vec<_> = names.iter().cloned().chain(["missing".into()]).collect();
    let schema = json!({
        "anyOf": vec![json!({"$ref": "#/$defs/all"}); 10_000],
        "$defs": {"all": {"required": demanded}}
    });
    let fields = names.into_iter().map(|name| (name, json!(1)));
    let mut document: serde_json::Map<_, _> = fields.collect();
    document.insert("n".into(), json!(1));
    assert!(is_too_costly(schema, &document.into()));
}

#[test]
fn patterns_that_take_too_much_compiled_are_refused_by_name() {
    // Given patterns of a few bytes that stand for very many states,
    let node = opened();
    let patterns = |count: usize, most: usize| {
        let all = (0..count).map(|n| {
            let most = most + n;
            json!({"pattern": format!("([a-z]{{1,100}}[0-9]?){{1,{most}}}$")})
        });
        json!({"properties": {"s": {"allOf": all.collect::<Vec<_>>()}}})
    };
    // when a table is to have them, then it is refused with the limit,
    let error = make(&node, "large", patterns(250, 50))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("patterns take more than 4194304 bytes"),
        "{error}"
    );
    // and those with look-around are no way around it.
    let ahead = json!({"pattern": "^(?=(?:a{1000}){1000})b"});
    let error = make(&node, "ahead", ahead).unwrap_err().to_string();
    assert!(error.contains("4194304"), "{error}");
    // A few are taken.
    make(&node, "few", patterns(2, 5)).unwrap();
}

#[test]
fn an_operation_is_checked_against_the_schema_that_was_compiled_before() {
    let node = opened();
    let schema = json!({"properties": {"n": {"maximum": 2}}});
    let table = make(&node, "numbers", schema).unwrap();
    put(&node, table, &json!({"n": 1})).unwrap();
    let add = || Operation::Add(FieldPath::parse("/n").unwrap(), 1.into());
    write(&node, table, add()).unwrap();
    let refusal = write(&node, table, add()).unwrap_err();
    assert!(refusal.to_string().contains("/n"), "{refusal}");
}

#[test]
fn what_must_not_fit_is_shown_as_it_was_written() {
    let node = opened();
    let not = json!({"not": {"type": "string", "minLength": 1}});
    for (n, schema) in [
        json!({"properties": {"a": not}}),
        json!({"properties": {"a": {"if": true, "then": not}}}),
        json!({"dependentSchemas": {"a": {"properties": {"a": not}}}}),
        json!({"additionalProperties": not}),
        json!({"propertyNames": {"not": {"pattern": "^a"}}}),
        json!({"properties": {"a": {"not": {"allOf": [{"enum": ["x"]}]}}}}),
    ]
    .into_iter()
    .enumerate()
    {
        let table = make(&node, &format!("not{n}"), schema.clone()).unwrap();
        let refusal = put(&node, table, &json!({"a": "x"}))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("is not allowed for \""), "{refusal}");
        assert!(!refusal.contains("onelog"), "{schema}: {refusal}");
    }
    let table = make(&node, "shown", json!({"properties": {"a": not}})).unwrap();
    let refusal = put(&node, table, &json!({"a": "x"}))
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains(r#"{"type":"string","minLength":1} is not allowed for "x""#),
        "{refusal}"
    );
}
