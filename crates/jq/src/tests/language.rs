//! The language itself: what the programs of `programs.tsv` give, and what its version is for.

use super::*;

/// The programs that show the language; the fuzz target begins with them as well.
const PROGRAMS: &str = include_str!("../../programs.tsv");

/// Each version of the language, and the crates that it was made with. Of a version that was
/// released nothing changes here.
const VERSIONS: &[(u32, [(&str, &str); 3])] = &[
    (1, JAQ_3_1_2),
    // Dates to the end of the year 9999, leap seconds.
    (2, JAQ_3_1_2),
    // Nanoseconds of dates, leading zeros in programs, the memory of evaluations.
    (3, JAQ_3_1_2),
    // Numbers are compared exactly, also those with a point or an exponent.
    (4, JAQ_3_1_2),
];
const JAQ_3_1_2: [(&str, &str); 3] = [
    ("jaq-core", "3.1.2"),
    ("jaq-json", "2.0.3"),
    ("jaq-std", "3.0.4"),
];

#[test]
fn the_programs_give_what_this_version_of_the_language_gives() {
    let mut wrong = Vec::new();
    let lines = PROGRAMS.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let parts: Vec<&str> = line.split('\t').collect();
        let [program, document, expected] = parts[..] else {
            panic!("'{line}' has not three parts between tabs");
        };
        let found = match run(program, document) {
            Ok(Some(result)) => result,
            Ok(None) => "!nothing".to_owned(),
            Err(JqError::Limit(Limit::Steps | Limit::Memory)) if expected == "!endless" => continue,
            Err(JqError::Limit(_)) if expected == "!limit" => continue,
            Err(error) => format!("!{error}"),
        };
        if found != expected {
            wrong.push(format!("{program} on {document}: {found}, not {expected}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "results have changed, so LANGUAGE_VERSION must be raised: {wrong:#?}"
    );
}

#[test]
fn the_version_of_the_language_belongs_to_the_jaq_that_is_locked() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |name: &str| std::fs::read_to_string(format!("{root}/{name}")).unwrap();
    let (lock, manifest) = (read("Cargo.lock"), read("Cargo.toml"));
    let (version, crates) = VERSIONS.last().unwrap();
    for (name, expected) in crates {
        assert_eq!(
            locked(&lock, name),
            [*expected],
            "{name} in Cargo.lock is not the one that version {version} of the language was made \
             with: raise LANGUAGE_VERSION and add a line to VERSIONS"
        );
        let pin = manifest
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")))
            .unwrap();
        assert!(pin.contains(&format!("\"={expected}\"")), "{pin}");
    }
    assert_eq!(*version, LANGUAGE_VERSION);
    assert!(VERSIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

/// The versions of a package in a lock file.
fn locked<'l>(lock: &'l str, package: &str) -> Vec<&'l str> {
    let name = format!("name = \"{package}\"");
    let packages = lock.split("[[package]]\n");
    let entries = packages.filter(|entry| entry.lines().any(|line| line == name));
    entries
        .filter_map(|entry| {
            entry
                .lines()
                .find_map(|line| line.strip_prefix("version = \""))
        })
        .map(|version| version.trim_end_matches('"'))
        .collect()
}
