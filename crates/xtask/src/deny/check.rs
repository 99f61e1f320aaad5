use std::collections::BTreeMap;

use super::config::Config;
use super::graph::Crate;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub fn faults(config: &Config, crates: &[Crate]) -> Vec<String> {
    let mut faults = Vec::new();
    for one in crates {
        let name = format!("{} {}", one.name, one.version);
        if let Some(source) = one.source.as_deref().filter(|&source| source != CRATES_IO) {
            faults.push(format!("{name} comes from {source}, not from crates.io"));
        }
        if let Some(why) = license_fault(config, one) {
            faults.push(format!("{name}: {why}"));
        }
        faults.extend(ban_faults(config, one).map(|why| format!("{name}: {why}")));
    }
    faults.extend(duplicates(config, crates));
    faults
}

fn license_fault(config: &Config, one: &Crate) -> Option<String> {
    // This workspace's crates are not published.
    one.source.as_ref()?;
    let Some(license) = &one.license else {
        return Some("it names no licence".to_owned());
    };
    // Some older crates write `MIT/Apache-2.0`.
    let expression = match spdx::Expression::parse_mode(license, spdx::ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => {
            return Some(format!(
                "its licence '{license}' cannot be read: {}",
                error.reason
            ));
        }
    };
    let allowed = expression.evaluate(|requirement| {
        config
            .licenses
            .allow
            .iter()
            .any(|allowed| *allowed == requirement.to_string())
    });
    (!allowed).then(|| format!("its licence '{license}' is not allowed"))
}

fn ban_faults(config: &Config, one: &Crate) -> impl Iterator<Item = String> {
    config
        .bans
        .deny
        .iter()
        .filter(|banned| banned.name == one.name)
        .flat_map(|banned| {
            let strangers: Vec<String> = one
                .importers
                .iter()
                .filter(|importer| !banned.wrappers.contains(importer))
                .map(|importer| format!("{importer} imports it: {}", banned.reason))
                .collect();
            strangers
        })
}

/// Crates of the product in more than one version, less those that are known; and those that are
/// known and are no more.
fn duplicates(config: &Config, crates: &[Crate]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in crates.iter().filter(|one| !one.for_tests) {
        versions
            .entry(&one.name)
            .or_default()
            .push(format!("{}@{}", one.name, one.version));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: Vec<&str> = config
        .bans
        .skip
        .iter()
        .map(|skipped| skipped.id.as_str())
        .collect();
    let mut faults = Vec::new();
    for versions in versions.values() {
        let unknown: Vec<&str> = versions
            .iter()
            .map(String::as_str)
            .filter(|version| !known.contains(version))
            .collect();
        if unknown.len() > 1 {
            faults.push(format!("more than one version: {}", unknown.join(", ")));
        }
    }
    for known in known {
        if !versions.values().flatten().any(|version| version == known) {
            faults.push(format!(
                "{known} is no duplicate any more: take it out of bans.skip"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::config;
    use super::*;

    const CONFIG: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        all-features = true
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        [bans]
        multiple-versions = "deny"
        deny = [{ crate = "raft", wrappers = ["engine"], reason = "behind one seam" }]
        skip = [{ crate = "old@1.0.0", reason = "a driver needs it" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    fn package(name: &str, version: &str) -> Crate {
        Crate {
            name: name.to_owned(),
            version: version.to_owned(),
            source: Some(CRATES_IO.to_owned()),
            license: Some("MIT OR Apache-2.0".to_owned()),
            importers: ["engine".to_owned()].into(),
            for_tests: false,
        }
    }

    /// A graph that keeps the rules, with a change.
    fn faults_with(change: impl Fn(&mut Vec<Crate>)) -> Vec<String> {
        let mut crates = vec![
            package("old", "1.0.0"),
            package("old", "2.0.0"),
            package("raft", "0.7.0"),
        ];
        change(&mut crates);
        faults(
            &config::parse(CONFIG).expect("the configuration is right"),
            &crates,
        )
    }

    #[test]
    fn a_graph_that_keeps_the_rules_has_no_faults() {
        assert_eq!(faults_with(|_| {}), Vec::<String>::new());
        assert_eq!(
            faults_with(|all| all[0].license = Some("MIT/Unlicense".into())).len(),
            0
        );
        assert_eq!(
            faults_with(|all| all[0].license = Some("Apache-2.0 WITH LLVM-exception".into())).len(),
            0
        );
    }

    #[test]
    fn a_licence_that_is_not_allowed_missing_or_unreadable_is_found() {
        for license in [
            Some("GPL-3.0-only"),
            Some("MIT AND GPL-2.0"),
            Some("Mine"),
            None,
        ] {
            let faults = faults_with(|all| all[0].license = license.map(str::to_owned));
            assert_eq!(faults.len(), 1, "{license:?}: {faults:?}");
        }
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let git = "git+https://example.org/a#0123";
        assert_eq!(
            faults_with(|all| all[0].source = Some(git.to_owned())).len(),
            1
        );
    }

    #[test]
    fn a_banned_crate_is_found_where_another_crate_imports_it() {
        let faults = faults_with(|all| {
            all[2].importers.insert("cli".to_owned());
        });
        assert_eq!(faults, ["raft 0.7.0: cli imports it: behind one seam"]);
    }

    #[test]
    fn a_new_duplicate_is_found_and_so_is_a_known_one_that_is_gone() {
        assert_eq!(
            faults_with(|all| all.push(package("old", "3.0.0"))).len(),
            1
        );
        assert_eq!(
            faults_with(|all| all.push(package("raft", "0.6.0"))).len(),
            1
        );
        assert_eq!(faults_with(|all| drop(all.remove(1))).len(), 1);
        let for_tests = |all: &mut Vec<Crate>| {
            all.push(Crate {
                for_tests: true,
                ..package("raft", "0.6.0")
            });
        };
        assert_eq!(faults_with(for_tests).len(), 0);
    }

    #[test]
    fn a_setting_that_nothing_here_checks_is_an_error() {
        for change in [
            CONFIG.replace("unknown-git = \"deny\"", "unknown-git = \"warn\""),
            CONFIG.replace("unknown-git", "unknown-gut"),
            CONFIG.replace("[sources]", "wildcards = \"deny\"\n[sources]"),
        ] {
            assert!(config::parse(&change).is_err());
        }
    }
}
