//! JSON Schema, behind the validator's own trait so that the library stays replaceable.

use std::sync::Arc;

use onelog_commit::Schema;
use serde_json::Value;

/// A text that is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid JSON Schema: {0}")]
pub struct SchemaError(String);

#[derive(Debug)]
struct Compiled(jsonschema::Validator);

/// Compiles a schema. References to other documents are refused: a decision may rest on nothing
/// outside the log.
pub(crate) fn compile(schema: &Value) -> Result<Arc<dyn Schema>, SchemaError> {
    let validator =
        jsonschema::validator_for(schema).map_err(|error| SchemaError(error.to_string()))?;
    Ok(Arc::new(Compiled(validator)))
}

impl Schema for Compiled {
    fn check(&self, value: &Value) -> Result<(), String> {
        self.0.validate(value).map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() {
                "the document".to_owned()
            } else {
                place
            };
            format!("{place}: {error}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_breaks_the_schema_is_refused_with_its_place() {
        let schema =
            compile(&json!({"type": "object", "properties": {"n": {"type": "integer"}}})).unwrap();
        assert_eq!(schema.check(&json!({"n": 1})), Ok(()));
        let text = schema.check(&json!({"n": "x"})).unwrap_err();
        assert!(text.contains("/n"), "{text}");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert!(compile(&json!({"type": "no such type"})).is_err());
        assert!(compile(&json!({"$ref": "http://127.0.0.1:9/other.json"})).is_err());
    }
}
