//! What the schema of a type says about it, for the parsers of requests and their messages.

use utoipa::ToSchema;
use utoipa::openapi::{Object, RefOr, Schema};

/// How a field of `T` is written, or all of it, for the end of a message: one of the examples of its
/// schema.
pub fn example<T: ToSchema>(field: Option<&str>) -> String {
    let examples = schema_of::<T>().map_or_else(Vec::new, |schema| schema.examples);
    let found = examples.iter().find_map(|example| match field {
        None => Some(example.to_string()),
        Some(field) => example
            .get(field)
            .map(|value| format!("\"{field}\": {value}")),
    });
    found.map_or_else(String::new, |example| format!("; for example {example}"))
}

fn schema_of<T: ToSchema>() -> Option<Object> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

/// The names of the fields that the schema of `T` has.
pub fn fields_of<T: ToSchema>() -> Vec<String> {
    schema_of::<T>().map_or_else(Vec::new, |schema| schema.properties.into_keys().collect())
}

/// The names of the fields that the schema of `T` demands.
pub fn required_of<T: ToSchema>() -> Vec<String> {
    schema_of::<T>().map_or_else(Vec::new, |schema| schema.required)
}
