//! The schema of keys and other bytes.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// What [`onelog_request`] reads and writes where the API carries bytes.
#[derive(Debug)]
pub struct Bytes;

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        let text = || Object::with_type(Type::String);
        let base64 = ObjectBuilder::new()
            .description(Some(
                "Bytes in base64, of the standard or the URL-safe alphabet",
            ))
            .property("base64", text())
            .required("base64");
        OneOfBuilder::new()
            .description(Some(
                "A string (UTF-8), or any bytes as `{\"base64\": \"...\"}`",
            ))
            .item(text())
            .item(base64)
            .into()
    }
}

impl ToSchema for Bytes {
    fn name() -> Cow<'static, str> {
        "Bytes".into()
    }
}
