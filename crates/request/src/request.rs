//! The whole body.

use std::fmt;

use onelog_record::{
    CommitRequest, GUARDS_MAX, Position, READS_MAX, RECORDS_MAX, Subject, TooLarge, in_json_terms,
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::WAIT_TIMEOUT_MS_MAX;
use crate::guard::GuardSeed;
use crate::read::{Read, ReadSeed};
use crate::write::WriteSeed;
use crate::{ParseError, Place, Tables};

const FIELDS: &[&str] = &[
    "id",
    "read_position",
    "reads",
    "guards",
    "writes",
    "wait_for",
    "wait_timeout_ms",
];
/// The most sinks that one transaction is waited for in.
const WAIT_FOR_MAX: usize = 64;

/// A request, and which of the body's `reads` its point and range reads were.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    pub request: CommitRequest,
    /// The sinks that shall show the transaction before the answer comes.
    pub wait_for: Vec<String>,
    pub wait_timeout_ms: Option<u64>,
    point_reads: Vec<usize>,
    range_reads: Vec<usize>,
}

impl Parsed {
    /// The place in the body that a refusal is about.
    pub fn place(&self, subject: &Subject) -> String {
        let place = |list: &str, n: usize| format!("{list}[{n}]");
        let read = |of: &[usize], n: usize| place("reads", of.get(n).copied().unwrap_or(n));
        match subject {
            Subject::PointRead(n) => read(&self.point_reads, *n),
            Subject::RangeRead(n) => read(&self.range_reads, *n),
            Subject::Guard(n) => place("guards", *n),
            Subject::Write(n) => place("writes", *n),
        }
    }
}

pub fn parse_request(body: &[u8], tables: &dyn Tables) -> Result<Parsed, ParseError> {
    let place = Place::new(tables);
    let text = std::str::from_utf8(body).map_err(|error| ParseError::Malformed {
        place: "body".to_owned(),
        message: format!(
            "the body is not UTF-8 at byte {}; send other bytes as {{\"base64\": \"...\"}}",
            error.valid_up_to()
        ),
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = RequestSeed(&place)
        .deserialize(&mut deserializer)
        .and_then(|parsed| {
            place.field.set("");
            deserializer.end().map(|()| parsed)
        });
    match parsed {
        Ok(parsed) => {
            parsed.request.check_limits()?;
            Ok(parsed)
        }
        Err(error) => Err(explain(&place, &error)),
    }
}

fn explain(place: &Place<'_>, error: &serde_json::Error) -> ParseError {
    if let Some(fault) = place.fault.borrow_mut().take() {
        return fault;
    }
    let message = match error.classify() {
        Category::Data | Category::Io => in_json_terms(&error.to_string()),
        Category::Syntax | Category::Eof => format!("this is not JSON: {error}"),
    };
    ParseError::Malformed {
        place: place.to_string(),
        message,
    }
}

struct RequestSeed<'p, 't>(&'p Place<'t>);

impl<'de> DeserializeSeed<'de> for RequestSeed<'_, '_> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_, '_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction: an object with 'writes', and 'reads' or 'guards' where needed")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let place = self.0;
        let mut parsed = Parsed::default();
        let mut seen = 0;
        while let Some(field) = place.next_field(&mut map, FIELDS, &mut seen)? {
            let Parsed {
                request,
                wait_for,
                wait_timeout_ms,
                point_reads,
                range_reads,
            } = &mut parsed;
            match field {
                "id" => request.id = map.next_value()?,
                "read_position" => {
                    request.read_position = map.next_value::<Option<u64>>()?.map(Position);
                }
                "wait_for" => {
                    *wait_for = map.next_value()?;
                    check_wait_for(place, wait_for)?;
                }
                "wait_timeout_ms" => {
                    let timeout_ms: u64 = map.next_value()?;
                    if timeout_ms > WAIT_TIMEOUT_MS_MAX {
                        let message =
                            format!("{timeout_ms} is over the limit of {WAIT_TIMEOUT_MS_MAX} ms");
                        return Err(place.malformed_at("wait_timeout_ms", message));
                    }
                    *wait_timeout_ms = Some(timeout_ms);
                }
                "reads" => map.next_value_seed(ListSeed {
                    place,
                    name: "reads",
                    limit: ("READS_MAX", READS_MAX),
                    make: ReadSeed,
                    push: |n, read| match read {
                        Read::Point(read) => {
                            point_reads.push(n);
                            request.point_reads.push(read);
                        }
                        Read::Range(range) => {
                            range_reads.push(n);
                            request.range_reads.push(range);
                        }
                    },
                })?,
                "guards" => map.next_value_seed(ListSeed {
                    place,
                    name: "guards",
                    limit: ("GUARDS_MAX", GUARDS_MAX),
                    make: GuardSeed,
                    push: |_, guard| request.guards.push(guard),
                })?,
                _ => map.next_value_seed(ListSeed {
                    place,
                    name: "writes",
                    limit: ("RECORDS_MAX", RECORDS_MAX),
                    make: WriteSeed,
                    push: |_, write| request.writes.push(write),
                })?,
            }
        }
        check_complete(place, &parsed.request)?;
        Ok(parsed)
    }
}

fn check_wait_for<E: Error>(place: &Place<'_>, sinks: &[String]) -> Result<(), E> {
    let number = sinks.len();
    if number > WAIT_FOR_MAX {
        let message = format!("{number} sinks are named, the limit is {WAIT_FOR_MAX}");
        return Err(place.malformed_at("wait_for", message));
    }
    Ok(())
}

/// Checks what a request needs as a whole.
fn check_complete<E: Error>(place: &Place<'_>, request: &CommitRequest) -> Result<(), E> {
    if request.has_reads() && request.read_position.is_none() {
        return Err(place.malformed_at(
            "read_position",
            "with 'reads' the position is needed that they were made at: the header Onelog-Position of their answers",
        ));
    }
    if !request.has_reads() && request.guards.is_empty() && request.writes.is_empty() {
        return Err(
            place.malformed("the transaction is empty: it has neither writes nor reads nor guards")
        );
    }
    Ok(())
}

/// A list whose elements are numbered in the place, and bounded.
struct ListSeed<'p, 't, S, F> {
    place: &'p Place<'t>,
    name: &'static str,
    limit: (&'static str, usize),
    make: fn(&'p Place<'t>) -> S,
    push: F,
}

impl<'de, S, F> DeserializeSeed<'de> for ListSeed<'_, '_, S, F>
where
    S: DeserializeSeed<'de>,
    F: FnMut(usize, S::Value),
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S, F> Visitor<'de> for ListSeed<'_, '_, S, F>
where
    S: DeserializeSeed<'de>,
    F: FnMut(usize, S::Value),
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let place = self.place;
        place.list.set(self.name);
        place.field.set("");
        for n in 0.. {
            place.index.set(n);
            let Some(element) = seq.next_element_seed((self.make)(place))? else {
                break;
            };
            let (limit, max) = self.limit;
            if n == max {
                return Err(place.stop(ParseError::TooLarge(TooLarge {
                    what: format!("the number of {}", self.name),
                    limit: limit.into(),
                    is: n + 1,
                    max,
                    unit: "of them".into(),
                })));
            }
            (self.push)(n, element);
            place.field.set("");
        }
        place.list.set("");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
