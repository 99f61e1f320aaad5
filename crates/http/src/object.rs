//! A body that is one small JSON object, read into the type that its schema is derived from.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use onelog_request::{check_json, unknown_field};

use crate::errors::ApiError;

/// Reads an object of the fields of `T`, each at most once. Every error names its place.
pub(crate) fn read_object<T: DeserializeOwned + ToSchema>(body: &[u8]) -> Result<T, ApiError> {
    let malformed = |message: String| ApiError::malformed("body", message);
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        malformed(format!("the body is not UTF-8 at byte {at}"))
    })?;
    check_json(text).map_err(malformed)?;
    let fields: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| malformed(format!("expected an object: {error}")))?;
    let known = fields_of::<T>();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(malformed(unknown_field(name, &known)));
    }
    if let Some(missing) = required_of::<T>()
        .iter()
        .find(|name| !fields.contains_key(*name))
    {
        return Err(ApiError::malformed(missing, "the field is missing"));
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { "body" } else { &place };
        ApiError::malformed(place, error.inner())
    })
}

/// The names of the fields that the schema of `T` has.
pub(crate) fn fields_of<T: ToSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.into_keys().collect(),
        _ => Vec::new(),
    }
}

fn required_of<T: ToSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.required,
        _ => Vec::new(),
    }
}
