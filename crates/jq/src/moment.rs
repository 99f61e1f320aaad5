//! Moments: between texts of RFC 3339 and nanoseconds since 1970, over the years 1 to 9999 whole.
//! Programs and columns read them alike.
//!
//! Days have 86,400 seconds here, as in every store. A leap second (`23:59:60` UTC at the end of a
//! month) is therefore the first second of the next day, as PostgreSQL and POSIX count it.

use std::borrow::Cow;

use jiff::civil::Date;
use jiff::fmt::temporal::Pieces;

/// The first and the last year that every store can hold.
const YEAR_MIN: i16 = 1;
const YEAR_MAX: i16 = 9999;
/// What is finer than this is cut off.
const FRACTION_DIGITS_MAX: usize = 9;
const DAY_SECONDS: i64 = 86_400;
pub(crate) const SECOND_NANOS: i128 = 1_000_000_000;
const EPOCH: Date = Date::constant(1970, 1, 1);

/// Nanoseconds since 1970 of a text as RFC 3339 has it, with an offset from UTC.
#[must_use]
pub fn parse_moment(text: &str) -> Option<i128> {
    let text = with_nanoseconds(text);
    let pieces = Pieces::parse(text.as_bytes()).ok()?;
    let time = pieces.time()?;
    let offset = pieces.to_numeric_offset()?;
    // What reads the text may know offsets of more than a day.
    if i64::from(offset.seconds()).abs() >= DAY_SECONDS {
        return None;
    }
    let clock = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60;
    let mut seconds =
        i64::from(days_of_date(pieces.date())?) * DAY_SECONDS + clock + i64::from(time.second())
            - i64::from(offset.seconds());
    if says_second_60(&text) {
        // It was read as second 59.
        seconds += 1;
        let day = date_of_days(i32::try_from(seconds.div_euclid(DAY_SECONDS)).ok()?)?;
        if seconds.rem_euclid(DAY_SECONDS) != 0 || day.day() != 1 {
            return None;
        }
    }
    let day = date_of_days(i32::try_from(seconds.div_euclid(DAY_SECONDS)).ok()?)?;
    (YEAR_MIN..=YEAR_MAX)
        .contains(&day.year())
        .then(|| i128::from(seconds) * SECOND_NANOS + i128::from(time.subsec_nanosecond()))
}

/// The text of a moment: `2024-05-01T12:00:00.000001Z`, without needless zeros. `None`: no calendar
/// has it.
#[must_use]
pub fn moment_text(nanos: i128) -> Option<String> {
    let seconds = i64::try_from(nanos.div_euclid(SECOND_NANOS)).ok()?;
    let date = date_of_days(i32::try_from(seconds.div_euclid(DAY_SECONDS)).ok()?)?;
    let clock = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut out = format!("{date}T{hour:02}:{minute:02}:{second:02}");
    let fraction = nanos.rem_euclid(SECOND_NANOS);
    if fraction != 0 {
        out.push('.');
        out.push_str(format!("{fraction:09}").trim_end_matches('0'));
    }
    out.push('Z');
    Some(out)
}

/// Seconds with a fraction, without needless zeros: `-0.5`.
pub(crate) fn seconds_text(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let second = SECOND_NANOS.unsigned_abs();
    let text = format!("{sign}{}.{:09}", nanos / second, nanos % second);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nanoseconds of seconds that are written with a fraction and without an exponent; what is finer is
/// cut off, towards the past.
pub(crate) fn parse_seconds(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (kept, finer) = fraction
        .split_at_checked(FRACTION_DIGITS_MAX)
        .unwrap_or((fraction, ""));
    let seconds: i64 = whole.parse().ok()?;
    let rest: i128 = format!("{kept:0<9}").parse().ok()?;
    let nanos = i128::from(seconds) * SECOND_NANOS + rest;
    let is_cut = finer.bytes().any(|digit| digit != b'0');
    Some(match is_negative {
        true => -nanos - i128::from(is_cut),
        false => nanos,
    })
}

/// Days since 1970 of a day in the years 1 to 9999, written `YYYY-MM-DD`.
#[must_use]
pub fn parse_day(text: &str) -> Option<i32> {
    let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let date: Date = plain.then(|| text.parse().ok())??;
    let in_range = (YEAR_MIN..=YEAR_MAX).contains(&date.year());
    in_range.then(|| days_of_date(date))?
}

/// The text of a day: `2024-05-01`. `None`: no calendar has it.
#[must_use]
pub fn day_text(days: i32) -> Option<String> {
    date_of_days(days).map(|date| date.to_string())
}

/// Days since 1970 of a day.
#[must_use]
pub fn days_of_date(date: Date) -> Option<i32> {
    date.since(EPOCH).ok().map(|span| span.get_days())
}

/// The day so many days after 1970-01-01. `None`: no calendar has it.
#[must_use]
pub fn date_of_days(days: i32) -> Option<Date> {
    let span = jiff::Span::new().try_days(days).ok()?;
    EPOCH.checked_add(span).ok()
}

/// The text without the digits of a fraction that are finer than nanoseconds.
fn with_nanoseconds(text: &str) -> Cow<'_, str> {
    let clock = text.split('[').next().unwrap_or(text);
    let Some(point) = clock.find(['.', ',']) else {
        return Cow::Borrowed(text);
    };
    let digits = clock.bytes().skip(point + 1).take_while(u8::is_ascii_digit);
    let end = point + 1 + digits.count();
    let kept = point + 1 + FRACTION_DIGITS_MAX;
    match (text.get(..kept), text.get(end..)) {
        (Some(before), Some(behind)) if end > kept => Cow::Owned(format!("{before}{behind}")),
        _ => Cow::Borrowed(text),
    }
}

