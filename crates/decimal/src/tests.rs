use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;

/// A number as a fraction of whole numbers: `digits / 10^scale`.
#[derive(Clone, Debug)]
struct Big {
    digits: BigInt,
    scale: u32,
}

fn big(number: &str) -> Big {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().unwrap();
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{whole}{fraction}").parse().unwrap();
    let scale = fraction.len() as i64 - exponent;
    if scale < 0 {
        return Big {
            digits: digits * ten_to(scale.unsigned_abs() as u32),
            scale: 0,
        };
    }
    Big {
        digits,
        scale: scale as u32,
    }
}

fn ten_to(power: u32) -> BigInt {
    BigInt::from(10).pow(power)
}

fn common(left: &Big, right: &Big) -> (BigInt, BigInt) {
    let scale = left.scale.max(right.scale);
    let at = |number: &Big| &number.digits * ten_to(scale - number.scale);
    (at(left), at(right))
}

fn order(left: &str, right: &str) -> Ordering {
    let (left, right) = common(&big(left), &big(right));
    left.cmp(&right)
}

/// Numbers as JSON writes them, near to one another so that they are often equal.
fn number() -> impl Strategy<Value = String> {
    let near = "-?(0|[1-9][0-9]{0,2})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1})?";
    let long = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?";
    prop_oneof![
        near,
        long,
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("a number of JSON is finite", |n| n.is_finite())
            .prop_map(|n| serde_json::json!(n).to_string()),
    ]
}

proptest! {
    #[test]
    fn numbers_compare_as_big_numbers_do(left in number(), right in number()) {
        prop_assert_eq!(compare_numbers(&left, &right), Some(order(&left, &right)));
    }

    #[test]
    fn one_number_written_in_two_ways_is_equal_and_canonically_the_same(
        number in number(), zeros in 0usize..4, shift in -5i64..5,
    ) {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((&number, "0"));
        let exponent: i64 = exponent.parse().unwrap();
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // The digits with the point moved behind all of them, and some zeros more.
        let all = format!("{whole}{fraction}");
        let sign = if all.starts_with('-') { "-" } else { "" };
        let digits = all.trim_start_matches('-').trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { digits };
        let zeros = "0".repeat(zeros);
        let exponent = exponent - fraction.len() as i64 - zeros.len() as i64 - shift;
        let shifted = if shift >= 0 {
            format!("{sign}{digits}{}{zeros}e{exponent}", "0".repeat(shift as usize))
        } else {
            format!("{sign}{digits}{zeros}.0e{}", exponent + shift)
        };
        let other = if digits == "0" { "0".to_owned() } else { shifted };
        prop_assert_eq!(order(&number, &other), Ordering::Equal, "{} {}", number, other);
        prop_assert_eq!(compare_numbers(&number, &other), Some(Ordering::Equal));
        prop_assert_eq!(canonical_number(&number), canonical_number(&other));
    }

    #[test]
    fn canonical_texts_differ_exactly_when_numbers_do(left in number(), right in number()) {
        let (one, other) = (canonical_number(&left), canonical_number(&right));
        prop_assert!(is_number(&one), "{}", one);
        prop_assert_eq!(order(&left, &one), Ordering::Equal);
        prop_assert_eq!(one == other, order(&left, &right).is_eq());
    }

    #[test]
    fn sums_are_exact_or_refused(left in number(), right in number()) {
        match add_numbers(&left, &right) {
            Ok(sum) => {
                prop_assert!(is_number(&sum), "{}", sum);
                let (a, b) = (big(&left), big(&right));
                let scale = a.scale.max(b.scale);
                let (a, b) = common(&a, &b);
                let (expected, found) = common(&Big { digits: a + b, scale }, &big(&sum));
                prop_assert_eq!(expected, found, "{} + {} = {}", left, right, sum);
                let whole = is_written_whole(&left) && is_written_whole(&right);
                prop_assert_eq!(is_written_whole(&sum), whole);
                prop_assert_eq!(add_numbers(&right, &left), Ok(sum));
            }
            Err(NoSum::Overflow) => {
                prop_assert!(is_written_whole(&left) && is_written_whole(&right));
                let both = left.parse::<i64>().ok().zip(right.parse::<i64>().ok());
                prop_assert!(both.is_none_or(|(a, b)| a.checked_add(b).is_none()));
            }
            Err(NoSum::NotFinite) => {
                let float = |n: &str| n.parse::<f64>().unwrap();
                prop_assert!((float(&left) + float(&right)).abs() > 1e307);
            }
            Err(NoSum::TooManyDigits) => prop_assert!(false, "{} + {}", left, right),
        }
    }

    #[test]
    fn whole_numbers_of_64_bits_are_found_in_every_form(number in number()) {
        let Big { digits, scale } = big(&number);
        let unit = ten_to(scale);
        let whole = (&digits % &unit == BigInt::from(0)).then(|| &digits / &unit);
        prop_assert_eq!(is_whole(&number), Some(whole.is_some()));
        prop_assert_eq!(whole_number(&number), whole.and_then(|n| i64::try_from(n).ok()));
    }

    #[test]
    fn multiples_are_found_as_with_big_numbers(number in number(), divisor in number()) {
        let (a, b) = common(&big(&number), &big(&divisor));
        match is_multiple_of(&number, &divisor) {
            Some(found) => prop_assert_eq!(found, &a % &b == BigInt::from(0)),
            None => prop_assert!(b == BigInt::from(0) || canonical_number(&divisor).len() > 19),
        }
    }

    /// The rows of unique fields are kept under these texts.
    #[test]
    fn what_a_float_holds_has_the_text_of_the_float(float in any::<f64>()) {
        // A longer whole number is not always the one that the text of its float says.
        let exact_max = 9_007_199_254_740_992.0;
        prop_assume!(float.is_finite() && (float.abs() < exact_max || float.abs() > 1e20));
        let text = serde_json::json!(float).to_string();
        let found = canonical_number(&text).into_owned();
        if float.fract() == 0.0 && float.abs() < exact_max {
            prop_assert_eq!(found, (float as i64).to_string());
        } else {
            prop_assert_eq!(found, text);
        }
    }

    #[test]
    fn the_grammar_of_numbers_is_that_of_json(text in "[-+0-9.eE]{0,8}") {
        let expected = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(is_number(&text), expected, "{}", text);
        let in_range = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(is_number(&text) && is_finite(&text), in_range, "{}", text);
    }
}

