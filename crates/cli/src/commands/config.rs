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
    let sections = Sections {
        tables: tables(&client)?,
        sinks: sinks(&client)?,
    };
    let mut out = Out::new();
    if context.json {
        out.json(&sections)?;
        return Ok(out.flush()?);
    }
    let text = toml::to_string_pretty(&sections).map_err(|error| {
        CommandError::Failed(format!(
            "a definition cannot be written as TOML: {error}; --json prints it"
        ))
    })?;
    out.line(HEAD)?;
    if text.contains("${") {
        out.line(SECRETS)?;
    }
    out.line("")?;
    out.bytes(text.as_bytes())?;
    Ok(out.flush()?)
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
