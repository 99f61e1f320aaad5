//! How JSON values compare, and the one text that equal values share.
//!
//! Numbers compare as numbers, exactly: 1 equals 1.0, and a whole number of 64 bits never goes
//! through a float that would round it.

use std::cmp::Ordering;

use onelog_record::Compare;
use serde_json::{Number, Value};

/// Two to the power of 64: no whole number of JSON reaches it.
const WHOLE_END: f64 = 18_446_744_073_709_551_616.0;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole(i128),
    Float(f64),
}

fn kind(number: &Number) -> Kind {
    if let Some(whole) = number.as_i64() {
        Kind::Whole(whole.into())
    } else if let Some(whole) = number.as_u64() {
        Kind::Whole(whole.into())
    } else {
        Kind::Float(number.as_f64().unwrap_or(f64::NAN))
    }
}

/// The order of two numbers, exact.
pub fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    match (kind(left), kind(right)) {
        (Kind::Whole(left), Kind::Whole(right)) => left.cmp(&right),
        (Kind::Float(left), Kind::Float(right)) => {
            left.partial_cmp(&right).unwrap_or(Ordering::Equal)
        }
        (Kind::Whole(left), Kind::Float(right)) => compare_mixed(left, right),
        (Kind::Float(left), Kind::Whole(right)) => compare_mixed(right, left).reverse(),
    }
}

fn compare_mixed(whole: i128, float: f64) -> Ordering {
    if float >= WHOLE_END {
        return Ordering::Less;
    }
    if float <= -WHOLE_END {
        return Ordering::Greater;
    }
    let trunc = float.trunc();
    whole.cmp(&(trunc as i128)).then_with(|| {
        0.0f64
            .partial_cmp(&(float - trunc))
            .unwrap_or(Ordering::Equal)
    })
}

/// Whether two values are equal; the order of an object's fields does not matter.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            compare_numbers(left, right) == Ordering::Equal
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| equal(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, l)| right.get(name).is_some_and(|r| equal(l, r)))
        }
        _ => left == right,
    }
}

/// Whether `met` compares with `value` as demanded. Only two numbers or two strings (bytewise) have
/// an order.
pub fn holds(met: &Value, compare: Compare, value: &Value) -> bool {
    let order = match (met, value) {
        (Value::Number(met), Value::Number(value)) => Some(compare_numbers(met, value)),
        (Value::String(met), Value::String(value)) => Some(met.as_bytes().cmp(value.as_bytes())),
        _ => None,
    };
    match compare {
        Compare::Eq => equal(met, value),
        Compare::Ne => !equal(met, value),
        Compare::Lt => order.is_some_and(Ordering::is_lt),
        Compare::Le => order.is_some_and(Ordering::is_le),
        Compare::Gt => order.is_some_and(Ordering::is_gt),
        Compare::Ge => order.is_some_and(Ordering::is_ge),
    }
}

/// The text that all values equal to this one share: no spaces, fields sorted by name bytewise,
/// floats without a fraction as whole numbers where those reach.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(&mut out, value);
    out
}

fn write_canonical(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => match kind(number) {
            Kind::Float(float) if float.fract() == 0.0 && is_whole_of_json(float) => {
                out.push_str(&(float as i128).to_string());
            }
            _ => out.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_bytes());
            out.push('{');
            for (n, (name, field)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write_canonical(out, field);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn is_whole_of_json(float: f64) -> bool {
    (i64::MIN as f64..WHOLE_END).contains(&float)
}

/// Whether a value has at most `left` containers inside one another.
pub fn nests_within(value: &Value, left: usize) -> bool {
    let Some(inner) = left.checked_sub(1) else {
        return !(value.is_array() || value.is_object());
    };
    match value {
        Value::Array(items) => items.iter().all(|item| nests_within(item, inner)),
        Value::Object(fields) => fields.values().all(|field| nests_within(field, inner)),
        _ => true,
    }
}

/// The name of a value's type, for people.
pub const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_compare_as_numbers_and_exactly() {
        let big = 9_007_199_254_740_993_i64; // 2^53 + 1, which no float is
        for (left, right, expected) in [
            (json!(1), json!(1.0), Ordering::Equal),
            (json!(0), json!(-0.0), Ordering::Equal),
            (json!(2), json!(10), Ordering::Less),
            (
                json!(big),
                json!(9_007_199_254_740_992.0),
                Ordering::Greater,
            ),
            (json!(u64::MAX), json!(i64::MIN), Ordering::Greater),
            (json!(u64::MAX), json!(WHOLE_END), Ordering::Less),
            (json!(i64::MIN), json!(-1e300), Ordering::Greater),
            (json!(i64::MIN), json!(i64::MIN as f64), Ordering::Equal),
            (json!(-1), json!(-1.5), Ordering::Greater),
            (json!(1), json!(1.5), Ordering::Less),
        ] {
            let (Value::Number(l), Value::Number(r)) = (&left, &right) else {
                unreachable!("only numbers are listed")
            };
            assert_eq!(compare_numbers(l, r), expected, "{left} {right}");
            assert_eq!(compare_numbers(r, l), expected.reverse(), "{right} {left}");
            assert_eq!(equal(&left, &right), expected == Ordering::Equal);
        }
    }

    #[test]
    fn null_is_equal_to_null_alone_and_in_no_order() {
        assert!(holds(&Value::Null, Compare::Eq, &Value::Null));
        assert!(holds(&Value::Null, Compare::Ne, &json!(0)));
        for compare in [Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge] {
            assert!(!holds(&Value::Null, compare, &Value::Null));
            assert!(!holds(&Value::Null, compare, &json!(0)));
            assert!(!holds(&json!("1"), compare, &json!(1)));
        }
        assert!(holds(&json!("Z"), Compare::Lt, &json!("a")));
    }

    #[test]
    fn equal_values_share_one_text_and_others_do_not() {
        for (left, right) in [
            (
                json!({"a": 1, "b": [1.0, -0.0]}),
                json!({"b": [1, 0], "a": 1.0}),
            ),
            (json!(1e19), json!(10_000_000_000_000_000_000_u64)),
            (json!(i64::MIN), json!(i64::MIN as f64)),
        ] {
            assert!(equal(&left, &right));
            assert_eq!(canonical(&left), canonical(&right));
        }
        for (left, right) in [
            (json!("1"), json!(1)),
            (json!(null), json!("null")),
            (json!([1]), json!([1, 1])),
            (json!(1.5), json!(1)),
            (json!(1e300), json!(1e301)),
        ] {
            assert!(!equal(&left, &right));
            assert_ne!(canonical(&left), canonical(&right));
        }
    }

    #[test]
    fn the_deepest_nesting_that_passes_is_the_deepest_that_parses() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deepest = onelog_record::JSON_DEPTH_MAX - 1;
        let value: Value = serde_json::from_str(&nested(deepest)).unwrap();
        assert!(nests_within(&value, deepest));
        assert!(!nests_within(&value, deepest - 1));
        assert!(serde_json::from_str::<Value>(&nested(deepest + 1)).is_err());
        assert!(nests_within(&json!(1), 0));
    }
}
