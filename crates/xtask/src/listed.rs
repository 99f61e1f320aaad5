//! The tables of crates in the docs: every crate of the workspace is in each, once, and imports only
//! crates above it there. What a crate imports for its tests is left out, as the docs do.

use crate::arrows::{TESTKIT, is_in};
use crate::files::File;
use crate::metadata::{Kind, Member, Workspace};

/// The docs that have such a table: the first one whose head begins with `crate`.
const PAGES: &[&str] = &["CONTRIBUTING.md", "docs/design.md"];

/// A name of a table, in the order of the table.
#[derive(Debug)]
struct Named<'a> {
    /// A folder in `crates`, or all in a folder: `stores/*`.
    name: &'a str,
    line: usize,
    /// What is in parentheses behind it.
    remark: &'a str,
}

pub fn faults(files: &[File], workspace: &Workspace) -> Vec<String> {
    let mut faults = Vec::new();
    for page in PAGES {
        let text = files.iter().find(|file| file.path == *page);
        let named = named(text.map_or("", |file| &file.text));
        if named.is_empty() {
            faults.push(format!("{page}: it has no table of crates any more"));
            continue;
        }
        faults.extend(
            faults_of(&named, workspace).map(|(line, what)| format!("{page}:{line}: {what}")),
        );
    }
    faults
}

/// The names in the first column.
fn named(text: &str) -> Vec<Named<'_>> {
    let lines = text.lines().enumerate();
    lines
        .skip_while(|(_, line)| !line.starts_with("| crate "))
        .take_while(|(_, line)| line.starts_with('|'))
        .flat_map(|(at, line)| {
            let cell = line.split('|').nth(1).unwrap_or_default();
            let (cell, remark) = cell.split_once('(').unwrap_or((cell, ""));
            let names = cell.split('`').skip(1).step_by(2);
            names.map(move |name| Named {
                name,
                line: at + 1,
                remark,
            })
        })
        .collect()
}

fn faults_of<'a>(
    named: &'a [Named<'_>],
    workspace: &'a Workspace,
) -> impl Iterator<Item = (usize, String)> + 'a {
    let end = named.last().map_or(0, |last| last.line);
    let of_names = named.iter().enumerate().flat_map(move |(at, this)| {
        let again = named[..at].iter().any(|other| other.name == this.name);
        let mut members = workspace.packages.iter();
        let is_there = members.any(|member| is_in(this.name, workspace.folder(member)));
        let again = again.then(|| format!("`{}` is named twice", this.name));
        let gone = (!is_there).then(|| format!("there is no crate `{}`", this.name));
        [again, gone]
            .into_iter()
            .flatten()
            .map(|what| (this.line, what))
    });
    let of_crates = workspace.packages.iter().flat_map(move |member| {
        let folder = workspace.folder(member);
        match place(named, folder) {
            Some(at) => faults_of_crate(named, at, member, workspace),
            None => vec![(end, format!("the crate `{folder}` is not in the table"))],
        }
    });
    of_names.chain(of_crates)
}

fn faults_of_crate(
    named: &[Named<'_>],
    at: usize,
    member: &Member,
    workspace: &Workspace,
) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let folder = workspace.folder(member);
    let usual = folder.rsplit('/').next().unwrap_or(folder);
    let remark = format!("package `{}`", member.name);
    if member.name != format!("onelog-{usual}") && !named[at].remark.contains(&remark) {
        let what = format!("`{folder}` lacks \"({remark})\"");
        faults.push((named[at].line, what));
    }
    for (to, dependency) in workspace.imports(member) {
        let to = workspace.folder(to);
        let is_above = place(named, to).is_none_or(|place| place < at);
        if dependency.kind != Some(Kind::Dev) && to != TESTKIT && !is_above {
            let what = format!("`{folder}` imports `{to}`, which is not above it");
            faults.push((named[at].line, what));
        }
    }
    faults
}

/// Where a crate is: by its own name, else by that of all in its folder.
fn place(named: &[Named<'_>], folder: &str) -> Option<usize> {
    let own = named.iter().position(|this| this.name == folder);
    own.or_else(|| named.iter().position(|this| is_in(this.name, folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
| crate | job |
|---|---|
| `record` | terms |
| `log`, `state` | `files` (not a crate) |
| `stores/*` | all |
";

    const CRATES: &[(&str, &[&str])] = &[
        ("record", &[]),
        ("log", &["record"]),
        ("state", &["log"]),
        ("stores/a", &["record"]),
        ("stores/b", &[]),
    ];

    fn found(text: &str, crates: &[(&str, &[&str])]) -> Vec<(usize, String)> {
        faults_of(&named(text), &Workspace::of(crates)).collect()
    }

    #[test]
    fn a_table_of_all_crates_in_their_order_is_left_alone() {
        assert_eq!(found(TABLE, CRATES), []);
    }

    #[test]
    fn a_crate_that_is_missing_and_one_that_is_gone_are_found() {
        let mut crates = CRATES.to_vec();
        crates.push(("new", &[]));
        assert_eq!(
            found(TABLE, &crates),
            [(6, "the crate `new` is not in the table".to_owned())]
        );
        let text = TABLE.replace("`log`,", "`log`, `old`, `record`,");
        let found = found(&text, CRATES);
        assert_eq!(found[0], (5, "there is no crate `old`".to_owned()));
        assert_eq!(found[1], (5, "`record` is named twice".to_owned()));
    }

    #[test]
    fn an_arrow_that_runs_up_in_the_table_is_found() {
        let text = TABLE.replace("`log`, `state`", "`state`, `log`");
        assert_eq!(
            found(&text, CRATES),
            [(5, "`state` imports `log`, which is not above it".to_owned())]
        );
    }

    #[test]
    fn a_package_of_another_name_is_named() {
        let mut workspace = Workspace::of(CRATES);
        workspace.packages[1].name = "onelog".to_owned();
        let found = |text| faults_of(&named(text), &workspace).collect::<Vec<_>>();
        assert!(found(TABLE)[0].1.contains("package `onelog`"));
        let text = TABLE.replace("`log`,", "`log` (package `onelog`) |\n|");
        assert_eq!(found(&text), []);
    }

    #[test]
    fn a_page_without_its_table_is_found() {
        assert_eq!(faults(&[], &Workspace::of(&[])).len(), PAGES.len());
    }
}
