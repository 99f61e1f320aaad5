//! The known faults: for each rule and file, how many are tolerated. They may only shrink. More is
//! a fault, and less is one as well until the number is lowered, so that none comes back.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Weight by rule and by file.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

pub const PATH: &str = "crates/xtask/ratchet.toml";

const HEAD: &str = "\
# Known faults against the rules of `cargo xtask tidy`, by rule and file: lines over the bound for
# lengths, else how many. They may only shrink: `cargo xtask ratchet` lowers them.
";

pub fn parse(text: &str) -> Result<Counts, toml::de::Error> {
    toml::from_str(text)
}

pub fn print(counts: &Counts) -> String {
    let mut text = HEAD.to_owned();
    for (rule, files) in counts {
        if files.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n[{rule}] # {} in all", total(files));
        for (file, count) in files {
            let _ = writeln!(text, "\"{file}\" = {count}");
        }
    }
    text
}

fn total(files: &BTreeMap<String, u64>) -> u64 {
    files.values().sum()
}

/// Rules that have more faults in all than before. Faults may move between files: files do.
pub fn grown(known: &Counts, found: &Counts) -> Vec<String> {
    found
        .iter()
        .filter_map(|(rule, files)| {
            let before = known.get(rule).map_or(0, total);
            let now = total(files);
            (now > before).then(|| format!("{rule}: {before} before, {now} now"))
        })
        .collect()
}

/// Entries that tolerate more than there is.
pub fn slack(known: &Counts, found: &Counts) -> Vec<String> {
    let mut slack = Vec::new();
    for (rule, files) in known {
        for (file, &tolerated) in files {
            let now = count(found, rule, file);
            if now < tolerated {
                slack.push(format!(
                    "{rule}: {file} has {now}, tolerated are {tolerated}"
                ));
            }
        }
    }
    slack
}

pub fn count(counts: &Counts, rule: &str, file: &str) -> u64 {
    counts
        .get(rule)
        .and_then(|files| files.get(file))
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, &str, u64)]) -> Counts {
        let mut counts = Counts::new();
        for &(rule, file, count) in entries {
            counts
                .entry(rule.to_owned())
                .or_default()
                .insert(file.to_owned(), count);
        }
        counts
    }

    #[test]
    fn what_is_printed_reads_as_the_same() {
        let known = counts(&[
            ("words", "a.rs", 2),
            ("words", "b/c.md", 1),
            ("wrap", "b.md", 7),
        ]);
        assert_eq!(parse(&print(&known)).expect("it is TOML"), known);
    }

    #[test]
    fn more_in_all_is_growth_and_a_move_is_not() {
        let known = counts(&[("words", "a.rs", 2), ("words", "b.rs", 1)]);
        assert_eq!(grown(&known, &counts(&[("words", "c.rs", 3)])).len(), 0);
        assert_eq!(grown(&known, &counts(&[("words", "a.rs", 4)])).len(), 1);
        assert_eq!(grown(&known, &counts(&[("wrap", "a.rs", 1)])).len(), 1);
    }

    #[test]
    fn a_number_that_could_be_lower_is_found() {
        let known = counts(&[("words", "a.rs", 2), ("wrap", "gone.md", 1)]);
        let found = counts(&[("words", "a.rs", 1)]);
        assert_eq!(slack(&known, &found).len(), 2);
        assert_eq!(slack(&known, &known), Vec::<String>::new());
    }
}
