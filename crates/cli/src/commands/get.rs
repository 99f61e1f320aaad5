//! `onelog get TABLE KEY`.

use std::ffi::OsString;

use onelog_client::{Answer, Method};
use onelog_command::{CommandError, Context};
use onelog_terminal::Out;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::wire::{argument, bytes_json, key_path};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// The key that is read
    key: OsString,
    #[command(flatten)]
    moment: Moment,
}

/// When a read takes place.
#[derive(Clone, Debug, clap::Args)]
pub struct Moment {
    /// Read at exactly this position
    #[arg(long, value_name = "POSITION", conflicts_with = "after")]
    pub at: Option<u64>,
    /// Wait until this position is reached, then read
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// Read everything that was acknowledged on any node of the cluster before
    #[arg(long, conflicts_with = "at")]
    pub linearizable: bool,
}

impl Moment {
    /// The moment as query parameters.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let at = self.at.map(|position| ("at", position.to_string()));
        let after = self.after.map(|position| ("after", position.to_string()));
        let linearizable = (self.linearizable).then(|| ("linearizable", "true".to_owned()));
        at.into_iter().chain(after).chain(linearizable).collect()
    }
}

/// Prints the value of the key as it is; with `--json` the version and the position too.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let key = argument(&args.key);
    let (path, mut query) = key_path(&args.table, key);
    query.extend(args.moment.query());
    let answer = client.call(Method::GET, &path, &query, None)?;
    let position = number(&answer, "onelog-position");
    let mut out = Out::new();
    if answer.status == 404 && position.is_some() {
        if context.json {
            out.json(&json!({
                "table": args.table, "key": bytes_json(key), "found": false, "position": position,
            }))?;
            out.flush()?;
            return Err(CommandError::Reported);
        }
        return Err(client.refusal(&answer).into());
    }
    if answer.status != 200 {
        return Err(client.refusal(&answer).into());
    }
    if context.json {
        out.json(&Found {
            table: &args.table,
            key: bytes_json(key),
            found: true,
            value: value(&answer),
            version: number(&answer, "onelog-version"),
            position,
        })?;
    } else {
        out.bytes(&answer.body)?;
        if is_json(&answer) {
            out.line("")?;
        }
    }
    Ok(out.flush()?)
}

/// A value that was read, as JSON.
#[derive(Serialize)]
struct Found<'a> {
    table: &'a str,
    key: Value,
    found: bool,
    value: Box<RawValue>,
    version: Option<u64>,
    position: Option<u64>,
}

/// The value as it was written, or bytes in the form that JSON has for them.
fn value(answer: &Answer) -> Box<RawValue> {
    let json = match is_json(answer) {
        true => serde_json::from_slice(&answer.body).ok(),
        false => None,
    };
    json.or_else(|| RawValue::from_string(bytes_json(&answer.body).to_string()).ok())
        .unwrap_or_else(|| RawValue::NULL.to_owned())
}

fn number(answer: &Answer, header: &str) -> Option<u64> {
    answer.headers.get(header)?.to_str().ok()?.parse().ok()
}

fn is_json(answer: &Answer) -> bool {
    let kind = answer.headers.get("content-type");
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}
