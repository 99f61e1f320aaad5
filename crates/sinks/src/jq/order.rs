//! jq's order of values: null, false, true, numbers, strings, arrays, objects.
//!
//! The order is total, NaN included (before all other numbers), since sorting relies on it.

use std::cmp::Ordering;

use jaq_json::Num;

use super::meter;
use super::value::{Object, Value};

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        meter::read(self.bytes().min(other.bytes()));
        order(self, other)
    }
}

fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Number(left), Value::Number(right)) => order_numbers(left, right),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            order_all(left.items().iter(), right.items().iter())
        }
        (Value::Object(left), Value::Object(right)) => order_objects(left, right),
        _ => rank(left).cmp(&rank(right)),
    }
}

const fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::Text(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

fn order_numbers(left: &Num, right: &Num) -> Ordering {
    let is_nan = |number: &Num| matches!(number, Num::Float(float) if float.is_nan());
    if is_nan(left) && is_nan(right) {
        return Ordering::Equal;
    }
    left.cmp(right)
}

fn order_all<'v>(
    left: impl Iterator<Item = &'v Value>,
    mut right: impl Iterator<Item = &'v Value>,
) -> Ordering {
    for left in left {
        let Some(right) = right.next() else {
            return Ordering::Greater;
        };
        let ordering = order(left, right);
        if ordering.is_ne() {
            return ordering;
        }
    }
    if right.next().is_some() {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

/// First by the sorted names, then by the values in the order of their names.
fn order_objects(left: &Object, right: &Object) -> Ordering {
    let sorted = |object: &'_ Object| {
        let mut names: Vec<_> = object.fields().keys().cloned().collect();
        names.sort();
        names
    };
    let (left_names, right_names) = (sorted(left), sorted(right));
    left_names.cmp(&right_names).then_with(|| {
        let of_left = left_names.iter().filter_map(|name| left.fields().get(name));
        let of_right = left_names
            .iter()
            .filter_map(|name| right.fields().get(name));
        order_all(of_left, of_right)
    })
}
