//! `onelog sinks …`.

mod kind_flags;
mod print;
mod source;

use std::time::Duration;

use onelog_client::{Answer, Client, ClientError, Method, Part, segment};
use onelog_command::{CommandError, Context, timeout};
use onelog_http::WAIT_TIMEOUT_MS_MAX;
use onelog_terminal::{Out, counted};
use serde_json::{Map, Value, json};

use self::source::Source;
use super::tables::{list_of, print_one};
use crate::wire::{bytes_json, shown};

pub use self::print::list as print_list;

/// A verification reads both sides as a whole; it takes as long as that takes.
const VERIFY_TIME_MAX: Duration = Duration::from_secs(6 * 3_600);
/// How much longer than the wait itself its answer may take.
const WAIT_MARGIN: Duration = Duration::from_secs(30);
/// The longest that the server waits at a time.
const WAIT_STEP_MS_MAX: u64 = WAIT_TIMEOUT_MS_MAX / 2;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the sinks (also what `onelog sinks` alone does)
    List,
    /// Make a sink, whose store is then backfilled
    Create(Source),
    /// Give a sink another definition; its store is backfilled only if its rows would change
    Replace(Source),
    /// Show what a definition would write and delete; nothing is written to a store
    #[command(alias = "try")]
    DryRun {
        #[command(flatten)]
        source: Source,
        /// How many rows of each mapping, at most 100
        #[arg(long, value_name = "COUNT", default_value_t = 5)]
        rows: u32,
    },
    /// Show one sink with its lag, errors and parked records
    Show(Name),
    /// Stop following until resumed; gives up a rebuild that has stopped
    Pause(Name),
    /// Follow again, or go on with a rebuild that has stopped
    Resume(Name),
    /// Prove that the store equals the log, or name the rows that differ (exit status 1)
    Verify {
        #[command(flatten)]
        name: Name,
        /// Write the rows that differ again from the log
        #[arg(long)]
        repair: bool,
        /// Also where that deletes many rows, which the log does not have
        #[arg(long, requires = "repair")]
        delete_rows: bool,
    },
    /// Show the parked keys: those of which the store refused a record
    Parked {
        #[command(flatten)]
        name: Name,
        /// Write them again; what the store takes now is no longer parked
        #[arg(long)]
        replay: bool,
        /// Only this key, such as orders=o-17; can be given several times
        #[arg(long, value_name = "INTO=KEY", requires = "replay")]
        key: Vec<String>,
        /// How many keys are shown
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
    },
    /// Write parked keys again; what the store takes now is no longer parked
    Replay {
        #[command(flatten)]
        name: Name,
        /// Only this key, such as orders=o-17; can be given several times
        #[arg(long, value_name = "INTO=KEY")]
        key: Vec<String>,
    },
    /// Backfill new tables beside the old ones, then swap
    Rebuild(Rebuild),
    /// Wait until the store has reached a position
    Wait {
        #[command(flatten)]
        name: Name,
        /// The position; the log's end now when not given
        position: Option<u64>,
        /// The same, as a flag
        #[arg(
            long = "position",
            value_name = "POSITION",
            hide = true,
            conflicts_with = "position"
        )]
        position_flag: Option<u64>,
        /// Give up after this time
        #[arg(
            long,
            alias = "for",
            value_name = "TIME",
            default_value = "30s",
            value_parser = timeout
        )]
        timeout: Duration,
    },
    /// Stop following and forget the sink; the store's data stays
    Delete(Name),
    /// Take away what a sink that was deleted or moved while its store was away has left there: its
    /// position, and that its tables are its own; the rows stay. Wants its former definition
    Forget {
        #[command(flatten)]
        source: Source,
        /// Also a sink of the log that the definition names in take_from_log, which stops wherever it
        /// runs
        #[arg(long)]
        release_other_log: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The name that the sink was made with
    name: String,
}

#[derive(Debug, clap::Args)]
struct Rebuild {
    #[command(flatten)]
    name: Name,
    /// Also where that deletes many rows, which the log does not have
    #[arg(long)]
    delete_rows: bool,
}

impl Rebuild {
    fn path(&self) -> String {
        self.name.path(match self.delete_rows {
            true => "/rebuild?delete_rows=true",
            false => "/rebuild",
        })
    }
}

impl Name {
    fn path(&self, action: &str) -> String {
        path(&self.name, action)
    }
}

