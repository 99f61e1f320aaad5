use super::{Fault, Tree};
use crate::files::File;

/// Paths that exist on one machine only: home folders and places of work.
pub fn check(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    // Data of others, which has paths of theirs.
    if file.path.contains(".ndjson") {
        return Vec::new();
    }
    file.text
        .lines()
        .enumerate()
        .filter_map(|(at, line)| Some(Fault::new(at + 1, path_in(line)?)))
        .collect()
}

fn path_in(line: &str) -> Option<&str> {
    for (at, _) in line.match_indices('/') {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || "_.~-".contains(c)) {
            continue;
        }
        let rest = &line[at + 1..];
        let mut parts = rest.split('/');
        let folder = parts.next()?;
        // A path only where something follows.
        let Some(next) = parts.next() else { continue };
        let found = match folder {
            "work" | "root" => true,
            "home" => {
                !next.is_empty()
                    && next.chars().all(|c| c.is_ascii_lowercase())
                    && parts.next().is_some()
            }
            _ => false,
        };
        if found {
            return Some(&line[at..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str) -> usize {
        let file = File {
            path: "a.sh".to_owned(),
            text: line.to_owned(),
        };
        check(&file, &Tree::new()).len()
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for folder in ["work", "root", "home/me"] {
            assert_eq!(faults(&format!("cd /{folder}/onelog")), 1);
            assert_eq!(faults(&format!("/{folder}/onelog")), 1);
        }
    }

    #[test]
    fn other_paths_are_left_alone() {
        for folder in ["usr", "tmp", "etc"] {
            assert_eq!(faults(&format!("cd /{folder}/onelog")), 0);
        }
        assert_eq!(faults("target/work/a, ./root/b, https://a.example/home"), 0);
    }
}
