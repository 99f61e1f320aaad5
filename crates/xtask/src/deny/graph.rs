//! The graph of all dependencies, as far as they are in what is shipped.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Link>,
}

#[derive(Debug, Deserialize)]
struct Link {
    pkg: String,
    dep_kinds: Vec<LinkKind>,
}

#[derive(Debug, Deserialize)]
struct LinkKind {
    kind: Option<String>,
}

/// A crate, and who imports it.
#[derive(Debug)]
pub struct Crate {
    pub name: String,
    pub version: String,
    /// None for a crate of this workspace.
    pub source: Option<String>,
    pub license: Option<String>,
    pub importers: BTreeSet<String>,
    /// Needed by tests alone.
    pub for_tests: bool,
}

impl Metadata {
    /// Every crate of the graph.
    pub fn shipped(&self) -> Vec<Crate> {
        let product = self.reached(|kind| kind != Some("dev"));
        let all = self.reached(|_| true);
        let names: BTreeMap<&str, &Package> = self
            .packages
            .iter()
            .map(|package| (package.id.as_str(), package))
            .collect();
        let mut importers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for node in &self.resolve.nodes {
            for link in &node.deps {
                if let Some(from) = names.get(node.id.as_str()) {
                    importers
                        .entry(link.pkg.as_str())
                        .or_default()
                        .insert(from.name.clone());
                }
            }
        }
        self.packages
            .iter()
            .filter(|package| all.contains(package.id.as_str()))
            .map(|package| Crate {
                name: package.name.clone(),
                version: package.version.clone(),
                source: package.source.clone(),
                license: package.license.clone(),
                importers: importers.remove(package.id.as_str()).unwrap_or_default(),
                for_tests: !product.contains(package.id.as_str()),
            })
            .collect()
    }

    fn reached(&self, follows: impl Fn(Option<&str>) -> bool) -> BTreeSet<&str> {
        let nodes: BTreeMap<&str, &Node> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !reached.insert(id) {
                continue;
            }
            for link in nodes.get(id).into_iter().flat_map(|node| &node.deps) {
                if link
                    .dep_kinds
                    .iter()
                    .any(|kind| follows(kind.kind.as_deref()))
                {
                    open.push(&link.pkg);
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_need_is_marked() {
        let text = r#"{
            "packages": [
                {"id": "a", "name": "a", "version": "1.0.0", "source": null, "license": null},
                {"id": "b", "name": "b", "version": "1.0.0", "source": "s", "license": "MIT"},
                {"id": "c", "name": "c", "version": "1.0.0", "source": "s", "license": "MIT"}],
            "workspace_members": ["a"],
            "resolve": {"nodes": [
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": null}]},
                                     {"pkg": "c", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "b", "deps": []}, {"id": "c", "deps": []}]}}"#;
        let metadata: Metadata = serde_json::from_str(text).expect("it is JSON");
        let crates = metadata.shipped();
        let for_tests: Vec<_> = crates
            .iter()
            .map(|one| (one.name.as_str(), one.for_tests))
            .collect();
        assert_eq!(for_tests, [("a", false), ("b", false), ("c", true)]);
        assert_eq!(crates[1].importers, BTreeSet::from(["a".to_owned()]));
    }
}
