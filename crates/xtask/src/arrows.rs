//! Which crate may import which. The order is that of docs/design.md: a crate imports only crates
//! above it, so that there is no circle, and some import less than that.

use crate::metadata::{Dependency, Kind, Workspace};

/// A place in the order.
struct Place {
    /// Folders in `crates`, side by side: none of them imports another.
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

/// Every store that has no place of its own.
pub const STORES: &str = "stores/*";

/// The list of all stores.
const CATALOG: &str = "stores";

/// Starts real servers for tests: imported for them alone, at any place.
pub const TESTKIT: &str = "testkit";

const ORDER: &[Place] = &[
    place(&[TESTKIT], Imports::Only(&[])),
    place(&["xtask"], Imports::Only(&[])),
    place(&["decimal"], Imports::Only(&[])),
    place(&["record"], Imports::Only(&["decimal"])),
    place(&["request"], Imports::Only(&["record"])),
    place(&["log"], Imports::Above),
    place(&["state"], Imports::Above),
    place(&["commit"], Imports::Only(&["decimal", "record"])),
    // It knows neither the log nor the bytes of Kafka's protocol.
    place(&["groups"], Imports::Only(&["record"])),
    // It opens no file: neither the log's nor the state's.
    place(&["engine"], Imports::Only(&["record", "commit"])),
    place(&["replica"], Imports::Above),
    // It knows nothing of what the nodes say to each other.
    place(&["peers"], Imports::Only(&["record"])),
    place(&["node"], Imports::Above),
    // Nothing of ours inside but the calculation with decimal text.
    place(&["jq"], Imports::Only(&["decimal"])),
    place(&["mapping"], Imports::Only(&["decimal", "record", "jq"])),
    place(&["store"], Imports::Only(&["record", "jq", "mapping"])),
    place(&[STORES], Imports::Only(&["record", "mapping", "store"])),
    place(&[CATALOG], Imports::AboveAndStores),
    place(&["audit"], Imports::Only(&["record", "mapping", "store"])),
    place(&["sinks"], Imports::Above),
    place(&["api"], Imports::Above),
    place(&["http"], Imports::Above),
    place(
        &["kafka"],
        Imports::Only(&["record", "request", "node", "sinks", "api"]),
    ),
    place(&["client"], Imports::Only(&["record"])),
    place(&["terminal"], Imports::Only(&[])),
    place(
        &["command"],
        Imports::Only(&["decimal", "record", "client"]),
    ),
    // It is given the kinds of stores, and starts no node.
    place(
        &["import"],
        Imports::Only(&[
            "record", "mapping", "store", "client", "terminal", "command",
        ]),
    ),
    place(&["demo", "bench"], Imports::AboveAndStores),
    place(&["simulation"], Imports::Above),
    // Its tests hold histories of real clusters against the simulation's checker.
    place(&["cli"], Imports::AboveAndStores),
    // The example of a store, in no program. It is last so that its test may start a whole node.
    place(
        &["stores/memory"],
        Imports::Only(&["record", "mapping", "store"]),
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
        let from = workspace.folder(member);
        if level(from).is_none() {
            faults.push(format!(
                "crate {from} has no place in the order of crates, see crates/xtask/src/arrows.rs"
            ));
            continue;
        }
        for (to, dependency) in workspace.imports(member) {
            let arrow = (from, workspace.folder(to));
            let Some(why) = forbidden(arrow.0, arrow.1, dependency) else {
                continue;
            };
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

fn level(folder: &str) -> Option<usize> {
    let place_of = |name| ORDER.iter().position(|place| place.crates.contains(&name));
    place_of(folder).or_else(|| place_of(STORES).filter(|_| is_in(STORES, folder)))
}

/// Whether a name that may end in `*` is that of a folder.
pub fn is_in(name: &str, folder: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => folder
            .strip_prefix(start)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')),
        None => name == folder,
    }
}

/// Why an arrow may not be.
fn forbidden(from: &str, to: &str, dependency: &Dependency) -> Option<&'static str> {
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
        Imports::Above if is_in(STORES, to) || to == CATALOG => {
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
        let dependency = Dependency {
            name: String::new(),
            kind,
            optional: false,
        };
        forbidden(from, to, &dependency)
    }

    #[test]
    fn an_arrow_that_runs_up_is_found_also_in_tests() {
        for kind in [None, Some(Kind::Build), Some(Kind::Dev)] {
            assert!(arrow("log", "state", kind).is_some());
            assert!(arrow("mapping", "sinks", kind).is_some());
            assert!(arrow("state", "log", kind).is_none());
        }
    }

    #[test]
    fn no_store_imports_another_and_only_a_front_imports_stores() {
        assert!(arrow("stores/postgres", "stores/mysql", None).is_some());
        assert!(arrow("stores/postgres", "stores/mysql", Some(Kind::Dev)).is_some());
        assert!(arrow("http", "stores/sqlite", None).is_some());
        assert!(arrow("sinks", "stores/sqlite", None).is_some());
        assert!(arrow("http", "stores/sqlite", Some(Kind::Dev)).is_none());
        assert!(arrow("cli", "stores/sqlite", None).is_none());
        assert!(arrow("sinks", CATALOG, None).is_some());
        assert!(arrow(CATALOG, "stores/sqlite", None).is_none());
    }

    #[test]
    fn a_store_has_its_place_by_its_folder_alone() {
        let workspace = |imports| Workspace::of(&[("record", &[]), ("stores/new", imports)]);
        assert_eq!(faults(&workspace(&["record"])), Vec::<String>::new());
        assert!(arrow("stores/new", "stores/sqlite", None).is_some());
        assert!(arrow("stores/new", "sinks", None).is_some());
        assert!(arrow("sinks", "stores/new", None).is_some());
        assert!(level("stores/new/more").is_none());
    }

    #[test]
    fn pure_crates_import_no_more_than_their_job_needs() {
        assert!(arrow("engine", "state", None).is_some());
        assert!(arrow("decimal", "record", None).is_some());
        assert!(arrow("jq", "decimal", None).is_none());
        assert!(arrow("jq", "record", None).is_some());
        assert!(arrow("mapping", "node", None).is_some());
        assert!(arrow("stores/sqlite", "node", None).is_some());
    }

    #[test]
    fn servers_for_tests_are_not_in_the_product() {
        assert!(arrow("cli", TESTKIT, None).is_some());
        assert!(arrow("cli", TESTKIT, Some(Kind::Dev)).is_none());
    }

    #[test]
    fn a_crate_without_a_place_and_a_stale_exception_are_found() {
        let faults = faults(&Workspace::of(&[("new", &[])]));
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
