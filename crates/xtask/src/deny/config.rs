//! The part of cargo-deny's configuration that is checked here. A field that is not is an error,
//! so that the file never requires what nothing checks.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub graph: Graph,
    pub licenses: Licenses,
    pub bans: Bans,
    #[serde(rename = "sources")]
    _sources: Sources,
    /// For cargo-deny alone.
    #[serde(rename = "advisories")]
    _advisories: Option<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Graph {
    pub targets: Vec<String>,
    /// Only `true` is checked.
    #[serde(rename = "all-features", deserialize_with = "yes")]
    _all_features: (),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licenses {
    pub allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bans {
    #[serde(rename = "multiple-versions", deserialize_with = "deny")]
    _multiple_versions: (),
    #[serde(default)]
    pub deny: Vec<Banned>,
    #[serde(default)]
    pub skip: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Banned {
    #[serde(rename = "crate")]
    pub name: String,
    /// The only crates that may import it themselves; empty: none.
    #[serde(default)]
    pub wrappers: Vec<String>,
    pub reason: String,
}

/// One version of a crate that may be there beside another one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// The package, as `name@version`.
    #[serde(rename = "crate")]
    pub id: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    #[serde(rename = "unknown-registry", deserialize_with = "deny")]
    _unknown_registry: (),
    #[serde(rename = "unknown-git", deserialize_with = "deny")]
    _unknown_git: (),
}

pub fn parse(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

fn deny<'de, D: serde::Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    match String::deserialize(from)?.as_str() {
        "deny" => Ok(()),
        other => Err(serde::de::Error::custom(format!(
            "'{other}' instead of 'deny'"
        ))),
    }
}

fn yes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    if bool::deserialize(from)? {
        Ok(())
    } else {
        Err(serde::de::Error::custom("'false' instead of 'true'"))
    }
}
