//! Rust source taken apart into code and prose, line by line, so that a rule about code does not
//! trip over a text, nor a rule about prose over a name.

/// One line of a source file.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// Code; comments and the contents of literals are blank.
    pub code: String,
    /// Comments and the contents of string literals.
    pub prose: String,
}

enum Mode {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

/// Splits a source file. Both parts of a line are as long as the line itself, blank where the
/// other one has its characters.
pub fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut mode = Mode::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let mut taken = 1;
        let mut in_code = false;
        match &mut mode {
            Mode::Code => match (c, next) {
                ('/', Some('/')) => mode = Mode::LineComment,
                ('/', Some('*')) => {
                    taken = 2;
                    mode = Mode::BlockComment { depth: 1 };
                }
                ('"', _) => mode = Mode::Text { hashes: None },
                ('r', Some('"' | '#')) if !part_of_name(&chars, at) => {
                    match raw_text_opening(&chars, at) {
                        Some((length, hashes)) => {
                            taken = length;
                            mode = Mode::Text {
                                hashes: Some(hashes),
                            };
                        }
                        None => in_code = true,
                    }
                }
                ('\'', _) => taken = character_length(&chars, at).unwrap_or(1),
                _ => in_code = true,
            },
            Mode::LineComment if c == '\n' => mode = Mode::Code,
            Mode::LineComment => {}
            Mode::BlockComment { depth } => match (c, next) {
                ('/', Some('*')) => {
                    taken = 2;
                    *depth += 1;
                }
                ('*', Some('/')) => {
                    taken = 2;
                    *depth -= 1;
                    if *depth == 0 {
                        mode = Mode::Code;
                    }
                }
                _ => {}
            },
            Mode::Text { hashes: None } => match c {
                '\\' => taken = 2,
                '"' => mode = Mode::Code,
                _ => {}
            },
            Mode::Text {
                hashes: Some(hashes),
            } => {
                let closes = c == '"'
                    && chars[at + 1..].iter().take_while(|&&c| c == '#').count() >= *hashes;
                if closes {
                    taken = 1 + *hashes;
                    mode = Mode::Code;
                }
            }
        }
        for &c in chars.iter().skip(at).take(taken) {
            push(&mut lines, c, in_code);
        }
        at += taken;
    }
    lines
}

fn push(lines: &mut Vec<Line>, c: char, in_code: bool) {
    if c == '\n' {
        lines.push(Line::default());
        return;
    }
    if let Some(line) = lines.last_mut() {
        line.code.push(if in_code { c } else { ' ' });
        line.prose.push(if in_code { ' ' } else { c });
    }
}

/// Whether the character belongs to a name that began before it, as in `for"`.
fn part_of_name(chars: &[char], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|at| chars.get(at)) else {
        return false;
    };
    // `br"…"` and `cr"…"` are raw, too.
    let prefix = matches!(before, 'b' | 'c')
        && !at
            .checked_sub(2)
            .and_then(|at| chars.get(at))
            .is_some_and(|&c| c.is_alphanumeric() || c == '_');
    (before.is_alphanumeric() || *before == '_') && !prefix
}

/// The length of `r##"` and how many hashes it has; `r#name` is none.
fn raw_text_opening(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some((hashes + 2, hashes))
}

/// The length of a character literal, none for a lifetime.
fn character_length(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let closing = chars.iter().skip(at + 3).position(|&c| c == '\'')?;
        return Some(closing + 4);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a text, its parts one space from each other.
    fn code(text: &str) -> String {
        let lines = split(text);
        let parts = lines.iter().flat_map(|line| line.code.split_whitespace());
        parts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(code("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(code(r#"let a = "{ \" } // x"; b"#), "let a = ; b");
        assert_eq!(code("x(r#\"{\"{\"#, y)"), "x( , y)");
        assert_eq!(code("r#type + br\"{\""), "r#type + b");
    }

    #[test]
    fn a_brace_as_a_character_is_no_code_and_a_lifetime_hides_nothing() {
        assert_eq!(code("a('{', '\\'', '\\u{7b}') }"), "a( , , ) }");
        assert_eq!(code("fn a<'a>(b: &'a str) {}"), "fn a< a>(b: & a str) {}");
    }

    #[test]
    fn prose_is_what_is_left() {
        let lines = split("let a = \"text\"; // why\n/// doc");
        assert_eq!(lines[0].prose.trim(), "\"text\"  // why");
        assert_eq!(lines[1].prose, "/// doc");
    }
}
