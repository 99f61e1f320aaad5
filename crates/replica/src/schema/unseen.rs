//! What a part that does not hold may have looked at before its step was counted.
//!
//! The library asks for the names and members of a value before it comes to the part of `allOf` in
//! which our keyword is, so a subschema that fails there was never counted. That matters where the
//! check goes on all the same: what such a branch may look at is counted in front of it. It ends with
//! the first failure, so it comes by each member of the value, at any depth, at most once, and once
//! more for each of the `dependentSchemas`, which are asked of the same value. It also matters where
//! that one look alone takes long, for very many names and patterns: a whole schema is looked at as
//! one branch, whose steps must be left.

use serde_json::{Map, Value};

use super::patterns::{Matching, Patterns};
use super::steps::{BYTES_PER_STEP, DATA, ELEMENTS_PER_STEP, REFERENCES, has_keyword, names_in};

/// Keywords with which the check goes on where one of their subschemas does not hold.
const LISTS: [&str; 2] = ["anyOf", "oneOf"];
const SINGLE: [&str; 3] = ["not", "if", "contains"];
/// Keywords that look at the members of a value.
const LOOK_INSIDE: [&str; 10] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "dependentSchemas",
    "dependencies",
];
/// Of these, the keywords that may take much for each member.
const COSTLY: [&str; 2] = ["patternProperties", "contains"];
/// Keywords that ask other subschemas of the same value before the step of their own is counted.
const IN_PLACE: [&str; 2] = ["dependentSchemas", "dependencies"];

/// What is known of a schema as a whole.
pub(super) struct Everywhere {
    /// How often one branch may look at one value.
    looks: usize,
    /// What all its `patternProperties` cost for the name of a field.
    patterns: Matching,
}

impl Everywhere {
    pub(super) fn of(schema: &Value, patterns: &Patterns) -> Self {
        let mut everywhere = Self {
            looks: 1,
            patterns: Matching::default(),
        };
        everywhere.look_through(schema, patterns);
        everywhere
    }

    fn look_through(&mut self, schema: &Value, patterns: &Patterns) {
        match schema {
            Value::Object(fields) => {
                let in_place = IN_PLACE.map(|name| fields.get(name).map_or(0, names_in));
                self.looks += in_place.iter().sum::<usize>();
                self.patterns = self.patterns.and(patterns.names(fields));
                let inner = fields
                    .iter()
                    .filter(|(name, _)| !DATA.contains(&name.as_str()));
                inner.for_each(|(_, value)| self.look_through(value, patterns));
            }
            Value::Array(items) => {
                items
                    .iter()
                    .for_each(|item| self.look_through(item, patterns));
            }
            _ => {}
        }
    }
}

/// What the branches of one subschema may look at without a step.
#[derive(Debug)]
pub(super) struct Unseen {
    /// How often they may look at all members of a value.
    pub(super) looks: usize,
    pub(super) patterns: Matching,
}

impl Unseen {
    pub(super) fn of(schema: &Map<String, Value>, everywhere: &Everywhere) -> Self {
        let lists = LISTS
            .iter()
            .filter_map(|name| schema.get(*name)?.as_array());
        let single = SINGLE.iter().filter_map(|name| schema.get(*name));
        let branches = lists.flatten().chain(single);
        let looks = branches.filter(|branch| looks_inside(branch)).count();
        Self {
            looks: looks.saturating_mul(everywhere.looks),
            patterns: everywhere.patterns,
        }
    }

    /// What a whole schema may look at where it does not hold: all of it is a branch then.
    pub(super) fn of_whole(schema: &Value) -> Self {
        let everywhere = Everywhere::of(schema, &Patterns::of(schema));
        Self {
            looks: match has_keyword(schema, &COSTLY) {
                true => everywhere.looks,
                false => 0,
            },
            patterns: everywhere.patterns,
        }
    }

    pub(super) fn cost(&self, value: &Value) -> usize {
        match self.looks {
            0 => 0,
            looks => looks.saturating_mul(self.cost_of_look(value)),
        }
    }

    fn cost_of_look(&self, value: &Value) -> usize {
        let mut names = 0_usize;
        let members = self.look_at(value, &mut names);
        (members / ELEMENTS_PER_STEP).saturating_add(names)
    }

    /// The members of a value at any depth; adds what their names cost.
    fn look_at(&self, value: &Value, names: &mut usize) -> usize {
        match value {
            Value::Array(items) => {
                let inner = items.iter().map(|item| self.look_at(item, names));
                items.len() + inner.sum::<usize>()
            }
            Value::Object(fields) => {
                let mut members = fields.len();
                for (name, field) in fields {
                    let matched = match self.patterns.is_nothing() {
                        true => 0,
                        false => self.patterns.steps(name.len()),
                    };
                    *names = names.saturating_add(matched + name.len() / BYTES_PER_STEP);
                    members += self.look_at(field, names);
                }
                members
            }
            _ => 0,
        }
    }
}

/// Whether a branch may look at the members of a value, perhaps by reference.
fn looks_inside(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let name = name.as_str();
            LOOK_INSIDE.contains(&name)
                || REFERENCES.contains(&name)
                || !DATA.contains(&name) && looks_inside(value)
        }),
        Value::Array(items) => items.iter().any(looks_inside),
        _ => false,
    }
}
