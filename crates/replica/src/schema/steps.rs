//! What checking a document against a schema may cost, counted in steps.
//!
//! A schema can be written so that a small document takes for ever: references that double the work
//! at each level, a pattern that backtracks, long lists to compare with. So each place of a schema
//! where a subschema may be gets a keyword of our own, which counts how often the library comes by,
//! and ends the check when no step is left. The library has no way to be ended but to unwind; what
//! it had built is dropped, and nothing of it outlives the check.
//!
//! The library asks its own keywords first, and no further one once one does not hold. So ours is in
//! a part of `allOf`, which comes before whatever can double the work, and so do long comparisons,
//! which are moved into a part behind it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::LocalKey;

use jsonschema::{Keyword, PatternOptions, ValidationError, ValidationOptions};
use onelog_record::Quoted;
use serde_json::{Map, Value};

use super::exact;
use super::patterns::{BACKTRACK_MAX, Matching, PATTERN_BYTES_MAX, Patterns};
use super::unseen::{Everywhere, Unseen};

/// The keyword that is put into each subschema.
const KEYWORD: &str = "x-onelog-step";
/// So many bytes of a text, or elements of a list, are looked at in about the time of one step.
pub(super) const BYTES_PER_STEP: usize = 64;
pub(super) const ELEMENTS_PER_STEP: usize = 8;
/// What making the text of a value costs that all equal ones share, and keeping it: for each value in
/// it, and for so many bytes.
const UNIQUE_STEPS: usize = 12;
const UNIQUE_BYTES_PER_STEP: usize = 16;
/// An object is compared field by field, each of which is looked up.
const FIELD_WEIGHT: usize = 4;
/// The most bytes of a schema's text, and the most patterns in it.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
const SCHEMA_PATTERNS_MAX: usize = 256;

/// Keywords whose value maps names to subschemas, or to names.
const MAPS: [&str; 7] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependencies",
    "dependentRequired",
];
/// Keywords that compare the value with something long or with itself, look names up in it, or read
/// all of a text.
const COMPARE: [&str; 12] = [
    "const",
    "enum",
    "pattern",
    "uniqueItems",
    "multipleOf",
    "required",
    "dependentRequired",
    "minLength",
    "maxLength",
    "format",
    "contentEncoding",
    "contentMediaType",
];
/// Keywords whose names are looked up in each object.
const LOOKED_UP: [&str; 4] = [
    "required",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
];
/// Keywords that read a text more slowly than others.
const READ: [&str; 3] = ["format", "contentEncoding", "contentMediaType"];
/// Keywords for which the library looks at all members once more, and at what other keywords say of
/// them.
const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];
/// Keywords that are compared with all that is in them, or copied into what is wrong.
const COPIED: [&str; 7] = [
    "const",
    "enum",
    "pattern",
    "not",
    "required",
    "dependentRequired",
    "dependencies",
];
/// Keywords whose subschemas are asked one after another, whether one holds or not.
const BRANCHES: [&str; 2] = ["anyOf", "oneOf"];
pub(super) const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Keywords whose value is data.
pub(super) const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
    /// Of the steps that are left, those with which the library may build what is wrong.
    static BUILDING_LEFT: Cell<usize> = const { Cell::new(0) };
}

struct OutOfSteps;

/// Runs a check that takes at most `steps`, and takes off what it took; `None` when it needs more.
pub(super) fn within<T>(steps: &mut usize, check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(*steps);
    let checked = catch_unwind(AssertUnwindSafe(check));
    *steps = LEFT.get();
    match checked {
        Ok(answer) => Some(answer),
        Err(panic) if panic.is::<OutOfSteps>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// As [`within`], for a check that says what is wrong: of its steps at most `building` may be visits
/// in which the library builds that, instead of only asking whether a part fits.
pub(super) fn within_building<T>(
    steps: &mut usize,
    building: usize,
    check: impl FnOnce() -> T,
) -> Option<T> {
    BUILDING_LEFT.set(building);
    within(steps, check)
}

pub(super) fn take(steps: usize) {
    take_from(&LEFT, steps);
}

fn take_from(all: &'static LocalKey<Cell<usize>>, steps: usize) {
    match all.get().checked_sub(steps) {
        Some(left) => all.set(left),
        None => {
            all.set(0);
            resume_unwind(Box::new(OutOfSteps));
        }
    }
}

/// Options of the library whose checks are counted. The schema must be a marked one.
pub(super) fn options() -> ValidationOptions<'static> {
    let options = jsonschema::options()
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_MAX))
        .with_keyword(KEYWORD, |_: &Map<String, Value>, value: &Value, _| {
            Ok(Box::new(Step::read(value)) as Box<dyn Keyword>)
        });
    exact::with_costly(options)
}

