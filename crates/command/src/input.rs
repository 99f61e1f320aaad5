//! Reading a file that is named on the command line; `-` is standard input, as are its names among
//! the devices: opening one of these again would begin a file anew, and cannot open a socket.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::CommandError;

const STDIN_NAMES: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Whether `path` means standard input.
pub fn is_stdin(path: &Path) -> bool {
    STDIN_NAMES.iter().any(|name| path.as_os_str() == *name)
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
