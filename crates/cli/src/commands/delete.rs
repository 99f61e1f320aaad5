//! `onelog delete TABLE KEY`.

use std::ffi::OsString;

use onelog_command::{CommandError, Context};
use serde_json::json;

use super::put::{Condition, send};
use crate::wire::{argument, bytes_json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// The key that is deleted
    key: OsString,
    #[command(flatten)]
    condition: Condition,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let key = bytes_json(argument(&args.key));
    let write = json!({"op": "delete", "table": args.table, "key": key});
    send(write, None, &args.condition, context)
}
