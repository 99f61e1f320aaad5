//! The oracle's own idea of JSON: slow, obvious, and sharing nothing with the validator's.

use std::cmp::Ordering;

use onelog_record::{Compare, Number, OperationFault};
use serde_json::Value;

fn whole(number: &Number) -> Option<i128> {
    let text = number.to_string();
    text.parse().ok()
}

/// The generator mixes floats only with whole numbers below 2^53 or near the ends of 64 bits.
pub fn order(left: &Number, right: &Number) -> Ordering {
    match (whole(left), whole(right)) {
        (Some(l), Some(r)) => l.cmp(&r),
        _ => {
            let (l, r): (f64, f64) = (
                left.to_string().parse().unwrap(),
                right.to_string().parse().unwrap(),
            );
            l.partial_cmp(&r).unwrap()
        }
    }
}

/// One text for equal values.
pub fn text(value: &Value) -> String {
    match value {
        Value::Number(n) => match whole(n) {
            Some(n) => n.to_string(),
            None => {
                let float: f64 = n.to_string().parse().unwrap();
                if float == float.round() && float.abs() < 1e15 {
                    format!("{}", float as i64)
                } else {
                    format!("{float}")
                }
            }
        },
        Value::Array(items) => {
            format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(","))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", text(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

pub fn holds(met: &Value, compare: Compare, value: &Value) -> bool {
    let order = match (met, value) {
        (Value::Number(l), Value::Number(r)) => Some(order(l, r)),
        (Value::String(l), Value::String(r)) => Some(l.cmp(r)),
        _ => None,
    };
    let same = text(met) == text(value);
    match compare {
        Compare::Eq => same,
        Compare::Ne => !same,
        Compare::Lt => order == Some(Ordering::Less),
        Compare::Gt => order == Some(Ordering::Greater),
        Compare::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Compare::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// What `add` makes of two numbers.
pub fn sum(met: Option<&Number>, by: &Number) -> Result<Value, OperationFault> {
    fits(met, by)?;
    let Some(met) = met else {
        return Ok(Value::Number(by.clone()));
    };
    if let (Some(l), Some(r)) = (whole(met), whole(by)) {
        return i64::try_from(l + r)
            .map(Value::from)
            .map_err(|_| OperationFault::Overflow);
    }
    let float = |n: &Number| n.to_string().parse::<f64>().unwrap();
    let sum = float(met) + float(by);
    if sum.is_finite() {
        Ok(Value::from(sum))
    } else {
        Err(OperationFault::NotFinite)
    }
}

/// What `min` (`wanted` is less) or `max` (greater) makes of two numbers.
pub fn pick(met: Option<&Number>, by: &Number, wanted: Ordering) -> Result<Value, OperationFault> {
    fits(met, by)?;
    let winner = match met {
        Some(met) if order(by, met) != wanted => met,
        _ => by,
    };
    Ok(Value::Number(winner.clone()))
}

fn fits(met: Option<&Number>, by: &Number) -> Result<(), OperationFault> {
    for number in met.into_iter().chain([by]) {
        if whole(number).is_some_and(|n| n > i128::from(i64::MAX)) {
            return Err(OperationFault::Overflow);
        }
    }
    Ok(())
}

pub fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
