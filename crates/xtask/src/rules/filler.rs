use super::{Fault, Tree};
use crate::files::File;

const LETTERS_MIN: usize = 18;

/// Comments of one line that say nothing which the name beside them does not.
pub fn check(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    if !file.is_rust() {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let is_doc = |at: Option<usize>| {
        at.and_then(|at| lines.get(at))
            .is_some_and(|line| line.starts_with("///"))
    };
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(text) = line.strip_prefix("///").map(str::trim) else {
            continue;
        };
        let alone = !is_doc(at.checked_sub(1)) && !is_doc(Some(at + 1));
        if alone && text.chars().count() <= LETTERS_MIN {
            faults.push(Fault::new(at + 1, format!("\"{text}\" says too little")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        let file = File {
            path: "a.rs".to_owned(),
            text: text.to_owned(),
        };
        check(&file, &Tree::new()).len()
    }

    #[test]
    fn a_short_comment_alone_is_found() {
        assert_eq!(faults("struct A {\n    /// The key.\n    key: u8,\n}\n"), 1);
    }

    #[test]
    fn a_sentence_and_a_comment_of_several_lines_are_left_alone() {
        assert_eq!(
            faults("/// Bytes of the largest key.\nconst A: u8 = 1;\n"),
            0
        );
        assert_eq!(faults("/// Why.\n///\n/// Because.\nfn a() {}\n"), 0);
        assert_eq!(faults("// Why.\nfn a() {}\n"), 0);
    }
}
