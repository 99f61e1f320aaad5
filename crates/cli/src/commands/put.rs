//! `onelog put TABLE KEY VALUE`.

use std::ffi::OsString;
use std::path::Path;

use onelog_command::{CommandError, Context, read_whole};
use onelog_record::{TxnId, VALUE_BYTES_MAX};
use onelog_terminal::{Out, thousands};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::wire::{argument, bytes_json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// The key that is written
    key: OsString,
    /// The value as JSON, or - to read it from standard input
    value: OsString,
    /// The value is these bytes, not JSON (for tables of bytes)
    #[arg(long)]
    bytes: bool,
    /// The value is this text, to be stored as a JSON string
    #[arg(long, conflicts_with = "bytes")]
    text: bool,
    #[command(flatten)]
    condition: Condition,
}

/// When a write may take place, and under which id.
#[derive(Clone, Debug, clap::Args)]
pub struct Condition {
    /// Only if the key was last written at this offset
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if the key is not there
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the key is there
    #[arg(long, conflicts_with_all = ["if_version", "if_absent"])]
    if_exists: bool,
    /// The transaction's id: repeating it under the same id never writes twice
    #[arg(long)]
    id: Option<TxnId>,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let from_stdin = args.value == "-";
    let value = match from_stdin {
        true => read_whole(Path::new("-"), VALUE_BYTES_MAX as u64)?,
        false => argument(&args.value).to_vec(),
    };
    let value = if args.bytes {
        raw(&bytes_json(&value))
    } else if args.text {
        let text = String::from_utf8(value).map_err(|_| {
            CommandError::Usage("the value is not UTF-8 text; --bytes writes bytes".to_owned())
        })?;
        raw(&Value::String(text))
    } else {
        // Kept as it was written: numbers and the order of fields stay what they are.
        serde_json::from_slice::<Box<RawValue>>(&value).map_err(|error| {
            CommandError::Usage(format!(
                "the value is not JSON: {error}; a text needs quotes ('\"like this\"') or --text, bytes need --bytes"
            ))
        })
    }?;
    let write = json!({"op": "put", "table": args.table, "key": bytes_json(argument(&args.key))});
    send(write, Some(value), &args.condition, context)
}

fn raw(value: &Value) -> Result<Box<RawValue>, CommandError> {
    RawValue::from_string(value.to_string())
        .map_err(|error| CommandError::Failed(format!("cannot write the value as JSON: {error}")))
}

#[derive(serde::Serialize)]
struct Transaction {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<TxnId>,
    guards: Vec<Value>,
    writes: [Write; 1],
}

#[derive(serde::Serialize)]
struct Write {
    #[serde(flatten)]
    what: serde_json::Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
}

/// Commits one write and prints where it went.
pub fn send(
    write: Value,
    value: Option<Box<RawValue>>,
    condition: &Condition,
    context: &Context,
) -> Result<(), CommandError> {
    let what = match write {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    let mut guard = serde_json::Map::new();
    guard.insert("table".to_owned(), what["table"].clone());
    guard.insert("key".to_owned(), what["key"].clone());
    let demands = [
        ("version", condition.if_version.map(Value::from)),
        ("absent", condition.if_absent.then_some(Value::Bool(true))),
        ("exists", condition.if_exists.then_some(Value::Bool(true))),
    ];
    let mut guards = Vec::new();
    for (name, value) in demands {
        if let Some(value) = value {
            guard.insert(name.to_owned(), value);
            guards.push(Value::Object(guard.clone()));
        }
    }
    let transaction = Transaction {
        id: condition.id,
        guards,
        writes: [Write { what, value }],
    };
    let answer = context.client()?.post("/v1/transactions", &transaction)?;
    let mut out = Out::new();
    if context.json {
        out.json(&answer)?;
    } else {
        let position = answer["position"].as_u64().unwrap_or_default();
        out.line(&format!("committed, position {}", thousands(position)))?;
    }
    Ok(out.flush()?)
}
