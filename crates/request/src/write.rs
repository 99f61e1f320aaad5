//! One element of `writes`.

use std::fmt;

use bytes::Bytes;
use onelog_record::{
    FieldPath, HEADERS_MAX, Header, Number, Operation, Quoted, TooLarge, ValueKind, Write,
    nearest_name,
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::text::{Name, WireBytes};
use crate::{KnownTable, ParseError, Place};

const FIELDS: &[&str] = &["op", "table", "key", "value", "field", "by", "headers"];
const OPERATIONS: &[&str] = &["put", "delete", "add", "min", "max", "append"];

pub(super) struct WriteSeed<'p, 't>(pub(super) &'p Place<'t>);

#[derive(Default)]
struct Draft<'de> {
    operation: Option<&'static str>,
    table: Option<KnownTable>,
    key: Option<Bytes>,
    value: Option<&'de RawValue>,
    field: Option<FieldPath>,
    by: Option<Number>,
    headers: Vec<Header>,
}

impl<'de> DeserializeSeed<'de> for WriteSeed<'_, '_> {
    type Value = Write;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Write, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WriteSeed<'_, '_> {
    type Value = Write;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a write such as {"op": "put", "table": "...", "key": "...", "value": ...}"#)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Write, A::Error> {
        let place = self.0;
        let mut draft = Draft::default();
        let mut seen = 0;
        while let Some(field) = place.next_field(&mut map, FIELDS, &mut seen)? {
            match field {
                "op" => draft.operation = Some(operation(place, map.next_value()?)?),
                "table" => draft.table = Some(writable(place, &map.next_value()?)?),
                "key" => draft.key = Some(map.next_value::<WireBytes>()?.0),
                "value" => draft.value = Some(map.next_value()?),
                "field" => draft.field = Some(map.next_value()?),
                "by" => draft.by = Some(place.number("by", map.next_value()?)?),
                _ => draft.headers = map.next_value_seed(HeadersSeed(place))?,
            }
        }
        draft.finish(place)
    }
}

fn operation<E: serde::de::Error>(place: &Place<'_>, name: Name<'_>) -> Result<&'static str, E> {
    let found = OPERATIONS.iter().find(|known| **known == name.as_str());
    found.copied().ok_or_else(|| {
        let shown: String = name.as_str().chars().take(64).collect();
        place.malformed(match nearest_name(&shown, OPERATIONS.iter().copied()) {
            Some(nearest) => format!("unknown operation '{shown}'; did you mean '{nearest}'?"),
            None => format!(
                "unknown operation '{shown}'; known are: {}",
                OPERATIONS.join(", ")
            ),
        })
    })
}

fn writable<E: serde::de::Error>(place: &Place<'_>, name: &Name<'_>) -> Result<KnownTable, E> {
    let name = name.as_str();
    if name.starts_with("onelog.") {
        return Err(place.stop(ParseError::ReservedTable {
            place: place.to_string(),
            name: name.to_owned(),
        }));
    }
    place.table(name)
}

impl Draft<'_> {
    fn finish<E: serde::de::Error>(self, place: &Place<'_>) -> Result<Write, E> {
        let name = place.required("op", self.operation)?;
        let table = place.required("table", self.table)?;
        let key = place.required("key", self.key)?;
        let unused = |field: &'static str, is_there: bool| match is_there {
            true => Err(place.malformed_at::<E>(field, format!("'{name}' takes no '{field}'"))),
            false => Ok(()),
        };
        if matches!(name, "put" | "delete") {
            unused("field", self.field.is_some())?;
        }
        if matches!(name, "put" | "delete" | "append") {
            unused("by", self.by.is_some())?;
        }
        if !matches!(name, "put" | "append") {
            unused("value", self.value.is_some())?;
        }
        let field = self.field.unwrap_or_else(FieldPath::whole);
        let operation = match name {
            "delete" => Operation::Delete,
            "put" => {
                let value = place.required("value", self.value)?;
                Operation::Put(place.stored_value(table.value, value)?)
            }
            "append" => {
                let value = place.required("value", self.value)?;
                match table.value {
                    ValueKind::Json => Operation::Append(field, place.json_value("value", value)?),
                    ValueKind::Bytes => {
                        unused("field", !field.is_whole())?;
                        Operation::AppendBytes(place.stored_value(table.value, value)?)
                    }
                }
            }
            _ => {
                let by = place.required("by", self.by)?;
                match name {
                    "add" => Operation::Add(field, by),
                    "min" => Operation::Min(field, by),
                    _ => Operation::Max(field, by),
                }
            }
        };
        Ok(Write {
            table: table.id,
            key,
            operation,
            headers: self.headers,
        })
    }
}

/// `headers`: an object of names and values.
struct HeadersSeed<'p, 't>(&'p Place<'t>);

impl<'de> DeserializeSeed<'de> for HeadersSeed<'_, '_> {
    type Value = Vec<Header>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Header>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadersSeed<'_, '_> {
    type Value = Vec<Header>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"an object of names and values such as {"source": "import"}"#)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Header>, A::Error> {
        let mut headers: Vec<Header> = Vec::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if headers.len() == HEADERS_MAX {
                return Err(self.0.stop(ParseError::TooLarge(TooLarge {
                    what: format!("the number of {}", self.0),
                    limit: "HEADERS_MAX".into(),
                    is: headers.len() + 1,
                    max: HEADERS_MAX,
                    unit: "of them".into(),
                })));
            }
            if headers.iter().any(|h| h.name == name.as_str().as_bytes()) {
                let message = format_args!("the header '{}' occurs twice", Quoted(name.as_str()));
                return Err(A::Error::custom(message));
            }
            headers.push(Header {
                name: Bytes::copy_from_slice(name.as_str().as_bytes()),
                value: map.next_value::<WireBytes>()?.0,
            });
        }
        Ok(headers)
    }
}