/// The schema with our keyword in each subschema, and the values to compare with as [`sort`] has
/// them.
pub(super) fn marked(schema: &Value) -> Value {
    let patterns = Patterns::of(schema);
    let marking = Marking {
        // Tables of earlier versions may have such references. What they lead to is no part that is
        // visited as one, so it stays where it is.
        moves: !refers_into_data(schema),
        looks_again: has_keyword(schema, &UNEVALUATED),
        everywhere: Everywhere::of(schema, &patterns),
        patterns,
    };
    marked_part(schema, &marking)
}

/// What is known of a schema as a whole when its parts are marked.
struct Marking {
    moves: bool,
    looks_again: bool,
    patterns: Patterns,
    everywhere: Everywhere,
}

fn marked_part(schema: &Value, marking: &Marking) -> Value {
    match schema {
        Value::Object(fields) => marked_fields(fields, marking),
        Value::Array(items) => {
            let items = items.iter();
            items.map(|item| marked_part(item, marking)).collect()
        }
        other => other.clone(),
    }
}

/// A marked part as it was written, but for the order of its keywords.
pub(super) fn unmarked(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => unmarked_fields(fields),
        Value::Array(items) => items.iter().map(unmarked).collect(),
        other => other.clone(),
    }
}

fn unmarked_fields(fields: &Map<String, Value>) -> Value {
    let mut unmarked_all = Map::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            (name, value) if DATA.contains(&name) => value.clone(),
            (name, Value::Object(map)) if MAPS.contains(&name) => {
                let map = map.iter();
                Value::Object(map.map(|(n, v)| (n.clone(), unmarked(v))).collect())
            }
            ("allOf", Value::Array(all)) => {
                let is_step = |part: &Value| part.get(KEYWORD).is_some();
                let own = all.iter().position(is_step).unwrap_or(all.len());
                let moved = all.iter().skip(own + 1).filter_map(Value::as_object);
                unmarked_all.extend(moved.flatten().map(|(n, v)| (n.clone(), v.clone())));
                match own {
                    0 => continue,
                    own => all.iter().take(own).map(unmarked).collect(),
                }
            }
            (_, value) => unmarked(value),
        };
        unmarked_all.insert(name.clone(), value);
    }
    Value::Object(unmarked_all)
}

fn refers_into_data(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(to) => REFERENCES.contains(&name.as_str()) && leads_into_data(to),
            value => refers_into_data(value),
        }),
        Value::Array(items) => items.iter().any(refers_into_data),
        _ => false,
    }
}

fn marked_fields(fields: &Map<String, Value>, marking: &Marking) -> Value {
    let mut marked_fields = Map::new();
    let mut comparing = Map::new();
    for (name, value) in fields {
        let mut value = match (name.as_str(), value) {
            (name, value) if DATA.contains(&name) => value.clone(),
            (name, Value::Object(map)) if MAPS.contains(&name) => {
                let map = map.iter();
                Value::Object(
                    map.map(|(n, v)| (n.clone(), marked_part(v, marking)))
                        .collect(),
                )
            }
            (_, value) => marked_part(value, marking),
        };
        if marking.moves && COMPARE.contains(&name.as_str()) {
            value.sort_all_objects();
            comparing.insert(name.clone(), value);
        } else {
            marked_fields.insert(name.clone(), value);
        }
    }
    let all = marked_fields
        .entry("allOf")
        .or_insert_with(|| Value::Array(Vec::new()));
    // What is no list of schemas is left to the library, which refuses it.
    match all {
        Value::Array(all) if !all.is_empty() || !fields.contains_key("allOf") => {
            let step = Step::of(fields, marking).value();
            all.push(Value::Object(Map::from_iter([(KEYWORD.to_owned(), step)])));
            if !comparing.is_empty() {
                all.push(Value::Object(comparing));
            }
        }
        _ => marked_fields.extend(comparing),
    }
    Value::Object(marked_fields)
}

/// Whether a schema has one of these keywords somewhere.
pub(super) fn has_keyword(schema: &Value, names: &[&str]) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            names.contains(&name.as_str())
                || !DATA.contains(&name.as_str()) && has_keyword(value, names)
        }),
        Value::Array(items) => items.iter().any(|item| has_keyword(item, names)),
        _ => false,
    }
}

/// Whether the library, asked for what is wrong, may build the errors of several subschemas.
pub(super) fn has_branches(schema: &Value) -> bool {
    has_keyword(schema, &BRANCHES)
}

