//! The messages of serde, in the terms that users of JSON know.

use crate::{Quoted, quoted};

/// A message of serde, which names what it expects by its own data model, in the terms of JSON. What
/// it repeats of the text is [`Quoted`].
#[must_use]
pub fn in_json_terms(message: &str) -> String {
    const EXPECTED: &str = ", expected ";
    let Some(at) = message.rfind(EXPECTED) else {
        return quoted(message);
    };
    // What was found, which may be long, and what was expected.
    let (found, rest) = (&message[..at], &message[at + EXPECTED.len()..]);
    let (expected, place) = match rest.find(" at line ") {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "unit" => "null",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0 nor beyond 64 bits",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number of at most 64 bits",
        "f32" | "f64" => "a number",
        other => other,
    };
    format!("{}{EXPECTED}{expected}{place}", Quoted(found))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_expected_is_named_as_json_names_it() {
        let error = |text: &str| serde_json::from_str::<u64>(text).unwrap_err().to_string();
        assert_eq!(
            in_json_terms(&error("\"12\"")),
            "invalid type: string \"12\", expected a whole number, not below 0 nor beyond 64 bits at line 1 column 4"
        );
        let list = serde_json::from_value::<Vec<u8>>(Value::Null).unwrap_err();
        assert_eq!(
            in_json_terms(&list.to_string()),
            "invalid type: null, expected a list"
        );
        assert_eq!(in_json_terms("anything else"), "anything else");
        let long = in_json_terms(&error(&format!("\"{}\"", "x".repeat(1 << 20))));
        assert!(long.contains("xxx… (1048599 bytes), expected a whole number"));
    }
}
