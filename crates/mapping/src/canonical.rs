//! One encoding for JSON texts that mean the same: keys sorted, the last of equal keys, numbers as
//! decimals, no blanks. Stores that keep JSON in a form of their own (`jsonb`) are compared by it.
//!
//! Works on bytes that were checked to be JSON before; what is not JSON has no canonical form
//! and is compared as it is. Depth is bounded, so that no text can exhaust the stack.

use onelog_decimal::EXPONENT_DIGITS_MAX;

/// How deep lists and objects may nest.
const DEPTH_MAX: usize = 128;
/// The most digits of a decimal number that is written out; also how far an exponent may move its
/// point.
const DIGITS_MAX: i64 = 1100;

/// Appends the canonical encoding. `false`: the text is not JSON, and `out` is as it was.
pub fn encode_json(text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut reader = Reader {
        text: text.as_bytes(),
        at: 0,
        scratch: String::new(),
    };
    let whole = reader.value(out, 0).is_some() && {
        reader.blanks();
        reader.at == reader.text.len()
    };
    if !whole {
        out.truncate(start);
    }
    whole
}

/// The canonical text of a decimal number: no exponent, no needless zeros, no "-0". `None`: it is
/// not a number, or one with too many digits.
#[must_use]
pub fn numeric(text: &str) -> Option<String> {
    let Decimal {
        negative,
        digits,
        point,
    } = Decimal::of(text)?;
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let length = i64::try_from(digits.len()).ok()?;
    if length > DIGITS_MAX || point.abs() > DIGITS_MAX {
        return None;
    }
    let mut out = String::with_capacity(digits.len() + 4);
    if negative {
        out.push('-');
    }
    let zeros = |count: i64, out: &mut String| (0..count).for_each(|_| out.push('0'));
    if point <= 0 {
        out.push_str("0.");
        zeros(-point, &mut out);
        out.push_str(&digits);
    } else if point >= length {
        out.push_str(&digits);
        zeros(point - length, &mut out);
    } else {
        out.push_str(&digits[..point as usize]);
        out.push('.');
        out.push_str(&digits[point as usize..]);
    }
    Some(out)
}

/// A decimal number as what it is, however far its point is from its digits.
struct Decimal {
    negative: bool,
    /// Without zeros at both ends; none of zero.
    digits: String,
    /// The place of the point, counted from the first digit.
    point: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty())
            || !digits_only(whole)
            || !digits_only(fraction)
        {
            return None;
        }
        let all = [whole, fraction].concat();
        let leading = all.bytes().take_while(|b| *b == b'0').count();
        let digits = all[leading..].trim_end_matches('0');
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(match digits.is_empty() {
            true => Self::zero(),
            false => Self {
                negative,
                digits: digits.to_owned(),
                point: point.checked_add(exponent)?,
            },
        })
    }

    const fn zero() -> Self {
        Self {
            negative: false,
            digits: String::new(),
            point: 0,
        }
    }
}

/// A decimal number as it was written, where that is a number of JSON without an exponent: `1.10`
/// stays `1.10`. Other spellings become the canonical one.
#[must_use]
pub fn numeric_as_written(text: &str) -> Option<String> {
    let canonical = numeric(text)?;
    let plain = match text == canonical {
        true => return Some(canonical),
        false => without_zeros(text),
    };
    // "-0.0" is no "0", so it is not taken for one.
    Some(match plain == canonical && !text.ends_with('.') {
        true => text.to_owned(),
        false => canonical,
    })
}

