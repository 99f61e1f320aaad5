//! What the operations on JSON documents make of the value that they meet.
//!
//! A missing field, `null` and a missing document are the same to them: `add`, `min` and `max` take
//! their own number, `append` makes the array. Whole numbers stay whole and must fit 64 bits signed;
//! where a float takes part in a sum, the sum is a float and must be finite.

use std::cmp::Ordering;

use onelog_record::{FieldPath, JSON_DEPTH_MAX, Number, OperationFault, TooLarge};
use serde_json::Value;

use crate::json;

/// The deepest nesting of containers that the parser reads back.
const NESTING_MAX: usize = JSON_DEPTH_MAX - 1;

/// An operation on a field of a document.
#[derive(Clone, Copy, Debug)]
pub enum FieldOperation<'a> {
    Add(&'a Number),
    Min(&'a Number),
    Max(&'a Number),
    Append(&'a Value),
}

/// Carries an operation out on the document that it met; `Null` where there is none.
pub fn apply(
    mut document: Value,
    path: &FieldPath,
    operation: FieldOperation<'_>,
) -> Result<Value, OperationFault> {
    let place = path.make(&mut document).ok_or(OperationFault::NoPlace)?;
    match operation {
        FieldOperation::Append(element) => match place {
            Value::Null => *place = Value::Array(vec![element.clone()]),
            Value::Array(items) => items.push(element.clone()),
            other => return Err(OperationFault::NotAnArray(json::kind_of(other))),
        },
        FieldOperation::Add(by) => *place = Value::Number(with_met(place, by, add)?),
        FieldOperation::Min(by) => *place = Value::Number(with_met(place, by, min)?),
        FieldOperation::Max(by) => *place = Value::Number(with_met(place, by, max)?),
    }
    Ok(document)
}

/// Refuses an operation whose outcome would nest deeper than can be read back. The document that it
/// meets was read, so only the path and the element can be too deep.
pub fn check_nesting(
    index: usize,
    path: &FieldPath,
    operation: FieldOperation<'_>,
) -> Result<(), TooLarge> {
    let text = path.as_str();
    let steps = if path.is_whole() {
        0
    } else {
        text.bytes().filter(|b| *b == b'/').count().max(1)
    };
    let fits = match operation {
        FieldOperation::Append(element) => NESTING_MAX
            .checked_sub(steps + 1)
            .is_some_and(|left| json::nests_within(element, left)),
        _ => steps <= NESTING_MAX,
    };
    if fits {
        return Ok(());
    }
    Err(TooLarge {
        what: format!("nesting of the document of writes[{index}]"),
        limit: "JSON_DEPTH_MAX",
        is: JSON_DEPTH_MAX + 1,
        max: JSON_DEPTH_MAX,
        unit: "levels or more",
    })
}

fn with_met(
    met: &Value,
    by: &Number,
    combine: fn(&Number, &Number) -> Result<Number, OperationFault>,
) -> Result<Number, OperationFault> {
    check_whole(by)?;
    match met {
        Value::Null => Ok(by.clone()),
        Value::Number(met) => {
            check_whole(met)?;
            combine(met, by)
        }
        other => Err(OperationFault::NotANumber(json::kind_of(other))),
    }
}

/// A whole number beyond 64 bits signed is refused by every operation alike.
fn check_whole(number: &Number) -> Result<(), OperationFault> {
    if number.is_u64() && number.as_i64().is_none() {
        return Err(OperationFault::Overflow);
    }
    Ok(())
}

fn add(met: &Number, by: &Number) -> Result<Number, OperationFault> {
    if let (Some(met), Some(by)) = (met.as_i64(), by.as_i64()) {
        return met
            .checked_add(by)
            .map(Number::from)
            .ok_or(OperationFault::Overflow);
    }
    let sum = met.as_f64().zip(by.as_f64()).map(|(met, by)| met + by);
    sum.and_then(Number::from_f64)
        .ok_or(OperationFault::NotFinite)
}

fn min(met: &Number, by: &Number) -> Result<Number, OperationFault> {
    let lower = json::compare_numbers(by, met) == Ordering::Less;
    Ok(if lower { by } else { met }.clone())
}

fn max(met: &Number, by: &Number) -> Result<Number, OperationFault> {
    let higher = json::compare_numbers(by, met) == Ordering::Greater;
    Ok(if higher { by } else { met }.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn number(value: Value) -> Number {
        match value {
            Value::Number(number) => number,
            other => panic!("{other} is no number"),
        }
    }

    fn add_to(met: Value, by: Value) -> Result<Value, OperationFault> {
        let by = number(by);
        apply(met, &FieldPath::whole(), FieldOperation::Add(&by))
    }

    #[test]
    fn whole_numbers_stay_whole_and_overflow_is_refused() {
        assert_eq!(add_to(json!(2), json!(-3)), Ok(json!(-1)));
        assert_eq!(add_to(json!(null), json!(7)), Ok(json!(7)));
        assert_eq!(
            add_to(json!(i64::MAX), json!(1)),
            Err(OperationFault::Overflow)
        );
        assert_eq!(
            add_to(json!(i64::MIN), json!(-1)),
            Err(OperationFault::Overflow)
        );
        assert_eq!(
            add_to(json!(u64::MAX), json!(-1)),
            Err(OperationFault::Overflow)
        );
        assert_eq!(
            add_to(json!(null), json!(u64::MAX)),
            Err(OperationFault::Overflow)
        );
    }

    #[test]
    fn a_float_makes_the_sum_a_float_that_must_be_finite() {
        assert_eq!(add_to(json!(1), json!(0.5)), Ok(json!(1.5)));
        assert_eq!(add_to(json!(0.5), json!(0.5)), Ok(json!(1.0)));
        assert_eq!(
            add_to(json!(1e308), json!(1e308)),
            Err(OperationFault::NotFinite)
        );
    }

    #[test]
    fn min_and_max_keep_the_number_that_wins_as_it_was_written() {
        let run = |met: Value, by: Value| {
            let by = number(by);
            let whole = FieldPath::whole();
            (
                apply(met.clone(), &whole, FieldOperation::Min(&by))
                    .unwrap()
                    .to_string(),
                apply(met, &whole, FieldOperation::Max(&by))
                    .unwrap()
                    .to_string(),
            )
        };
        assert_eq!(run(json!(5), json!(3)), ("3".into(), "5".into()));
        assert_eq!(run(json!(1.0), json!(1)), ("1.0".into(), "1.0".into()));
        assert_eq!(run(json!(1), json!(1.5)), ("1".into(), "1.5".into()));
        assert_eq!(run(json!(null), json!(4)), ("4".into(), "4".into()));
    }

    #[test]
    fn fields_keep_their_order_and_missing_ones_are_made() {
        let path = FieldPath::parse("/b/n").unwrap();
        let by = number(json!(2));
        let document: Value = serde_json::from_str(r#"{"z":1,"a":2,"m":0.1}"#).unwrap();
        let after = apply(document, &path, FieldOperation::Add(&by)).unwrap();
        assert_eq!(after.to_string(), r#"{"z":1,"a":2,"m":0.1,"b":{"n":2}}"#);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let by = number(json!(1));
        let at = |path: &str, operation| {
            let document = json!({"s": "x", "n": 1, "a": [1]});
            apply(document, &FieldPath::parse(path).unwrap(), operation)
        };
        let one = json!(1);
        assert_eq!(
            at("s", FieldOperation::Add(&by)),
            Err(OperationFault::NotANumber("a string"))
        );
        assert_eq!(
            at("n", FieldOperation::Append(&one)),
            Err(OperationFault::NotAnArray("a number"))
        );
        assert_eq!(
            at("/n/x", FieldOperation::Add(&by)),
            Err(OperationFault::NoPlace)
        );
        assert_eq!(
            at("/a/7", FieldOperation::Add(&by)),
            Err(OperationFault::NoPlace)
        );
        let after = at("/a/0", FieldOperation::Add(&by)).unwrap();
        assert_eq!(after["a"], json!([2]));
        let after = at("a", FieldOperation::Append(&one)).unwrap();
        assert_eq!(after["a"], json!([1, 1]));
        let after = at("fresh", FieldOperation::Append(&one)).unwrap();
        assert_eq!(after["fresh"], json!([1]));
    }

    #[test]
    fn what_an_operation_makes_can_be_read_back_at_the_deepest_nesting() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let path = FieldPath::parse("/a/b").unwrap();
        let deepest = nested(NESTING_MAX - 3);
        let append = FieldOperation::Append(&deepest);
        assert!(check_nesting(0, &path, append).is_ok());
        let text = apply(Value::Null, &path, append).unwrap().to_string();
        assert!(serde_json::from_str::<Value>(&text).is_ok());

        let deeper = nested(NESTING_MAX - 2);
        let append = FieldOperation::Append(&deeper);
        assert_eq!(
            check_nesting(0, &path, append).unwrap_err().limit,
            "JSON_DEPTH_MAX"
        );
        let text = apply(Value::Null, &path, append).unwrap().to_string();
        assert!(serde_json::from_str::<Value>(&text).is_err());

        let by = number(json!(1));
        let long = FieldPath::parse(&"/a".repeat(NESTING_MAX + 1)).unwrap();
        assert!(check_nesting(0, &long, FieldOperation::Add(&by)).is_err());
    }
}
