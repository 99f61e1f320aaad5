//! PostgreSQL's binary form of `numeric`: digits of base 10000, the place of the first one, the
//! sign and how many decimal digits are behind the point.

/// The most decimal digits before the point.
const WHOLE_DIGITS_MAX: usize = 131_072;
/// The most decimal digits behind the point.
const FRACTION_DIGITS_MAX: usize = 16_383;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Appends a number in its canonical text as binary, without a length.
pub(crate) fn encode(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let well_formed = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !well_formed(whole) || !well_formed(fraction) {
        return Err("it is not a decimal number".to_owned());
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > WHOLE_DIGITS_MAX || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(format!(
            "PostgreSQL holds numbers of at most {WHOLE_DIGITS_MAX} digits before and {FRACTION_DIGITS_MAX} digits behind the point"
        ));
    }
    let at = out.len();
    out.extend_from_slice(&[0; 8]);
    let head_len = whole.len() % 4;
    let groups = group_digits(whole, fraction, head_len);
    // The groups before the point, of which the first one may be short.
    let whole_groups = whole.len().div_ceil(4) as i32;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
    let kept: &[u16] = if leading == groups.len() {
        &[]
    } else {
        &groups[leading..groups.len() - trailing]
    };
    let weight = if kept.is_empty() {
        0
    } else {
        whole_groups - 1 - leading as i32
    };
    let sign = if negative && !kept.is_empty() {
        NEGATIVE
    } else {
        0
    };
    for (n, field) in [
        kept.len() as u16,
        (weight as i16).cast_unsigned(),
        sign,
        fraction.len() as u16,
    ]
    .into_iter()
    .enumerate()
    {
        out[at + 2 * n..at + 2 * n + 2].copy_from_slice(&field.to_be_bytes());
    }
    for group in kept {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Ok(())
}

fn group_digits(whole: &str, fraction: &str, head_len: usize) -> Vec<u16> {
    let number = |digits: &[u8]| {
        let value = |sum: u16, digit: &u8| sum * 10 + u16::from(digit - b'0');
        digits.iter().fold(0, value)
    };
    let mut groups = Vec::with_capacity((whole.len() + fraction.len()) / 4 + 2);
    let (head, rest) = whole.as_bytes().split_at(head_len);
    if !head.is_empty() {
        groups.push(number(head));
    }
    groups.extend(rest.chunks(4).map(number));
    for chunk in fraction.as_bytes().chunks(4) {
        groups.push(number(chunk) * 10_u16.pow(4 - chunk.len() as u32));
    }
    groups
}

/// A number from its binary form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A number, with as many digits behind the point as the server shows of it.
    Number,
    /// Something that is no number, as PostgreSQL spells it.
    Special(&'static str),
}

/// Reads a number into `text`. `None`: these bytes are no `numeric`.
pub(crate) fn decode(bytes: &[u8], text: &mut String) -> Option<Decoded> {
    text.clear();
    let field = |n: usize| -> Option<u16> {
        let bytes = bytes.get(2 * n..2 * n + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (count, weight, sign) = (field(0)?, field(1)?.cast_signed(), field(2)?);
    let scale = usize::from(field(3)?);
    match sign {
        NAN => return Some(Decoded::Special("NaN")),
        INFINITY => return Some(Decoded::Special("Infinity")),
        NEGATIVE_INFINITY => return Some(Decoded::Special("-Infinity")),
        0 | NEGATIVE => {}
        _ => return None,
    }
    if count == 0 {
        text.push('0');
        set_fraction_digits(text, scale);
        return Some(Decoded::Number);
    }
    if sign == NEGATIVE {
        text.push('-');
    }
    let groups = i32::from(count);
    let weight = i32::from(weight);
    let digits = |place: i32| -> Option<u16> {
        // Place 0 is the group before the point.
        let n = weight - place;
        if n < 0 || n >= groups {
            Some(0)
        } else {
            field(4 + n as usize)
        }
    };
    if weight < 0 {
        text.push('0');
    }
    for place in (0..=weight).rev() {
        let group = digits(place)?;
        match place == weight {
            true => text.push_str(&group.to_string()),
            false => text.push_str(&format!("{group:04}")),
        }
    }
    let last = weight - groups + 1;
    if last < 0 {
        text.push('.');
        for place in (last..0).rev() {
            text.push_str(&format!("{:04}", digits(place)?));
        }
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
    set_fraction_digits(text, scale);
    Some(Decoded::Number)
}

/// Adds the zeros with which a number without needless ones has so many digits behind the point.
fn set_fraction_digits(text: &mut String, scale: usize) {
    if scale > FRACTION_DIGITS_MAX {
        return;
    }
    let there = match text.split_once('.') {
        Some((_, fraction)) => fraction.len(),
        None => 0,
    };
    if there == 0 && scale > 0 {
        text.push('.');
    }
    (there..scale).for_each(|_| text.push('0'));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(text: &str) -> String {
        let mut bytes = Vec::new();
        encode(text, &mut bytes).unwrap();
        let mut out = String::new();
        assert_eq!(decode(&bytes, &mut out), Some(Decoded::Number), "{text}");
        out
    }

    #[test]
    fn numbers_keep_every_digit() {
        for text in [
            "0",
            "1",
            "-1",
            "10000",
            "100000000",
            "9999",
            "12345678901234567890.123456789",
            "0.0001",
            "0.00001",
            "-0.000000001",
            "123.4",
            "5000.0005",
            "1.10",
            "-0.500",
            "3.000",
            "0.00",
            "1000000.00000",
        ] {
            assert_eq!(there_and_back(text), text);
        }
        let long = format!("1{}", "0".repeat(1000));
        assert_eq!(there_and_back(&long), long);
    }

    #[test]
    fn the_binary_form_is_that_of_the_server() {
        // select numeric_send(-12345.678)
        let mut bytes = Vec::new();
        encode("-12345.678", &mut bytes).unwrap();
        assert_eq!(
            bytes,
            [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]
        );
    }

    #[test]
    fn what_is_no_number_is_refused_or_special() {
        let mut out = Vec::new();
        for text in ["", "-", "1e5", "NaN", ".5", "1.2.3"] {
            assert!(encode(text, &mut out).is_err(), "{text}");
        }
        assert!(encode(&"9".repeat(131_073), &mut out).is_err());
        let mut text = String::new();
        assert_eq!(
            decode(&[0, 0, 0, 0, 0xC0, 0, 0, 0], &mut text),
            Some(Decoded::Special("NaN"))
        );
        assert_eq!(decode(&[0, 1, 0, 0, 0, 0, 0, 0], &mut text), None);
        assert_eq!(decode(&[0, 1], &mut text), None);
    }

    proptest::proptest! {
        #[test]
        fn any_number_comes_back(whole in "0|[1-9][0-9]{0,60}", fraction in "|[0-9]{0,40}[1-9]", negative: bool) {
            let mut text = whole;
            if !fraction.is_empty() {
                text = format!("{text}.{fraction}");
            }
            if negative && text != "0" {
                text.insert(0, '-');
            }
            proptest::prop_assert_eq!(there_and_back(&text), text);
        }
    }
}