/// Whether a schema compares values that may have fields.
pub(super) fn compares(schema: &Value) -> bool {
    has_keyword(schema, &["const", "enum", "uniqueItems"])
}

/// Sorts the fields of all objects by their names: the library compares them in their order.
pub(super) fn sort(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            take(fields.len() / ELEMENTS_PER_STEP);
            fields.sort_keys();
            fields.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

/// Whether no list or object of a value has more members than this, and no place in it is written
/// with more bytes.
pub(super) fn is_within(value: &Value, members: usize, place_bytes: usize) -> bool {
    let below = |step_bytes: usize, inner: &Value| {
        let left = place_bytes.checked_sub(step_bytes + 1);
        left.is_some_and(|left| is_within(inner, members, left))
    };
    match value {
        Value::Array(items) => items.len() <= members && items.iter().all(|item| below(8, item)),
        Value::Object(fields) => {
            fields.len() <= members && fields.iter().all(|(name, field)| below(name.len(), field))
        }
        _ => true,
    }
}

/// What a new schema must keep besides being one.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(format!(
            "it has {bytes} bytes, the limit is {SCHEMA_BYTES_MAX}"
        ));
    }
    look_through(schema)?;
    let patterns = Patterns::of(schema);
    let count = patterns.count;
    if count > SCHEMA_PATTERNS_MAX {
        return Err(format!(
            "it has {count} patterns, the limit is {SCHEMA_PATTERNS_MAX}"
        ));
    }
    if patterns.bytes > PATTERN_BYTES_MAX {
        return Err(format!(
            "its patterns take more than {PATTERN_BYTES_MAX} bytes together when they are compiled; shorter ones, and smaller numbers in braces, take less"
        ));
    }
    Ok(())
}

fn look_through(schema: &Value) -> Result<(), String> {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    (name, Value::String(to))
                        if REFERENCES.contains(&name) && leads_into_data(to) =>
                    {
                        return Err(format!(
                            "'{name}' leads to '{}', which is a value and no schema: put the schema under '$defs'",
                            Quoted(to)
                        ));
                    }
                    _ => {}
                }
                if !DATA.contains(&name.as_str()) {
                    look_through(value)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(look_through),
        _ => Ok(()),
    }
}

fn leads_into_data(reference: &str) -> bool {
    let Some((_, pointer)) = reference.split_once('#') else {
        return false;
    };
    let steps: Vec<&str> = pointer.split('/').collect();
    steps
        .windows(2)
        .any(|pair| DATA.contains(&pair[1]) && !MAPS.contains(&pair[0]))
}

/// Counts a visit of one subschema.
#[derive(Debug)]
struct Step {
    /// What its keywords cost whatever they meet.
    own: usize,
    /// How many names it looks up in an object.
    names: usize,
    /// How many properties it describes: the fewer of these and of the fields are looked up.
    properties: usize,
    /// How often it may have all members of a value looked at.
    scans: usize,
    /// How often it may have a text read byte by byte.
    reads: usize,
    /// What its pattern costs for a text.
    pattern: Matching,
    /// What its patterns cost for each field of an object.
    patterns: Matching,
    /// What its branches may look at before they are counted.
    unseen: Unseen,
}

