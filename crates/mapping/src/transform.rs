//! What a mapping does with a record before columns are taken from it: leave it out (`where`), make
//! another document of it (`transform`), keep some fields (`fields`).

use std::sync::Arc;

use bytes::Bytes;
use onelog_jq::{JqError, LANGUAGE_VERSION, Program};
use onelog_record::{FieldPath, Offset, ValueKind, array_index};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::{DefinitionError, Mapping, RowFault};

/// What happens to the documents of one mapping.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transform {
    filter: Option<Arc<Program>>,
    transform: Option<Arc<Program>>,
    fields: Vec<(String, FieldPath)>,
}

impl Transform {
    pub(crate) fn new(
        place: &str,
        mapping: &Mapping,
        value: ValueKind,
    ) -> Result<Self, DefinitionError> {
        let compile = |field: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Program::compile(text)
                .map(|program| Some(Arc::new(program)))
                .map_err(|error| {
                    DefinitionError::new(format!("{place}.{field}"), error.to_string())
                }),
        };
        let transform = Self {
            filter: compile("where", &mapping.filter)?,
            transform: compile("transform", &mapping.transform)?,
            fields: mapping.fields.clone(),
        };
        if value == ValueKind::Bytes && !transform.is_plain() {
            return Err(DefinitionError::new(
                place,
                "the table's values are bytes: 'where', 'transform' and 'fields' need JSON",
            ));
        }
        Ok(transform)
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.filter.is_none() && self.transform.is_none() && self.fields.is_empty()
    }

    pub(crate) fn apply(
        &self,
        key: &[u8],
        version: Offset,
        value: &Bytes,
    ) -> Result<Option<Bytes>, RowFault> {
        let fault = |field: &str| {
            let column = field.to_owned();
            move |error: JqError| RowFault {
                column,
                what: error.to_string(),
            }
        };
        if let Some(filter) = &self.filter {
            let kept = filter
                .test(key, version.get(), value)
                .map_err(fault("where"))?;
            if !kept {
                return Ok(None);
            }
        }
        let mut value = value.clone();
        if let Some(transform) = &self.transform {
            let mut out = Vec::new();
            let made = transform
                .transform(key, version.get(), &value, &mut out)
                .map_err(fault("transform"))?;
            if !made {
                return Ok(None);
            }
            value = out.into();
        }
        if !self.fields.is_empty() {
            value = self.choose(&value)?;
        }
        Ok(Some(value))
    }

    /// The chosen fields under their new names; a field that the document lacks is left out.
    fn choose(&self, value: &[u8]) -> Result<Bytes, RowFault> {
        let fault = |error: serde_json::Error| RowFault {
            column: "fields".into(),
            what: format!("the value is not a JSON object: {error}"),
        };
        let top: std::collections::HashMap<String, &RawValue> =
            serde_json::from_slice(value).map_err(fault)?;
        let mut out = Vec::with_capacity(value.len());
        out.push(b'{');
        for (name, path) in &self.fields {
            let found = match path.steps().split_first() {
                None => std::str::from_utf8(value).ok(),
                Some((first, rest)) => top.get(first).and_then(|raw| descend(raw.get(), rest)),
            };
            let Some(found) = found else {
                continue;
            };
            if out.len() > 1 {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, name).map_err(fault)?;
            out.push(b':');
            out.extend_from_slice(found.as_bytes());
        }
        out.push(b'}');
        Ok(out.into())
    }

    pub(crate) fn fingerprint(&self) -> Map<String, Value> {
        let mut out = Map::new();
        if self.filter.is_some() || self.transform.is_some() {
            out.insert("language".into(), LANGUAGE_VERSION.into());
        }
        if let Some(filter) = &self.filter {
            out.insert("where".into(), filter.text().into());
        }
        if let Some(transform) = &self.transform {
            out.insert("transform".into(), transform.text().into());
        }
        if !self.fields.is_empty() {
            let fields = self.fields.iter().map(|(name, path)| {
                Value::from(vec![Value::from(name.as_str()), Value::from(path.as_str())])
            });
            out.insert("fields".into(), fields.collect());
        }
        out
    }
}

/// The text of the value at the end of a path. Numbers keep their digits.
fn descend<'v>(raw: &'v str, steps: &[String]) -> Option<&'v str> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(raw);
    };
    let next: &RawValue = match raw.as_bytes().first()? {
        b'{' => {
            let fields: std::collections::HashMap<String, &'v RawValue> =
                serde_json::from_str(raw).ok()?;
            fields.get(step).copied()?
        }
        b'[' => {
            let items: Vec<&'v RawValue> = serde_json::from_str(raw).ok()?;
            items.get(array_index(step)?).copied()?
        }
        _ => return None,
    };
    descend(next.get(), rest)
}
