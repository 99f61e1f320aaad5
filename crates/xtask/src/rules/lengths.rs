use super::{Fault, Tree};
use crate::files::File;
use crate::source;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

pub fn files(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![Fault {
        line: lines,
        message: format!("the file has {lines} lines"),
        weight: (lines - FILE_LINES_MAX) as u64,
    }]
}

pub fn functions(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    if !file.is_rust() {
        return Vec::new();
    }
    bodies(&file.text)
        .into_iter()
        .filter(|function| function.lines > FUNCTION_LINES_MAX)
        .map(|function| Fault {
            line: function.line,
            message: format!("fn {} has {} lines", function.name, function.lines),
            weight: (function.lines - FUNCTION_LINES_MAX) as u64,
        })
        .collect()
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every function with a body, from its `fn` to its closing brace.
fn bodies(text: &str) -> Vec<Function> {
    let code: Vec<(usize, char)> = source::split(text)
        .iter()
        .enumerate()
        .flat_map(|(at, line)| {
            line.code
                .chars()
                .chain(['\n'])
                .map(move |c| (at + 1, c))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut functions = Vec::new();
    for at in 0..code.len() {
        let is_keyword = code[at].1 == 'f'
            && code.get(at + 1).is_some_and(|next| next.1 == 'n')
            && code.get(at + 2).is_some_and(|next| next.1.is_whitespace())
            && (at == 0 || !is_name(code[at - 1].1));
        if !is_keyword {
            continue;
        }
        let name: String = code[at + 2..]
            .iter()
            .map(|place| place.1)
            .skip_while(|c| c.is_whitespace())
            .take_while(|&c| is_name(c) || c == '#')
            .collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code[at..]) {
            functions.push(Function {
                name,
                line: code[at].0,
                lines: end - code[at].0 + 1,
            });
        }
    }
    functions
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The line of the brace that closes the body; none for a declaration without one.
fn body_end(code: &[(usize, char)]) -> Option<usize> {
    let mut nested = 0usize;
    let mut braces = 0usize;
    for &(line, c) in code {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            ';' if nested == 0 && braces == 0 => return None,
            '{' if nested == 0 || braces > 0 => braces += 1,
            '}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(line);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: String) -> File {
        File {
            path: "crates/a/src/lib.rs".to_owned(),
            text,
        }
    }

    #[test]
    fn a_file_of_601_lines_is_found() {
        let tree = Tree::new();
        assert_eq!(files(&rust("//\n".repeat(600)), &tree), []);
        let faults = files(&rust("//\n".repeat(602)), &tree);
        assert_eq!(faults[0].weight, 2);
    }

    #[test]
    fn a_function_of_71_lines_is_found_whatever_braces_its_texts_hold() {
        let tree = Tree::new();
        let body = "    let a = \"}\"; // }\n".repeat(69);
        assert_eq!(
            functions(&rust(format!("fn a() {{\n{body}}}\n")), &tree)[0].weight,
            1
        );
        let body = "    let a = '}';\n".repeat(68);
        assert_eq!(
            functions(&rust(format!("fn a() {{\n{body}}}\n")), &tree),
            []
        );
    }

    #[test]
    fn a_long_method_between_short_ones_is_named() {
        let long = format!(
            "    fn long(&self) -> [u8; 2] {{\n{}    }}\n",
            "        b();\n".repeat(70)
        );
        let text = format!("trait A {{\n    fn a(&self);\n{long}    fn c() {{}}\n}}\n");
        let faults = functions(&rust(text), &Tree::new());
        assert_eq!(faults.len(), 1);
        assert_eq!(
            (faults[0].line, faults[0].message.as_str()),
            (3, "fn long has 72 lines")
        );
    }
}
