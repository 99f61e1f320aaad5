use onelog_commit::SchemaFault;
use onelog_record::Json;
use serde_json::json;

use super::super::{check_new, compile};
use super::*;

const STEPS: usize = 1 << 20;

fn check(schema: &Value, document: &Value) -> (Result<(), SchemaFault>, usize) {
    check_within(STEPS, schema, document)
}

fn check_within(
    steps: usize,
    schema: &Value,
    document: &Value,
) -> (Result<(), SchemaFault>, usize) {
    let text = document.to_string();
    let mut left = steps;
    let document = Json::parse(text.as_bytes()).unwrap();
    let checked = compile(schema).unwrap().check(&document, &mut left);
    (checked, steps - left)
}

/// A document that nests `field` so deep.
fn nested(depth: usize, inner: Value) -> Value {
    (0..depth).fold(inner, |inner, _| json!({"a": inner}))
}

#[test]
fn references_that_double_the_work_at_each_level_end() {
    let mut definitions = Map::new();
    for n in 0..60 {
        let next = format!("#/$defs/d{}", n + 1);
        let twice = json!({"allOf": [{"$ref": next}, {"$ref": next}]});
        definitions.insert(format!("d{n}"), twice);
    }
    definitions.insert("d60".into(), json!({"type": "integer"}));
    let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    assert_eq!(
        check(&schema, &json!(1)),
        (Err(SchemaFault::OutOfSteps), STEPS)
    );

    // What a reference to itself says of a part of the document is found once.
    let itself = json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
    for depth in [5, 100] {
        assert_eq!(check(&itself, &nested(depth, json!(1))).0, Ok(()));
    }
}

#[test]
fn a_pattern_that_goes_back_and_forth_ends() {
    let schema = json!({"items": {"pattern": "^(?=(a+)+$)(a|aa)+$"}});
    let texts: Value = (0..10_000).map(|_| "a".repeat(60) + "b").collect();
    let (checked, _) = check(&schema, &texts);
    assert!(checked.is_err(), "{checked:?}");
    let texts: Value = (0..10_000).map(|_| "a".repeat(9)).collect();
    assert_eq!(check(&schema, &texts).0, Err(SchemaFault::OutOfSteps));
    let refers = json!({"items": {"pattern": "^(?:(a)\\1?)+$"}});
    assert_eq!(check(&refers, &texts).0, Err(SchemaFault::OutOfSteps));
}

#[test]
fn one_match_goes_back_only_so_far() {
    // A reference is never left to the engine that does not go back, and there are some ten
    // thousand ways to read the text as pairs and single letters.
    let schema = json!({"pattern": "^(?!(?:(a)\\1?)+$)a+b$"});
    let (checked, _) = check(&schema, &json!("a".repeat(8) + "b"));
    assert_eq!(checked, Ok(()));
    let (checked, _) = check(&schema, &json!("a".repeat(22) + "b"));
    let Err(SchemaFault::Breaks(text)) = checked else {
        panic!("{checked:?}")
    };
    assert!(text.contains("backtrack"), "{text}");
}

#[test]
fn long_lists_are_counted_for_each_value_that_is_compared_with_them() {
    let schema = json!({"items": {"enum": (0..10_000).collect::<Vec<_>>()}});
    let numbers: Value = (0..10_000).map(|_| 9_999).collect();
    assert_eq!(check(&schema, &numbers).0, Err(SchemaFault::OutOfSteps));
}

