//! `onelog commit FILE|-`.

use std::path::PathBuf;

use onelog_record::HTTP_BODY_BYTES_MAX;

use crate::context::Context;
use crate::error::CommandError;
use crate::input::read_whole;
use crate::output::Out;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with the transaction as JSON, as POST /v1/transactions takes it; - is standard input
    file: PathBuf,
}

/// Sends the file as it is and prints the answer. A refusal's whole JSON is printed with `--json`.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let body = read_whole(&args.file, HTTP_BODY_BYTES_MAX as u64)?;
    let mut out = Out::new();
    match context.client()?.post_bytes("/v1/transactions", body) {
        Ok(answer) => out.json(&answer)?,
        Err(error) => match error.server() {
            Some(refusal) if context.json => {
                out.json(&refusal.body)?;
                out.flush()?;
                return Err(CommandError::Reported);
            }
            _ => return Err(error.into()),
        },
    }
    Ok(out.flush()?)
}