/// Whether the time of day has the second 60.
fn says_second_60(text: &str) -> bool {
    let Some((_, clock)) = text.split_once(['T', 't', ' ']) else {
        return false;
    };
    let digits: String = clock
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ':')
        .filter(char::is_ascii_digit)
        .take(8)
        .collect();
    digits.len() == 6 && digits.ends_with("60")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The last nanosecond of the year 9999.
    const LAST: i128 = 253_402_300_799_999_999_999;
    const FIRST: i128 = -62_135_596_800_000_000_000;

    #[test]
    fn the_years_1_to_9999_are_whole() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("0001-01-01T00:00:00Z", FIRST),
            ("9999-12-30T22:00:00Z", 253_402_207_200_000_000_000),
            ("9999-12-31T23:59:59Z", LAST - 999_999_999),
            ("9999-12-31T23:59:59.999999999Z", LAST),
        ] {
            assert_eq!(parse_moment(text), Some(nanos), "{text}");
            assert_eq!(moment_text(nanos).as_deref(), Some(text));
        }
        let same = parse_moment("9999-12-31T23:59:59Z");
        assert_eq!(parse_moment("9999-12-31T21:59:59-02:00"), same);
        assert_eq!(parse_moment("9999-12-31T23:59:59+00:00"), same);
        let same = parse_moment("2024-05-01T00:00:00Z");
        assert_eq!(parse_moment("2024-05-01T23:59:00+23:59"), same);
        assert_eq!(parse_moment("0000-12-31T23:00:00-01:00"), Some(FIRST));
        for beyond in [
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
            "0001-01-01T00:00:00+00:01",
            "0000-12-31T23:59:59Z",
            "10000-01-01T00:00:00Z",
            "-000001-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_moment(beyond), None, "{beyond}");
        }
    }

    #[test]
    fn seconds_are_read_as_they_are_written() {
        for (nanos, text) in [
            (0, "0"),
            (-1, "-0.000000001"),
            (-1_500_000_000, "-1.5"),
            (LAST, "253402300799.999999999"),
            (FIRST, "-62135596800"),
        ] {
            assert_eq!(seconds_text(nanos), text);
            assert_eq!(parse_seconds(text), Some(nanos));
        }
        assert_eq!(parse_seconds("1.0000000019"), Some(1_000_000_001));
        assert_eq!(parse_seconds("-1.0000000011"), Some(-1_000_000_002));
        assert_eq!(parse_seconds("-1.0000000010"), Some(-1_000_000_001));
        for wrong in ["", "1e3", "99999999999999999999", "1.x"] {
            assert_eq!(parse_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_finer_than_a_nanosecond_is_cut_off() {
        let cut = parse_moment("2024-05-01T12:00:00.123456789Z");
        assert!(cut.is_some());
        for text in [
            "2024-05-01T12:00:00.1234567899Z",
            "2024-05-01T14:00:00.123456789999999999+02:00",
            &format!("2024-05-01T12:00:00.123456789{}Z", "9".repeat(100_000)),
        ] {
            assert_eq!(parse_moment(text), cut);
        }
        let before = parse_moment("1969-12-31T23:59:59.9999999999Z");
        assert_eq!(before, Some(-1));
        assert_eq!(parse_moment("2024-05-01T12:00:00.1234567899"), None);
        assert_eq!(parse_moment("2024-05-01T12:00:00.12345678999xZ"), None);
    }

    #[test]
    fn a_leap_second_is_the_first_second_of_the_next_day() {
        for (leap, next) in [
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.5Z"),
            ("2017-01-01T01:59:60+02:00", "2017-01-01T00:00:00Z"),
            ("2015-06-30t23:59:60z", "2015-07-01T00:00:00Z"),
        ] {
            assert!(parse_moment(leap).is_some(), "{leap}");
            assert_eq!(parse_moment(leap), parse_moment(next), "{leap}");
        }
        for none in [
            "2016-12-31T12:00:60Z",
            "2016-12-31T23:58:60Z",
            "2016-12-31T23:59:61Z",
            "2016-12-30T23:59:60Z",
            "2016-12-31T23:59:60+02:00",
        ] {
            assert_eq!(parse_moment(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for wrong in [
            "",
            "now",
            "2024-05-01",
            "2024-05-01T12:00:00",
            "2024-13-01T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-05-01T24:00:00Z",
            "2024-05-01T12:00:00+24:00",
            "2024-05-01T12:00:00-24:00",
            "2024-05-01T12:00:00+25:59",
            "2024-05-01T12:00:00+23:60",
            "....",
        ] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_back_and_in_order(a in FIRST..=LAST, b in FIRST..=LAST) {
            let (one, other) = (moment_text(a).unwrap(), moment_text(b).unwrap());
            prop_assert_eq!(parse_moment(&one), Some(a));
            // Texts with as many digits are in the order of their moments.
            let long = |text: &str| {
                let (clock, fraction) = text.trim_end_matches('Z').split_once('.')
                    .unwrap_or((text.trim_end_matches('Z'), ""));
                format!("{clock}.{fraction:0<9}")
            };
            prop_assert_eq!(a.cmp(&b), long(&one).cmp(&long(&other)));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in "[-+0-9TZtz:., \\[\\]a]{0,40}") {
            let _ = parse_moment(&text);
            let _ = parse_day(&text);
        }
    }
}
