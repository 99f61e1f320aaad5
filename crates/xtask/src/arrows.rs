//! Which crate may import which. The order is that of docs/design.md: a crate imports only crates
//! above it, so that there is no circle, and some import less than that.

use crate::metadata::{Dependency, Kind, Member, Workspace};

/// A place in the order.
struct Place {
    /// Side by side: none of them imports another.
    crates: &'static [&'static str],
    imports: Imports,
}

enum Imports {
    /// Whatever is above, but no store and not their list.
    Above,
    /// These alone, where they are above.
    Only(&'static [&'static str]),
    /// Whatever is above, stores too: crates that choose the stores of a program.
    AboveAndStores,
}

const STORES: &[&str] = &[
    "onelog-sqlite",
    "onelog-postgres",
    "onelog-mysql",
    "onelog-redis",
    "onelog-search",
];

/// The list of all stores.
const CATALOG: &str = "onelog-stores";

/// Starts real servers for tests: imported for them alone, at any place.
const TESTKIT: &str = "onelog-testkit";

const ORDER: &[Place] = &[
    place(&[TESTKIT], Imports::Only(&[])),
    place(&["onelog-xtask"], Imports::Only(&[])),
    place(&["onelog-record"], Imports::Only(&[])),
    place(&["onelog-request"], Imports::Only(&["onelog-record"])),
    place(&["onelog-log"], Imports::Above),
    place(&["onelog-state"], Imports::Above),
    place(&["onelog-commit"], Imports::Only(&["onelog-record"])),
    // It opens no file: neither the log's nor the state's.
    place(
        &["onelog-engine"],
        Imports::Only(&["onelog-record", "onelog-commit"]),
    ),
    place(&["onelog-replica"], Imports::Above),
    // It knows nothing of what the nodes say to each other.
    place(&["onelog-peers"], Imports::Only(&["onelog-record"])),
    place(&["onelog"], Imports::Above),
    place(&["onelog-jq"], Imports::Only(&[])),
    place(
        &["onelog-mapping"],
        Imports::Only(&["onelog-record", "onelog-jq"]),
    ),
    place(
        &["onelog-store"],
        Imports::Only(&["onelog-record", "onelog-jq", "onelog-mapping"]),
    ),
    place(
        STORES,
        Imports::Only(&["onelog-record", "onelog-mapping", "onelog-store"]),
    ),
    place(&[CATALOG], Imports::AboveAndStores),
    place(
        &["onelog-audit"],
        Imports::Only(&["onelog-record", "onelog-mapping", "onelog-store"]),
    ),
    place(&["onelog-sinks"], Imports::Above),
    place(&["onelog-api"], Imports::Above),
    place(&["onelog-http"], Imports::Above),
    place(&["onelog-client"], Imports::Only(&["onelog-record"])),
    place(&["onelog-terminal"], Imports::Only(&[])),
    place(&["onelog-command"], Imports::Only(&["onelog-client"])),
    // It is given the kinds of stores, and starts no node.
    place(
        &["onelog-import"],
        Imports::Only(&[
            "onelog-record",
            "onelog-mapping",
            "onelog-store",
            "onelog-client",
            "onelog-terminal",
            "onelog-command",
        ]),
    ),
    place(&["onelog-demo", "onelog-bench"], Imports::AboveAndStores),
    place(&["onelog-simulation"], Imports::Above),
    // Its tests hold histories of real clusters against the simulation's checker.
    place(&["onelog-cli"], Imports::AboveAndStores),
    // The example of a store, in no program. It is last so that its test may start a whole node.
    place(
        &["onelog-memory"],
        Imports::Only(&["onelog-record", "onelog-mapping", "onelog-store"]),
    ),
];

/// Arrows against the order that are there today, from and to. They may only become fewer.
const KNOWN: &[(&str, &str)] = &[];

const fn place(crates: &'static [&'static str], imports: Imports) -> Place {
    Place { crates, imports }
}

pub fn faults(workspace: &Workspace) -> Vec<String> {
    let mut faults = Vec::new();
    let mut met = Vec::new();
    for member in &workspace.packages {
        if level(&member.name).is_none() {
            faults.push(format!(
                "crate {} has no place in the order of crates, see crates/xtask/src/arrows.rs",
                member.name
            ));
            continue;
        }
        for dependency in ours(member, workspace) {
            let Some(why) = forbidden(&member.name, dependency) else {
                continue;
            };
            let arrow = (member.name.as_str(), dependency.name.as_str());
            if KNOWN.contains(&arrow) {
                met.push(arrow);
            } else {
                faults.push(format!("{} imports {}: {why}", arrow.0, arrow.1));
            }
        }
    }
    for arrow in KNOWN {
        if !met.contains(arrow) {
            faults.push(format!(
                "{} imports {} no more: take it out of KNOWN in crates/xtask/src/arrows.rs",
                arrow.0, arrow.1
            ));
        }
    }
    faults
}

