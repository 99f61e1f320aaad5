//! One element of `reads`: a key, or a range of keys.

use std::fmt;

use bytes::Bytes;
use onelog_record::{KeyRange, PointRead};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::text::{Name, WireBytes};
use crate::{KnownTable, Place};

const FIELDS: &[&str] = &["table", "key", "from", "to", "prefix"];
const FORMS: &str = "a read names its table and 'key' (one key), 'prefix', or 'from' and 'to' (a range; 'from': \"\" is the table's start, without 'to' it reaches to the end)";

pub(super) enum Read {
    Point(PointRead),
    Range(KeyRange),
}

pub(super) struct ReadSeed<'p, 't>(pub(super) &'p Place<'t>);

#[derive(Default)]
struct Draft {
    table: Option<KnownTable>,
    key: Option<Bytes>,
    from: Option<Bytes>,
    to: Option<Bytes>,
    prefix: Option<Bytes>,
}

impl<'de> DeserializeSeed<'de> for ReadSeed<'_, '_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReadSeed<'_, '_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a read such as {"table": "...", "key": "..."}"#)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let place = self.0;
        let mut draft = Draft::default();
        let mut seen = 0;
        while let Some(field) = place.next_field(&mut map, FIELDS, &mut seen)? {
            match field {
                "table" => {
                    draft.table = Some(place.table(map.next_value::<Name<'de>>()?.as_str())?);
                }
                "key" => draft.key = Some(map.next_value::<WireBytes>()?.0),
                "from" => draft.from = Some(map.next_value::<WireBytes>()?.0),
                "to" => draft.to = Some(map.next_value::<WireBytes>()?.0),
                _ => draft.prefix = Some(map.next_value::<WireBytes>()?.0),
            }
        }
        draft.finish(place)
    }
}

impl Draft {
    fn finish<E: serde::de::Error>(self, place: &Place<'_>) -> Result<Read, E> {
        let table = place.required("table", self.table)?.id;
        match (self.key, self.prefix, self.from, self.to) {
            (Some(key), None, None, None) => Ok(Read::Point(PointRead { table, key })),
            (None, Some(prefix), None, None) => {
                let to = prefix_end(&prefix);
                let from = prefix;
                Ok(Read::Range(KeyRange { table, from, to }))
            }
            (None, None, None, None) => Err(place.malformed(format!("nothing is read: {FORMS}"))),
            (None, None, from, to) => {
                let from = from.unwrap_or_default();
                Ok(Read::Range(KeyRange { table, from, to }))
            }
            _ => Err(place.malformed(format!("these fields do not go together: {FORMS}"))),
        }
    }
}

/// The first key behind all keys that start with `prefix`; `None` is the table's end.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
