//! The keywords of JSON Schema whose answer rests on the exact value of a number, for documents with
//! numbers that the library's own values would round, and those that the library looks at too slowly.
//!
//! The library sees such a document with rounded numbers; these keywords look up what was written,
//! by the place of the number in memory. The table of those places is the thread's own and is
//! filled for one check.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use jsonschema::{Keyword, ValidationError, ValidationOptions, Validator};
use onelog_decimal::{compare_numbers, is_multiple_of, is_whole};
use onelog_record::{Json, JsonString, JsonText, QUOTED_BYTES_MAX};
use serde_json::{Map, Number, Value};

use super::steps;

/// What is said instead of a value that is not shown.
pub(super) const THE_VALUE: &str = "the value";

thread_local! {
    static WRITTEN: RefCell<HashMap<usize, Box<str>>> = RefCell::default();
}

/// Runs `check` while the keywords know the numbers of `document` as they were written; `copy` is
/// the library's copy of it.
pub(super) fn with_numbers<T>(document: &Json<'_>, copy: &Value, check: impl FnOnce() -> T) -> T {
    /// A check that is ended unwinds.
    struct Cleared;
    impl Drop for Cleared {
        fn drop(&mut self) {
            WRITTEN.with_borrow_mut(HashMap::clear);
        }
    }
    let _cleared = Cleared;
    WRITTEN.with_borrow_mut(|written| note(document, copy, written));
    check()
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

fn note(document: &Json<'_>, copy: &Value, written: &mut HashMap<usize, Box<str>>) {
    match (document, copy) {
        (Json::Number(number), Value::Number(_)) => {
            written.insert(address(copy), number.as_ref().into());
        }
        (Json::Array(items), Value::Array(copies)) => {
            let pairs = items.iter().zip(copies);
            pairs.for_each(|(item, copy)| note(item, copy, written));
        }
        (Json::Object(fields), Value::Object(copies)) => {
            for (name, field) in fields {
                if let Some(copy) = copies.get(name.text().as_ref()) {
                    note(field, copy, written);
                }
            }
        }
        _ => {}
    }
}

/// A number as it was written; the library's copy of most has all of their digits.
fn written(value: &Value, number: &Number) -> String {
    let known = WRITTEN.with_borrow(|all| match all.is_empty() {
        true => None,
        false => all.get(&address(value)).cloned(),
    });
    known.map_or_else(|| number.to_string(), String::from)
}

/// A part of the document as it was written.
fn exact(value: &Value) -> Json<'static> {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => Json::Number(written(value, number).into()),
        Value::String(text) => Json::String(JsonString::new(text)),
        Value::Array(items) => Json::Array(items.iter().map(exact).collect()),
        Value::Object(fields) => {
            let fields = fields.iter();
            Json::Object(
                fields
                    .map(|(n, f)| (JsonString::new(n), exact(f)))
                    .collect(),
            )
        }
    }
}

/// The text of a part of the document where the library's copy of it has rounded numbers. A part
/// that the library has copied once more is not known any longer, and is not shown.
pub(super) fn shown_as_written(value: &Value, is_copied: bool) -> Option<String> {
    if WRITTEN.with_borrow(HashMap::is_empty) {
        return None;
    }
    if is_copied {
        return Some(THE_VALUE.to_owned());
    }
    steps::count_whole(value);
    Some(shown(exact(value).to_string()))
}

