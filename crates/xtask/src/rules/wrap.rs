use super::{Fault, Tree};
use crate::files::File;

const COLUMNS_MAX: usize = 100;

/// Lines of the docs that are too long and have a place at which to break them.
pub fn check(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    if !file.is_markdown() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (at, line) in outside_code(&file.text).into_iter().enumerate() {
        let columns = line.chars().count();
        let is_exempt = line.starts_with('#') || line.trim_start().starts_with('|');
        if columns > COLUMNS_MAX && !is_exempt && can_break(line) {
            faults.push(Fault::new(at + 1, format!("{columns} columns")));
        }
    }
    faults
}

/// Each line of a document, empty where it belongs to a block of code.
fn outside_code(text: &str) -> Vec<&str> {
    let mut fenced = false;
    text.lines()
        .map(|line| {
            let is_fence = line.trim_start().starts_with("```");
            if is_fence {
                fenced = !fenced;
            }
            if fenced || is_fence { "" } else { line }
        })
        .collect()
}

/// A document's lines without blocks and spans of code.
pub fn prose(text: &str) -> Vec<String> {
    outside_code(text)
        .into_iter()
        .map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Whether there is a space between two words, outside spans of code, before the last column.
fn can_break(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '>', '-', '*']);
    let start = line.chars().count() - text.chars().count();
    let mut in_code = false;
    for (at, c) in text.chars().enumerate() {
        match c {
            '`' => in_code = !in_code,
            ' ' if !in_code && start + at <= COLUMNS_MAX => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        let file = File {
            path: "docs/a.md".to_owned(),
            text: text.to_owned(),
        };
        check(&file, &Tree::new()).len()
    }

    #[test]
    fn a_line_of_101_columns_is_found() {
        assert_eq!(faults(&format!("{} b\n", "a".repeat(99))), 1);
        assert_eq!(faults(&format!("- {} b\n", "a".repeat(97))), 1);
        assert_eq!(faults(&format!("{} b\n", "a".repeat(98))), 0);
    }

    #[test]
    fn tables_code_headings_and_what_cannot_be_broken_are_exempt() {
        let long = "a ".repeat(80);
        assert_eq!(faults(&format!("| {long} |\n")), 0);
        assert_eq!(faults(&format!("```sh\n{long}\n```\n")), 0);
        assert_eq!(faults(&format!("# {long}\n")), 0);
        assert_eq!(faults(&format!("- [a]({})\n", "b".repeat(110))), 0);
        assert_eq!(faults(&format!("`{long}`\n")), 0);
        assert_eq!(faults(&format!("```\n```\n{long}\n")), 1);
    }
}
