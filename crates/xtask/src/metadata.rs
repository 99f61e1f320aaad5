//! What `cargo metadata` says about this workspace.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, files};

#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Member>,
    workspace_root: String,
}

#[derive(Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub dependencies: Vec<Dependency>,
    manifest_path: String,
}

impl Workspace {
    /// The folder of a package in `crates`, or its whole path where it is not there.
    pub fn folder<'a>(&self, member: &'a Member) -> &'a str {
        let path = member.manifest_path.as_str();
        path.strip_prefix(self.workspace_root.as_str())
            .and_then(|path| path.strip_prefix("/crates/"))
            .and_then(|path| path.strip_suffix("/Cargo.toml"))
            .unwrap_or(path)
    }

    /// The other packages of the workspace that one names. A package names itself to turn on a
    /// feature for its tests.
    pub fn imports<'a>(
        &'a self,
        member: &'a Member,
    ) -> impl Iterator<Item = (&'a Member, &'a Dependency)> {
        member.dependencies.iter().filter_map(|dependency| {
            let mut all = self.packages.iter();
            let other = all.find(|other| other.name == dependency.name)?;
            (other.name != member.name).then_some((other, dependency))
        })
    }

    /// Packages by their folders, with the folders that they import.
    #[cfg(test)]
    pub fn of(packages: &[(&str, &[&str])]) -> Self {
        let name = |folder: &str| format!("onelog-{}", folder.replace("stores/", ""));
        let member = |(folder, imports): &(&str, &[&str])| Member {
            name: name(folder),
            manifest_path: format!("/here/crates/{folder}/Cargo.toml"),
            dependencies: imports
                .iter()
                .map(|folder| Dependency {
                    name: name(folder),
                    kind: None,
                    optional: false,
                })
                .collect(),
        };
        Self {
            packages: packages.iter().map(member).collect(),
            workspace_root: "/here".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    pub name: String,
    pub kind: Option<Kind>,
    pub optional: bool,
}

/// A dependency without a kind is one of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Dev,
    Build,
}

/// The workspace's own packages with the dependencies that they name.
pub fn workspace(root: &Path) -> Result<Workspace, Error> {
    read(root, &["--no-deps"])
}

pub fn read<T: DeserializeOwned>(root: &Path, arguments: &[&str]) -> Result<T, Error> {
    let text = files::run(
        files::cargo(root)
            .args(["metadata", "--locked", "--format-version", "1"])
            .args(arguments),
        "cargo metadata",
    )?;
    serde_json::from_str(&text).map_err(|error| Error::Data {
        file: "the answer of cargo metadata".to_owned(),
        message: error.to_string(),
    })
}