#[test]
fn sums_look_as_their_numbers_do() {
    let wei = "10000000000000000000000001";
    for (left, right, sum) in [
        ("12345678901234567.89", "0.01", "12345678901234567.90"),
        ("0.1", "0.2", "0.3"),
        ("1.10", "0.9", "2.00"),
        ("0.5", "0.5", "1.0"),
        ("1", "-1.5", "-0.5"),
        ("-0.5", "0.5", "0.0"),
        ("1e3", "1", "1001.0"),
        ("1e-7", "1", "1.0000001"),
        ("1e300", "1e300", "2e+300"),
        ("1e-60", "2e-61", "1.2e-60"),
        ("9007199254740993", "0.0", "9007199254740993.0"),
        // One of them is not whole, so that the sum need not be, and fits.
        (wei, "1.0", "10000000000000000000000002.0"),
        ("-0.5", wei, "10000000000000000000000000.5"),
        ("1e25", wei, "20000000000000000000000001.0"),
    ] {
        assert_eq!(
            add_numbers(left, right).as_deref(),
            Ok(sum),
            "{left} + {right}"
        );
    }
}

#[test]
fn what_cannot_be_added_exactly_is_refused() {
    let wei = "10000000000000000000000001";
    for (left, right, expected) in [
        (wei, "1", NoSum::Overflow),
        ("9223372036854775807", "1", NoSum::Overflow),
        ("1e308", "1e308", NoSum::NotFinite),
        ("1e300", "1e-900", NoSum::TooManyDigits),
        ("1.0", "1e-99999999999999999999", NoSum::TooManyDigits),
    ] {
        assert_eq!(add_numbers(left, right), Err(expected), "{left} + {right}");
    }
}

#[test]
fn hostile_exponents_are_not_calculated_with() {
    let long = format!("1e-{}", "9".repeat(1 << 20));
    assert_eq!(compare_numbers(&long, "1"), None);
    assert_eq!(canonical_number(&long), long);
    // Of zero neither: a number with such an exponent has no order, whatever it is.
    let zero = "0e99999999999999999999";
    assert_eq!(compare_numbers(zero, "0"), None);
    assert_eq!(add_numbers(zero, "1"), Err(NoSum::TooManyDigits));
    assert_eq!((is_whole(zero), whole_number(zero)), (None, None));
    assert_eq!(canonical_number(zero), zero);
    assert_eq!(
        compare_numbers("0e999999999999999999", "0"),
        Some(Ordering::Equal)
    );
    assert_eq!(
        compare_numbers("1e-999999999999999999", "1e-999999999999999998"),
        Some(Ordering::Less)
    );
    assert_eq!(
        compare_numbers("1e-0000000000000000000000001", "0.1"),
        Some(Ordering::Equal)
    );
}
