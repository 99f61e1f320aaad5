//! What `cargo metadata` says about this workspace.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, files};

#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Member>,
}

#[derive(Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub dependencies: Vec<Dependency>,
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
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let text = files::run(
        Command::new(cargo)
            .current_dir(root)
            .args(["metadata", "--locked", "--format-version", "1"])
            .args(arguments),
        "cargo metadata",
    )?;
    serde_json::from_str(&text).map_err(|error| Error::Data {
        file: "the answer of cargo metadata".to_owned(),
        message: error.to_string(),
    })
}
