//! `deny`: what deny.toml requires of all dependencies, read from `cargo metadata`. The file is
//! cargo-deny's own, and `cargo deny check licenses bans sources` gives the same answer; this one
//! needs no other program, because building cargo-deny takes longer than all its checks are worth
//! on a fresh machine. Known vulnerabilities need a database from the net: `cargo deny check
//! advisories`.

mod check;
mod config;
mod graph;

use crate::{Error, files, metadata};

pub fn check() -> Result<bool, Error> {
    let root = files::root();
    let path = "deny.toml";
    let text = std::fs::read_to_string(root.join(path)).map_err(|source| Error::Io {
        context: path.to_owned(),
        source,
    })?;
    let config = config::parse(&text).map_err(|error| Error::Data {
        file: path.to_owned(),
        message: error.to_string(),
    })?;
    let mut arguments = vec!["--all-features"];
    for target in &config.graph.targets {
        arguments.extend(["--filter-platform", target]);
    }
    let graph: graph::Metadata = metadata::read(&root, &arguments)?;
    let crates = graph.shipped();
    let faults = check::faults(&config, &crates);
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("{} crates keep {path}", crates.len());
    }
    Ok(faults.is_empty())
}
