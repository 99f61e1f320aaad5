//! One element of `guards`.

use std::fmt;

use bytes::Bytes;
use onelog_record::{Compare, FieldPath, Guard, Offset, Predicate};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::text::{Name, WireBytes};
use crate::{KnownTable, Place};

const FIELDS: &[&str] = &[
    "table", "key", "exists", "absent", "version", "field", "eq", "ne", "lt", "le", "gt", "ge",
];
const FORMS: &str = r#"a guard demands one thing: "exists": true, "absent": true, "version": N, or "field": "/path" with one of eq, ne, lt, le, gt, ge"#;

pub(super) struct GuardSeed<'p, 't>(pub(super) &'p Place<'t>);

#[derive(Default)]
struct Draft<'de> {
    table: Option<KnownTable>,
    key: Option<Bytes>,
    exists: Option<bool>,
    absent: Option<bool>,
    version: Option<Offset>,
    field: Option<FieldPath>,
    compare: Option<(&'static str, Compare, &'de RawValue)>,
}

impl<'de> DeserializeSeed<'de> for GuardSeed<'_, '_> {
    type Value = Guard;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Guard, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for GuardSeed<'_, '_> {
    type Value = Guard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a guard such as {"table": "...", "key": "...", "exists": true}"#)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Guard, A::Error> {
        let place = self.0;
        let mut draft = Draft::default();
        let mut seen = 0;
        while let Some(field) = place.next_field(&mut map, FIELDS, &mut seen)? {
            match field {
                "table" => {
                    draft.table = Some(place.table(map.next_value::<Name<'de>>()?.as_str())?);
                }
                "key" => draft.key = Some(map.next_value::<WireBytes>()?.0),
                "exists" => draft.exists = Some(map.next_value()?),
                "absent" => draft.absent = Some(map.next_value()?),
                "version" => draft.version = Some(map.next_value()?),
                "field" => draft.field = Some(map.next_value()?),
                comparison => {
                    if draft.compare.is_some() {
                        return Err(place.malformed(FORMS));
                    }
                    draft.compare = Some((comparison, compare(comparison), map.next_value()?));
                }
            }
        }
        draft.finish(place)
    }
}

fn compare(name: &str) -> Compare {
    match name {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" => Compare::Lt,
        "le" => Compare::Le,
        "gt" => Compare::Gt,
        _ => Compare::Ge,
    }
}

impl Draft<'_> {
    fn finish<E: serde::de::Error>(self, place: &Place<'_>) -> Result<Guard, E> {
        let table = place.required("table", self.table)?.id;
        let key = place.required("key", self.key)?;
        let predicate = match (self.exists, self.absent, self.version, self.compare) {
            (Some(true), None, None, None) => Predicate::Exists,
            (None, Some(true), None, None) => Predicate::Absent,
            (Some(false), None, None, None) => {
                return Err(place.malformed_at("exists", r#"write "absent": true instead"#));
            }
            (None, Some(false), None, None) => {
                return Err(place.malformed_at("absent", r#"write "exists": true instead"#));
            }
            (None, None, Some(version), None) => Predicate::Version(version),
            (None, None, None, Some((name, compare, raw))) => {
                let value = place.json_value(name, raw)?;
                place.field.set("");
                let path = place.required("field", self.field)?;
                return Ok(Guard {
                    table,
                    key,
                    predicate: Predicate::Field {
                        path,
                        compare,
                        value,
                    },
                });
            }
            _ => return Err(place.malformed(FORMS)),
        };
        if self.field.is_some() {
            return Err(place.malformed_at("field", FORMS));
        }
        Ok(Guard {
            table,
            key,
            predicate,
        })
    }
}