/// Dependencies on other packages of the workspace. A package names itself to turn on a feature
/// for its tests.
fn ours<'a>(member: &'a Member, workspace: &'a Workspace) -> impl Iterator<Item = &'a Dependency> {
    member.dependencies.iter().filter(|dependency| {
        dependency.name != member.name
            && workspace
                .packages
                .iter()
                .any(|other| other.name == dependency.name)
    })
}

fn level(name: &str) -> Option<usize> {
    ORDER.iter().position(|place| place.crates.contains(&name))
}

/// Why an arrow may not be.
fn forbidden(from: &str, dependency: &Dependency) -> Option<&'static str> {
    let to = dependency.name.as_str();
    let for_tests = dependency.kind == Some(Kind::Dev);
    if to == TESTKIT {
        let allowed = for_tests || dependency.optional;
        return (!allowed).then_some("it is for tests alone");
    }
    let (above, below) = (level(to)?, level(from)?);
    if above == below {
        return Some("they are side by side");
    }
    if above > below {
        return Some("the arrow runs up");
    }
    // A test may use whatever is above.
    if for_tests {
        return None;
    }
    match ORDER[below].imports {
        Imports::Above if STORES.contains(&to) || to == CATALOG => {
            Some("only a program's front chooses its stores")
        }
        Imports::Only(allowed) if !allowed.contains(&to) => Some("its job does not need it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &str, to: &str, kind: Option<Kind>) -> Option<&'static str> {
        forbidden(
            from,
            &Dependency {
                name: to.to_owned(),
                kind,
                optional: false,
            },
        )
    }

    #[test]
    fn an_arrow_that_runs_up_is_found_also_in_tests() {
        for kind in [None, Some(Kind::Build), Some(Kind::Dev)] {
            assert!(arrow("onelog-log", "onelog-state", kind).is_some());
            assert!(arrow("onelog-mapping", "onelog-sinks", kind).is_some());
            assert!(arrow("onelog-state", "onelog-log", kind).is_none());
        }
    }

    #[test]
    fn no_store_imports_another_and_only_a_front_imports_stores() {
        assert!(arrow("onelog-postgres", "onelog-mysql", None).is_some());
        assert!(arrow("onelog-postgres", "onelog-mysql", Some(Kind::Dev)).is_some());
        assert!(arrow("onelog-http", "onelog-sqlite", None).is_some());
        assert!(arrow("onelog-sinks", "onelog-sqlite", None).is_some());
        assert!(arrow("onelog-http", "onelog-sqlite", Some(Kind::Dev)).is_none());
        assert!(arrow("onelog-cli", "onelog-sqlite", None).is_none());
        assert!(arrow("onelog-sinks", CATALOG, None).is_some());
        assert!(arrow(CATALOG, "onelog-sqlite", None).is_none());
    }

    #[test]
    fn pure_crates_import_no_more_than_their_job_needs() {
        assert!(arrow("onelog-engine", "onelog-state", None).is_some());
        assert!(arrow("onelog-jq", "onelog-record", None).is_some());
        assert!(arrow("onelog-mapping", "onelog", None).is_some());
        assert!(arrow("onelog-sqlite", "onelog", None).is_some());
    }

    #[test]
    fn servers_for_tests_are_not_in_the_product() {
        assert!(arrow("onelog-cli", TESTKIT, None).is_some());
        assert!(arrow("onelog-cli", TESTKIT, Some(Kind::Dev)).is_none());
    }

    #[test]
    fn a_crate_without_a_place_and_a_stale_exception_are_found() {
        let workspace = Workspace {
            packages: vec![Member {
                name: "onelog-new".to_owned(),
                dependencies: Vec::new(),
            }],
        };
        let faults = faults(&workspace);
        assert_eq!(faults.len(), 1 + KNOWN.len());
        assert!(faults[0].contains("has no place"), "{faults:?}");
    }

    #[test]
    fn every_crate_has_one_place() {
        let mut names: Vec<_> = ORDER.iter().flat_map(|place| place.crates).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