fn path(name: &str, action: &str) -> String {
    format!("/v1/sinks/{}{action}", segment(name.as_bytes()))
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut out = Out::new();
    let nothing = Value::Object(Map::new());
    let answer = match args.command.as_ref().unwrap_or(&Command::List) {
        Command::List => {
            let answer = client.get("/v1/sinks", &[])?;
            match context.json {
                true => out.json(&answer)?,
                false => print::list(list_of(&answer, "sinks"), &mut out)?,
            }
            return Ok(out.flush()?);
        }
        Command::Create(source) => {
            let definition = source.read()?;
            let answer = client.post_bytes("/v1/sinks", definition.body()?);
            answer.map_err(|error| definition.refused(error))?
        }
        Command::Replace(source) => replace(source, &client)?,
        Command::DryRun { source, rows } => {
            return dry_run(source, *rows, &client, context.json, &mut out);
        }
        Command::Show(name) => client.get(&name.path(""), &[])?,
        Command::Pause(name) => client.post(&name.path("/pause"), &nothing)?,
        Command::Resume(name) => client.post(&name.path("/resume"), &nothing)?,
        Command::Rebuild(rebuild) => client.post(&rebuild.path(), &nothing)?,
        Command::Wait {
            name,
            position,
            position_flag,
            timeout,
        } => wait(name, position.or(*position_flag), *timeout, context)?,
        Command::Forget {
            source,
            release_other_log,
        } => return forget(source, *release_other_log, &client, context.json, &mut out),
        Command::Delete(name) => return delete(name, &client, context.json, &mut out),
        Command::Verify {
            name,
            repair,
            delete_rows,
        } => {
            let client = client.with_timeout(VERIFY_TIME_MAX);
            let path = name.path(verify_action(*repair, *delete_rows));
            return verify(&client, &path, context.json, &mut out);
        }
        Command::Replay { name, key }
        | Command::Parked {
            name,
            replay: true,
            key,
            ..
        } => {
            let client = client.with_timeout(VERIFY_TIME_MAX);
            return replay(&client, name, key, context.json, &mut out);
        }
        Command::Parked { name, limit, .. } => {
            let query = [("limit", limit.to_string())];
            let answer = client.get(&name.path("/parked"), &query)?;
            let total = answer["total"].as_u64().unwrap_or_default();
            match context.json {
                true => out.json(&answer)?,
                false => print::parked(list_of(&answer, "parked"), total, &mut out)?,
            }
            return Ok(out.flush()?);
        }
    };
    print_one(&answer, context.json, &mut out)?;
    Ok(out.flush()?)
}

/// Says what the server's configuration will undo, where it declares the sink.
fn note_declared(answer: &Value, consequence: &str) {
    if let Some(place) = answer["declared"].as_str() {
        eprintln!("note: {place} declares this sink: {consequence}");
    }
}

const fn verify_action(repair: bool, delete_rows: bool) -> &'static str {
    match (repair, delete_rows) {
        (true, true) => "/verify?repair=true&delete_rows=true",
        (true, false) => "/verify?repair=true",
        (false, _) => "/verify",
    }
}

fn forget(
    source: &Source,
    release_other_log: bool,
    client: &Client,
    as_json: bool,
    out: &mut Out,
) -> Result<(), CommandError> {
    let definition = source.read()?;
    let path = match release_other_log {
        true => "/v1/sinks/forget?release_other_log=true",
        false => "/v1/sinks/forget",
    };
    let answer = client.post_bytes(path, definition.body()?);
    let answer = answer.map_err(|error| definition.refused(error))?;
    let sink = answer["sink"].as_str().unwrap_or_default();
    match (as_json, answer["forgotten"] == true) {
        (true, _) => out.json(&answer)?,
        (false, true) => out.line(&format!("the store has forgotten the sink '{sink}'"))?,
        (false, false) => out.line(&format!("the store had nothing of the sink '{sink}'"))?,
    }
    Ok(out.flush()?)
}

/// Says what a deleted or moved sink has left in a store that cannot be reached.
fn note_remains(answer: &Value) {
    let remains = &answer["remains"];
    if let (Some(store), Some(why)) = (remains["store"].as_str(), remains["why"].as_str()) {
        eprintln!(
            "note: {store} still says that its tables are this sink's, because it could not be reached ({why}); when it can: onelog sinks forget, with the former definition"
        );
    }
}

fn replace(source: &Source, client: &Client) -> Result<Value, CommandError> {
    let definition = source.read()?;
    let name = definition.name().ok_or_else(|| {
        CommandError::Usage("the definition has no name: which sink shall it replace?".to_owned())
    })?;
    let body = Some(definition.body()?);
    let answer = client.call(Method::PUT, &path(name, ""), &[], body)?;
    let answer = client
        .json(answer)
        .map_err(|error| definition.refused(error))?;
    note_declared(
        &answer,
        "the next start gives the sink that definition again; `onelog config export` prints the new one for the file",
    );
    note_remains(&answer);
    note_lost(&answer);
    Ok(answer)
}

fn note_lost(answer: &Value) {
    for table in answer["lost"].as_array().into_iter().flatten() {
        let lost = table["lost"].as_array().map_or(&[][..], Vec::as_slice);
        let lost: Vec<&str> = lost.iter().filter_map(Value::as_str).collect();
        let into = table["into"].as_str().unwrap_or_default();
        eprintln!(
            "note: the backfill drops what was added to the table '{into}': {}",
            lost.join(", ")
        );
    }
}

