use onelog_commit::SchemaFault;
use serde_json::json;

use super::super::{check_new, of_table};
use super::*;

/// Half of the stack of the threads that decide and that serve requests.
const SMALL_STACK_BYTES: usize = 1 << 20;

fn on_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_stack(SMALL_STACK_BYTES, work).unwrap()
}

/// Definitions of which each leads to the next, and the last to `end`.
fn chain(links: usize, link: impl Fn(Value) -> Value, end: &Value) -> Value {
    let mut definitions = Map::new();
    for n in 1..links {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        definitions.insert(n.to_string(), link(next));
    }
    definitions.insert(links.to_string(), end.clone());
    json!({"$defs": definitions, "$ref": "#/$defs/1"})
}

fn nested(depth: usize) -> String {
    r#"{"x":"#.repeat(depth) + "1" + &"}".repeat(depth)
}

/// Compiles on a small stack, checks there, and drops there.
fn check(schema: &Value, text: &str) -> Result<(), SchemaFault> {
    on_small_stack(|| {
        let compiled = of_table(schema);
        let document = Json::parse(text.as_bytes()).unwrap();
        compiled.check(&document, &mut (1 << 23))
    })
}

/// A kind of subschema, how many levels each takes, and how it holds another one.
type Shape = (&'static str, usize, fn(Value) -> Value);

const AT_ONE_VALUE: [Shape; 10] = [
    ("$ref", 1, |next| next),
    ("allOf", 2, |next| json!({"allOf": [next]})),
    (
        "unevaluatedProperties",
        2,
        |next| json!({"allOf": [next], "unevaluatedProperties": true}),
    ),
    ("anyOf", 2, |next| json!({"anyOf": [false, next]})),
    ("oneOf", 2, |next| json!({"oneOf": [next, false]})),
    ("not", 3, |next| json!({"not": {"not": next}})),
    ("if", 2, |next| json!({"if": next, "else": false})),
    ("then", 2, |next| json!({"if": true, "then": next})),
    ("else", 2, |next| json!({"if": false, "else": next})),
    (
        "dependentSchemas",
        2,
        |next| json!({"dependentSchemas": {"x": next}}),
    ),
];

/// With the number of links, which for patterns is bounded.
const INTO_THE_VALUE: [Shape; 6] = [
    (
        "properties",
        3_000,
        |next| json!({"properties": {"x": next}}),
    ),
    (
        "patternProperties",
        250,
        |next| json!({"patternProperties": {"x": next}}),
    ),
    (
        "additionalProperties",
        3_000,
        |next| json!({"additionalProperties": next}),
    ),
    (
        "propertyNames",
        3_000,
        |next| json!({"propertyNames": next}),
    ),
    ("items", 3_000, |next| json!({"items": next})),
    (
        "unevaluatedProperties",
        3_000,
        |next| json!({"unevaluatedProperties": next}),
    ),
];

#[test]
fn subschemas_nest_so_deep_at_one_value_and_no_deeper() {
    for (name, weight, link) in AT_ONE_VALUE {
        // The outermost one and the last one count as well.
        let most = (AT_ONE_VALUE_MAX - 2) / weight + 1;
        let end = json!({"required": ["y"]});
        let accepted = chain(most, link, &end);
        assert_eq!(on_small_stack(|| check_new(&accepted)), Ok(()), "{name}");
        for text in ["1", r#"{"x":1}"#, r#"{"x":1,"y":12345678901234567.89}"#] {
            let _any = check(&accepted, text);
        }
        let refused = chain(most + 1, link, &end);
        let text = on_small_stack(|| check_new(&refused))
            .unwrap_err()
            .to_string();
        assert!(text.contains("the limit is 1024"), "{name}: {text}");
    }
}

#[test]
fn chains_that_lead_into_the_value_are_as_long_as_a_schema_may_be() {
    for (name, links, link) in INTO_THE_VALUE {
        let schema = chain(links, link, &json!({"type": "string"}));
        assert_eq!(on_small_stack(|| check_new(&schema)), Ok(()), "{name}");
        for text in ["1", "[1]", &nested(120), r#"{"x":{"x":1e30}}"#] {
            let _any = check(&schema, text);
        }
    }
}

#[test]
fn the_deepest_document_is_checked_by_the_deepest_schema() {
    for (name, weight, link) in AT_ONE_VALUE {
        let most = (AT_ONE_VALUE_MAX - 3) / weight;
        let end = json!({"properties": {"x": {"$ref": "#/$defs/1"}}});
        let schema = chain(most, link, &end);
        for text in [
            nested(126),
            nested(126).replace('1', "12345678901234567.89"),
        ] {
            let checked = check(&schema, &text);
            assert!(!matches!(checked, Err(SchemaFault::OutOfSteps)), "{name}");
        }
    }
}

#[test]
fn a_table_of_an_earlier_version_with_a_deeper_schema_takes_no_values() {
    let schema = chain(9_000, |next| next, &json!(true));
    let fault = check(&schema, "1").unwrap_err();
    let SchemaFault::Breaks(text) = fault else {
        panic!("out of steps");
    };
    assert!(
        text.starts_with("the schema of the table cannot be used: "),
        "{text}"
    );
    assert!(text.contains("the limit is 1024"), "{text}");
}

#[test]
fn a_schema_whose_text_nests_deeper_than_it_can_be_read_again_is_refused() {
    let deep = |levels| (1..levels).fold(json!({}), |inner, _| json!({"not": inner}));
    let deepest = json!({"schema": deep(NESTING_MAX)}).to_string();
    assert!(serde_json::from_str::<Value>(&deepest).is_ok());
    let deeper = json!({"schema": deep(NESTING_MAX + 1)}).to_string();
    assert!(serde_json::from_str::<Value>(&deeper).is_err());
    assert_eq!(on_small_stack(|| check_new(&deep(NESTING_MAX))), Ok(()));
    let text = check_new(&deep(NESTING_MAX + 1)).unwrap_err().to_string();
    assert!(text.contains("nests deeper than 126 levels"), "{text}");
}

fn at_one_value(schema: &Value) -> usize {
    Depth::of(schema).unwrap().at_one_value
}

#[test]
fn every_kind_of_reference_is_followed() {
    let inner = json!({"not": {"not": {}}});
    for (schema, levels) in [
        (json!({}), 1),
        (json!(true), 0),
        (json!({"properties": {"x": {"$ref": "#"}}}), 2),
        (
            json!({"$defs": {"a/b c": inner}, "$ref": "#/$defs/a~1b%20c"}),
            4,
        ),
        (
            json!({"$defs": {"a": {"$anchor": "n", "not": inner}}, "$ref": "#n"}),
            5,
        ),
        (
            json!({"$defs": {"a": {"$dynamicAnchor": "n", "not": inner}}, "$dynamicRef": "#n"}),
            5,
        ),
        (
            json!({"$defs": {"a": {"$id": "b/c", "not": inner}}, "$ref": "c"}),
            5,
        ),
        (
            json!({"$defs": {"a": {"$id": "c", "x": inner, "not": {"$ref": "#/x"}}}, "$ref": "c#/not"}),
            5,
        ),
        (
            json!({"definitions": {"a": {"$id": "#n", "not": inner}}, "$ref": "#n"}),
            5,
        ),
        (
            json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
            1 + LEVELS_OF_A_DIALECT,
        ),
    ] {
        assert_eq!(at_one_value(&schema), levels, "{schema}");
    }
}

#[test]
fn alternatives_that_lead_back_to_what_they_are_of_count_once_each() {
    let kinds = 100;
    let all = (0..kinds).map(|n| json!({"$ref": format!("#/$defs/{n}")}));
    let mut definitions =
        Map::from_iter([("pet".to_owned(), json!({"oneOf": all.collect::<Vec<_>>()}))]);
    for n in 0..kinds {
        let own = json!({"properties": {"x": {"const": n}}});
        definitions.insert(
            n.to_string(),
            json!({"allOf": [{"$ref": "#/$defs/pet"}, own]}),
        );
    }
    let schema = json!({"$defs": definitions, "$ref": "#/$defs/pet"});
    // With the way to them and from them.
    assert!((3 * kinds..3 * kinds + 8).contains(&at_one_value(&schema)));
    assert_eq!(on_small_stack(|| check_new(&schema)), Ok(()));
    let _any = check(&schema, &nested(120));
}
