//! `tidy` and `ratchet`: the rules over all files, less the known faults, the arrows between the
//! crates and the tables of them.

use std::path::Path;

use crate::files::{self, File};
use crate::ratchet::{self, Counts};
use crate::rules::{Fault, RULES, Rule, Tree};
use crate::{Error, arrows, listed, metadata};

/// All faults of one rule in one file.
struct Finding<'a> {
    rule: &'static Rule,
    file: &'a File,
    faults: Vec<Fault>,
}

impl Finding<'_> {
    fn weight(&self) -> u64 {
        self.faults.iter().map(|fault| fault.weight).sum()
    }
}

pub fn check() -> Result<bool, Error> {
    let root = files::root();
    let files = files::all(&root)?;
    let findings = find(&files);
    let found = count(&findings);
    let known = known(&root)?;
    let mut report = beyond(&findings, &known);
    for slack in ratchet::slack(&known, &found) {
        report.push(format!("{slack}: run `cargo xtask ratchet`"));
    }
    let workspace = metadata::workspace(&root)?;
    report.extend(arrows::faults(&workspace));
    report.extend(listed::faults(&files, &workspace));
    for line in &report {
        println!("{line}");
    }
    if report.is_empty() {
        let tolerated: u64 = known.values().flat_map(|files| files.values()).sum();
        println!(
            "{} files keep {} rules and the order of the crates; tolerated: {tolerated}, see {}",
            files.len(),
            RULES.len(),
            ratchet::PATH
        );
    }
    Ok(report.is_empty())
}

pub fn lower() -> Result<bool, Error> {
    let root = files::root();
    let files = files::all(&root)?;
    let findings = find(&files);
    let found = count(&findings);
    if root.join(ratchet::PATH).exists() {
        let known = known(&root)?;
        let grown = ratchet::grown(&known, &found);
        if !grown.is_empty() {
            for line in beyond(&findings, &known) {
                println!("{line}");
            }
            println!("there are more faults than before:");
            for line in grown {
                println!("  {line}");
            }
            return Ok(false);
        }
    }
    std::fs::write(root.join(ratchet::PATH), ratchet::print(&found)).map_err(|source| {
        Error::Io {
            context: ratchet::PATH.to_owned(),
            source,
        }
    })?;
    println!("{} is up to date", ratchet::PATH);
    Ok(true)
}

fn find(files: &[File]) -> Vec<Finding<'_>> {
    let texts = files
        .iter()
        .map(|file| (file.path.as_str(), file.text.as_str()));
    let tree: Tree<'_> = texts.collect();
    let mut findings = Vec::new();
    for rule in RULES {
        for file in files {
            let faults = (rule.check)(file, &tree);
            if !faults.is_empty() {
                findings.push(Finding { rule, file, faults });
            }
        }
    }
    findings
}

fn count(findings: &[Finding<'_>]) -> Counts {
    let mut counts = Counts::new();
    for finding in findings {
        counts
            .entry(finding.rule.name.to_owned())
            .or_default()
            .insert(finding.file.path.clone(), finding.weight());
    }
    counts
}

/// Every fault of each file that has more of them than are known.
fn beyond(findings: &[Finding<'_>], known: &Counts) -> Vec<String> {
    let mut report = Vec::new();
    for finding in findings {
        let Finding { rule, file, faults } = finding;
        let tolerated = ratchet::count(known, rule.name, &file.path);
        if finding.weight() <= tolerated {
            continue;
        }
        for fault in faults {
            report.push(format!("{}:{}: {}", file.path, fault.line, fault.message));
        }
        report.push(format!(
            "  rule {}: {} (found {}, tolerated {tolerated})",
            rule.name,
            rule.requires,
            finding.weight()
        ));
    }
    report
}

fn known(root: &Path) -> Result<Counts, Error> {
    let text = std::fs::read_to_string(root.join(ratchet::PATH)).map_err(|source| Error::Io {
        context: ratchet::PATH.to_owned(),
        source,
    })?;
    ratchet::parse(&text).map_err(|error| Error::Data {
        file: ratchet::PATH.to_owned(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted() -> Vec<File> {
        vec![File {
            path: "crates/a/src/lib.rs".to_owned(),
            text: "/// Why.\nfn a() {\n    todo!()\n}\n".to_owned(),
        }]
    }

    #[test]
    fn a_fault_of_the_tree_is_reported_with_its_place_and_its_rule() {
        let files = planted();
        let report = beyond(&find(&files), &Counts::new());
        assert!(
            report.contains(&"crates/a/src/lib.rs:3: todo!".to_owned()),
            "{report:?}"
        );
        assert!(
            report.iter().any(|line| line.contains("rule filler-docs")),
            "{report:?}"
        );
    }

    #[test]
    fn a_known_fault_is_tolerated_and_one_more_is_not() {
        let mut files = planted();
        let known = count(&find(&files));
        assert_eq!(beyond(&find(&files), &known), Vec::<String>::new());
        files[0].text.push_str("fn b() {\n    todo!()\n}\n");
        assert_eq!(beyond(&find(&files), &known).len(), 3);
    }
}
