//! The oracle's own idea of JSON values: slow, obvious, with numbers as fractions of big whole
//! numbers, and sharing nothing with the validator's.

use std::cmp::Ordering;

use num_bigint::BigInt;
use onelog_record::{Compare, Json, OperationFault};

/// A sum is written plainly up to so many places before its point.
const PLAIN_PLACES_MAX: usize = 40;

/// `digits / 10^scale`.
struct Fraction {
    digits: BigInt,
    scale: usize,
}

fn ten_to(power: usize) -> BigInt {
    BigInt::from(10).pow(u32::try_from(power).unwrap())
}

fn fraction(number: &str) -> Fraction {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().unwrap();
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{whole}{behind}").parse().unwrap();
    let scale = behind.len() as i64 - exponent;
    let up = usize::try_from(-scale.min(0)).unwrap();
    Fraction {
        digits: digits * ten_to(up),
        scale: usize::try_from(scale.max(0)).unwrap(),
    }
}

fn with_common_scale(left: &str, right: &str) -> (BigInt, BigInt, usize) {
    let (left, right) = (fraction(left), fraction(right));
    let scale = left.scale.max(right.scale);
    (
        left.digits * ten_to(scale - left.scale),
        right.digits * ten_to(scale - right.scale),
        scale,
    )
}

pub fn order(left: &str, right: &str) -> Ordering {
    let (left, right, _) = with_common_scale(left, right);
    left.cmp(&right)
}

/// One text for equal values.
pub fn text(value: &Json<'_>) -> String {
    match value {
        Json::Number(number) => {
            let Fraction { digits, scale } = fraction(number);
            let (mut digits, mut scale) = (digits, scale);
            while scale > 0 && &digits % 10 == BigInt::from(0) {
                digits /= 10;
                scale -= 1;
            }
            format!("{digits}/{scale}")
        }
        Json::Array(items) => {
            format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(","))
        }
        Json::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{:?}:{}", name.text(), text(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Json::String(string) => format!("{:?}", string.text()),
        other => other.to_string(),
    }
}

pub fn holds(met: &Json<'_>, compare: Compare, value: &Json<'_>) -> bool {
    let order = match (met, value) {
        (Json::Number(l), Json::Number(r)) => Some(order(l, r)),
        (Json::String(l), Json::String(r)) => Some(l.text().cmp(&r.text())),
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
pub fn sum(met: Option<&str>, by: &str) -> Result<String, OperationFault> {
    let Some(met) = met else {
        // As if it were added to zero.
        return match is_whole(by) && by.parse::<i64>().is_err() {
            true => Err(OperationFault::Overflow),
            false => Ok(by.to_owned()),
        };
    };
    let (left, right, scale) = with_common_scale(met, by);
    if is_whole(met) && is_whole(by) {
        if [met, by]
            .iter()
            .any(|number| number.parse::<i64>().is_err())
        {
            return Err(OperationFault::Overflow);
        }
        return i64::try_from(left + right)
            .map(|sum| sum.to_string())
            .map_err(|_| OperationFault::Overflow);
    }
    let text = written(left + right, scale);
    match text.parse::<f64>().unwrap().is_finite() {
        true => Ok(text),
        false => Err(OperationFault::NotFinite),
    }
}

fn is_whole(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

/// The text of a sum that is not whole: at least one place behind the point.
fn written(mut digits: BigInt, mut scale: usize) -> String {
    if scale == 0 {
        digits *= 10;
        scale = 1;
    }
    let sign = if digits < BigInt::from(0) { "-" } else { "" };
    let all = format!(
        "{:0>width$}",
        digits.magnitude().to_string(),
        width = scale + 1
    );
    let (whole, behind) = all.split_at(all.len() - scale);
    if whole.len() <= PLAIN_PLACES_MAX {
        return format!("{sign}{whole}.{behind}");
    }
    let exponent = whole.len() - 1;
    let (first, rest) = all.trim_end_matches('0').split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}e+{exponent}")
}

/// What `min` (`wanted` is less) or `max` (greater) makes of two numbers.
pub fn pick(met: Option<&str>, by: &str, wanted: Ordering) -> String {
    match met {
        Some(met) if order(by, met) != wanted => met.to_owned(),
        _ => by.to_owned(),
    }
}