/// The canonical text of a number that differs from it in needless zeros at its end alone.
pub(crate) fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// An exponent of at most as many digits as the log calculates with.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    (digits.len() <= EXPONENT_DIGITS_MAX).then(|| text.parse().ok())?
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    scratch: String,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        self.blanks();
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str, tag: u8, out: &mut Vec<u8>) -> Option<()> {
        let end = self.at + word.len();
        (self.text.get(self.at..end)? == word.as_bytes()).then(|| {
            self.at = end;
            out.push(tag);
        })
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.next()? {
            b'n' => self.word("null", b'n', out),
            b't' => self.word("true", b't', out),
            b'f' => self.word("false", b'f', out),
            b'"' => {
                self.string()?;
                long(b's', self.scratch.as_bytes(), out);
                Some(())
            }
            b'[' => self.list(out, depth),
            b'{' => self.object(out, depth),
            b'-' | b'0'..=b'9' => self.number(out),
            _ => None,
        }
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let start = self.at;
        let in_number = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        while self.text.get(self.at).is_some_and(in_number) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).ok()?;
        // Whole numbers in their shortest form are the usual case.
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match plain {
            true => decimal(false, text.trim_end_matches('0'), text.len() as i64, out),
            false => {
                let number = Decimal::of(text)?;
                decimal(number.negative, &number.digits, number.point, out);
            }
        }
        Some(())
    }

    fn list(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.eat(b'[')?;
        out.push(b'[');
        if self.next()? == b']' {
            self.at += 1;
            out.push(b']');
            return Some(());
        }
        loop {
            self.value(out, depth + 1)?;
            match self.next()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.at += 1;
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.eat(b'{')?;
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        if self.next()? == b'}' {
            self.at += 1;
        } else {
            loop {
                self.blanks();
                self.string()?;
                let name = self.scratch.clone();
                self.eat(b':')?;
                let mut value = Vec::new();
                self.value(&mut value, depth + 1)?;
                members.push((name, value));
                match self.next()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return None,
                }
            }
            self.at += 1;
        }
        // Stable: of equal names the last one stays last.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        out.push(b'{');
        for (n, (name, value)) in members.iter().enumerate() {
            if members.get(n + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            long(b's', name.as_bytes(), out);
            out.extend_from_slice(value);
        }
        out.push(b'}');
        Some(())
    }

    /// Reads a string into `scratch`.
    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        self.scratch.clear();
        loop {
            let start = self.at;
            while !matches!(self.text.get(self.at)?, b'"' | b'\\') {
                self.at += 1;
            }
            let part = std::str::from_utf8(&self.text[start..self.at]).ok()?;
            self.scratch.push_str(part);
            self.at += 1;
            if self.text[self.at - 1] == b'"' {
                return Some(());
            }
            let escape = *self.text.get(self.at)?;
            self.at += 1;
            let character = match escape {
                b'"' | b'\\' | b'/' => escape as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return None,
            };
            self.scratch.push(character);
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if self.text.get(self.at..self.at + 2)? != b"\\u" {
            return None;
        }
        self.at += 2;
        let second = self.hex()?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
    }
}

/// A number by its digits and the place of its point, which no exponent makes long.
fn decimal(negative: bool, digits: &str, point: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'd', u8::from(negative)]);
    out.extend_from_slice(&point.to_le_bytes());
    long(b's', digits.as_bytes(), out);
}

