//! How deep a TOML text nests, found before it is read: the library recurses over what it has read,
//! and bounds the parts of a name and the nesting of values, but not the one times the other.

/// The most levels that are read, names of many parts counted by their parts. It is above what any
/// definition may have, as dots of numbers are counted like those of names.
const LEVELS_MAX: usize = 256;

/// The first byte that is deeper.
pub(crate) fn too_deep(text: &str) -> Option<usize> {
    let mut levels = Levels::default();
    let mut is_line_start = true;
    let mut at = 0;
    while let Some(rest) = text.as_bytes().get(at..)
        && let [byte, ..] = rest
    {
        match byte {
            b'#' => {
                at += rest.iter().take_while(|byte| **byte != b'\n').count();
                continue;
            }
            b'"' | b'\'' => at += quoted_bytes(rest, *byte),
            _ => {
                levels.meet(*byte, is_line_start);
                at += 1;
            }
        }
        if levels.are_too_many() {
            return Some(at - 1);
        }
        is_line_start = match byte {
            b'\n' => true,
            b' ' | b'\t' => is_line_start,
            _ => false,
        };
    }
    None
}

#[derive(Default)]
struct Levels {
    /// Of the last line `[a.b]`.
    header: usize,
    /// Of what is around the open brackets, and of the name at hand.
    around: usize,
    here: usize,
    /// The levels of the names before each open bracket.
    open: Vec<usize>,
    is_header: bool,
}

impl Levels {
    const fn are_too_many(&self) -> bool {
        self.header + self.around + self.here > LEVELS_MAX
    }

    fn meet(&mut self, byte: u8, is_line_start: bool) {
        match byte {
            b'[' if is_line_start && self.open.is_empty() => {
                self.is_header = true;
                self.header = 1;
            }
            b'.' if self.is_header => self.header += 1,
            b'\n' if self.open.is_empty() => {
                self.is_header = false;
                self.here = 0;
            }
            _ if self.is_header => {}
            b'.' => self.here += 1,
            b',' => self.here = 0,
            b'[' | b'{' => {
                self.open.push(self.here);
                self.around += self.here + 1;
                self.here = 0;
            }
            b']' | b'}' => {
                self.here = self.open.pop().unwrap_or_default();
                self.around = self.around.saturating_sub(self.here + 1);
            }
            _ => {}
        }
    }
}

/// The length of a text in quotes, which begins with them; one that does not end is left to the
/// library.
fn quoted_bytes(text: &[u8], quote: u8) -> usize {
    let long = [quote; 3];
    let is_long = text.starts_with(&long);
    let mut at = if is_long { long.len() } else { 1 };
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return at,
            byte if *byte == quote && !is_long => return at + 1,
            byte if *byte == quote && text[at..].starts_with(&long) => {
                // Up to two quotes may belong to the text.
                let quotes = text[at..].iter().take(5).take_while(|byte| **byte == quote);
                return at + quotes.count();
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_parts_of_names_are_levels() {
        let name = ["a"; 60].join(".");
        let long = "{ b.c = 1.5 }, ".repeat(1_000);
        for (text, is_deep) in [
            (format!("[{name}]\n{name} = {{ {name} = 1 }}"), false),
            (
                format!("[{name}]\n{name} = {{ {name} = {{ {name} = [{{ {name} = 1 }}] }} }}"),
                true,
            ),
            (format!("[{name}]\n{name} = 1\n").repeat(10), false),
            (format!("{name} = {{ {name} = 1 }}\n").repeat(10), false),
            (format!("a = [\n{long}]\n"), false),
            (format!("# {}\n", "[".repeat(300)), false),
            (format!("a = \"{}\"\n", "\\\"[{.".repeat(300)), false),
            (format!("a = '''\n{}''''\n", "[{.'\n".repeat(300)), false),
            (
                format!("a = \"\"\"\"{}\"\"\"\"\"\n", "[\n.".repeat(300)),
                false,
            ),
            (format!("a = \"\"\nb = {}", "[".repeat(300)), true),
        ] {
            assert_eq!(too_deep(&text).is_some(), is_deep, "{text}");
        }
    }
}
