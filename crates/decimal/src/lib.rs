//! Numbers of JSON as decimal text: compared and added exactly, never through a float.
//!
//! The text of a number is its truth: `1.10` and `1.1` are equal and stay as they were written.
//! What is calculated is bounded: sums by [`SUM_DIGITS_MAX`], exponents by 18 digits. Pure functions of
//! text; the crate imports no other.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The most digits that a sum may need, on both sides of its point together.
pub const SUM_DIGITS_MAX: usize = 1100;
/// The most digits of an exponent that is calculated with: they fit an `i64`, with room for the
/// length of a text.
pub const EXPONENT_DIGITS_MAX: usize = 18;
/// Sums with more places than this before the point, or zeros behind it, are written with an
/// exponent.
const PLAIN_PLACES_MAX: i64 = 40;
/// As many zeros may follow the point of a fraction in canonical text.
const CANONICAL_ZEROS_MAX: i64 = 4;

/// Why two numbers have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSum {
    /// One of two whole numbers, or their sum, does not fit 64 bits signed.
    Overflow,
    /// The sum is beyond the range of 64-bit floats.
    NotFinite,
    /// The sum has more than [`SUM_DIGITS_MAX`] digits.
    TooManyDigits,
}

/// Whether the text is a number in the grammar of JSON.
#[must_use]
pub fn is_number(text: &str) -> bool {
    number_length(text.as_bytes()) == Some(text.len()) && !text.is_empty()
}

/// How many bytes of `text` the number takes that it begins with.
#[must_use]
pub fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

/// Whether a number of JSON is within the range of 64-bit floats, beyond which most readers fail.
#[must_use]
pub fn is_finite(number: &str) -> bool {
    /// Shorter numbers without an exponent cannot reach the end of the range.
    const SURELY_FINITE_BYTES: usize = 300;
    let short = number.len() < SURELY_FINITE_BYTES && !number.contains(['e', 'E']);
    short || number.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether a number of JSON is written without a point and without an exponent.
fn is_written_whole(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

/// The parts of a number: `±whole.fraction × 10^exponent`.
#[derive(Clone, Copy, Debug)]
struct Decimal<'t> {
    negative: bool,
    /// All digits, the zeros before and behind them left out: a part before the point, and the
    /// rest.
    whole: &'t str,
    fraction: &'t str,
    /// The place of the point, counted from the first digit.
    point: i64,
}

impl<'t> Decimal<'t> {
    /// `None`: the exponent has too many digits to calculate with.
    fn of(number: &'t str) -> Option<Self> {
        let (negative, rest) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let shown = whole.trim_start_matches('0');
        let mut point = shown.len() as i64;
        let (whole, fraction) = match (shown.is_empty(), fraction.trim_end_matches('0')) {
            (true, fraction) => {
                let digits = fraction.trim_start_matches('0');
                point -= (fraction.len() - digits.len()) as i64;
                ("", digits)
            }
            (false, "") => (shown.trim_end_matches('0'), ""),
            (false, fraction) => (shown, fraction),
        };
        let magnitude = exponent
            .trim_start_matches(['+', '-'])
            .trim_start_matches('0');
        // Of zero, too: what has no order has none whatever its digits are.
        if magnitude.len() > EXPONENT_DIGITS_MAX {
            return None;
        }
        let mut decimal = Self {
            negative,
            whole,
            fraction,
            point,
        };
        if decimal.is_zero() {
            decimal.negative = false;
            decimal.point = 0;
            return Some(decimal);
        }
        let magnitude: i64 = match magnitude {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        decimal.point += match exponent.starts_with('-') {
            true => -magnitude,
            false => magnitude,
        };
        Some(decimal)
    }

    const fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// The digits from the first to the last that is not zero.
    fn digits(&self) -> impl Iterator<Item = u8> + use<'t> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    const fn len(&self) -> i64 {
        (self.whole.len() + self.fraction.len()) as i64
    }

    /// How many places it has behind its point.
    const fn scale(&self) -> i64 {
        let scale = self.len() - self.point;
        if scale < 0 { 0 } else { scale }
    }

    fn cmp_magnitude(&self, other: &Self) -> Ordering {
        // Without zeros at either end a digit more is more.
        let by_place = || self.point.cmp(&other.point);
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => by_place().then_with(|| self.digits().cmp(other.digits())),
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }

    /// The digits with `places` before the point and `scale` behind it.
    fn aligned(&self, places: i64, scale: i64) -> Vec<u8> {
        let before = (places - self.point).max(0) as usize;
        let behind = (scale - (self.len() - self.point)).max(0) as usize;
        std::iter::repeat_n(b'0', before)
            .chain(self.digits())
            .chain(std::iter::repeat_n(b'0', behind))
            .collect()
    }
}

/// The order of two numbers of JSON, exact. `None`: an exponent has more than 18 digits.
#[must_use]
pub fn compare_numbers(left: &str, right: &str) -> Option<Ordering> {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return Some(left.cmp(&right));
    }
    Some(Decimal::of(left)?.cmp(&Decimal::of(right)?))
}

