//! `onelog import TABLE FILE|- --key FIELD`: records of a file into a table, resumable. The file is
//! NDJSON, JSON or CSV, plain or packed; no more than the batches under way are in memory.
//!
//! Each batch of lines is one transaction whose id is derived from its content and place, so that
//! a batch which is sent again (after a lost connection, or by the next run) is answered from the
//! first time. `FILE.onelog-import` keeps what is done until the import is finished; the next run
//! goes on there. Standard input and pipes are
//! read once and have no place to go on from.
//!
//! Several batches are in flight at once. One that writes a key of a batch in flight waits for it,
//! so the last line of a key wins, as it would one by one. A stream table, and one with unique
//! fields, gets one batch at a time.
//!
//! With `--from-store` the records are the rows of a table in a store, see `stored`.
//!
//! Threads: this one reads and decides; one per connection sends; with `--from-store` one reads.

mod bar;
mod batch;
mod documents;
mod format;
mod job;
mod keys;
mod lines;
mod quotes;
mod record;
mod rows;
mod run;
mod sender;
mod source;
mod stored;
mod unpack;

use std::path::PathBuf;
use std::time::Duration;

use onelog_command::units::parse_size;
use onelog_command::{CommandError, Context, timeout};
use onelog_record::{FieldPath, RECORDS_MAX, TRANSACTION_BYTES_MAX};
use onelog_store::Kinds;

use format::Format;

const CONNECTIONS_MAX: u64 = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// The file: NDJSON, a JSON array or CSV, also packed with gzip or zstd; - is standard input,
    /// which like a pipe is read once: an import of it is not gone on with, it is begun anew.
    /// With --from-store the definition of the sink that is to follow the table
    file: PathBuf,
    /// The field that is the key: a name, or a path like /customer/id
    #[arg(
        long,
        value_name = "FIELD",
        value_parser = FieldPath::parse,
        required_unless_present = "from_store"
    )]
    key: Option<FieldPath>,
    /// Read the rows that are in a store: the table that FILE, the definition of a sink, fills from
    /// TABLE, in one snapshot
    #[arg(long, conflicts_with_all = ["key", "format", "delimiter", "numbers"])]
    from_store: bool,
    /// Which sink of FILE, where it has several
    #[arg(long, value_name = "SINK", requires = "from_store")]
    name: Option<String>,
    /// Which table of the store, where the sink fills several from TABLE
    #[arg(long, value_name = "TABLE", requires = "from_store")]
    into: Option<String>,
    /// How records are written; found by the name and the content of the file unless given
    #[arg(long)]
    format: Option<Format>,
    /// What separates the columns of CSV
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<char>,
    /// The columns of CSV whose values are numbers; all others are texts
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    numbers: Vec<String>,
    /// Make the table (keyed, JSON) if it does not exist
    #[arg(long)]
    create: bool,
    /// Count lines that cannot be imported instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// Write everything again, also what an earlier import of the same file has committed; from a
    /// store: also into a table that has keys already
    #[arg(long)]
    again: bool,
    /// The most records of one transaction
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = records)]
    batch_records: usize,
    /// The most bytes of one transaction
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = bytes)]
    batch_bytes: usize,
    /// How many transactions are under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// How long to go on trying when the server is away or overloaded
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = timeout)]
    retry_for: Duration,
}

fn delimiter(text: &str) -> Result<char, String> {
    let text = if text == "\\t" { "\t" } else { text };
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) if one.is_ascii() && !matches!(one, '"' | '\r' | '\n') => Ok(one),
        _ => Err("expected one ASCII character, such as ; or \\t".to_owned()),
    }
}

fn records(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=RECORDS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("expected a whole number from 1 to {RECORDS_MAX}")),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    // Half the limit of a transaction: keys and values are not all that is counted.
    let max = TRANSACTION_BYTES_MAX / 2;
    match usize::try_from(parse_size(text)?) {
        Ok(bytes) if (1..=max).contains(&bytes) => Ok(bytes),
        _ => Err(format!("expected a size from 1 B to {} MiB", max >> 20)),
    }
}

impl Args {
    /// Where a record's key is; of rows of a store it is known.
    fn key(&self) -> FieldPath {
        self.key.clone().unwrap_or_else(FieldPath::whole)
    }
}

/// Imports everything and prints what was done. `kinds` are the stores that can be read.
///
/// # Errors
/// When something could not be imported. Run again, the import goes on behind what is done.
pub fn run(args: &Args, context: &Context, kinds: Kinds) -> Result<(), CommandError> {
    let (import, pieces) = run::Import::open(args, context, kinds)?;
    import.run(pieces)
}
