//! Reading `onelog.toml`: a flat table of known keys, and the lists of tables and sinks.

use std::path::{Path, PathBuf};

use onelog_command::toml_json::{self, line_at};
use toml::de::DeValue;

use super::declared::{Declarations, Section};
use super::keys::{self, Key};

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
        key: String,
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
        match value.get_ref() {
            DeValue::Table(inner) if is_section(name) => {
                for (inner, value) in inner {
                    let line = line_at(text, inner.span().start);
                    let place = Place { path, line };
                    values.push(place.value(name, inner.get_ref(), value.get_ref())?);
                }
            }
            other if is_section(name) => {
                return Err(FileError::Section {
                    path: path.to_owned(),
                    line,
                    section: name.to_owned(),
                    message: format!(
                        "this is {}; the section begins with a line [{name}]",
                        describe(other)
                    ),
                });
            }
            other => values.push(Place { path, line }.value("", name, other)?),
        }
    }
    Ok(FileContents {
        values,
        declared: Declarations::read(path, text, table.get_ref())?,
    })
}

/// Whether keys of the program are in a section of this name.
fn is_section(name: &str) -> bool {
    !name.is_empty() && keys::all().any(|key| key.section == name)
}

/// A line of the file.
struct Place<'p> {
    path: &'p Path,
    line: usize,
}

impl Place<'_> {
    fn value(
        &self,
        section: &str,
        name: &str,
        value: &DeValue<'_>,
    ) -> Result<FileValue, FileError> {
        let mut keys = keys::all().filter(|key| key.section == section);
        let Some(key) = keys.find(|key| key.name == name) else {
            return Err(FileError::UnknownKey {
                path: self.path.to_owned(),
                line: self.line,
                key: match section {
                    "" => name.to_owned(),
                    _ => format!("{section}.{name}"),
                },
                nearest: nearest(section, name),
            });
        };
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Array(items) if key.is_list() => {
                let items = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.as_ref()),
                    other => Err(self.wrong_type(key, other)),
                });
                items.collect::<Result<Vec<_>, _>>()?.join(",")
            }
            other => return Err(self.wrong_type(key, other)),
        };
        let line = self.line;
        Ok(FileValue { key, text, line })
    }

    fn wrong_type(&self, key: &Key, found: &DeValue<'_>) -> FileError {
        FileError::Type {
            path: self.path.to_owned(),
            line: self.line,
            key: key.path(),
            found: describe(found),
        }
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(number) if number.radix() == 10 => "a number",
        DeValue::Integer(_) => "a number that is not decimal",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known key that looks most like `name`, if any does.
fn nearest(section: &str, name: &str) -> Option<&'static str> {
    const LIKENESS_MIN: f64 = 0.6;
    keys::all()
        .filter(|key| key.section == section)
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
    fn a_section_has_keys_and_lists_of_its_own() {
        let text = "[cluster]\nnode = 2\npeers = [\"1=a:1\", \"3=c:1\"]\n";
        let contents = parse(Path::new("onelog.toml"), text).unwrap();
        let found = contents.values.iter();
        let found: Vec<_> = found
            .map(|value| (value.key.path(), &*value.text))
            .collect();
        let expected = [("cluster.node", "2"), ("cluster.peers", "1=a:1,3=c:1")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text)));
        assert_eq!(
            error("[cluster]\n\nnodes = 2\n"),
            "onelog.toml, line 3: unknown key 'cluster.nodes'; did you mean 'node'?"
        );
        assert_eq!(
            error("node = 2\n"),
            "onelog.toml, line 1: unknown key 'node'; onelog.example.toml lists every key"
        );
        assert_eq!(
            error("cluster = 2\n"),
            "onelog.toml, line 1: cluster: this is a number; the section begins with a line [cluster]"
        );
        assert_eq!(
            error("[cluster]\npeers = [1]\n"),
            "onelog.toml, line 2: cluster.peers is a number; expected a text, a whole number, true or false"
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