/// The sum of two numbers of JSON, exact. Two whole numbers have a whole sum; else it has as many
/// places behind the point as the number with more of them, and at least one.
///
/// # Errors
/// Two whole numbers of which one, or the sum, is beyond 64 bits signed; sums that are out of range or
/// too long.
pub fn add_numbers(left: &str, right: &str) -> Result<String, NoSum> {
    if is_written_whole(left) && is_written_whole(right) {
        let whole = |number: &str| number.parse::<i64>().map_err(|_| NoSum::Overflow);
        let sum = whole(left)?.checked_add(whole(right)?);
        return Ok(sum.ok_or(NoSum::Overflow)?.to_string());
    }
    let parts = |number| Decimal::of(number).ok_or(NoSum::TooManyDigits);
    let sum = add_decimals(
        &parts(left)?,
        &parts(right)?,
        written_scale(left).max(written_scale(right)),
    )?;
    if !is_finite(&sum) {
        return Err(NoSum::NotFinite);
    }
    Ok(sum)
}

/// How many places behind the point are written, zeros included.
fn written_scale(number: &str) -> i64 {
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    match (mantissa.len() == number.len(), mantissa.split_once('.')) {
        (true, Some((_, fraction))) => fraction.len() as i64,
        _ => 0,
    }
}

fn add_decimals(left: &Decimal<'_>, right: &Decimal<'_>, shown: i64) -> Result<String, NoSum> {
    let scale = left.scale().max(right.scale()).max(shown).max(1);
    let places = left.point.max(right.point).max(1);
    if scale.saturating_add(places) > SUM_DIGITS_MAX as i64 {
        return Err(NoSum::TooManyDigits);
    }
    // One place more, into which the sum may carry.
    let (larger, smaller) = match left.cmp_magnitude(right) {
        Ordering::Less => (right, left),
        _ => (left, right),
    };
    let mut digits = larger.aligned(places + 1, scale);
    let other = smaller.aligned(places + 1, scale);
    let subtract = larger.negative != smaller.negative;
    let mut carry = 0;
    for (digit, other) in digits.iter_mut().zip(&other).rev() {
        let (is, by) = (*digit - b'0', *other - b'0' + carry);
        let (sum, carried) = match subtract {
            false => ((is + by) % 10, u8::from(is + by > 9)),
            true => ((is + 10 - by) % 10, u8::from(is < by)),
        };
        *digit = b'0' + sum;
        carry = carried;
    }
    let is_zero = digits.iter().all(|digit| *digit == b'0');
    let (whole, fraction) = digits.split_at(places as usize + 1);
    Ok(written(larger.negative && !is_zero, whole, fraction))
}

/// The text of a sum, with an exponent where it would else be mostly zeros.
fn written(negative: bool, whole: &[u8], fraction: &[u8]) -> String {
    let whole = trim_start(whole);
    let mut out = String::with_capacity(whole.len() + fraction.len() + 3);
    if negative {
        out.push('-');
    }
    let zeros = fraction.len() - trim_start(fraction).len();
    let far = whole.len() as i64 > PLAIN_PLACES_MAX
        || (whole.is_empty() && zeros < fraction.len() && zeros as i64 > PLAIN_PLACES_MAX);
    if !far {
        let whole: &[u8] = if whole.is_empty() { b"0" } else { whole };
        extend(&mut out, whole);
        out.push('.');
        extend(&mut out, fraction);
        return out;
    }
    let all = [whole, fraction].concat();
    let end = all
        .iter()
        .rposition(|digit| *digit != b'0')
        .map_or(0, |at| at + 1);
    let exponent = match whole.is_empty() {
        true => -(zeros as i64) - 1,
        false => whole.len() as i64 - 1,
    };
    scientific(&mut out, trim_start(&all[..end]), exponent);
    out
}