/// Compiles a schema with these keywords in the place of the library's.
pub(super) fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    let dialect = schema.get("$schema").and_then(Value::as_str);
    let draft_4 = dialect.is_some_and(|dialect| dialect.contains("draft-04"));
    let options = with_keyword(steps::options(), "type", move |_, value| {
        Demand::Types(names(value), draft_4)
    });
    // Draft 4 does not know it.
    let options = with_keyword(options, "const", move |_, value| match draft_4 {
        true => Demand::Nothing,
        false => Demand::OneOf(vec![value.clone().into()]),
    });
    let options = with_keyword(options, "enum", |_, value| {
        let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
        Demand::OneOf(values.iter().cloned().map(JsonText::from).collect())
    });
    // In draft 4 `true` makes the other bound exclusive.
    let exclusive = |parent: &Map<String, Value>, name| parent.get(name) == Some(&true.into());
    let options = with_keyword(options, "minimum", move |parent, value| {
        let allowed: &[Ordering] = match exclusive(parent, "exclusiveMinimum") {
            true => &[Ordering::Greater],
            false => &[Ordering::Greater, Ordering::Equal],
        };
        limited(value, |limit| Demand::Order(limit, allowed))
    });
    let options = with_keyword(options, "maximum", move |parent, value| {
        let allowed: &[Ordering] = match exclusive(parent, "exclusiveMaximum") {
            true => &[Ordering::Less],
            false => &[Ordering::Less, Ordering::Equal],
        };
        limited(value, |limit| Demand::Order(limit, allowed))
    });
    let options = with_keyword(options, "exclusiveMinimum", |_, value| {
        limited(value, |limit| Demand::Order(limit, &[Ordering::Greater]))
    });
    let options = with_keyword(options, "exclusiveMaximum", |_, value| {
        limited(value, |limit| Demand::Order(limit, &[Ordering::Less]))
    });
    options.build(schema).map_err(ValidationError::to_owned)
}

/// Keywords that are ours for all documents. The library's `uniqueItems` puts lists that differ in
/// their brackets alone into one place and compares each with all others; its `multipleOf` divides
/// fractions of long numbers.
pub(super) fn with_costly<R>(options: ValidationOptions<'_, R>) -> ValidationOptions<'_, R> {
    let options = with_keyword(options, "multipleOf", |_, value| {
        limited(value, Demand::MultipleOf)
    });
    with_keyword(options, "uniqueItems", |_, value| match value {
        Value::Bool(true) => Demand::UniqueItems,
        _ => Demand::Nothing,
    })
}

fn with_keyword<'o, R>(
    options: ValidationOptions<'o, R>,
    name: &'static str,
    demand: impl Fn(&Map<String, Value>, &Value) -> Demand + Send + Sync + 'static,
) -> ValidationOptions<'o, R> {
    options.with_keyword(
        name,
        move |parent: &Map<String, Value>, value: &Value, _| {
            Ok(Box::new(demand(parent, value)) as Box<dyn Keyword>)
        },
    )
}

fn names(types: &Value) -> Vec<String> {
    let list = std::slice::from_ref(types);
    let list = types.as_array().map_or(list, Vec::as_slice);
    let names = list.iter().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

fn limited(limit: &Value, demand: impl FnOnce(String) -> Demand) -> Demand {
    let number = limit.as_number().map(ToString::to_string);
    number.map_or(Demand::Nothing, demand)
}

/// A longer value is not shown. Of a schema with branches the library keeps what is wrong with each.
fn shown(text: String) -> String {
    match text.len() <= QUOTED_BYTES_MAX {
        true => text,
        false => THE_VALUE.to_owned(),
    }
}

/// What a keyword demands. The form of its value was checked against the schema of schemas.
#[derive(Debug)]
enum Demand {
    Nothing,
    /// One of these types; in draft 4 a whole number is one that is written without a point.
    Types(Vec<String>, bool),
    OneOf(Vec<JsonText>),
    UniqueItems,
    MultipleOf(String),
    /// Of a number: that it compares so with the limit.
    Order(String, &'static [Ordering]),
}

impl Demand {
    /// Whether a value is as demanded; what that costs is counted before.
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Types(names, draft_4), _) => {
                names.iter().any(|name| has_type(value, name, *draft_4))
            }
            (Self::OneOf(values), _) => {
                steps::count_whole(value);
                let value = exact(value);
                values.iter().any(|known| known.json().equals(&value))
            }
            (Self::UniqueItems, Value::Array(items)) => {
                steps::count_unique(value);
                let mut seen = HashSet::new();
                let mut texts = items.iter().map(|item| exact(item).canonical());
                texts.all(|text| seen.insert(text))
            }
            (Self::MultipleOf(divisor), Value::Number(number)) => {
                let number = counted(value, number);
                is_multiple_of(&number, divisor) == Some(true)
            }
            (Self::Order(limit, allowed), Value::Number(number)) => {
                let order = compare_numbers(&counted(value, number), limit);
                order.is_some_and(|order| allowed.contains(&order))
            }
            _ => true,
        }
    }

    /// What is wrong with a value that is not as demanded.
    fn fault(&self, value: &Value) -> String {
        steps::count_whole(value);
        let value = shown(exact(value).to_string());
        match self {
            Self::Nothing => value,
            Self::Types(names, _) => format!("{value} is not of type {}", names.join(" or ")),
            Self::OneOf(values) => {
                let listed = values.iter().map(JsonText::as_str).collect::<Vec<_>>();
                match listed.join(", ") {
                    list if list.len() <= QUOTED_BYTES_MAX => {
                        format!("{value} is not one of {list}")
                    }
                    _ => format!("{value} is not one of those that the schema lists"),
                }
            }
            Self::UniqueItems => format!("{value} has non-unique elements"),
            Self::MultipleOf(divisor) => format!("{value} is not a multiple of {divisor}"),
            Self::Order(limit, allowed) => {
                let side = match allowed.contains(&Ordering::Less) {
                    true => "above",
                    false => "below",
                };
                let or_at = match allowed.contains(&Ordering::Equal) {
                    true => "",
                    false => " or at",
                };
                format!("{value} is {side}{or_at} the limit of {limit}")
            }
        }
    }
}

