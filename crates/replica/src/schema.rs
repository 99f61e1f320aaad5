//! JSON Schema, behind the validator's own trait so that the library stays replaceable.

mod depth;
mod exact;
mod patterns;
mod steps;
mod unseen;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ReferencingError, ValidationError, Validator};
use onelog_commit::{Schema, SchemaFault};
use onelog_record::{Json, QUOTED_BYTES_MAX, Quoted, quoted};
use serde_json::Value;

use self::depth::{Depth, Held};
use self::unseen::Unseen;

/// A text that is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid JSON Schema: {0}")]
pub struct SchemaError(String);

/// The most steps that finding the reason of a refusal takes: the library then looks at what it has
/// looked at for deciding, once more.
const REASON_STEPS_MAX: usize = 1 << 22;
/// The most of them that visit a part to say what is wrong with it, in a schema with `anyOf` or
/// `oneOf`: the library builds the errors of all branches, with their places. Each takes a few
/// hundred bytes, and a step builds a few.
const BRANCHES_STEPS_MAX: usize = 1 << 14;
/// The most members of a list or object, and the longest place, of a document for which such errors
/// are built.
const MEMBERS_MAX: usize = 1 << 16;
const PLACE_BYTES_MAX: usize = 1 << 10;
const NO_THREAD: &str = "cannot start a thread for the schema: ";
const TOO_LONG: &str =
    "the document does not fit the schema, and the reason takes too long to find";

/// The schema of a table. It is compiled when it is first needed, which is on the thread that brings
/// a request: neither the thread that decides nor a start, which meets the schemas of all tables that
/// ever were, waits for it.
#[derive(Debug)]
struct Lazy {
    text: Value,
    compiled: OnceLock<Result<Compiled, SchemaError>>,
}

#[derive(Debug)]
struct Compiled {
    /// With the keyword that counts steps in it.
    schema: Value,
    has_branches: bool,
    compares: bool,
    /// What a document that does not hold may have looked at without a step.
    unseen: Unseen,
    depth: Depth,
    validator: Held<Validator>,
    /// For documents with numbers that `validator` would round. Few have any.
    exact: OnceLock<Result<Held<Validator>, String>>,
}

/// The schema of a table that is there.
pub(crate) fn of_table(schema: &Value) -> Arc<dyn Schema> {
    Arc::new(Lazy {
        text: schema.clone(),
        compiled: OnceLock::new(),
    })
}

/// Compiles a schema. References to other documents are refused: a decision may rest on nothing
/// outside the log.
fn compile(schema: &Value) -> Result<Compiled, SchemaError> {
    let depth = Depth::of(schema).map_err(SchemaError)?;
    compile_within(schema, depth)
}

fn compile_within(schema: &Value, depth: Depth) -> Result<Compiled, SchemaError> {
    let compiled = depth.compile(|| compile_here(schema, depth));
    compiled.unwrap_or_else(|error| Err(SchemaError(NO_THREAD.to_owned() + &error.to_string())))
}

fn compile_here(schema: &Value, depth: Depth) -> Result<Compiled, SchemaError> {
    let has_branches = steps::has_branches(schema);
    let compares = steps::compares(schema);
    let unseen = Unseen::of_whole(schema);
    let schema = steps::marked(schema);
    let validator = steps::options()
        .build(&schema)
        .map_err(|error| SchemaError(refused(&error)))?;
    Ok(Compiled {
        schema,
        has_branches,
        compares,
        unseen,
        depth,
        validator: Held::new(validator, depth),
        exact: OnceLock::new(),
    })
}

/// Whether a schema can be that of a new table. Those of tables that are there are compiled as they
/// are.
pub(crate) fn check_new(schema: &Value) -> Result<(), SchemaError> {
    let depth = Depth::of(schema).map_err(SchemaError)?;
    // One that takes too much is not compiled.
    steps::check(schema).map_err(SchemaError)?;
    compile_within(schema, depth).map(drop)
}

fn refused(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "it refers to another document, '{}'; put what it refers to under \"$defs\" in the schema itself",
            Quoted(uri)
        ),
        _ => quoted(&error.to_string()),
    }
}

