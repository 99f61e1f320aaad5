use super::{Fault, Tree};
use crate::files::File;

/// Relative links of the docs that lead nowhere. Addresses on the web are not fetched.
pub fn check(file: &File, tree: &Tree<'_>) -> Vec<Fault> {
    if !file.is_markdown() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (at, line) in super::wrap::prose(&file.text).iter().enumerate() {
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !leads_to_a_file(&file.path, target, tree) {
                faults.push(Fault::new(at + 1, format!("{target} is not there")));
            }
        }
    }
    faults
}

fn leads_to_a_file(from: &str, target: &str, tree: &Tree<'_>) -> bool {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if folders.pop().is_none() {
                    return false;
                }
            }
            part => folders.push(part),
        }
    }
    let path = folders.join("/");
    let folder = format!("{path}/");
    tree.contains(path.as_str()) || tree.iter().any(|file| file.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        let tree = Tree::from(["README.md", "docs/a.md", "docs/sinks/b.md"]);
        let file = File {
            path: "docs/a.md".to_owned(),
            text: text.to_owned(),
        };
        check(&file, &tree).len()
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        assert_eq!(
            faults("[a](sinks/c.md), [b](../READ.md#x), [c](../../README.md)\n"),
            3
        );
    }

    #[test]
    fn links_to_files_folders_places_and_the_web_are_left_alone() {
        assert_eq!(
            faults("[a](sinks/b.md#c) [b](../README.md) [c](sinks) [d](#e)\n"),
            0
        );
        assert_eq!(faults("[a](https://example.org/b) `[b](c)`\n"), 0);
    }
}
