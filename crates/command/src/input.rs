//! Reading a file that is named on the command line; `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::CommandError;

/// Whether `path` means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a whole file of at most `max` bytes.
pub fn read_whole(path: &Path, max: u64) -> Result<Vec<u8>, CommandError> {
    let fail = |source| CommandError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = match is_stdin(path) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(fail)?),
    };
    reader.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > max {
        return Err(CommandError::Usage(format!(
            "{} is larger than {max} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}