fn long(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn encoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        encode_json(text, &mut out).then_some(out)
    }

    #[test]
    fn texts_that_mean_the_same_are_encoded_alike() {
        let long = "7".repeat(5000);
        for (one, other) in [
            (
                r#"{"b":1,"a":[1,2]}"#,
                " { \"a\" : [ 1 , 2 ] ,\n\"b\" : 1 } ",
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("1.10", "1.1"),
            ("1e2", "100"),
            ("-0.0", "0"),
            ("1.5E-3", "0.0015"),
            (r#""\u00e9\ud83d\ude00\/""#, "\"é😀/\""),
            (
                "123456789012345678901234567890.10",
                "123456789012345678901234567890.1",
            ),
            ("[-0e5,0,0.00]", "[0,-0,0e-7]"),
            // As `jsonb` writes out what it holds, to the ends of its range.
            ("[1e-1200]", &format!("[0.{}1]", "0".repeat(1199))),
            ("-1.50E-16382", &format!("-0.{}150", "0".repeat(16_381))),
            ("1e131071", &format!("1{}", "0".repeat(131_071))),
            ("12.5e131070", &format!("125{}", "0".repeat(131_069))),
            (&format!("0.{long}00"), &format!("{long}e-5000")),
            (&format!("{long}.0"), &format!("0.{long}E+5000")),
        ] {
            assert!(encoded(one).is_some(), "{one}");
            assert_eq!(encoded(one), encoded(other), "{one}");
        }
    }

    #[test]
    fn texts_that_differ_are_encoded_differently() {
        let texts = [
            "1",
            "1.0000000000000000001",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[]",
            "{}",
            "null",
            "true",
            "false",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1],"b":2}"#,
            r#"{"a":[1,2]}"#,
            r#"["a",1]"#,
            "[1,2]",
            "12",
            "10",
            "-1",
            "1e-1200",
            "1e-1201",
            "-1e-1200",
            "1e999999999999999999",
        ];
        for (n, one) in texts.iter().enumerate() {
            for other in &texts[n + 1..] {
                assert_ne!(encoded(one), encoded(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn what_is_not_json_has_no_encoding_and_deep_texts_do_no_harm() {
        let deep = "[".repeat(1_000_000);
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "nul",
            "1 2",
            "\"\\ud800\"",
            "\"\\x\"",
            "'a'",
            "--1",
            &deep,
        ] {
            let mut out = vec![7];
            assert!(
                !encode_json(text, &mut out),
                "{}",
                &text[..text.len().min(10)]
            );
            assert_eq!(out, [7]);
        }
    }

    #[test]
    fn an_exponent_makes_no_encoding_long() {
        let short = encoded("1").unwrap().len();
        for text in ["1e131071", "1e-16383", "1e999999999999999999"] {
            assert_eq!(encoded(text).unwrap().len(), short, "{text}");
        }
    }

    #[test]
    fn numbers_are_made_canonical() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("000.100", "0.1"),
            ("1e3", "1000"),
            ("12.5e1", "125"),
            ("-1.25E-2", "-0.0125"),
            ("9007199254740993", "9007199254740993"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
        ] {
            assert_eq!(numeric(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "-",
            "e5",
            "1e",
            "1e99999999999999999999",
            "0e99999999999999999999",
            "0e1234567890123456789",
            "1e5000",
            "NaN",
            "1,5",
            "0x1",
            "١",
        ] {
            assert_eq!(numeric(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_as_it_was_written_differs_in_zeros_at_its_end_alone() {
        for (text, expected) in [
            ("1.10", "1.10"),
            ("-0.500", "-0.500"),
            ("3.000", "3.000"),
            ("0.00", "0.00"),
            ("100", "100"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("5.", "5"),
            (".50", "0.5"),
            ("007.0", "7"),
            ("1e3", "1000"),
            ("+1.0", "1"),
        ] {
            let written = numeric_as_written(text).unwrap();
            assert_eq!(written, expected, "{text}");
            assert_eq!(
                Some(without_zeros(&written)),
                numeric(text).as_deref(),
                "{text}"
            );
        }
        assert_eq!(numeric_as_written("1.0x"), None);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|n| serde_json::json!(n)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// 1 and 1.0 are one number here and two values to serde_json.
    fn plain(value: &Value) -> Value {
        match value {
            Value::Number(number) => Value::String(numeric(&number.to_string()).unwrap()),
            Value::String(text) => Value::String(format!("text {text}")),
            Value::Array(items) => items.iter().map(plain).collect(),
            Value::Object(members) => {
                let sorted: std::collections::BTreeMap<&String, Value> = members
                    .iter()
                    .map(|(name, value)| (name, plain(value)))
                    .collect();
                serde_json::json!(sorted)
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn every_document_has_an_encoding_that_printing_does_not_change(document in document()) {
            let compact = encoded(&document.to_string());
            prop_assert!(compact.is_some());
            let pretty = serde_json::to_string_pretty(&document).unwrap();
            prop_assert_eq!(&compact, &encoded(&pretty));
        }

        #[test]
        fn documents_are_equal_exactly_when_their_encodings_are(a in document(), b in document()) {
            let same = encoded(&a.to_string()) == encoded(&b.to_string());
            prop_assert_eq!(same, plain(&a) == plain(&b));
        }

        #[test]
        fn hostile_texts_do_no_harm(text in "[\\[\\]{}\":,0-9eE.ntu\\\\ -]{0,60}") {
            let mut out = Vec::new();
            let taken = encode_json(&text, &mut out);
            if serde_json::from_str::<Value>(&text).is_ok() {
                prop_assert!(taken || text.contains(['e', 'E']));
            }
        }
    }
}
