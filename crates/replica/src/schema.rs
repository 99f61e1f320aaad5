//! JSON Schema, behind the validator's own trait so that the library stays replaceable.

mod exact;
mod steps;

use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ReferencingError, ValidationError, Validator};
use onelog_commit::{Schema, SchemaFault};
use onelog_record::Json;
use serde_json::Value;

/// A text that is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid JSON Schema: {0}")]
pub struct SchemaError(String);

#[derive(Debug)]
struct Compiled {
    /// With the keyword that counts steps in it.
    schema: Value,
    validator: Validator,
    /// For documents with numbers that `validator` would round. Few have any.
    exact: OnceLock<Result<Validator, String>>,
}

/// Compiles a schema. References to other documents are refused: a decision may rest on nothing
/// outside the log.
pub(crate) fn compile(schema: &Value) -> Result<Arc<dyn Schema>, SchemaError> {
    let schema = steps::marked(schema);
    let validator = steps::options()
        .build(&schema)
        .map_err(|error| SchemaError(refused(&error)))?;
    Ok(Arc::new(Compiled {
        schema,
        validator,
        exact: OnceLock::new(),
    }))
}

/// Whether a schema can be that of a new table. Those of tables that are there are compiled as they
/// are.
pub(crate) fn check_new(schema: &Value) -> Result<(), SchemaError> {
    compile(schema)?;
    steps::check(schema).map_err(SchemaError)
}

fn refused(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "it refers to another document, '{uri}'; put what it refers to under \"$defs\" in the schema itself"
        ),
        _ => error.to_string(),
    }
}

impl Schema for Compiled {
    fn check(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault> {
        let checked = steps::within(steps, || self.check_all(value));
        let checked = checked.ok_or(SchemaFault::OutOfSteps)?;
        checked.map_err(SchemaFault::Breaks)
    }
}

impl Compiled {
    fn check_all(&self, value: &Json<'_>) -> Result<(), String> {
        let copy = Value::from(value);
        if value.find_number(&is_beyond_the_library).is_none() {
            return self.validator.validate(&copy).map_err(described);
        }
        let compiled = || exact::compile(&self.schema).map_err(|error| error.to_string());
        let exact = self.exact.get_or_init(compiled).as_ref()?;
        exact::with_numbers(value, &copy, || exact.validate(&copy).map_err(described))
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
    format!("{place}: {error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, text: &str) -> Result<(), String> {
        let document = Json::parse(text.as_bytes()).unwrap();
        let checked = compile(schema).unwrap().check(&document, &mut 100_000);
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