impl Lazy {
    fn compiled(&self) -> Result<&Compiled, SchemaFault> {
        let compiled = self.compiled.get_or_init(|| compile(&self.text));
        // What is in the log was a schema for the version that took it in.
        let unusable = |error: &SchemaError| {
            SchemaFault::Breaks(format!("the schema of the table cannot be used: {error}"))
        };
        compiled.as_ref().map_err(unusable)
    }
}

impl Schema for Lazy {
    fn check(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault> {
        self.compiled()?.check(value, steps)
    }

    fn prepare(&self) {
        if let Ok(compiled) = self.compiled() {
            // A document that is there may have such numbers.
            compiled.exact();
        }
    }
}

impl Compiled {
    fn check(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault> {
        let checked = self.depth.check(value, || self.check_here(value, steps));
        checked.unwrap_or_else(|error| {
            Err(SchemaFault::Breaks(
                NO_THREAD.to_owned() + &error.to_string(),
            ))
        })
    }

    fn check_here(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault> {
        let mut copy = Value::from(value);
        if self.compares {
            steps::within(steps, || steps::sort(&mut copy)).ok_or(SchemaFault::OutOfSteps)?;
        }
        if value.find_number(&is_beyond_the_library).is_none() {
            return self.decide(self.validator.get(), &copy, steps);
        }
        let exact = self.exact().as_ref();
        let exact = exact.map_err(|error| SchemaFault::Breaks(error.clone()))?;
        exact::with_numbers(value, &copy, || self.decide(exact.get(), &copy, steps))
    }

    fn exact(&self) -> &Result<Held<Validator>, String> {
        self.exact.get_or_init(|| {
            let compile = || exact::compile(&self.schema).map_err(|error| error.to_string());
            let compiled = self.depth.compile(compile);
            let compiled =
                compiled.map_err(|error| NO_THREAD.to_owned() + &error.to_string())??;
            Ok(Held::new(compiled, self.depth))
        })
    }

    fn decide(
        &self,
        validator: &Validator,
        copy: &Value,
        steps: &mut usize,
    ) -> Result<(), SchemaFault> {
        // It ends what asked for it where it fails, so this is not taken off: it must be there.
        if self.unseen.cost(copy) > *steps {
            return Err(SchemaFault::OutOfSteps);
        }
        let fits = steps::within(steps, || validator.is_valid(copy));
        match fits.ok_or(SchemaFault::OutOfSteps)? {
            true => Ok(()),
            false => Err(SchemaFault::Breaks(self.reason(validator, copy, steps))),
        }
    }

    /// Why a document is refused, as far as that is found with few steps and little memory.
    fn reason(&self, validator: &Validator, copy: &Value, steps: &mut usize) -> String {
        let building = match self.has_branches {
            true if !steps::is_within(copy, MEMBERS_MAX, PLACE_BYTES_MAX) => 0,
            true => BRANCHES_STEPS_MAX,
            false => REASON_STEPS_MAX,
        };
        let given = REASON_STEPS_MAX.min(*steps);
        let mut left = given;
        let check = || validator.validate(copy).map_err(described);
        let found = steps::within_building(&mut left, building, check);
        *steps -= given - left;
        match found {
            Some(Err(reason)) => reason,
            _ => TOO_LONG.to_owned(),
        }
    }
}

/// Whether the library could calculate with another number than this one: it keeps what does not
/// fit 64 bits as a float, whose digits are its own from two to the power of 53 on.
fn is_beyond_the_library(number: &str) -> bool {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let whole = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
    let small = || {
        number
            .parse::<f64>()
            .is_ok_and(|float| float.abs() < EXACT_MAX)
    };
    let kept = || Json::Number(number.into()).rounded_number().is_none();
    !(whole || (small() && kept()))
}

fn described(error: ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() {
        "the document".to_owned()
    } else {
        place
    };
    format!("{}: {}", Quoted(&place), Quoted(&reason_of(&error)))
}

fn reason_of(error: &ValidationError<'_>) -> String {
    let negated = match error.kind() {
        ValidationErrorKind::Not { schema } => Some(schema),
        // Of a name: the library nests what is wrong with it.
        ValidationErrorKind::PropertyNames { error } => return reason_of(error),
        _ => None,
    };
    let is_copied = matches!(error.instance(), Cow::Owned(_));
    let written = exact::shown_as_written(error.instance(), is_copied);
    if let Some(schema) = negated {
        let value = written.unwrap_or_else(|| error.instance().to_string());
        // The library would show the schema as it was compiled.
        let schema = steps::unmarked(schema).to_string();
        return match format!("{schema} is not allowed for {value}") {
            text if text.len() <= QUOTED_BYTES_MAX => text,
            _ => "the value fits the schema under 'not'".to_owned(),
        };
    }
    let reason = match written {
        Some(value) => error.masked_with(value).to_string(),
        None => error.to_string(),
    };
    match reason.len() > QUOTED_BYTES_MAX {
        true => error.masked_with(exact::THE_VALUE).to_string(),
        false => reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, text: &str) -> Result<(), String> {
        let document = Json::parse(text.as_bytes()).unwrap();
        let checked = compile(schema).unwrap().check(&document, &mut 1_000_000);
        checked.map_err(|fault| match fault {
            SchemaFault::Breaks(text) => text,
            SchemaFault::OutOfSteps => panic!("out of steps"),
        })
    }

    #[test]
    fn a_value_that_breaks_the_schema_is_refused_with_its_place() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        assert_eq!(check(&schema, r#"{"n": 1}"#), Ok(()));
        let text = check(&schema, r#"{"n": "x"}"#).unwrap_err();
        assert!(text.contains("/n"), "{text}");
    }

    #[test]
    fn numbers_that_one_float_cannot_tell_apart_are_checked_exactly() {
        let limit = 9_007_199_254_740_992_u64;
        for (schema, holds, breaks) in [
            (
                json!({"type": "integer"}),
                "12345678901234567.0",
                "12345678901234567.5",
            ),
            (
                json!({"minimum": 1e25}),
                "1e25",
                "9999999999999999999999999",
            ),
            (
                json!({"maximum": 1e25}),
                "1e25",
                "10000000000000000000000001",
            ),
            (
                json!({"exclusiveMinimum": 1e25}),
                "10000000000000000000000001",
                "1e25",
            ),
            (
                json!({"exclusiveMaximum": 1e25}),
                "9999999999999999999999999",
                "1e25",
            ),
            (
                json!({"maximum": limit}),
                "9007199254740992.0",
                "9007199254740992.1",
            ),
            (
                json!({"multipleOf": 0.01}),
                "12345678901234567.89",
                "12345678901234567.891",
            ),
            (
                json!({"multipleOf": 7}),
                "70000000000000000000000000",
                "70000000000000000000000001",
            ),
            (
                json!({"const": 1e25}),
                "10000000000000000000000000",
                "10000000000000000000000001",
            ),
            (
                json!({"const": limit}),
                "9007199254740992.0",
                "9007199254740993.0",
            ),
            (
                json!({"enum": [1e25, 0.1]}),
                "0.10",
                "10000000000000000000000001",
            ),
            (
                json!({"uniqueItems": true}),
                "[10000000000000000000000001,1e25]",
                "[1.0,1]",
            ),
        ] {
            assert_eq!(check(&schema, holds), Ok(()), "{schema}");
            let text = check(&schema, breaks).unwrap_err();
            // What is shown has every digit.
            assert!(text.contains(breaks), "{text}");
        }
    }

    #[test]
    fn a_long_number_changes_nothing_for_the_other_fields() {
        let schemas = [
            json!({"type": "integer"}),
            json!({"type": ["null", "string", "array"]}),
            json!({"minimum": 2, "maximum": 5.5}),
            json!({"exclusiveMinimum": 2, "exclusiveMaximum": 5.5}),
            json!({"multipleOf": 0.5}),
            json!({"enum": [1, "a", [1, {"b": 2.0}], null]}),
            json!({"const": {"a": 1.5}}),
            json!({"uniqueItems": true}),
            json!({"uniqueItems": false, "minLength": 2}),
            json!({"anyOf": [{"type": "boolean"}, {"not": {"minimum": 3}}]}),
        ];
        let values = [
            "null",
            "true",
            "1",
            "1.0",
            "2",
            "2.0",
            "5.5",
            "5.6",
            "-3",
            "\"a\"",
            "\"long\"",
            "[]",
            "[1,1.0]",
            "[1,{\"b\":2}]",
            "{\"a\":1.5}",
            "[[1],[1]]",
            "1e2",
        ];
        for draft in ["draft-04", "draft-07"] {
            for schema in &schemas {
                let dialect = format!("http://json-schema.org/{draft}/schema#");
                // In draft 4 exclusive bounds are flags of the others.
                if draft == "draft-04" && schema.get("exclusiveMinimum").is_some() {
                    continue;
                }
                let whole = json!({"$schema": dialect, "properties": {"f": schema}});
                for value in values {
                    let plain = check(&whole, &format!(r#"{{"f":{value}}}"#));
                    let beside = format!(r#"{{"f":{value},"long":12345678901234567.89}}"#);
                    let exact = check(&whole, &beside);
                    assert_eq!(plain.is_ok(), exact.is_ok(), "{schema} {value}: {exact:?}");
                }
            }
        }
    }

    #[test]
    fn draft_4_has_exclusive_bounds_as_flags() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-04/schema#",
            "minimum": 1e25, "exclusiveMinimum": true
        });
        assert_eq!(check(&schema, "10000000000000000000000001"), Ok(()));
        assert!(check(&schema, "9999999999999999999999999").is_err());
        assert!(check(&schema, "10000000000000000000000000.0").is_err());
    }

    #[test]
    fn the_reason_of_branches_is_looked_for_only_so_long() {
        let itself = json!({"$ref": "#"});
        let schema = json!({
            "type": ["object", "string"],
            "properties": {"x": {"anyOf": [itself, itself]}}
        });
        let nested = |depth| r#"{"x":"#.repeat(depth) + "1" + &"}".repeat(depth);
        let text = check(&schema, &nested(2)).unwrap_err();
        assert_eq!(
            text,
            r#"/x: {"x":1} is not valid under any of the schemas listed in the 'anyOf' keyword"#
        );
        for depth in [20, 60] {
            assert_eq!(check(&schema, &nested(depth)).unwrap_err(), TOO_LONG);
        }

        let lengths = (0..16).map(|n| json!({"items": {"type": "string", "minLength": n}}));
        let schema = json!({"anyOf": lengths.collect::<Vec<_>>()});
        let items = format!("[{}1]", "1,".repeat(40_000));
        assert_eq!(check(&schema, &items).unwrap_err(), TOO_LONG);
        let text = check(&schema, "[1,1]").unwrap_err();
        assert!(text.contains("'anyOf'"), "{text}");
    }

    #[test]
    fn the_reason_is_found_behind_many_branches_that_hold() {
        let schema = json!({"items": {"anyOf": [{"type": "null"}, {"type": "integer"}]}});
        let items = format!(r#"[{}"x"]"#, "1,".repeat(10_000));
        assert_eq!(
            check(&schema, &items).unwrap_err(),
            r#"/10000: "x" is not valid under any of the schemas listed in the 'anyOf' keyword"#
        );
    }

    #[test]
    fn a_reason_whose_place_has_a_very_long_name_is_not_looked_for_in_branches() {
        let name = "n".repeat(PLACE_BYTES_MAX);
        let schema = json!({"additionalProperties": {"oneOf": [{"type": "string"}, false]}});
        let text = check(&schema, &format!(r#"{{"{name}":1}}"#)).unwrap_err();
        assert_eq!(text, TOO_LONG);
        let text = check(&schema, r#"{"n":1}"#).unwrap_err();
        assert!(text.starts_with("/n: 1 is not valid"), "{text}");
    }

    #[test]
    fn without_branches_a_reason_is_found_however_far_back_it_is() {
        let schema = json!({"items": {"type": "integer"}});
        let items = format!(r#"[{}"x"]"#, "1,".repeat(20_000));
        assert_eq!(
            check(&schema, &items).unwrap_err(),
            r#"/20000: "x" is not of type "integer""#
        );
    }

    #[test]
    fn a_message_is_shortened_where_the_value_is_long() {
        let long = format!("\"{}\"", "ü".repeat(QUOTED_BYTES_MAX));
        let text = check(&json!({"type": "integer"}), &long).unwrap_err();
        assert_eq!(text, r#"the document: the value is not of type "integer""#);
    }

    #[test]
    fn a_long_value_with_a_long_number_is_not_shown_either() {
        let long = format!("[{}1e30]", "1,".repeat(4_000));
        for (schema, expected) in [
            (json!({"type": "string"}), "the value is not of type string"),
            (json!({"const": 1}), "the value is not one of 1"),
            (
                json!({"uniqueItems": true}),
                "the value has non-unique elements",
            ),
        ] {
            let text = check(&schema, &long).unwrap_err();
            assert_eq!(text, format!("the document: {expected}"));
        }
    }

    #[test]
    fn counting_changes_nothing_that_a_schema_says() {
        let draft_7 = "http://json-schema.org/draft-07/schema#";
        for (schema, holds, breaks) in [
            (
                json!({"allOf": [{"properties": {"a": {"enum": [1]}}}], "unevaluatedProperties": false}),
                r#"{"a":1}"#,
                r#"{"a":1,"b":2}"#,
            ),
            (
                json!({"anyOf": [{"prefixItems": [true]}], "unevaluatedItems": {"const": 2}}),
                "[1,2]",
                "[1,1]",
            ),
            // Draft 7 leaves out what is beside a reference.
            (
                json!({
                    "$schema": draft_7,
                    "properties": {"a": {"$ref": "#/definitions/b", "enum": ["x"]}},
                    "definitions": {"b": {"type": "integer", "pattern": "x"}}
                }),
                r#"{"a":1}"#,
                r#"{"a":"x"}"#,
            ),
            (
                json!({"$ref": "#/allOf/0/items", "allOf": [{"items": {"maxLength": 1}}]}),
                r#""x""#,
                r#""xx""#,
            ),
        ] {
            assert_eq!(check(&schema, holds), Ok(()), "{schema}");
            assert!(check(&schema, breaks).is_err(), "{schema}");
        }
        assert!(compile(&json!({"$schema": draft_7, "allOf": []})).is_err());
        assert!(compile(&json!({"allOf": {}})).is_err());
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one = r#"{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":1}"#;
        let other = json!({"a": 1, "b": {"c": [{"e": 2, "f": 1}], "d": 1}});
        for schema in [json!({"const": other}), json!({"enum": [1, other]})] {
            assert_eq!(check(&schema, one), Ok(()), "{schema}");
            assert_eq!(check(&schema, &other.to_string()), Ok(()), "{schema}");
            assert!(check(&schema, r#"{"a":1}"#).is_err(), "{schema}");
        }
        let schema = json!({"properties": {"const": {"uniqueItems": true}}});
        for count in [0, 1, 20] {
            let others: String = (0..count).map(|n| format!("{n},")).collect();
            let twice = format!(r#"{{"const":[{others}{one},{other}]}}"#);
            let text = check(&schema, &twice).unwrap_err();
            assert!(text.starts_with("/const: "), "{text}");
            let once = format!(r#"{{"const":[{others}{one}]}}"#);
            assert_eq!(check(&schema, &once), Ok(()));
        }
    }

    #[test]
    fn fields_that_depend_on_others_can_be_demanded() {
        let schema = json!({"dependentRequired": {"a": ["b"]}});
        assert_eq!(check(&schema, r#"{"a":1,"b":2}"#), Ok(()));
        let text = check(&schema, r#"{"a":1}"#).unwrap_err();
        assert!(text.contains("\"b\""), "{text}");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert!(compile(&json!({"type": "no such type"})).is_err());
        assert!(compile(&json!({"minimum": "5"})).is_err());
        assert!(compile(&json!({"multipleOf": 0})).is_err());
        let text = compile(&json!({"$ref": "http://127.0.0.1:9/other.json"}))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("refers to another document, 'http://127.0.0.1:9/other.json'"),
            "{text}"
        );
        assert!(
            text.contains("$defs") && !text.contains("registry"),
            "{text}"
        );
    }
}
