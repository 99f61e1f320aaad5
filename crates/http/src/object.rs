//! A body that is one small JSON object, read into the type that its schema is derived from.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use onelog_api::{example, fields_of, required_of};
use onelog_record::{Json, in_json_terms};
use onelog_request::{check_json, unknown_field};

use crate::errors::ApiError;

/// Reads an object of the fields of `T`, each at most once. Every error names its place and ends
/// with an example, which is one of those in the OpenAPI document.
pub(crate) fn read_object<T: DeserializeOwned + ToSchema>(body: &[u8]) -> Result<T, ApiError> {
    let malformed = |message: String| ApiError::malformed("body", message);
    let not_json = |message: String| malformed(message + &example::<T>(None));
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        malformed(format!("the body is not UTF-8 at byte {at}"))
    })?;
    check_json(text).map_err(not_json)?;
    if let Some(number) = Json::parse(text.as_bytes())
        .ok()
        .as_ref()
        .and_then(Json::rounded_number)
    {
        let shown: String = number.chars().take(64).collect();
        return Err(ApiError::malformed(
            "body",
            format!(
                "the number {shown} would be rounded to 64 bits where it is kept; write it with fewer digits"
            ),
        ));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| not_json(error.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(not_json("expected an object".to_owned()));
    };
    let known = fields_of::<T>();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(malformed(unknown_field(name, &known)));
    }
    if let Some(missing) = required_of::<T>()
        .iter()
        .find(|name| !fields.contains_key(*name))
    {
        let message = format!("the field is missing{}", example::<T>(Some(missing)));
        return Err(ApiError::malformed(missing, message));
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let field = match error.path().iter().next() {
            Some(Segment::Map { key }) => Some(key.clone()),
            _ => None,
        };
        let place = match field {
            Some(_) => error.path().to_string(),
            None => "body".to_owned(),
        };
        let message = in_json_terms(&error.inner().to_string());
        ApiError::malformed(&place, message + &example::<T>(field.as_deref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Backup, NewTable, ReplayKeys};

    fn message<T: DeserializeOwned + ToSchema>(body: &str) -> String {
        let Err(error) = read_object::<T>(body.as_bytes()) else {
            panic!("{body} was read");
        };
        let (status, fields) = error.parts();
        assert_eq!(status, 422, "{body}");
        fields["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_value_of_another_type_is_answered_with_place_found_expected_and_an_example() {
        for (body, expected) in [
            (
                r#"{"name":"a","unique":"/x"}"#,
                r#"unique: invalid type: string "/x", expected a list; for example "unique": ["/email"]"#,
            ),
            (
                r#"{"name":"a","unique":["/x",1]}"#,
                r#"unique[1]: invalid type: integer `1`, expected a string; for example "unique": ["/email"]"#,
            ),
            (
                r#"{"name":5}"#,
                r#"name: invalid type: integer `5`, expected a string; for example "name": "shop.orders""#,
            ),
            (
                r#"{"name":"a","kind":"queue"}"#,
                r#"kind: unknown variant `queue`, expected `keyed` or `stream`; for example "kind": "keyed""#,
            ),
            (
                "{}",
                r#"name: the field is missing; for example "name": "shop.orders""#,
            ),
            (
                "[]",
                r#"body: expected an object; for example {"name":"shop.orders"}"#,
            ),
        ] {
            assert_eq!(message::<NewTable>(body), expected, "{body}");
        }
    }

    #[test]
    fn the_bodies_of_backups_and_replays_are_answered_alike() {
        for body in ["{}", r#"{"into":5}"#, r#"{"into":["a"]}"#] {
            let message = message::<Backup>(body);
            let example = r#"for example "into": "/var/backups/onelog/monday""#;
            assert!(message.starts_with("into: "), "{message}");
            assert!(message.ends_with(example), "{message}");
        }
        for body in [r#"{"keys":"o-2"}"#, r#"{"keys":["o-2"]}"#] {
            let message = message::<ReplayKeys>(body);
            let example = r#"for example "keys": [{"into":"orders","key":"o-2"}]"#;
            assert!(message.starts_with("keys"), "{message}");
            assert!(message.ends_with(example), "{message}");
        }
        let message = message::<ReplayKeys>(r#"{"keys":["o-2"]}"#);
        assert!(
            message.contains("expected an object with 'into' and 'key'"),
            "{message}"
        );
    }

    #[test]
    fn each_field_of_a_body_is_in_an_example() {
        fn check<T: ToSchema>() {
            for field in fields_of::<T>() {
                assert_ne!(example::<T>(Some(&field)), "", "{field}");
            }
        }
        check::<NewTable>();
        check::<Backup>();
        check::<ReplayKeys>();
    }
}
