//! How a message quotes what a client sent.

use std::fmt;

/// The most bytes that a message quotes of one text.
pub const QUOTED_BYTES_MAX: usize = 1 << 10;

/// A text as a message quotes it: whole where it is short, else its beginning and its length.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'t>(pub &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        if text.len() <= QUOTED_BYTES_MAX {
            return f.write_str(text);
        }
        let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
        write!(f, "{}… ({} bytes)", &text[..end], text.len())
    }
}

/// [`Quoted`] as a text of its own.
#[must_use]
pub fn quoted(text: &str) -> String {
    Quoted(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let bound = "x".repeat(QUOTED_BYTES_MAX);
        assert_eq!(quoted(&bound), bound);
        let text = "ü".repeat(QUOTED_BYTES_MAX) + "x";
        let shown = quoted(&text[1 + 1..]);
        assert!(shown.ends_with("ü… (2047 bytes)"), "{shown}");
        assert!(shown.len() < QUOTED_BYTES_MAX + 20);
        assert_eq!(
            quoted(&format!("x{text}")).find('…'),
            Some(QUOTED_BYTES_MAX - 1)
        );
    }
}