#[test]
fn branches_that_fail_are_counted_as_those_that_hold() {
    for both in ["anyOf", "oneOf"] {
        let mut definitions = Map::new();
        for n in 0..60 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            definitions.insert(format!("d{n}"), json!({both: [next, next]}));
        }
        definitions.insert("d60".into(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        assert_eq!(
            check(&schema, &json!(1)),
            (Err(SchemaFault::OutOfSteps), STEPS)
        );
    }
    let pattern = json!({"pattern": "^(?=(a+)+$)(a|aa)+$"});
    let often = json!({"items": {"not": {"allOf": [{"anyOf": vec![pattern; 200]}]}}});
    let texts: Value = (0..10_000).map(|_| "a".repeat(60) + "b").collect();
    assert_eq!(check(&often, &texts).0, Err(SchemaFault::OutOfSteps));
    let listed = json!({"enum": (0..1_000).collect::<Vec<_>>()});
    let often = json!({"items": {"not": {"anyOf": vec![listed; 50]}}});
    let numbers: Value = (0..10_000).map(|_| -1).collect();
    assert_eq!(check(&often, &numbers).0, Err(SchemaFault::OutOfSteps));
}

#[test]
fn what_a_branch_looks_at_before_it_fails_is_counted() {
    // Given a subschema that does not hold, by the last of very many fields inside of one,
    let names = (0..1_000).map(|n| (format!("a{n}"), json!(true)));
    let mut properties: Map<_, _> = names.collect();
    properties.insert("z".into(), json!(false));
    let inside = json!({"properties": {"x": {"properties": properties}}});
    let patterns = json!({"^(?=(a+)+$)b": true, "^z": false});
    let matched = json!({"properties": {"x": {"patternProperties": patterns}}});
    let fields = (0..1_000).map(|n| (format!("a{n}"), json!(n)));
    let mut fields: Map<_, _> = fields.collect();
    fields.insert("z".into(), json!(1));
    let documents = vec![json!({"x": fields}); 100];
    let branch = json!({"$ref": "#/$defs/p"});
    let mut branches = vec![branch.clone(); 200];
    branches.push(json!(true));
    let each = |keyword: Value| json!({"allOf": vec![keyword; 200]});
    for part in [inside, matched] {
        for often in [
            json!({"anyOf": branches}),
            json!({"oneOf": branches}),
            each(json!({"not": branch})),
            each(json!({"if": branch})),
        ] {
            // when the check goes on all the same, again and again, then it ends for its steps.
            let schema = json!({"items": often, "$defs": {"p": part}});
            let (checked, _) = check(&schema, &json!(documents));
            assert_eq!(checked, Err(SchemaFault::OutOfSteps));
        }
        let schema = each(json!({"not": {"contains": branch}}));
        let schema = json!({"allOf": [schema], "$defs": {"p": part}});
        let (checked, _) = check(&schema, &json!(documents));
        assert_eq!(checked, Err(SchemaFault::OutOfSteps));
    }
    // Branches that look at nothing inside cost what they did.
    let schema = json!({"items": {"anyOf": [{"type": "null"}, {"minProperties": 1}]}});
    let (checked, steps) = check(&schema, &json!(documents));
    assert_eq!(checked, Ok(()));
    assert!(steps < 50_000, "{steps}");
}

#[test]
fn large_values_are_counted_each_time_that_a_schema_reads_them() {
    let often = |keyword: Value| json!({"allOf": vec![keyword; 1_000]});
    let text = json!("a".repeat(100_000));
    let list: Value = (0..10_000).collect();
    for (schema, value) in [
        (often(json!({"pattern": "b?$"})), &text),
        (often(json!({"uniqueItems": true})), &list),
    ] {
        assert_eq!(check(&schema, value).0, Err(SchemaFault::OutOfSteps));
    }
    // Each pattern is matched with the name of each field.
    let patterns = (0..200).map(|n| (format!("^x{n}$"), json!({})));
    let schema = json!({"patternProperties": patterns.collect::<Map<_, _>>()});
    let fields = (0..10_000).map(|n| (format!("f{n}"), json!(n)));
    let object = Value::Object(fields.collect());
    assert_eq!(check(&schema, &object).0, Err(SchemaFault::OutOfSteps));
}

#[test]
fn lists_whose_elements_differ_deep_inside_are_compared_in_time() {
    // All of these have the numbers 1 to 12 in this order, and differ in their brackets alone.
    fn nested(from: usize, to: usize, out: &mut Vec<Value>) {
        for at in from + 1..to {
            let (left, right): (Vec<_>, Vec<_>) = (from..to).partition(|n| *n < at);
            for end in at + 1..=to {
                let (inner, rest) = right.split_at(end - at);
                out.push(json!([left, [inner, rest]]));
                out.push(json!([[left, inner], rest]));
                out.push(json!([left, inner, [rest]]));
            }
        }
    }
    let mut shapes = Vec::new();
    nested(0, 60, &mut shapes);
    shapes.sort_by_key(ToString::to_string);
    shapes.dedup();
    assert!(shapes.len() > 4_000, "{}", shapes.len());
    let schema = json!({"uniqueItems": true});
    let enough = 1 << 26;
    let (checked, steps) = check_within(enough, &schema, &Value::from(shapes.clone()));
    assert_eq!(checked, Ok(()));
    // Each value in them is counted.
    assert!(steps > shapes.len() * 60 * UNIQUE_STEPS, "{steps}");
    shapes.truncate(1_000);
    shapes.push(shapes[7].clone());
    let (checked, _) = check_within(enough, &schema, &Value::from(shapes));
    let Err(SchemaFault::Breaks(text)) = checked else {
        panic!("{checked:?}")
    };
    assert!(text.contains("non-unique"), "{text}");
}

#[test]
fn long_names_are_counted_for_each_pattern_that_is_matched_with_them() {
    let document = json!({"x".repeat(100_000): 1});
    let patterns = json!({"patternProperties": {"^y": {}, "z$": {}}});
    let branch = json!({"$ref": "#/$defs/p"});
    for (schema, at_least) in [
        (patterns.clone(), 2 * 100_000 / BYTES_PER_STEP),
        (
            json!({"additionalProperties": {}}),
            100_000 / BYTES_PER_STEP,
        ),
        (
            json!({"anyOf": vec![branch; 50], "$defs": {"p": {"patternProperties": {"^x": false}}}}),
            50 * 100_000 / BYTES_PER_STEP,
        ),
    ] {
        let (_, steps) = check(&schema, &document);
        assert!(steps >= at_least, "{schema}: {steps}");
    }
}

#[test]
fn a_table_of_an_earlier_version_keeps_a_reference_into_a_list_of_values() {
    for schema in [
        json!({"properties": {"a": {"$ref": "#/enum/0"}}, "enum": [{"type": "integer"}, {"a": 1}, {"a": "x"}]}),
        json!({"properties": {"a": {"$ref": "#/$defs/n/const"}}, "$defs": {"n": {"const": {"type": "integer"}}}}),
    ] {
        assert!(check_new(&schema).is_err());
        assert_eq!(check(&schema, &json!({"a": 1})).0, Ok(()), "{schema}");
        let (checked, _) = check(&schema, &json!({"a": "x"}));
        assert!(checked.is_err(), "{schema}");
    }
}

#[test]
fn an_ordinary_document_costs_a_step_or_two_for_each_field() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
            "tree": {"$ref": "#/$defs/tree"},
        },
        "$defs": {"tree": {
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "integer"}]}}
        }},
    });
    let document = json!({"name": "x", "tree": nested(20, json!(1))});
    let (checked, steps) = check(&schema, &document);
    assert_eq!(checked, Ok(()));
    assert!((20..200).contains(&steps), "{steps} steps");
    // A check that was ended leaves nothing behind.
    let mut none = 3;
    let text = document.to_string();
    let parsed = Json::parse(text.as_bytes()).unwrap();
    let compiled = compile(&schema).unwrap();
    assert_eq!(
        compiled.check(&parsed, &mut none),
        Err(SchemaFault::OutOfSteps)
    );
    let mut enough = STEPS;
    assert_eq!(compiled.check(&parsed, &mut enough), Ok(()));
}