fn trim_start(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn extend(out: &mut String, digits: &[u8]) {
    out.extend(digits.iter().map(|digit| *digit as char));
}

fn scientific(out: &mut String, digits: &[u8], exponent: i64) {
    extend(out, &digits[..1]);
    if digits.len() > 1 {
        out.push('.');
        extend(out, &digits[1..]);
    }
    // As serde_json writes floats.
    out.push_str(&format!("e{exponent:+}"));
}

/// The one text that all numbers equal to this one share: plain where a whole number fits 64 bits
/// or a fraction has few zeros behind its point, with an exponent else. Of most floats it is the
/// shortest text, without a needless `.0`.
#[must_use]
pub fn canonical_number(number: &str) -> Cow<'_, str> {
    let fits = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok_and(|n| n != 0);
    if fits {
        return Cow::Borrowed(number);
    }
    let Some(decimal) = Decimal::of(number) else {
        return Cow::Borrowed(number);
    };
    if decimal.is_zero() {
        return Cow::Borrowed("0");
    }
    let digits: Vec<u8> = decimal.digits().collect();
    let (point, len) = (decimal.point, decimal.len());
    let mut out = String::new();
    if decimal.negative {
        out.push('-');
    }
    let zeros = |out: &mut String, count: i64| (0..count).for_each(|_| out.push('0'));
    if point >= len {
        /// Every whole number of 64 bits has at most so many digits.
        const WHOLE_DIGITS_MAX: i64 = 20;
        if point <= WHOLE_DIGITS_MAX {
            let mut whole = out.clone();
            extend(&mut whole, &digits);
            zeros(&mut whole, point - len);
            if whole.parse::<u64>().is_ok() || whole.parse::<i64>().is_ok() {
                return Cow::Owned(whole);
            }
        }
        scientific(&mut out, &digits, point - 1);
    } else if point > 0 {
        extend(&mut out, &digits[..point as usize]);
        out.push('.');
        extend(&mut out, &digits[point as usize..]);
    } else if -point <= CANONICAL_ZEROS_MAX {
        out.push_str("0.");
        zeros(&mut out, -point);
        extend(&mut out, &digits);
    } else {
        scientific(&mut out, &digits, point - 1);
    }
    Cow::Owned(out)
}

/// Whether a number of JSON has no fraction: `1`, `1.0` and `1e2`. `None`: its exponent has more
/// than 18 digits.
#[must_use]
pub fn is_whole(number: &str) -> Option<bool> {
    Decimal::of(number).map(|decimal| decimal.scale() == 0)
}

/// A number of JSON as a whole number of 64 bits, if it is one: `5`, `5.0` and `5e0`.
#[must_use]
pub fn whole_number(number: &str) -> Option<i64> {
    if let Ok(whole) = number.parse() {
        return Some(whole);
    }
    /// Every whole number of 64 bits signed has at most so many digits.
    const DIGITS_MAX: i64 = 19;
    let decimal = Decimal::of(number)?;
    if decimal.is_zero() {
        return Some(0);
    }
    if decimal.scale() > 0 || decimal.point > DIGITS_MAX {
        return None;
    }
    let mut text = String::from(if decimal.negative { "-" } else { "" });
    extend(&mut text, &decimal.aligned(decimal.point, 0));
    text.parse().ok()
}

/// Whether a number is a whole multiple of another, exactly. `None`: an exponent has more than 18
/// digits, or the divisor is zero or has more digits than a whole number of 64 bits.
#[must_use]
pub fn is_multiple_of(number: &str, divisor: &str) -> Option<bool> {
    let (number, by) = (Decimal::of(number)?, Decimal::of(divisor)?);
    if number.is_zero() && !by.is_zero() {
        return Some(true);
    }
    let mut modulus = 0_u64;
    for digit in by.digits() {
        modulus = modulus
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    if modulus == 0 {
        return None;
    }
    // Neither has zeros behind its digits, so that a number with more places behind its point than
    // the divisor has is no multiple of it.
    let zeros = (number.point - number.len()) - (by.point - by.len());
    if zeros < 0 {
        return Some(false);
    }
    let remainder = match modulus < u64::MAX / 10 {
        true => u128::from(number.digits().fold(0_u64, |rest, digit| {
            (rest * 10 + u64::from(digit - b'0')) % modulus
        })),
        false => number.digits().fold(0_u128, |rest, digit| {
            (rest * 10 + u128::from(digit - b'0')) % u128::from(modulus)
        }),
    };
    let modulus = u128::from(modulus);
    let mut shifted = remainder;
    let (mut base, mut power) = (10 % modulus, zeros.unsigned_abs());
    while power > 0 {
        if power % 2 == 1 {
            shifted = shifted * base % modulus;
        }
        base = base * base % modulus;
        power /= 2;
    }
    Some(shifted == 0)
}

#[cfg(test)]
mod tests;
