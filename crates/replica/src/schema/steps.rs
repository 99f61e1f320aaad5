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

/// The keyword that is put into each subschema.
const KEYWORD: &str = "x-onelog-step";
/// The most steps back that one match of a pattern with look-around or references may take. Other
/// patterns never go back.
const BACKTRACK_MAX: usize = 10_000;
/// What such a match is counted as.
const BACKTRACKING_STEPS: usize = 500;
/// So many bytes of a text, or elements of a list, are looked at in about the time of one step.
const BYTES_PER_STEP: usize = 64;
const ELEMENTS_PER_STEP: usize = 8;
/// The most bytes of a schema's text, and the most patterns in it: each is compiled by the thread
/// that decides.
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
/// Keywords that compare the value with something long, or with itself.
const COMPARE: [&str; 4] = ["const", "enum", "pattern", "uniqueItems"];
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
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

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

fn take(steps: usize) {
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
    exact::with_unique_items(options)
}

/// The schema with our keyword in each subschema, and the values to compare with as [`sort`] has
/// them.
pub(super) fn marked(schema: &Value) -> Value {
    // Tables of earlier versions may have such references. What they lead to is no part that is
    // visited as one, so it stays where it is.
    let moves = !refers_into_data(schema);
    marked_part(schema, moves)
}

fn marked_part(schema: &Value, moves: bool) -> Value {
    match schema {
        Value::Object(fields) => marked_fields(fields, moves),
        Value::Array(items) => items.iter().map(|item| marked_part(item, moves)).collect(),
        other => other.clone(),
    }
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

fn marked_fields(fields: &Map<String, Value>, moves: bool) -> Value {
    let mut marked_fields = Map::new();
    let mut comparing = Map::new();
    for (name, value) in fields {
        let mut value = match (name.as_str(), value) {
            (name, value) if DATA.contains(&name) => value.clone(),
            (name, Value::Object(map)) if MAPS.contains(&name) => {
                let map = map.iter();
                Value::Object(
                    map.map(|(n, v)| (n.clone(), marked_part(v, moves)))
                        .collect(),
                )
            }
            (_, value) => marked_part(value, moves),
        };
        if moves && COMPARE.contains(&name.as_str()) {
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
            let step = Step::of(fields).value();
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
fn has_keyword(schema: &Value, names: &[&str]) -> bool {
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
    let mut patterns = 0;
    look_through(schema, &mut patterns)?;
    if patterns > SCHEMA_PATTERNS_MAX {
        return Err(format!(
            "it has {patterns} patterns, the limit is {SCHEMA_PATTERNS_MAX}"
        ));
    }
    Ok(())
}

fn look_through(schema: &Value, patterns: &mut usize) -> Result<(), String> {
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
                    ("pattern", Value::String(_)) => *patterns += 1,
                    ("patternProperties", Value::Object(map)) => *patterns += map.len(),
                    _ => {}
                }
                if !DATA.contains(&name.as_str()) {
                    look_through(value, patterns)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| look_through(item, patterns)),
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
    /// What its pattern costs for a text.
    pattern: usize,
    /// What its patterns cost for each field of an object.
    patterns: usize,
    /// How often it may have all members of a value looked at.
    scans: usize,
}

impl Step {
    fn of(schema: &Map<String, Value>) -> Self {
        let long = schema.values().map(|value| match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        });
        let copied = COPIED.map(|name| schema.get(name).map_or(0, weight));
        let long = long.sum::<usize>() + copied.iter().sum::<usize>();
        let branches = BRANCHES.map(|name| schema.get(name).and_then(Value::as_array));
        let branches = branches.into_iter().flatten().map(Vec::len);
        let pattern = schema.get("pattern").and_then(Value::as_str);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let patterns = patterns.into_iter().flat_map(Map::keys);
        Self {
            own: 1 + long / ELEMENTS_PER_STEP,
            pattern: pattern.map_or(0, match_steps),
            patterns: patterns.map(String::as_str).map(match_steps).sum(),
            scans: 1 + branches.sum::<usize>(),
        }
    }

    fn value(&self) -> Value {
        Value::from(vec![self.own, self.pattern, self.patterns, self.scans])
    }

    /// As [`Self::value`] wrote it.
    fn read(value: &Value) -> Self {
        let number = |n: usize| value.get(n).and_then(Value::as_u64).unwrap_or(1);
        let number = |n| usize::try_from(number(n)).unwrap_or(usize::MAX);
        Self {
            own: number(0),
            pattern: number(1),
            patterns: number(2),
            scans: number(3),
        }
    }

    fn cost(&self, value: &Value) -> usize {
        let scanned = |members: usize| self.scans.saturating_mul(members) / ELEMENTS_PER_STEP;
        self.own.saturating_add(match value {
            Value::String(text) => self.pattern + text.len() / BYTES_PER_STEP,
            Value::Array(items) => scanned(items.len()),
            Value::Object(fields) => {
                // A long name costs each time that it is looked up or matched.
                let names: usize = fields.keys().map(|name| name.len() / BYTES_PER_STEP).sum();
                let looks = self.scans.saturating_add(self.patterns);
                scanned(fields.len())
                    .saturating_add(self.patterns.saturating_mul(fields.len()))
                    .saturating_add(looks.saturating_mul(names))
            }
            _ => 0,
        })
    }
}

/// Counts making something of all that is in a value.
pub(super) fn count_whole(value: &Value) {
    take(1 + weight(value) / ELEMENTS_PER_STEP);
}

/// How many values, or parts of long texts, a value has in it.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / BYTES_PER_STEP * ELEMENTS_PER_STEP,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(weight).sum::<usize>(),
        _ => 1,
    }
}

fn match_steps(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    let goes_back = bytes
        .windows(3)
        .any(|part| part[..2] == *b"(?" && matches!(part[2], b'=' | b'!' | b'<' | b'>'));
    let refers = bytes
        .windows(2)
        .any(|part| part[0] == b'\\' && matches!(part[1], b'1'..=b'9' | b'k'));
    if goes_back || refers {
        BACKTRACKING_STEPS
    } else {
        1
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
