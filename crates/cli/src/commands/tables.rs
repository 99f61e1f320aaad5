//! `onelog tables …`.

use std::path::PathBuf;

use onelog_client::segment;
use onelog_command::{CommandError, Context, read_whole};
use onelog_record::Json;
use onelog_terminal::{Out, Table};
use serde_json::{Map, Value, json};

use crate::confirm::confirm;
use crate::wire::shown;

/// The most bytes of a schema's file.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the tables (also what `onelog tables` alone does)
    List,
    /// Show the definition of one table
    Show {
        /// Name of the table, as service.table
        table: String,
    },
    /// Make a table with its rules
    Create(Create),
    /// Delete a table and all its keys; refused while a sink or the server's configuration names it
    Delete {
        /// Name of the table, as service.table
        table: String,
        /// Do not ask; needed where there is no terminal
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The name, such as shop.orders
    table: String,
    /// Whether the latest value of each key is kept, or things only happen
    #[arg(long, default_value = "keyed", value_parser = ["keyed", "stream"])]
    kind: String,
    /// What the values of the table are
    #[arg(long, default_value = "json", value_parser = ["json", "bytes"])]
    value: String,
    /// A file with the JSON Schema that every value must satisfy; - is standard input
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A field whose value no two keys may share; can be given several times
    #[arg(long, value_name = "FIELD")]
    unique: Vec<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let path = |table: &str| format!("/v1/tables/{}", segment(table.as_bytes()));
    let mut out = Out::new();
    match args.command.as_ref().unwrap_or(&Command::List) {
        Command::List => {
            let answer = client.get("/v1/tables", &[])?;
            match context.json {
                true => out.json(&answer)?,
                false => print_list(&answer, &mut out)?,
            }
        }
        Command::Show { table } => {
            let answer = client.get(&path(table), &[])?;
            print_one(&answer, context.json, &mut out)?;
        }
        Command::Create(create) => {
            let answer = client.post("/v1/tables", &create.body()?)?;
            match context.json {
                true => out.json(&answer)?,
                false => out.line(&format!("table '{}' is there", create.table))?,
            }
        }
        Command::Delete { table, yes } => {
            let what = format!("deletes the table '{table}' with all its keys");
            confirm(*yes, &what, table)?;
            let answer = client.delete(&path(table))?;
            match context.json {
                true => out.json(&answer)?,
                false => out.line(&format!("table '{table}' is deleted"))?,
            }
        }
    }
    Ok(out.flush()?)
}

impl Create {
    fn body(&self) -> Result<Value, CommandError> {
        let mut body = Map::new();
        body.insert("name".to_owned(), json!(self.table));
        body.insert("kind".to_owned(), json!(self.kind));
        body.insert("value".to_owned(), json!(self.value));
        if let Some(file) = &self.schema {
            let text = read_whole(file, SCHEMA_BYTES_MAX)?;
            let written = Json::parse(&text).ok();
            if let Some(number) = written.as_ref().and_then(Json::rounded_number) {
                let shown: String = number.chars().take(64).collect();
                return Err(CommandError::Usage(format!(
                    "the number {shown} of the schema {} would be rounded to 64 bits; write it with fewer digits",
                    file.display()
                )));
            }
            let schema: Value = serde_json::from_slice(&text).map_err(|error| {
                CommandError::Usage(format!(
                    "the schema {} is not JSON: {error}",
                    file.display()
                ))
            })?;
            body.insert("schema".to_owned(), schema);
        }
        if !self.unique.is_empty() {
            body.insert("unique".to_owned(), json!(self.unique));
        }
        Ok(Value::Object(body))
    }
}

/// The list inside an answer, whether bare or under a name.
pub fn list_of<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    let list = answer.as_array().or_else(|| answer[name].as_array());
    list.map(Vec::as_slice).unwrap_or_default()
}

fn print_list(answer: &Value, out: &mut Out) -> std::io::Result<()> {
    let mut table = Table::new(&["table", "kind", "value", "schema", "unique"]);
    for definition in list_of(answer, "tables") {
        let has_schema = definition.get("schema").is_some_and(|s| !s.is_null());
        let unique = definition["unique"].as_array();
        let unique: Vec<String> = unique.into_iter().flatten().map(shown).collect();
        table.row([
            shown(&definition["name"]),
            shown(&definition["kind"]),
            shown(&definition["value"]),
            if has_schema { "yes" } else { "-" }.to_owned(),
            if unique.is_empty() {
                "-".to_owned()
            } else {
                unique.join(", ")
            },
        ]);
    }
    table.print(out)
}

/// Prints an object, for people with one field a line.
pub fn print_one(answer: &Value, as_json: bool, out: &mut Out) -> std::io::Result<()> {
    match answer.as_object() {
        Some(fields) if !as_json => {
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            fields
                .iter()
                .try_for_each(|(name, value)| out.line(&format!("{name:width$}  {}", shown(value))))
        }
        _ => out.json(answer),
    }
}
