//! `onelog sinks …`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::tables::{list_of, print_one};
use crate::client::segment;
use crate::context::{Context, timeout};
use crate::error::CommandError;
use crate::input::read_whole;
use crate::output::{Out, Table, cell, thousands};
use crate::wire::shown;

/// The most bytes of a definition's file.
const DEFINITION_BYTES_MAX: u64 = 1 << 20;
/// A verification reads both sides as a whole; it takes as long as that takes.
const VERIFY_TIME_MAX: Duration = Duration::from_secs(6 * 3_600);
/// How much longer than the wait itself its answer may take.
const WAIT_MARGIN: Duration = Duration::from_secs(5);
/// The longest that the server waits at a time.
const WAIT_STEP_MS_MAX: u64 = 30_000;
const CELL_CHARS_MAX: usize = 80;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the sinks (also what `onelog sinks` alone does)
    List,
    /// Make a sink
    Create {
        /// A file with the definition as JSON, as POST /v1/sinks takes it; - is standard input
        file: PathBuf,
    },
    /// Show one sink
    Show(Name),
    /// Stop following until resumed
    Pause(Name),
    /// Follow again
    Resume(Name),
    /// Prove that the store equals the log, or name the rows that differ
    Verify(Name),
    /// Fill the store anew beside the old one, then swap
    Rebuild(Name),
    /// Wait until the store has reached a position
    Wait {
        #[command(flatten)]
        name: Name,
        /// The position; the log's end now when not given
        #[arg(long)]
        position: Option<u64>,
        /// How long to wait
        #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = timeout)]
        limit: Duration,
    },
    /// Stop following and forget the sink; the store's data stays
    Delete(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The sink
    name: String,
}

impl Name {
    fn path(&self, action: &str) -> String {
        format!("/v1/sinks/{}{action}", segment(self.name.as_bytes()))
    }
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut out = Out::new();
    let nothing = Value::Object(serde_json::Map::new());
    let answer = match args.command.as_ref().unwrap_or(&Command::List) {
        Command::List => {
            let answer = client.get("/v1/sinks", &[])?;
            match context.json {
                true => out.json(&answer)?,
                false => print_list(list_of(&answer, "sinks"), &mut out)?,
            }
            return Ok(out.flush()?);
        }
        Command::Create { file } => {
            let definition = read_whole(file, DEFINITION_BYTES_MAX)?;
            client.post_bytes("/v1/sinks", definition)?
        }
        Command::Show(name) => client.get(&name.path(""), &[])?,
        Command::Pause(name) => client.post(&name.path("/pause"), &nothing)?,
        Command::Resume(name) => client.post(&name.path("/resume"), &nothing)?,
        Command::Rebuild(name) => client.post(&name.path("/rebuild"), &nothing)?,
        Command::Wait {
            name,
            position,
            limit,
        } => wait(name, *position, *limit, context)?,
        Command::Delete(name) => {
            let answer = client.delete(&name.path(""))?;
            match context.json {
                true => out.json(&answer)?,
                false => out.line(&format!("sink '{}' is deleted", name.name))?,
            }
            return Ok(out.flush()?);
        }
        Command::Verify(name) => {
            let client = client.with_timeout(VERIFY_TIME_MAX);
            let answer = client.post(&name.path("/verify"), &nothing)?;
            let equal = print_verification(&answer, context.json, &mut out)?;
            out.flush()?;
            return if equal {
                Ok(())
            } else {
                Err(CommandError::Reported)
            };
        }
    };
    print_one(&answer, context.json, &mut out)?;
    Ok(out.flush()?)
}

/// Waits in steps that the server allows.
fn wait(
    name: &Name,
    position: Option<u64>,
    limit: Duration,
    context: &Context,
) -> Result<Value, CommandError> {
    let client = context.client()?;
    let position = match position {
        Some(position) => position,
        None => client.get("/v1/status", &[])?["position"]
            .as_u64()
            .ok_or_else(|| client.unexpected("its status has no position".to_owned()))?,
    };
    let mut left_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    loop {
        let step_ms = left_ms.min(WAIT_STEP_MS_MAX);
        left_ms -= step_ms;
        let client = client.with_timeout(Duration::from_millis(step_ms) + WAIT_MARGIN);
        let query = [
            ("position", position.to_string()),
            ("timeout_ms", step_ms.to_string()),
        ];
        match client.get(&name.path("/wait"), &query) {
            Err(error)
                if left_ms > 0 && error.server().is_some_and(|e| e.error == "wait_timed_out") => {}
            answer => return Ok(answer?),
        }
    }
}

/// Prints sinks as the server lists them.
pub fn print_list(list: &[Value], out: &mut Out) -> std::io::Result<()> {
    let mut table = Table::new(&[
        "sink",
        "kind",
        "state",
        ">position",
        ">behind",
        ">records/s",
        "last error",
    ]);
    for sink in list {
        let number = |name: &str| match sink[name].as_f64() {
            Some(number) => thousands(number.max(0.0).round() as u64),
            None => "-".to_owned(),
        };
        let error = match &sink["last_error"] {
            Value::Null => "-".to_owned(),
            other => cell(&error_text(other), CELL_CHARS_MAX),
        };
        table.row([
            shown(&sink["name"]),
            shown(&sink["kind"]),
            shown(&sink["state"]),
            number("position"),
            number("lag_records"),
            number("records_per_second"),
            error,
        ]);
    }
    table.print(out)
}

fn error_text(error: &Value) -> String {
    error.get("message").map_or_else(|| shown(error), shown)
}

/// Prints what a verification found; answers whether everything is equal.
fn print_verification(answer: &Value, as_json: bool, out: &mut Out) -> std::io::Result<bool> {
    let tables = list_of(answer, "tables");
    let equal = tables.iter().all(|table| table["equal"] == true);
    if as_json {
        out.json(answer)?;
        return Ok(equal);
    }
    let mut summary = Table::new(&["table", ">rows", "equal"]);
    for table in tables {
        summary.row([
            shown(&table["table"]),
            thousands(table["rows"].as_u64().unwrap_or_default()),
            if table["equal"] == true { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    summary.print(out)?;
    for table in tables.iter().filter(|table| table["equal"] != true) {
        out.line(&format!(
            "\nrows of {} that differ:",
            shown(&table["table"])
        ))?;
        let mut rows = Table::new(&["key", "in the log", "in the store"]);
        for difference in list_of(table, "differences") {
            let text = |name: &str| cell(&shown(&difference[name]), CELL_CHARS_MAX);
            rows.row([text("key"), text("log"), text("store")]);
        }
        rows.print(out)?;
    }
    let position = thousands(answer["position"].as_u64().unwrap_or_default());
    out.line(&format!(
        "{} at position {position}",
        if equal { "equal" } else { "NOT equal" }
    ))?;
    Ok(equal)
}
