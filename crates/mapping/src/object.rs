//! An object of a definition with its place, so that every error can name it.

use serde_json::{Map, Value};

use crate::{DefinitionError, unknown};

#[derive(Clone, Debug)]
pub struct Object<'v> {
    at: String,
    pub fields: &'v Map<String, Value>,
}

impl<'v> Object<'v> {
    pub fn new(place: &str, value: &'v Value) -> Result<Self, DefinitionError> {
        match value.as_object() {
            Some(fields) => Ok(Self {
                at: place.to_owned(),
                fields,
            }),
            None => Err(DefinitionError::new(
                if place.is_empty() {
                    "the definition"
                } else {
                    place
                },
                "expected a JSON object",
            )),
        }
    }

    pub fn place(&self, field: &str) -> String {
        if self.at.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.at)
        }
    }

    pub fn only(&self, known: &[&'static str]) -> Result<(), DefinitionError> {
        match self
            .fields
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(DefinitionError::new(
                self.place(name),
                unknown("field", name, known.iter().copied()),
            )),
        }
    }

    pub fn required(&self, field: &str) -> Result<&'v Value, DefinitionError> {
        self.fields
            .get(field)
            .ok_or_else(|| DefinitionError::new(self.place(field), "this field is missing"))
    }

    pub fn text(&self, field: &str) -> Result<&'v str, DefinitionError> {
        let value = self.required(field)?;
        value.as_str().ok_or_else(|| {
            DefinitionError::new(self.place(field), format!("expected a text, found {value}"))
        })
    }

    pub fn optional_text(&self, field: &str) -> Result<Option<&'v str>, DefinitionError> {
        match self.fields.get(field) {
            None => Ok(None),
            Some(_) => self.text(field).map(Some),
        }
    }

    pub fn array(&self, field: &str) -> Result<&'v [Value], DefinitionError> {
        let value = self.required(field)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| {
            DefinitionError::new(self.place(field), format!("expected a list, found {value}"))
        })
    }

    pub fn texts(&self, field: &str) -> Result<Vec<&'v str>, DefinitionError> {
        let list = self.array(field)?.iter().enumerate();
        let texts = list.map(|(n, value)| {
            value.as_str().ok_or_else(|| {
                let place = self.place(&format!("{field}[{n}]"));
                DefinitionError::new(place, format!("expected a text, found {value}"))
            })
        });
        texts.collect()
    }

    pub fn boolean(&self, field: &str) -> Result<bool, DefinitionError> {
        match self.fields.get(field) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| {
                DefinitionError::new(
                    self.place(field),
                    format!("expected true or false, found {value}"),
                )
            }),
        }
    }

    /// A whole number from 1 to `max`.
    pub fn optional_count(&self, field: &str, max: u64) -> Result<Option<u64>, DefinitionError> {
        let Some(value) = self.fields.get(field) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if (1..=max).contains(&count) => Ok(Some(count)),
            _ => Err(DefinitionError::new(
                self.place(field),
                format!("expected a whole number from 1 to {max}, found {value}"),
            )),
        }
    }
}
