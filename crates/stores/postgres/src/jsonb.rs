//! What `jsonb` cannot hold, or only holds so that it cannot be read again. The range of its numbers
//! is the server's to say.

/// So long may the numbers of a value become when they are read: `jsonb` shows `1e131071`, which it
/// keeps in a few bytes, with all its zeros.
const NUMBERS_SHOWN_BYTES_MAX: u64 = 16 << 20;
/// The most by which one exponent that the server takes makes a number longer.
const EXPONENT_MAX: u64 = 131_072;

pub(crate) fn check(text: &str) -> Result<(), String> {
    check_characters(text)?;
    match shown_by_exponents(text.as_bytes()) {
        ..=NUMBERS_SHOWN_BYTES_MAX => Ok(()),
        _ => Err(format!(
            "PostgreSQL shows the numbers of jsonb without exponents, and so written these are longer than {} MiB",
            NUMBERS_SHOWN_BYTES_MAX >> 20
        )),
    }
}

/// `jsonb` keeps texts unescaped, and so cannot hold what text cannot.
fn check_characters(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find("\\u0000") {
        let slashes = rest.as_bytes()[..at]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        // Behind another backslash it is a backslash and the letters u0000.
        if slashes % 2 == 0 {
            return Err("PostgreSQL cannot hold the character U+0000 in jsonb".to_owned());
        }
        rest = &rest[at + 1..];
    }
    Ok(())
}

/// By how many digits numbers become longer without their exponents.
fn shown_by_exponents(json: &[u8]) -> u64 {
    let mut shown = 0;
    let mut in_text = false;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => in_text = !in_text,
            // "true" and "false" have no digit before it.
            b'e' | b'E' if !in_text && at > 0 && json[at - 1].is_ascii_digit() => {
                shown += exponent(&json[at + 1..]);
            }
            _ => {}
        }
        at += 1;
    }
    shown
}

fn exponent(json: &[u8]) -> u64 {
    let digits = json.iter().skip_while(|byte| matches!(byte, b'+' | b'-'));
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| {
        (sum * 10 + u64::from(digit - b'0')).min(EXPONENT_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_escape_of_the_null_character_is_refused() {
        assert!(check(r#"{"a":"\u0000"}"#).is_err());
        assert!(check(r#"{"a":"\\\u0000"}"#).is_err());
        assert!(check(r#"{"a":"\\u0000"}"#).is_ok());
        assert!(check(r#"{"a":"\\u0000\u0000"}"#).is_err());
        assert!(check(r#"{"a":"u0000"}"#).is_ok());
    }

    #[test]
    fn exponents_count_outside_texts_alone() {
        for (text, shown) in [
            (r#"[true,false,{"1e9":"\"1e9"}]"#, 0),
            (r#"["\\",1e9,-2.5E-10,1e+007]"#, 26),
            ("1e99999999999999999999999", EXPONENT_MAX),
        ] {
            assert_eq!(shown_by_exponents(text.as_bytes()), shown, "{text}");
        }
    }

    #[test]
    fn numbers_that_would_be_read_as_a_very_long_text_are_refused() {
        let numbers = |count| format!("[{}0]", "1e131071,".repeat(count));
        assert!(check(&numbers(100)).is_ok());
        assert!(check(&numbers(200)).unwrap_err().contains("16 MiB"));
    }
}
