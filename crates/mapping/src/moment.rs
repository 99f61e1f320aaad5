//! Moments, days and UUIDs: between their texts and the numbers that cells hold.

pub use onelog_jq::{date_of_days, days_of_date};
use onelog_jq::{day_text, moment_text, parse_day, parse_moment};

const MICRO_NANOS: i128 = 1000;
/// After so many years the calendar is the same again; so many days are in them.
const CYCLE_YEARS: i64 = 400;
const CYCLE_DAYS: i64 = 146_097;
const DAY_MICROS: i64 = 86_400_000_000;

/// Microseconds since 1970 of a text as RFC 3339 has it, with an offset from UTC; what is finer than
/// a microsecond is cut off (towards the past).
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    i64::try_from(parse_moment(text)?.div_euclid(MICRO_NANOS)).ok()
}

/// The text of a moment: `2024-05-01T12:00:00.000001Z`, without needless zeros.
#[must_use]
pub fn timestamp_text(micros: i64) -> String {
    let text = |micros: i64| moment_text(i128::from(micros) * MICRO_NANOS);
    text(micros)
        .or_else(|| {
            let cycle = CYCLE_DAYS * DAY_MICROS;
            far(&text(micros.rem_euclid(cycle))?, micros.div_euclid(cycle))
        })
        .unwrap_or_else(|| format!("{micros} µs since 1970"))
}

/// A text of the years from 1970 on, so many cycles of the calendar away. What comes out has a sign
/// and six digits for the year, as ISO 8601 extends them: it is for people, and no record can hold
/// it. Such a moment can only come from a store that was written to by others.
fn far(text: &str, cycles: i64) -> Option<String> {
    let (year, rest) = text.split_at_checked(4)?;
    let year = year.parse::<i64>().ok()? + CYCLE_YEARS * cycles;
    Some(format!("{year:+07}{rest}"))
}

/// Days since 1970 of a text `YYYY-MM-DD`.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    parse_day(text)
}

/// The text of a day: `2024-05-01`.
#[must_use]
pub fn date_text(days: i32) -> String {
    let days = i64::from(days);
    let text = |days: i64| day_text(i32::try_from(days).ok()?);
    text(days)
        .or_else(|| {
            far(
                &text(days.rem_euclid(CYCLE_DAYS))?,
                days.div_euclid(CYCLE_DAYS),
            )
        })
        .unwrap_or_else(|| format!("{days} days since 1970"))
}

/// The bytes of a UUID's text: 32 hexadecimal digits, with or without hyphens.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = match text.len() {
        32 => text.bytes().collect(),
        36 => {
            let hyphens = [8, 13, 18, 23];
            let bytes = text.as_bytes();
            if hyphens.iter().any(|at| bytes[*at] != b'-') {
                return None;
            }
            (0..36)
                .filter(|at| !hyphens.contains(at))
                .map(|at| bytes[at])
                .collect()
        }
        _ => return None,
    };
    let digit = |byte: u8| (byte as char).to_digit(16);
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(out)
}

/// The text of a UUID, with hyphens, in lower case.
#[must_use]
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_days_and_uuids_come_back_as_they_were() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2024-05-01T12:00:00.5Z", 1_714_564_800_500_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
            ("9999-12-30T21:59:59.999999Z", 253_402_207_199_999_999),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_timestamp(text), Some(micros), "{text}");
            assert_eq!(timestamp_text(micros), text);
        }
        assert_eq!(
            parse_timestamp("2024-05-01T14:00:00.5+02:00"),
            Some(1_714_564_800_500_000)
        );
        assert_eq!(parse_timestamp("1969-12-31T23:59:59.9999999Z"), Some(-1));
        assert_eq!(parse_timestamp("1969-12-31T23:59:59.9999999999Z"), Some(-1));
        let next = parse_timestamp("2017-01-01T00:00:00Z");
        assert_eq!(parse_timestamp("2016-12-31T23:59:60Z"), next);
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-03-01", 11017),
            ("0001-01-01", -719_162),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(parse_date(text), Some(days), "{text}");
            assert_eq!(date_text(days), text);
        }
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let bytes = parse_uuid(text).unwrap();
        assert_eq!(uuid_text(&bytes), text);
        assert_eq!(parse_uuid("00112233445566778899AABBCCDDEEFF"), Some(bytes));
    }

    #[test]
    fn what_no_record_can_hold_is_shown_and_not_read() {
        for (micros, text) in [
            (253_402_300_800_000_000, "+010000-01-01T00:00:00Z"),
            (9_223_371_331_199_999_999, "+294247-01-01T23:59:59.999999Z"),
            (-62_135_596_800_000_001, "0000-12-31T23:59:59.999999Z"),
            (-210_866_803_200_000_000, "-004713-11-24T00:00:00Z"),
        ] {
            assert_eq!(timestamp_text(micros), text);
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        for (days, text) in [
            (2_932_897, "+010000-01-01"),
            (i32::MAX, "+5881580-07-11"),
            (-719_163, "0000-12-31"),
            (i32::MIN, "-5877641-06-23"),
        ] {
            assert_eq!(date_text(days), text);
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "",
            "now",
            "2024-05-01",
            "2024-05-01T12:00:00",
            "2024-13-01T00:00:00Z",
            "-000001-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
        for wrong in [
            "",
            "2024-02-30",
            "2024-5-1",
            "20240501",
            "2024-05-01T00",
            "-0001-01-1",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
        for wrong in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "0011223344556677x899aabbccddeeff",
            "001122334-455-6677-8899-aabbccddeeff",
            "ααααααααααααααααα",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }
}
