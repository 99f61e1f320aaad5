//! The rules about single files. A rule gives its faults; how many of each are known and tolerated
//! is the ratchet's business.

mod filler;
mod lengths;
mod links;
mod machine_paths;
mod unfinished;
mod words;
mod wrap;

use crate::files::File;

/// A place that breaks a rule.
#[derive(Debug, PartialEq)]
pub struct Fault {
    /// The line of the file, from 1.
    pub line: usize,
    pub message: String,
    /// What the ratchet adds up: by how much a bound is passed, 1 where there is no such measure.
    pub weight: u64,
}

impl Fault {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            weight: 1,
        }
    }
}

/// The texts of all files of the repository by path, for rules that look beyond one file.
pub type Tree<'a> = std::collections::BTreeMap<&'a str, &'a str>;

pub struct Rule {
    pub name: &'static str,
    /// What it requires, in one sentence.
    pub requires: &'static str,
    pub check: fn(&File, &Tree<'_>) -> Vec<Fault>,
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "file-length",
        requires: "a source file has at most 600 lines",
        check: lengths::files,
    },
    Rule {
        name: "function-length",
        requires: "a function has at most 70 lines",
        check: lengths::functions,
    },
    Rule {
        name: "words",
        requires: "comments, messages and docs are plain technical English, see crates/xtask/words.txt",
        check: words::check,
    },
    Rule {
        name: "filler-docs",
        requires: "a comment says what the name does not, and more than 18 letters of it",
        check: filler::check,
    },
    Rule {
        name: "wrap",
        requires: "docs are wrapped at 100 columns (tables, code and links apart)",
        check: wrap::check,
    },
    Rule {
        name: "links",
        requires: "a link of the docs leads to a file of this repository, and to a section of it",
        check: links::check,
    },
    Rule {
        name: "machine-paths",
        requires: "no path of one machine",
        check: machine_paths::check,
    },
    Rule {
        name: "unfinished",
        requires: "nothing unfinished",
        check: unfinished::check,
    },
];