/// A number as it was written, whose digits are about to be looked at.
fn counted(value: &Value, number: &Number) -> String {
    let written = written(value, number);
    steps::count_digits(written.len());
    written
}

fn has_type(value: &Value, name: &str, draft_4: bool) -> bool {
    match (value, name) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::String(_), "string")
        | (Value::Array(_), "array")
        | (Value::Object(_), "object")
        | (Value::Number(_), "number") => true,
        (Value::Number(number), "integer") => {
            let number = counted(value, number);
            match draft_4 {
                true => !number.contains(['.', 'e', 'E']),
                false => is_whole(&number) == Some(true),
            }
        }
        _ => false,
    }
}

impl Keyword for Demand {
    fn validate<'i>(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        match self.holds(value) {
            true => Ok(()),
            false => Err(ValidationError::custom(self.fault(value))),
        }
    }

    fn is_valid(&self, value: &Value) -> bool {
        self.holds(value)
    }
}

#[cfg(test)]
mod tests {
    use onelog_commit::SchemaFault;
    use serde_json::json;

    use super::*;
    use crate::schema::compile;

    #[test]
    fn a_long_number_is_shown_as_it_was_written_whatever_refuses_it() {
        let long = "12345678901234567890.12345";
        let within = format!("[{long}]");
        for (schema, value) in [
            (json!({"properties": {"n": false}}), long),
            (
                json!({"properties": {"n": {"not": {"type": "number"}}}}),
                long,
            ),
            (
                json!({"properties": {"n": {"anyOf": [{"type": "null"}]}}}),
                long,
            ),
            (
                json!({"properties": {"n": {"oneOf": [{"minItems": 2}, {"type": "null"}]}}}),
                &within,
            ),
            (json!({"properties": {"n": {"minItems": 2}}}), &within),
            (json!({"properties": {"n": {"maxItems": 0}}}), &within),
            (
                json!({"properties": {"n": {"contains": {"type": "null"}}}}),
                &within,
            ),
        ] {
            let document = format!(r#"{{"n":{value}}}"#);
            let document = Json::parse(document.as_bytes()).unwrap();
            let checked = compile(&schema).unwrap().check(&document, &mut 1_000_000);
            let Err(SchemaFault::Breaks(text)) = checked else {
                panic!("{schema}: {checked:?}")
            };
            assert!(
                text.starts_with("/n: ") && text.contains(value),
                "{schema}: {text}"
            );
        }
    }
}
