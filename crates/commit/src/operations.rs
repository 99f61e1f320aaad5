//! What the operations on JSON documents make of the value that they meet.
//!
//! A missing field, `null` and a missing document are the same to them: `add`, `min` and `max` take
//! their own number, `append` makes the array. Numbers are decimal text and never become a float:
//! `min` and `max` keep the winner as it was written; the sum of two whole numbers is whole, and all
//! three must fit 64 bits signed; every other sum is exact. What an operation does not name stays as it was
//! written.

use std::borrow::Cow;
use std::cmp::Ordering;

use onelog_decimal::{NoSum, add_numbers, compare_numbers};
use onelog_record::{
    FieldPath, JSON_DEPTH_MAX, Json, JsonText, Number, OperationFault, TooLarge, place,
};

/// The deepest nesting of containers that the parser reads back.
const NESTING_MAX: usize = JSON_DEPTH_MAX - 1;

/// An operation on a field of a document.
#[derive(Clone, Debug)]
pub enum FieldOperation<'a> {
    Add(&'a Number),
    Min(&'a Number),
    Max(&'a Number),
    Append(&'a JsonText),
}

/// Carries an operation out on the text of the document that it met, `null` where there is none. The
/// document is read once, and no tree is made of it.
pub fn apply(
    document: &[u8],
    path: &FieldPath,
    operation: FieldOperation<'_>,
) -> Result<String, OperationFault> {
    let place = place(document, path).map_err(|_| OperationFault::NotJson)?;
    let place = place.ok_or(OperationFault::NoPlace)?;
    let met = place.met();
    let (by, combine): (_, Combine) = match operation {
        FieldOperation::Append(element) => return Ok(place.put(&appended(&met, element)?)),
        FieldOperation::Add(by) => (by, add),
        FieldOperation::Min(by) => (by, min),
        FieldOperation::Max(by) => (by, max),
    };
    let number = match Json::kind_of(&met) {
        "null" => {
            // It stays as it was written, and must be one that can be calculated with.
            combine(Cow::Borrowed("0"), by.as_str())?;
            Cow::Borrowed(by.as_str())
        }
        "a number" => combine(met, by.as_str())?,
        other => return Err(OperationFault::NotANumber(other.into())),
    };
    Ok(place.put(&number))
}

fn appended(met: &str, element: &JsonText) -> Result<String, OperationFault> {
    let element = element.compact();
    let others = match Json::kind_of(met) {
        "null" => "[",
        "an array" => &met[..met.len() - 1],
        other => return Err(OperationFault::NotAnArray(other.into())),
    };
    let comma = if others.len() > 1 { "," } else { "" };
    Ok([others, comma, &element, "]"].concat())
}

/// Refuses an operation whose outcome would nest deeper than can be read back. The document that it
/// meets was read, so only the path and the element can be too deep.
pub fn check_nesting(
    index: usize,
    path: &FieldPath,
    operation: &FieldOperation<'_>,
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
            .is_some_and(|left| element.nests_within(left)),
        _ => steps <= NESTING_MAX,
    };
    if fits {
        return Ok(());
    }
    Err(TooLarge {
        what: format!("nesting of the document of writes[{index}]"),
        limit: "JSON_DEPTH_MAX".into(),
        is: JSON_DEPTH_MAX + 1,
        max: JSON_DEPTH_MAX,
        unit: "levels or more".into(),
    })
}

type Combine = for<'a> fn(Cow<'a, str>, &'a str) -> Result<Cow<'a, str>, OperationFault>;

fn add<'a>(met: Cow<'a, str>, by: &'a str) -> Result<Cow<'a, str>, OperationFault> {
    add_numbers(&met, by)
        .map(Cow::Owned)
        .map_err(|none| match none {
            NoSum::Overflow => OperationFault::Overflow,
            NoSum::NotFinite => OperationFault::NotFinite,
            NoSum::TooManyDigits => OperationFault::TooManyDigits,
        })
}

fn min<'a>(met: Cow<'a, str>, by: &'a str) -> Result<Cow<'a, str>, OperationFault> {
    Ok(match order(by, &met)? {
        Ordering::Less => Cow::Borrowed(by),
        _ => met,
    })
}

fn max<'a>(met: Cow<'a, str>, by: &'a str) -> Result<Cow<'a, str>, OperationFault> {
    Ok(match order(by, &met)? {
        Ordering::Greater => Cow::Borrowed(by),
        _ => met,
    })
}

fn order(by: &str, met: &str) -> Result<Ordering, OperationFault> {
    compare_numbers(by, met).ok_or(OperationFault::TooManyDigits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn number(value: Value) -> Number {
        Number::parse(&value.to_string()).unwrap()
    }

    /// What an operation makes of a document, as text.
    fn made(
        met: &Value,
        path: &FieldPath,
        operation: FieldOperation<'_>,
    ) -> Result<String, OperationFault> {
        let text = met.to_string();
        apply(text.as_bytes(), path, operation)
    }

    fn add_to(met: Value, by: Value) -> Result<Value, OperationFault> {
        let by = number(by);
        let after = made(&met, &FieldPath::whole(), FieldOperation::Add(&by))?;
        Ok(serde_json::from_str(&after).unwrap())
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
                made(&met, &whole, FieldOperation::Min(&by)).unwrap(),
                made(&met, &whole, FieldOperation::Max(&by)).unwrap(),
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
        let after = made(&document, &path, FieldOperation::Add(&by)).unwrap();
        assert_eq!(after, r#"{"z":1,"a":2,"m":0.1,"b":{"n":2}}"#);
    }

    #[test]
    fn what_an_operation_does_not_name_stays_as_it_was_written() {
        // Given numbers that no float holds, beside a counter.
        let document =
            br#"{"count":1,"total":12345678901234567.89,"wei":10000000000000000000000001,
            "price":1.10,"zero":-0.0,"big":1E+2,"text":"\u0041\/"}"#;
        let one = Number::from(1);
        let count = FieldPath::parse("/count").unwrap();
        let tags = FieldPath::parse("/tags").unwrap();
        let rest = r#""total":12345678901234567.89,"wei":10000000000000000000000001,"price":1.10,"zero":-0.0,"big":1E+2,"text":"\u0041\/""#;
        let element = JsonText::parse("[1.10, 12345678901234567.89]").unwrap();
        for (path, operation, expected) in [
            (
                &count,
                FieldOperation::Add(&one),
                format!(r#"{{"count":2,{rest}}}"#),
            ),
            (
                &count,
                FieldOperation::Max(&one),
                format!(r#"{{"count":1,{rest}}}"#),
            ),
            (
                &count,
                FieldOperation::Min(&one),
                format!(r#"{{"count":1,{rest}}}"#),
            ),
            (
                &tags,
                FieldOperation::Append(&element),
                format!(r#"{{"count":1,{rest},"tags":[[1.10,12345678901234567.89]]}}"#),
            ),
        ] {
            // When something else is changed, then they have every digit that they had.
            let after = apply(document, path, operation).unwrap();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn what_an_operation_names_is_exact_or_refused() {
        let document = br#"{"total":12345678901234567.89,"wei":10000000000000000000000001}"#;
        let run = |field: &str, operation| {
            let path = FieldPath::parse(field).unwrap();
            let after = apply(document, &path, operation)?;
            let after = Json::parse(after.as_bytes()).unwrap();
            Ok(after.get(&path).unwrap().to_string())
        };
        let cent = Number::parse("0.01").unwrap();
        let one = Number::from(1);
        let more = Number::parse("10000000000000000000000002").unwrap();
        let tiny = Number::parse("1e-99999999999999999999").unwrap();
        assert_eq!(
            run("total", FieldOperation::Add(&cent)).as_deref(),
            Ok("12345678901234567.90")
        );
        assert_eq!(
            run("wei", FieldOperation::Add(&one)),
            Err(OperationFault::Overflow)
        );
        let also_one = Number::parse("1.0").unwrap();
        assert_eq!(
            run("wei", FieldOperation::Add(&also_one)).as_deref(),
            Ok("10000000000000000000000002.0")
        );
        assert_eq!(
            run("none", FieldOperation::Add(&more)),
            Err(OperationFault::Overflow)
        );
        assert_eq!(
            run("wei", FieldOperation::Max(&more)).as_deref(),
            Ok("10000000000000000000000002")
        );
        assert_eq!(
            run("wei", FieldOperation::Min(&more)).as_deref(),
            Ok("10000000000000000000000001")
        );
        assert_eq!(
            run("total", FieldOperation::Max(&tiny)),
            Err(OperationFault::TooManyDigits)
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let by = number(json!(1));
        let at = |path: &str, operation| {
            let document = json!({"s": "x", "n": 1, "a": [1]});
            let after = made(&document, &FieldPath::parse(path).unwrap(), operation)?;
            Ok(serde_json::from_str::<Value>(&after).unwrap())
        };
        let element = JsonText::parse("1").unwrap();
        let one = || FieldOperation::Append(&element);
        assert_eq!(
            at("s", FieldOperation::Add(&by)),
            Err(OperationFault::NotANumber("a string".into()))
        );
        assert_eq!(
            at("n", one()),
            Err(OperationFault::NotAnArray("a number".into()))
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
        let after = at("a", one()).unwrap();
        assert_eq!(after["a"], json!([1, 1]));
        let after = at("fresh", one()).unwrap();
        assert_eq!(after["fresh"], json!([1]));
    }

    #[test]
    fn what_an_operation_makes_can_be_read_back_at_the_deepest_nesting() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let path = FieldPath::parse("/a/b").unwrap();
        let deepest: String = nested(NESTING_MAX - 3).to_string();
        let deepest = JsonText::parse(&deepest).unwrap();
        let append = FieldOperation::Append(&deepest);
        assert!(check_nesting(0, &path, &append).is_ok());
        let text = made(&Value::Null, &path, append).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_ok());

        let deeper: String = nested(NESTING_MAX - 2).to_string();
        let deeper = JsonText::parse(&deeper).unwrap();
        let append = FieldOperation::Append(&deeper);
        assert_eq!(
            check_nesting(0, &path, &append).unwrap_err().limit,
            "JSON_DEPTH_MAX"
        );
        let text = made(&Value::Null, &path, append).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_err());

        let by = number(json!(1));
        let long = FieldPath::parse(&"/a".repeat(NESTING_MAX + 1)).unwrap();
        assert!(check_nesting(0, &long, &FieldOperation::Add(&by)).is_err());
    }
}
