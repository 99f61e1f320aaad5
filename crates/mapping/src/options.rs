//! The fields of a definition that only some kinds of store take. A kind describes each with a
//! [`FieldRule`], which readers, command lines and documents are made of.

use serde_json::{Map, Value};

use crate::object::Object;
use crate::{DefinitionError, MappingRules, unknown};

/// The option by which a table of the store is there already and is fitted, not made.
pub const EXISTING: &str = "existing";
/// [`EXISTING`] as the kinds of store that have tables take it.
pub const EXISTING_RULE: FieldRule = FieldRule {
    name: EXISTING,
    help: "the table exists already and is not made",
    value: FieldValue::Flag,
};
/// The option that says what becomes of the rows that an existing table has before its first backfill,
/// and the value by which they are deleted and written over.
pub const ADOPT: &str = "adopt";
pub const REPLACE: &str = "replace";
/// [`ADOPT`] as the kinds of store that have tables take it.
pub const ADOPT_RULE: FieldRule = FieldRule {
    name: ADOPT,
    help: "what becomes of the rows that an existing table has when the sink first backfills it: with check, the sink stops where the log does not have them as they are; with replace, they are deleted and written over",
    value: FieldValue::Choice {
        what: "way",
        of: &["check", REPLACE],
    },
};
/// The option by which a row ends by itself, so many seconds after it was written.
pub const TTL_SECONDS: &str = "ttl_seconds";

/// One field of a definition, or of a mapping in it, that a kind of store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRule {
    pub name: &'static str,
    /// What it is for, in one line that neither begins nor ends a sentence.
    pub help: &'static str,
    pub value: FieldValue,
}

/// What a field can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue {
    Text,
    Texts,
    /// `true` or `false`, which is the default.
    Flag,
    /// A whole number from 1 to `max`.
    Count {
        max: u64,
    },
    /// One of these texts; the first is the default. `what` names them in errors.
    Choice {
        what: &'static str,
        of: &'static [&'static str],
    },
    /// An object that the store understands.
    Object,
}

/// The options of one mapping. What equals the default is not kept, so that leaving it out means the
/// same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MappingOptions(Map<String, Value>);

impl MappingOptions {
    /// Reads the options of these names.
    pub fn read(
        object: &Object<'_>,
        names: impl IntoIterator<Item = &'static str>,
        rules: &MappingRules,
    ) -> Result<Self, DefinitionError> {
        let mut out = Map::new();
        for name in names {
            let Some(rule) = rules.options.iter().find(|rule| rule.name == name) else {
                continue;
            };
            if let Some(value) = rule.read(object)? {
                out.insert(rule.name.to_owned(), value);
            }
        }
        Ok(Self(out))
    }

    /// One option, for plans that are made without a definition.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(true)
    }

    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// What was chosen; `None`: the default.
    #[must_use]
    pub fn choice(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    #[must_use]
    pub fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.0.get(name).and_then(Value::as_object)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All options by name, as in a definition.
    #[must_use]
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl FieldRule {
    /// The value in a definition; `None` where it is absent or the default.
    fn read(&self, object: &Object<'_>) -> Result<Option<Value>, DefinitionError> {
        Ok(match self.value {
            FieldValue::Text => object.optional_text(self.name)?.map(Value::from),
            FieldValue::Texts => match object.fields.contains_key(self.name) {
                true => {
                    let texts = object.texts(self.name)?;
                    (!texts.is_empty()).then(|| texts.into())
                }
                false => None,
            },
            FieldValue::Flag => object.boolean(self.name)?.then_some(Value::Bool(true)),
            FieldValue::Count { max } => object.optional_count(self.name, max)?.map(Value::from),
            FieldValue::Choice { what, of } => match object.optional_text(self.name)? {
                None => None,
                Some(chosen) if of.first() == Some(&chosen) => None,
                Some(chosen) if of.contains(&chosen) => Some(chosen.into()),
                Some(other) => {
                    return Err(DefinitionError::new(
                        object.place(self.name),
                        unknown(what, other, of.iter().copied()),
                    ));
                }
            },
            FieldValue::Object => match object.fields.get(self.name) {
                None => None,
                Some(value) => {
                    let inner = Object::new(&object.place(self.name), value)?;
                    (!inner.fields.is_empty()).then(|| value.clone())
                }
            },
        })
    }
}