#[test]
fn a_table_of_an_earlier_version_keeps_patterns_that_are_beyond_the_limit() {
    let patterns =
        (100..110).map(|most| json!({"pattern": format!("^([a-z]{{1,100}}[0-9]?){{1,{most}}}$")}));
    let schema = json!({"allOf": patterns.collect::<Vec<_>>()});
    let error = check_new(&schema).unwrap_err().to_string();
    assert!(error.contains("4194304 bytes"), "{error}");
    let (checked, steps) = check(&schema, &json!("abc1"));
    assert_eq!(checked, Ok(()));
    // A byte costs what a pattern of that size may take.
    assert!(steps > 10_000, "{steps}");
    assert!(check(&schema, &json!("-")).0.is_err());
}

#[test]
fn what_a_text_costs_to_read_is_counted_where_the_branch_does_not_hold() {
    let text = json!("x".repeat(100_000));
    for keyword in [
        json!({"minLength": 200_000}),
        json!({"maxLength": 10}),
        json!({"pattern": "^y"}),
    ] {
        let branches = vec![json!({"$ref": "#/$defs/k"}); 2_000];
        let schema = json!({"anyOf": branches, "$defs": {"k": keyword}});
        assert_eq!(check(&schema, &text).0, Err(SchemaFault::OutOfSteps));
    }
}

#[test]
fn a_schema_is_shown_as_it_was_written() {
    for schema in [
        json!({"type": "string"}),
        json!({"const": 1, "allOf": [{"required": ["a"]}, true], "if": {"enum": [{}]}}),
        json!({"properties": {"const": {"pattern": "x"}}, "not": {"anyOf": [{"not": {}}]}}),
        json!({"default": {"allOf": []}, "$ref": "#/$defs/a", "$defs": {"a": {"minLength": 1}}}),
    ] {
        assert_eq!(unmarked(&marked(&schema)), schema);
    }
}

#[test]
fn a_new_schema_is_bounded_and_refers_to_schemas_alone() {
    let patterns: Vec<_> = (0..300).map(|_| json!({"pattern": "a"})).collect();
    for (schema, expected) in [
        (json!({"anyOf": patterns}), "300 patterns"),
        (json!({"description": "x".repeat(300_000)}), "300018 bytes"),
        (
            json!({"$ref": "#/default", "default": {"type": "null"}}),
            "no schema",
        ),
    ] {
        let error = check_new(&schema).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let named = json!({"$ref": "#/$defs/default", "$defs": {"default": {"type": "null"}}});
    assert_eq!(check_new(&named), Ok(()));
}

#[test]
fn a_document_that_fails_once_behind_very_many_matches_ends_for_its_steps() {
    // Given patterns that cost much, and a last one by which a document does not hold,
    let patterns = json!({"^(?=(a+)+$)b": true, "^(?=(a+)+$)c": true, "^z": false});
    let schema = json!({"patternProperties": patterns});
    let contains = json!({"contains": schema});
    let document = |names: usize| {
        let fields = (0..names).map(|n| (format!("a{n}"), json!(n)));
        let mut fields: Map<_, _> = fields.collect();
        fields.insert("z".into(), json!(1));
        Value::Object(fields)
    };
    // then one with few names is said to break the schema, and one with very many takes too much.
    let (few, many) = (document(10), document(5_000));
    let breaks = |checked| matches!(checked, Err(SchemaFault::Breaks(_)));
    assert!(breaks(check(&schema, &few).0));
    assert!(breaks(check(&contains, &json!([few])).0));
    assert_eq!(check(&schema, &many).0, Err(SchemaFault::OutOfSteps));
    assert_eq!(
        check(&contains, &json!([many])).0,
        Err(SchemaFault::OutOfSteps)
    );
}
