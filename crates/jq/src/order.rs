//! jq's order of values: null, false, true, numbers, strings, arrays, objects.
//!
//! The order is total, NaN included (before all other numbers), since sorting relies on it.

use std::cmp::Ordering;

use jaq_json::Num;

use super::json::WHOLE_FLOAT_MAX;
use super::meter;
use super::value::{Object, Value, as_float};

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

/// Integers are compared exactly, also with floats: were they rounded first, two different
/// integers could both equal one float.
fn order_numbers(left: &Num, right: &Num) -> Ordering {
    match (is_integer(left), is_integer(right)) {
        (true, true) => left.cmp(right),
        (true, false) => order_integer(left, as_float(right)),
        (false, true) => order_integer(right, as_float(left)).reverse(),
        (false, false) => order_floats(as_float(left), as_float(right)),
    }
}

const fn is_integer(number: &Num) -> bool {
    matches!(number, Num::Int(_) | Num::BigInt(_))
}

fn order_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

fn order_integer(integer: &Num, float: f64) -> Ordering {
    // Rounding keeps the order, and makes an integer equal at most.
    match order_floats(as_float(integer), float) {
        Ordering::Equal if float.is_infinite() => 0.0_f64.total_cmp(&float),
        Ordering::Equal if float.abs() < WHOLE_FLOAT_MAX => Ordering::Equal,
        Ordering::Equal => {
            // What an integer was rounded to has no fraction and is written in full.
            let rounded = Num::from_str_radix(&format!("{float:.0}"), 10);
            rounded.map_or(Ordering::Equal, |rounded| integer.cmp(&rounded))
        }
        different => different,
    }
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
    if left.fields().is_empty() || right.fields().is_empty() {
        return left.fields().len().cmp(&right.fields().len());
    }
    let sorted = |object: &'_ Object| {
        let count = object.fields().len();
        meter::step(count as u64 * u64::from(1 + count.ilog2()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_one_float_cannot_tell_apart_are_ordered_totally() {
        let numbers: Vec<Value> = [
            "9007199254740991",
            "9007199254740992",
            "9007199254740992.0",
            "9007199254740993",
            "9007199254740994",
            "-9007199254740993",
            "-9.007199254740992e15",
            "9223372036854775807",
            "9223372036854775808",
            "9223372036854775808.0",
            "9223372036854775809",
            "-9223372036854775808",
            "-9223372036854775808.0",
            "-9223372036854775809",
            "1e308",
            "1e999",
            "-1e999",
            "0",
            "-0.0",
            "0.5",
        ]
        .into_iter()
        .map(Value::number)
        .chain(["9", "-9"].map(|sign| Value::number(&sign.replace('9', &"9".repeat(399)))))
        .chain([Value::from(f64::NAN)])
        .collect();
        for a in &numbers {
            for b in &numbers {
                assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} and {b}");
                for c in &numbers {
                    assert!(!(a <= b && b <= c) || a <= c, "{a}, {b} and {c}");
                }
            }
        }
        assert!(Value::number("9007199254740993") > Value::number("9007199254740992.0"));
        assert!(Value::number("-9223372036854775809") < Value::number("-9223372036854775808.0"));
    }
}