impl Step {
    fn of(schema: &Map<String, Value>, marking: &Marking) -> Self {
        let long = schema.values().map(|value| match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        });
        let copied = COPIED.map(|name| schema.get(name).map_or(0, weight));
        let long = long.sum::<usize>() + copied.iter().sum::<usize>();
        let branches = BRANCHES.map(|name| schema.get(name).and_then(Value::as_array));
        let branches = branches.into_iter().flatten().map(Vec::len);
        let names = LOOKED_UP.map(|name| schema.get(name).map_or(0, names_in));
        let read = READ.iter().filter(|name| schema.contains_key(**name));
        // Each member is asked about, and does not count where it fails at once.
        let asks_all = schema.contains_key("contains") || marking.looks_again;
        let looks = if asks_all { ELEMENTS_PER_STEP } else { 1 };
        let patterns = marking.patterns.names(schema);
        Self {
            own: 1 + long / ELEMENTS_PER_STEP,
            names: names.iter().sum(),
            properties: schema.get("properties").map_or(0, names_in),
            scans: looks + branches.sum::<usize>(),
            reads: read.count(),
            pattern: marking.patterns.text(schema),
            patterns: match marking.looks_again {
                true => patterns.and(patterns),
                false => patterns,
            },
            unseen: Unseen::of(schema, &marking.everywhere),
        }
    }

    fn value(&self) -> Value {
        let [own, names, scans] = [self.own, self.names, self.scans];
        let counts = [own, names, scans, self.reads, self.properties];
        let patterns = [self.pattern, self.patterns, self.unseen.patterns];
        let patterns = patterns.map(Matching::to_numbers);
        let numbers = counts.into_iter().chain(patterns.into_iter().flatten());
        let numbers = numbers.chain([self.unseen.looks]);
        Value::from(numbers.collect::<Vec<_>>())
    }

    /// As [`Self::value`] wrote it.
    fn read(value: &Value) -> Self {
        let number = |n: usize| value.get(n).and_then(Value::as_u64).unwrap_or(1);
        let number = |n| usize::try_from(number(n)).unwrap_or(usize::MAX);
        let matching = |from| Matching::from_numbers([from, from + 1, from + 2].map(number));
        Self {
            own: number(0),
            names: number(1),
            scans: number(2),
            reads: number(3),
            properties: number(4),
            pattern: matching(5),
            patterns: matching(8),
            unseen: Unseen {
                patterns: matching(11),
                looks: number(14),
            },
        }
    }

    fn cost(&self, value: &Value) -> usize {
        let scanned = |members: usize| self.scans.saturating_mul(members) / ELEMENTS_PER_STEP;
        let counted = self.own.saturating_add(self.unseen.cost(value));
        counted.saturating_add(match value {
            Value::String(text) => self.cost_of_text(text.len()),
            Value::Array(items) => scanned(items.len()),
            Value::Object(fields) => {
                let names = fields.keys().map(String::len);
                // A long name costs each time that it is looked up or matched.
                let long: usize = names.clone().map(|bytes| bytes / BYTES_PER_STEP).sum();
                let matched = match self.patterns.is_nothing() {
                    true => 0,
                    false => names.map(|bytes| self.patterns.steps(bytes)).sum(),
                };
                scanned(fields.len())
                    .saturating_add(self.names)
                    .saturating_add(self.properties.min(fields.len()))
                    .saturating_add(matched)
                    .saturating_add(self.scans.saturating_mul(long))
            }
            _ => 0,
        })
    }

    fn cost_of_text(&self, bytes: usize) -> usize {
        let scanned = self.scans.saturating_mul(bytes / BYTES_PER_STEP);
        let read = self.reads.saturating_mul(bytes) / ELEMENTS_PER_STEP;
        let matched = match self.pattern.is_nothing() {
            true => 0,
            false => self.pattern.steps(bytes),
        };
        scanned.saturating_add(read).saturating_add(matched)
    }
}

/// How many names the value of a keyword has: of fields, and of those that depend on them.
pub(super) fn names_in(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => {
            let lists = fields.values().filter_map(Value::as_array);
            fields.len() + lists.map(Vec::len).sum::<usize>()
        }
        _ => 0,
    }
}

/// Counts making the texts that equal values share of all that are in a value.
pub(super) fn count_unique(value: &Value) {
    take(1);
    match value {
        Value::String(text) => take(UNIQUE_STEPS + text.len() / UNIQUE_BYTES_PER_STEP),
        Value::Array(items) => {
            take(UNIQUE_STEPS);
            items.iter().for_each(count_unique);
        }
        Value::Object(fields) => {
            take(UNIQUE_STEPS);
            for (name, field) in fields {
                take(UNIQUE_STEPS + name.len() / UNIQUE_BYTES_PER_STEP);
                count_unique(field);
            }
        }
        _ => take(UNIQUE_STEPS),
    }
}

/// Counts making something of all that is in a value.
pub(super) fn count_whole(value: &Value) {
    take(1 + weight(value));
}

/// Counts the digits of a number.
pub(super) fn count_digits(digits: usize) {
    take(2 + digits / 2);
}

/// How many values, or parts of long texts, a value has in it.
fn weight(value: &Value) -> usize {
    let long = |text: &str| text.len() / BYTES_PER_STEP * ELEMENTS_PER_STEP;
    match value {
        Value::String(text) => 1 + long(text),
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter();
            1 + fields
                .map(|(name, field)| FIELD_WEIGHT + long(name) + weight(field))
                .sum::<usize>()
        }
        _ => 1,
    }
}

impl Keyword for Step {
    fn validate<'i>(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        let cost = self.cost(value);
        take(cost);
        take_from(&BUILDING_LEFT, cost);
        Ok(())
    }

    fn is_valid(&self, value: &Value) -> bool {
        take(self.cost(value));
        true
    }
}

#[cfg(test)]
mod tests;
