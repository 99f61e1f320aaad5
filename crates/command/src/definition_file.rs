//! A definition in a file, as JSON or TOML; `-` is standard input. The configuration of a server is a
//! file of several definitions.

use std::path::{Path, PathBuf};

use onelog_client::ClientError;
use serde_json::Value;

use crate::error::CommandError;
use crate::input::{is_stdin, read_whole};
use crate::toml_json;

/// The most bytes of a definition's file.
const DEFINITION_BYTES_MAX: u64 = 1 << 20;

/// A definition that was read.
#[derive(Debug)]
pub struct DefinitionFile {
    path: PathBuf,
    text: String,
    is_json: bool,
    /// Where the definition is in the file; nothing where it is all of it.
    prefix: String,
    pub value: Value,
}

impl DefinitionFile {
    /// Reads a file. What begins with `{` is JSON, all else TOML.
    pub fn read(path: &Path) -> Result<Self, CommandError> {
        let name = path.display();
        let bytes = read_whole(path, DEFINITION_BYTES_MAX)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CommandError::Usage(format!("{name} is not UTF-8 text")))?;
        let is_json = text.trim_start().starts_with('{');
        let value = match is_json {
            true => serde_json::from_str(&text)
                .map_err(|error| CommandError::Usage(format!("{name} is not JSON: {error}"))),
            false => toml_json::parse(&text)
                .and_then(|table| toml_json::table_to_json(&text, table.get_ref()))
                .map(Value::Object)
                .map_err(|fault| {
                    CommandError::Usage(format!("{name}, line {}: {}", fault.line, fault.message))
                }),
        }?;
        Ok(Self {
            path: path.to_owned(),
            text,
            is_json,
            prefix: String::new(),
            value,
        })
    }

    /// The definitions of the section `[[sinks]]`, where the file has one.
    pub fn sinks(self) -> Vec<Self> {
        let Some(list) = self.value["sinks"].as_array() else {
            return vec![self];
        };
        let entries = list.iter().enumerate();
        entries
            .map(|(number, value)| Self {
                path: self.path.clone(),
                text: self.text.clone(),
                is_json: self.is_json,
                prefix: format!("sinks[{number}]."),
                value: value.clone(),
            })
            .collect()
    }

    /// The definition as the server takes it: JSON as it was written, so that the server sees a
    /// field that occurs twice.
    pub fn body(&self) -> Result<Vec<u8>, CommandError> {
        match self.is_json && self.prefix.is_empty() {
            true => Ok(self.text.clone().into_bytes()),
            false => {
                serde_json::to_vec(&self.value).map_err(|error| ClientError::Encode(error).into())
            }
        }
    }

    /// An error at a place of the definition, as wrong use.
    pub fn fault(&self, place: &str, what: impl std::fmt::Display) -> CommandError {
        CommandError::Usage(format!("{}: {place}: {what}", self.at(place)))
    }

    /// A server's error about this definition, with the file and, for TOML, the line.
    pub fn refused(&self, error: ClientError) -> CommandError {
        let place = error.server().and_then(|e| e.body["where"].as_str());
        match (place, error.server()) {
            (Some(place), Some(server)) => {
                CommandError::Usage(format!("{}: {}", self.at(place), server.message))
            }
            _ => error.into(),
        }
    }

    fn at(&self, place: &str) -> String {
        let path = match is_stdin(&self.path) {
            true => "standard input".to_owned(),
            false => self.path.display().to_string(),
        };
        let line = match self.is_json {
            true => None,
            false => toml_json::parse(&self.text).ok().map(|table| {
                let place = format!("{}{place}", self.prefix);
                toml_json::line_in_document(&self.text, table.get_ref(), &place)
            }),
        };
        match line {
            Some(line) => format!("{path}, line {line}"),
            None => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DefinitionFile, CommandError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        DefinitionFile::read(file.path())
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let json = read("\n {\"name\": \"a\", \"mappings\": [{\"table\": \"t\"}]}").unwrap();
        let toml = read("name = \"a\"\n[[mappings]]\ntable = \"t\"").unwrap();
        assert_eq!(json.value, toml.value);
        assert!(
            json.body().unwrap().starts_with(b"\n {"),
            "as it was written"
        );
    }

    #[test]
    fn the_sinks_of_a_configuration_are_definitions_with_their_lines() {
        let text = "listen = \"x\"\n[[sinks]]\nname = \"a\"\n[[sinks]]\nname = \"b\"\n[[sinks.mappings]]\ntable = \"t\"";
        let sinks = read(text).unwrap().sinks();
        let names: Vec<&str> = sinks
            .iter()
            .filter_map(|s| s.value["name"].as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let said = sinks[1]
            .fault("mappings[0].table", "no such table")
            .to_string();
        assert!(
            said.ends_with(", line 7: mappings[0].table: no such table"),
            "{said}"
        );
        assert_eq!(read("name = \"a\"").unwrap().sinks().len(), 1);
    }

    #[test]
    fn an_error_has_its_line() {
        let file = read("name = \"a\"\n[[mappings]]\ntable = \"t\"").unwrap();
        let said = file.fault("mappings[0].table", "no such table").to_string();
        assert!(
            said.ends_with(", line 3: mappings[0].table: no such table"),
            "{said}"
        );
        let said = read("name = \n").unwrap_err().to_string();
        assert!(said.contains(", line 1: "), "{said}");
    }
}
