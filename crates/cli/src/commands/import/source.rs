//! What is imported: a file, from where the last run stopped, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use onelog_client::Client;

use super::Args;
use super::batch::BatchBounds;
use super::record::{self, Progress};
use crate::error::CommandError;
use crate::input::is_stdin;

const READ_BYTES: usize = 256 << 10;

/// An opened source, and what is known of earlier runs.
pub struct Source {
    pub reader: BufReader<Box<dyn Read>>,
    /// The size of the whole file.
    pub size: Option<u64>,
    /// Where the record of progress is kept; not for standard input.
    pub record: Option<PathBuf>,
    pub progress: Progress,
    /// Whether an earlier run is continued.
    pub resumed: bool,
}

/// Opens the source. `position` is the log's end now.
pub fn open(args: &Args, client: &Client, position: u64) -> Result<Source, CommandError> {
    let mut progress = Progress {
        identity: String::new(),
        url: client.base().to_owned(),
        table: args.table.clone(),
        key: args.key.as_str().to_owned(),
        batch_records: args.batch_records,
        batch_bytes: args.batch_bytes,
        done_bytes: 0,
        done_lines: 0,
        records: 0,
        bad_lines: 0,
        reserved_bytes: 0,
        position,
    };
    if is_stdin(&args.file) {
        progress.identity = uuid::Uuid::now_v7().to_string();
        return Ok(Source {
            reader: BufReader::with_capacity(READ_BYTES, Box::new(io::stdin())),
            size: None,
            record: None,
            progress,
            resumed: false,
        });
    }
    let read_error = |source| CommandError::Read {
        path: args.file.clone(),
        source,
    };
    let mut file = File::open(&args.file).map_err(read_error)?;
    progress.identity = record::identity(&mut file).map_err(read_error)?;
    let path = record::path_of(&args.file);
    let earlier = load(&path)?;
    let mut resumed = false;
    if args.again {
        progress
            .identity
            .push_str(&format!(" again {}", uuid::Uuid::now_v7()));
    } else if let Some(earlier) = earlier {
        check_same(&earlier, &progress, &path)?;
        progress = earlier;
        resumed = true;
    }
    file.seek(SeekFrom::Start(progress.done_bytes))
        .map_err(read_error)?;
    let size = file.metadata().map_err(read_error)?.len();
    Ok(Source {
        reader: BufReader::with_capacity(READ_BYTES, Box::new(file)),
        size: Some(size),
        record: Some(path),
        progress,
        resumed,
    })
}

fn load(path: &Path) -> Result<Option<Progress>, CommandError> {
    record::load(path).map_err(|error| {
        CommandError::Failed(format!(
            "cannot read the record of the unfinished import {}: {error}; --again starts from the beginning",
            path.display()
        ))
    })
}

/// An unfinished import is only continued as what it was.
fn check_same(earlier: &Progress, now: &Progress, path: &Path) -> Result<(), CommandError> {
    let base = earlier.identity.split(' ').next().unwrap_or_default();
    let what = if base != now.identity {
        "the file has changed since".to_owned()
    } else if earlier.table != now.table {
        format!("it was into table '{}'", earlier.table)
    } else if earlier.url != now.url {
        format!("it was into the server {}", earlier.url)
    } else if earlier.key != now.key {
        format!("its key was the field '{}'", earlier.key)
    } else {
        return Ok(());
    };
    Err(CommandError::Failed(format!(
        "an earlier import of this file is unfinished, and {what} (recorded in {}); finish that one, or start from the beginning with --again",
        path.display()
    )))
}

impl Source {
    /// The bounds by which batches are cut: those of the run that is continued.
    pub const fn bounds(&self) -> BatchBounds {
        BatchBounds {
            records_max: self.progress.batch_records,
            bytes_max: self.progress.batch_bytes,
        }
    }
}
