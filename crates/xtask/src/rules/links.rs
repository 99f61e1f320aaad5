use super::{Fault, Tree};
use crate::files::File;

/// Relative links of the docs that lead nowhere, be it the file or the section. Addresses on the web
/// are not fetched.
pub fn check(file: &File, tree: &Tree<'_>) -> Vec<Fault> {
    if !file.is_markdown() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (at, line) in super::wrap::prose(&file.text).iter().enumerate() {
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !leads_somewhere(file, target, tree) {
                faults.push(Fault::new(at + 1, format!("{target} is not there")));
            }
        }
    }
    faults
}

fn leads_somewhere(from: &File, target: &str, tree: &Tree<'_>) -> bool {
    let (to, section) = target.split_once('#').unwrap_or((target, ""));
    let text = match to {
        "" => Some(from.text.as_str()),
        to => {
            let Some(path) = path_of(&from.path, to) else {
                return false;
            };
            let folder = format!("{path}/");
            match tree.get(path.as_str()) {
                Some(text) if path.ends_with(".md") => Some(*text),
                Some(_) => None,
                None if tree.keys().any(|file| file.starts_with(&folder)) => None,
                None => return false,
            }
        }
    };
    // Where the target is no document, a section of it is that of a viewer.
    text.is_none_or(|text| section.is_empty() || has_section(text, section))
}

/// The path from the root of what is named in a file.
fn path_of(from: &str, target: &str) -> Option<String> {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                folders.pop()?;
            }
            part => folders.push(part),
        }
    }
    Some(folders.join("/"))
}

fn has_section(text: &str, section: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| {
        let title = line.trim_start_matches('#');
        title.len() < line.len() && anchor(title) == section
    })
}

/// The name under which a heading is linked to.
fn anchor(title: &str) -> String {
    let letters = title.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        let tree = Tree::from([
            ("README.md", ""),
            ("docs/a.md", ""),
            (
                "docs/sinks/b.md",
                "# B\n\n## Whose a `store` is, and *why*\n",
            ),
        ]);
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
    fn a_section_that_is_not_there_is_found() {
        assert_eq!(faults("# A\n[a](#b) [b](sinks/b.md#whose)\n"), 2);
    }

    #[test]
    fn links_to_files_folders_sections_and_the_web_are_left_alone() {
        let section = "sinks/b.md#whose-a-store-is-and-why";
        assert_eq!(
            faults(&format!(
                "# E\n[a]({section}) [b](../README.md) [c](sinks) [d](#e)\n"
            )),
            0
        );
        assert_eq!(faults("[a](https://example.org/b) `[b](c)`\n"), 0);
    }
}
