//! Debian's package records, and what a table must hold after some of them were written.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/packages.ndjson");
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/debian-packages");

/// Records of Debian packages as lines of JSON: all that this machine has lists of, some 60,000,
/// else the sample.
pub fn records() -> Vec<String> {
    let mut listing = Command::new(PACKAGES)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(listing.stdout.take().unwrap()).lines();
    let found: Vec<String> = lines.map(Result::unwrap).collect();
    // It fails where there is no apt.
    listing.wait().unwrap();
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    match found.len() < sample.lines().count() {
        true => sample.lines().map(str::to_owned).collect(),
        false => found,
    }
}

/// What the table must hold, kept without onelog's help: the last line of each key.
#[derive(Default)]
pub struct Expected(BTreeMap<String, String>);

/// The fields that are read from the stores, one by one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    pub name: String,
    pub version: String,
    pub size: Option<u64>,
}

impl Expected {
    pub fn put(&mut self, record: &str) {
        self.0.insert(key(record), record.to_owned());
    }

    pub fn remove(&mut self, key: &str) {
        self.0.remove(key).unwrap();
    }

    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// Every so-and-so-many-th key, from another place on each `turn`.
    pub fn some_keys(&self, turn: usize, each: usize) -> Vec<String> {
        let keys = self.0.keys().skip(turn % each).step_by(each);
        keys.cloned().collect()
    }

    /// The record of a key with another version and size.
    pub fn rewritten(&self, key: &str, turn: usize) -> String {
        let mut record: Value = serde_json::from_str(&self.0[key]).unwrap();
        record["version"] = json!(format!("{}+{turn}", record["version"].as_str().unwrap()));
        if let Some(size) = record["size"].as_u64() {
            record["size"] = json!(size + 1);
        }
        record.to_string()
    }

    /// Every row, by name.
    pub fn heads(&self) -> Vec<Head> {
        let records = self.0.values();
        records
            .map(|record| {
                let record: Value = serde_json::from_str(record).unwrap();
                Head {
                    name: record["package"].as_str().unwrap().to_owned(),
                    version: record["version"].as_str().unwrap().to_owned(),
                    size: record["size"].as_u64(),
                }
            })
            .collect()
    }
}

impl Head {
    /// Every row of a store's own answer, by name: `name version size`, the size empty where there is
    /// none.
    pub fn of_lines(text: &str, separator: char) -> Vec<Self> {
        let head = |line: &str| {
            let fields: Vec<&str> = line.split(separator).collect();
            let [name, version, size] = fields[..] else {
                panic!("not three fields: '{line}'");
            };
            Self {
                name: name.to_owned(),
                version: version.to_owned(),
                size: (!size.is_empty()).then(|| size.parse().unwrap()),
            }
        };
        let mut heads: Vec<Self> = text.lines().map(head).collect();
        heads.sort();
        heads
    }
}

pub fn key(record: &str) -> String {
    let record: Value = serde_json::from_str(record).unwrap();
    record["package"].as_str().unwrap().to_owned()
}
