//! A definition in a file, as JSON or TOML; `-` is standard input.

use std::path::{Path, PathBuf};

use onelog_client::ClientError;
use serde_json::Value;

use crate::error::CommandError;
use crate::input::read_whole;
use crate::toml_json;

/// The most bytes of a definition's file.
const DEFINITION_BYTES_MAX: u64 = 1 << 20;

/// A definition that was read.
#[derive(Debug)]
pub struct DefinitionFile {
    path: PathBuf,
    text: String,
    is_json: bool,
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
            value,
        })
    }

    /// The definition as the server takes it: JSON as it was written, so that the server sees a
    /// field that occurs twice.
    pub fn body(&self) -> Result<Vec<u8>, CommandError> {
        match self.is_json {
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
        let path = match crate::input::is_stdin(&self.path) {
            true => "standard input".to_owned(),
            false => self.path.display().to_string(),
        };
        let line = match self.is_json {
            true => None,
            false => toml_json::parse(&self.text)
                .ok()
                .map(|table| toml_json::line_in_document(&self.text, table.get_ref(), place)),
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
