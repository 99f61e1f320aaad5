//! jq's order of values: null, false, true, numbers, strings, arrays, objects.
//!
//! The order is total, NaN included (before all other numbers), since sorting relies on it.

use std::borrow::Cow;
use std::cmp::Ordering;

use jaq_json::Num;
use onelog_decimal::compare_numbers;

use super::json::WHOLE_FLOAT_MAX;
use super::meter;
use super::value::{Object, Value, as_float, read_digits};

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

/// By the decimal text that the numbers are written as, exactly: were they rounded first, different
/// ones could be equal. What is calculated is a float, and its text the shortest that names it.
fn order_numbers(left: &Num, right: &Num) -> Ordering {
    if let (Num::Int(_) | Num::BigInt(_), Num::Int(_) | Num::BigInt(_)) = (left, right) {
        return left.cmp(right);
    }
    if let (Some(left), Some(right)) = (held(left), held(right)) {
        return order_floats(left, right);
    }
    match (Decimal::of(left), Decimal::of(right)) {
        // Both have an order.
        (Decimal::Text(left), Decimal::Text(right)) => {
            compare_numbers(&left, &right).unwrap_or(Ordering::Equal)
        }
        (left, right) => order_floats(left.beyond(), right.beyond()),
    }
}

/// The number where it is a float, or one holds it exactly.
#[allow(clippy::cast_precision_loss)]
fn held(number: &Num) -> Option<f64> {
    match number {
        Num::Float(float) => Some(*float),
        Num::Int(integer) => Some(*integer as f64).filter(|float| float.abs() < WHOLE_FLOAT_MAX),
        _ => None,
    }
}

fn order_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

enum Decimal<'n> {
    Text(Cow<'n, str>),
    /// Beyond all texts, or NaN.
    Beyond(f64),
}

impl<'n> Decimal<'n> {
    fn of(number: &'n Num) -> Self {
        read_digits(number);
        let float = match number {
            Num::Int(integer) => return Self::Text(integer.to_string().into()),
            Num::BigInt(integer) => return Self::Text(integer.to_string().into()),
            Num::Float(float) if float.is_finite() => {
                return Self::Text(format!("{float:e}").into());
            }
            Num::Float(float) => *float,
            Num::Dec(written) if compare_numbers(written, "0").is_some() => {
                return Self::Text(written.as_str().into());
            }
            // Its exponent is too long to be calculated with: as a float it is 0, or infinite.
            Num::Dec(_) => as_float(number),
        };
        match float == 0.0 {
            true => Self::Text("0".into()),
            false => Self::Beyond(float),
        }
    }

    const fn beyond(&self) -> f64 {
        match self {
            Self::Text(_) => 0.0,
            Self::Beyond(float) => *float,
        }
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

    const CALCULATED: [f64; 9] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.5,
        f64::MIN_POSITIVE / 4.0,
        WHOLE_FLOAT_MAX - 0.5,
        WHOLE_FLOAT_MAX,
        9_223_372_036_854_775_808.0,
    ];

    #[test]
    fn what_is_calculated_is_what_it_is_written_as() {
        for float in CALCULATED.into_iter().filter(|float| float.is_finite()) {
            let value = Value::from(float);
            let mut written = Vec::new();
            crate::json::write(&value, &mut written, 100, crate::json::NotFinite::Refuse).unwrap();
            let read = crate::json::read(&written).unwrap();
            assert!(value == read, "{float:e} and {read}");
        }
    }

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
            "9007199254740992.5",
            "9223372036854775807.99999999999999999999",
            "9.2233720368547758e18",
            "1e-400",
            "-1e-400",
            "1e1000000000000000000",
            "-1e1000000000000000000",
            "1e-1000000000000000000",
            "0e1000000000000000000",
        ]
        .into_iter()
        .map(Value::number)
        .chain(["9", "-9"].map(|sign| Value::number(&sign.replace('9', &"9".repeat(399)))))
        .chain(CALCULATED.map(Value::from))
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
