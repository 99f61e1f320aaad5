use super::{Fault, Tree};
use crate::files::File;
use crate::source;

/// Calls of the macros that mean "not written yet".
pub fn check(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    if !file.is_rust() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (at, line) in source::split(&file.text).iter().enumerate() {
        for name in ["todo", "unimplemented"] {
            if calls(&line.code, name) {
                faults.push(Fault::new(at + 1, format!("{name}!")));
            }
        }
    }
    faults
}

fn calls(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..]
            .strip_prefix('!')
            .map(str::trim_start);
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && after.is_some_and(|rest| rest.starts_with(['(', '[', '{']))
    })
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
    fn unfinished_code_is_found() {
        assert_eq!(
            faults("fn a() { todo!() }\nfn b() { std::unimplemented! {} }\n"),
            2
        );
    }

    #[test]
    fn texts_and_other_names_are_left_alone() {
        assert_eq!(
            faults("// todo!()\nlet a = \"todo!()\"; my_todo!(); let todo = 1;\n"),
            0
        );
    }
}