/// An answer, and its text, in which no number is rounded.
struct Exact {
    value: Value,
    text: String,
}

impl Exact {
    fn of(client: &Client, answer: Answer) -> Result<Self, ClientError> {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = client.json(answer)?;
        Ok(Self { value, text })
    }

    /// The values of the answer as they were written.
    fn parts(&self) -> Part<'_> {
        Part::of(&self.text)
    }
}

fn delete(name: &Name, client: &Client, as_json: bool, out: &mut Out) -> Result<(), CommandError> {
    let answer = client.delete(&name.path(""))?;
    match as_json {
        true => out.json(&answer)?,
        false => out.line(&format!("sink '{}' is deleted", name.name))?,
    }
    note_declared(
        &answer,
        "the next start makes the sink again; take it out of the file as well",
    );
    note_remains(&answer);
    Ok(out.flush()?)
}

/// Prints what each definition of the source would write.
fn dry_run(
    source: &Source,
    rows: u32,
    client: &Client,
    as_json: bool,
    out: &mut Out,
) -> Result<(), CommandError> {
    let definitions = source.read_all()?;
    let query = [("rows", rows.to_string())];
    let mut answers = Vec::with_capacity(definitions.len());
    for definition in &definitions {
        let body = Some(definition.body()?);
        let answer = client.call(Method::POST, "/v1/sinks/dry-run", &query, body)?;
        let answer = Exact::of(client, answer).map_err(|error| definition.refused(error))?;
        answers.push((definition.name().unwrap_or_default(), answer));
    }
    match (&answers[..], as_json) {
        ([(_, answer)], true) => out.line(answer.text.trim_end())?,
        (all, true) => {
            let sinks = all.iter().map(|(name, answer)| {
                let text = answer.text.trim_end();
                format!(r#"{{"name":{},"dry_run":{text}}}"#, Value::from(*name))
            });
            let sinks: Vec<String> = sinks.collect();
            out.line(&format!(r#"{{"sinks":[{}]}}"#, sinks.join(",")))?;
        }
        (all, false) => {
            for (number, (name, answer)) in all.iter().enumerate() {
                if all.len() > 1 {
                    let space = if number > 0 { "\n" } else { "" };
                    out.line(&format!("{space}sink '{name}'"))?;
                }
                print::dry_run(answer, out)?;
            }
        }
    }
    Ok(out.flush()?)
}

fn verify(client: &Client, path: &str, as_json: bool, out: &mut Out) -> Result<(), CommandError> {
    let answer = client.call(Method::POST, path, &[], Some(b"{}".to_vec()))?;
    let answer = Exact::of(client, answer)?;
    let tables = list_of(&answer.value, "tables");
    let equal = tables.iter().all(|table| table["equal"] == true);
    match as_json {
        true => out.line(answer.text.trim_end())?,
        false => print::verification(&answer, equal, out)?,
    }
    out.flush()?;
    match equal {
        true => Ok(()),
        false => Err(CommandError::Reported),
    }
}

/// Has parked keys written again. Fails when some of them are still refused.
fn replay(
    client: &Client,
    name: &Name,
    keys: &[String],
    as_json: bool,
    out: &mut Out,
) -> Result<(), CommandError> {
    let chosen: Option<Vec<Value>> = keys
        .iter()
        .map(|key| {
            let (into, key) = key.split_once('=')?;
            Some(json!({"into": into, "key": bytes_json(key.as_bytes())}))
        })
        .collect();
    let body = match chosen {
        None => {
            return Err(CommandError::Usage(
                "--key: expected INTO=KEY, such as orders=o-17".to_owned(),
            ));
        }
        Some(keys) if keys.is_empty() => json!({}),
        Some(keys) => json!({ "keys": keys }),
    };
    let answer = client.post(&name.path("/replay"), &body)?;
    let remaining = list_of(&answer, "remaining");
    match as_json {
        true => out.json(&answer)?,
        false => {
            let replayed = answer["replayed"].as_u64().unwrap_or_default();
            out.line(&format!("{} written again", counted(replayed, "key")))?;
            for key in list_of(&answer, "not_parked") {
                let into = key["into"].as_str().unwrap_or_default();
                out.line(&format!("not parked: {into}={}", shown(&key["key"])))?;
            }
            if !remaining.is_empty() {
                out.line("\nstill refused:")?;
                print::parked(remaining, remaining.len() as u64, out)?;
            }
        }
    }
    out.flush()?;
    match remaining.is_empty() {
        true => Ok(()),
        false => Err(CommandError::Reported),
    }
}

/// Waits in steps that the server allows.
fn wait(
    name: &Name,
    position: Option<u64>,
    limit: Duration,
    context: &Context,
) -> Result<Value, CommandError> {
    // `--timeout` says here how long to wait for the sink, not how long a request may take.
    let client = context
        .client()?
        .with_timeout(limit.saturating_add(WAIT_MARGIN));
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
