//! How a guard compares what it met.

use std::cmp::Ordering;

use onelog_record::{Compare, Json, JsonText};

use crate::newest::Now;
use crate::rejection::Rejection;

/// Whether `met`, the text of a value that was found, compares with `value` as demanded. Only two
/// numbers or two strings (bytewise) have an order.
pub fn holds(
    now: &Now<'_>,
    met: &str,
    compare: Compare,
    value: &JsonText,
) -> Result<bool, Rejection> {
    let value = value.as_str().trim();
    if Json::kind_of(met) != Json::kind_of(value) {
        return Ok(compare == Compare::Ne);
    }
    for text in [met, value] {
        now.work.value(now, text)?;
    }
    Ok(compares(&Json::found(met), compare, &Json::found(value)))
}

fn compares(met: &Json<'_>, compare: Compare, value: &Json<'_>) -> bool {
    let order = met.order(value);
    match compare {
        Compare::Eq => met.equals(value),
        Compare::Ne => !met.equals(value),
        Compare::Lt => order.is_some_and(Ordering::is_lt),
        Compare::Le => order.is_some_and(Ordering::is_le),
        Compare::Gt => order.is_some_and(Ordering::is_gt),
        Compare::Ge => order.is_some_and(Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(met: &str, compare: Compare, value: &str) -> bool {
        let json = |text| Json::parse(str::as_bytes(text)).unwrap();
        compares(&json(met), compare, &json(value))
    }

    #[test]
    fn null_is_equal_to_null_alone_and_in_no_order() {
        assert!(compare("null", Compare::Eq, "null"));
        assert!(compare("null", Compare::Ne, "0"));
        for operator in [Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge] {
            assert!(!compare("null", operator, "null"));
            assert!(!compare("null", operator, "0"));
            assert!(!compare("\"1\"", operator, "1"));
        }
        assert!(compare("\"Z\"", Compare::Lt, "\"a\""));
    }

    #[test]
    fn numbers_that_one_float_cannot_tell_apart_are_compared_exactly() {
        let (less, more) = ("12345678901234567.88", "12345678901234567.89");
        assert!(compare(less, Compare::Lt, more));
        assert!(compare(less, Compare::Ne, more));
        assert!(!compare(less, Compare::Ge, more));
        assert!(compare("10000000000000000000000001", Compare::Gt, "1e25"));
        assert!(compare("1.10", Compare::Eq, "1.1"));
    }
}
