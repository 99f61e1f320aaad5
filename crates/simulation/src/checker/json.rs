//! Guards and operations on plain JSON, written without a look at the validator's own code.

use std::cmp::Ordering;

use bytes::Bytes;
use onelog_record::{Compare, FieldPath, Number, Operation, Predicate};
use serde_json::Value;

use crate::history::Found;

/// Whether a predicate holds on what a key has.
pub(super) fn holds(predicate: &Predicate, met: Option<&Found>) -> bool {
    match predicate {
        Predicate::Exists => met.is_some(),
        Predicate::Absent => met.is_none(),
        Predicate::Version(version) => met.is_some_and(|met| met.version == *version),
        Predicate::Field {
            path,
            compare,
            value,
        } => {
            let document = match met {
                None => Value::Null,
                Some(met) => match serde_json::from_slice(&met.value) {
                    Ok(document) => document,
                    Err(_) => return false,
                },
            };
            let Ok(value) = serde_json::from_str(value.as_str()) else {
                return false;
            };
            compares(
                path.get(&document).unwrap_or(&Value::Null),
                *compare,
                &value,
            )
        }
    }
}

fn compares(met: &Value, compare: Compare, with: &Value) -> bool {
    let order = match (met, with) {
        (Value::Number(met), Value::Number(with)) => Some(numbers(met, with)),
        (Value::String(met), Value::String(with)) => Some(met.cmp(with)),
        _ => None,
    };
    let equal = order.map_or(met == with, Ordering::is_eq);
    match compare {
        Compare::Eq => equal,
        Compare::Ne => !equal,
        Compare::Lt => order.is_some_and(Ordering::is_lt),
        Compare::Le => order.is_some_and(Ordering::is_le),
        Compare::Gt => order.is_some_and(Ordering::is_gt),
        Compare::Ge => order.is_some_and(Ordering::is_ge),
    }
}

/// The workloads use whole numbers of 64 bits only.
fn numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    a.as_i64().cmp(&b.as_i64())
}

/// What an operation makes of what it meets. `None` on the outside: it cannot be carried out.
pub(super) fn after_image(operation: &Operation, met: Option<&Bytes>) -> Option<Option<Bytes>> {
    let edit = |path: &FieldPath, change: &dyn Fn(&mut Value) -> Option<()>| {
        let mut document: Value =
            met.map_or(Some(Value::Null), |met| serde_json::from_slice(met).ok())?;
        change(path.make(&mut document)?)?;
        Some(Some(Bytes::from(serde_json::to_vec(&document).ok()?)))
    };
    match operation {
        Operation::Put(value) => Some(Some(value.clone())),
        Operation::Delete => Some(None),
        Operation::Add(path, by) => edit(path, &|place| number(place, by, |a, b| a.checked_add(b))),
        Operation::Min(path, by) => edit(path, &|place| number(place, by, |a, b| Some(a.min(b)))),
        Operation::Max(path, by) => edit(path, &|place| number(place, by, |a, b| Some(a.max(b)))),
        Operation::Append(path, element) => edit(path, &|place| {
            if place.is_null() {
                *place = Value::Array(Vec::new());
            }
            place
                .as_array_mut()?
                .push(serde_json::from_str(element.as_str()).ok()?);
            Some(())
        }),
        Operation::AppendBytes(bytes) => {
            let mut all = met.map(|met| met.to_vec()).unwrap_or_default();
            all.extend_from_slice(bytes);
            Some(Some(all.into()))
        }
    }
}

fn number(place: &mut Value, by: &Number, change: fn(i64, i64) -> Option<i64>) -> Option<()> {
    let by = by.as_str().parse().ok()?;
    let new = match place {
        Value::Null => by,
        Value::Number(met) => change(met.as_i64()?, by)?,
        _ => return None,
    };
    *place = Value::from(new);
    Some(())
}

/// Whether two values are the same: as bytes, or as JSON documents.
pub(super) fn same(a: Option<&Bytes>, b: Option<&Bytes>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a != b => {
            let parse = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).ok();
            parse(a).is_some() && parse(a) == parse(b)
        }
        _ => a == b,
    }
}
