//! `onelog config export`: what is in force on a server, as sections of its configuration file.

use onelog_client::Client;
use onelog_command::{CommandError, Context};
use onelog_terminal::Out;
use serde::Serialize;
use serde_json::{Map, Value};

use super::tables::list_of;

const HEAD: &str = "\
# The tables and sinks of a running server, as `onelog config export` printed them. Put them into the
# server's configuration file in the place of its sections [[tables]] and [[sinks]].";
const SECRETS: &str = "\
# A server shows no secrets: each ${…} below is an environment variable of the server, to be set.";
/// How an address shows that it has a secret.
const HIDDEN: &str = "***";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the tables and sinks of the server as sections of a configuration file
    Export,
}

#[derive(Serialize)]
struct Sections {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tables: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sinks: Vec<Map<String, Value>>,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let Command::Export = args.command;
    let client = context.client()?;
    let mut sections = Sections {
        tables: tables(&client)?,
        sinks: sinks(&client)?,
    };
    let mut out = Out::new();
    if context.json {
        out.json(&sections)?;
        return Ok(out.flush()?);
    }
    let mut left_out = without_unwritable("table", &mut sections.tables);
    left_out.extend(without_unwritable("sink", &mut sections.sinks));
    let text = toml::to_string_pretty(&sections).map_err(|error| {
        CommandError::Failed(format!(
            "a definition cannot be written as TOML: {error}; --json prints it"
        ))
    })?;
    out.line(HEAD)?;
    if text.contains("${") {
        out.line(SECRETS)?;
    }
    for what in &left_out {
        out.line(&format!("# {what}"))?;
        eprintln!("warning: {what}");
    }
    out.line("")?;
    out.bytes(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Takes out the definitions that TOML cannot hold, and says of each why.
fn without_unwritable(kind: &str, definitions: &mut Vec<Map<String, Value>>) -> Vec<String> {
    let mut left_out = Vec::new();
    definitions.retain(|definition| {
        let mut fields = definition.iter();
        let Some(why) = fields.find_map(|(name, value)| unwritable(name, value)) else {
            return true;
        };
        let name = definition["name"].as_str().unwrap_or_default();
        left_out.push(format!(
            "the {kind} '{name}' is left out: {why}, which TOML does not have; --json prints it"
        ));
        false
    });
    left_out
}

/// The first part of a value that TOML cannot hold, with its place on one line, for a comment.
fn unwritable(place: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(format!("{} is null", place.escape_debug())),
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            Some(format!("{} is {number}", place.escape_debug()))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(n, item)| unwritable(&format!("{place}[{n}]"), item))
        }
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.find_map(|(name, field)| unwritable(&format!("{place}.{name}"), field))
        }
        _ => None,
    }
}

fn tables(client: &Client) -> Result<Vec<Map<String, Value>>, CommandError> {
    let answer = client.get("/v1/tables", &[])?;
    let own = list_of(&answer, "tables").iter().filter(|table| {
        let name = table["name"].as_str().unwrap_or_default();
        !name.starts_with("onelog.")
    });
    let mut tables: Vec<Map<String, Value>> = own.filter_map(Value::as_object).cloned().collect();
    for table in &mut tables {
        table.shift_remove("id");
    }
    Ok(tables)
}

fn sinks(client: &Client) -> Result<Vec<Map<String, Value>>, CommandError> {
    let answer = client.get("/v1/sinks", &[])?;
    let all = list_of(&answer, "sinks").iter();
    let definitions = all.filter_map(|sink| sink["definition"].as_object());
    Ok(definitions
        .map(|definition| {
            let mut definition = definition.clone();
            // A sink that the file does not pause stays as it was left.
            definition.shift_remove("paused");
            let variable = variable(definition["name"].as_str().unwrap_or_default());
            for value in definition.values_mut() {
                if let Value::String(text) = value
                    && text.contains(HIDDEN)
                {
                    *text = text.replace(HIDDEN, &variable);
                }
            }
            definition
        })
        .collect())
}

/// An environment variable for the secret of a sink.
fn variable(sink: &str) -> String {
    let name: String = sink
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_uppercase(),
            false => '_',
        })
        .collect();
    format!("${{{name}_PASSWORD}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_becomes_a_variable_of_the_sinks_name() {
        assert_eq!(variable("my-cache.1"), "${MY_CACHE_1_PASSWORD}");
    }
}
