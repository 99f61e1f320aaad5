//! Reading `onelog.toml`: a flat table of known keys, and the lists of tables and sinks.

use std::path::{Path, PathBuf};

use onelog_command::toml_json::{self, line_at};
use toml::de::DeValue;

use super::declared::{Declarations, Section};
use super::keys::{KEYS, Key};

/// One key of the file, with its place.
#[derive(Debug)]
pub struct FileValue {
    pub key: &'static Key,
    pub text: String,
    /// The line in the file, from 1.
    pub line: usize,
}

#[derive(Debug)]
pub struct FileContents {
    pub values: Vec<FileValue>,
    pub declared: Declarations,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}, line {line}: unknown key '{key}'{}", path.display(), hint(nearest))]
    UnknownKey {
        path: PathBuf,
        line: usize,
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A value of a type that no key has.
    #[error("{}, line {line}: {key} is {found}; expected a text, a whole number, true or false", path.display())]
    Type {
        path: PathBuf,
        line: usize,
        key: &'static str,
        found: &'static str,
    },
    /// An entry of a section.
    #[error("{}, line {line}: {section}: {message}", path.display())]
    Section {
        path: PathBuf,
        line: usize,
        /// The entry and the place in it.
        section: String,
        /// What is wrong, and what to do.
        message: String,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean '{name}'?"),
        None => "; onelog.example.toml lists every key".to_owned(),
    }
}

/// Reads the file at `path`.
pub fn read(path: &Path) -> Result<FileContents, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<FileContents, FileError> {
    let table = toml_json::parse(text).map_err(|fault| FileError::Syntax {
        path: path.to_owned(),
        line: fault.line,
        message: fault.message,
    })?;
    let mut values = Vec::new();
    for (name, value) in table.get_ref() {
        let line = line_at(text, name.span().start);
        let name = name.get_ref().as_ref();
        if let Some(section) = Section::of(name) {
            match value.get_ref() {
                DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) => {}
                other => {
                    return Err(FileError::Section {
                        path: path.to_owned(),
                        line,
                        section: name.to_owned(),
                        message: format!(
                            "this is {}; each entry begins with a line [[{}]]",
                            describe(other),
                            section.name()
                        ),
                    });
                }
            }
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(FileError::UnknownKey {
                path: path.to_owned(),
                line,
                key: name.to_owned(),
                nearest: nearest(name),
            });
        };
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => {
                return Err(FileError::Type {
                    path: path.to_owned(),
                    line,
                    key: key.name,
                    found: describe(other),
                });
            }
        };
        values.push(FileValue { key, text, line });
    }
    Ok(FileContents {
        values,
        declared: Declarations::read(path, text, table.get_ref())?,
    })
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number that is not decimal",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known key that looks most like `name`, if any does.
pub fn nearest(name: &str) -> Option<&'static str> {
    const LIKENESS_MIN: f64 = 0.6;
    KEYS.iter()
        .map(|key| {
            (
                strsim::normalized_damerau_levenshtein(key.name, name),
                key.name,
            )
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("onelog.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            error("listen = \"127.0.0.1:1\"\n\nsegment_byte = 1\n"),
            "onelog.toml, line 3: unknown key 'segment_byte'; did you mean 'segment_bytes'?"
        );
        assert_eq!(
            error("zzz = 1"),
            "onelog.toml, line 1: unknown key 'zzz'; onelog.example.toml lists every key"
        );
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        assert!(error("listen = \"x\"\nfolder = = 3\n").starts_with("onelog.toml, line 2: "));
        assert!(error("listen = \"x\"\nlisten = \"y\"\n").starts_with("onelog.toml, line 2: "));
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        assert_eq!(
            error("# a comment\nlisten = [1]"),
            "onelog.toml, line 2: listen is a list; expected a text, a whole number, true or false"
        );
        assert_eq!(
            error("[sinks]\nname = \"a\""),
            "onelog.toml, line 1: sinks: this is a table; each entry begins with a line [[sinks]]"
        );
    }
}
