//! Copies of a node's folder. The log is copied into a folder of another name, which is renamed when
//! everything is on disk: a copy that was interrupted has no folder `log`, and is never taken for a
//! shorter one.

use std::fs;
use std::io;
use std::path::Path;

use onelog_log::flush_folder;

/// The folder of a copy's log until [`finish_copy`].
pub const UNFINISHED_LOG: &str = "log-unfinished";

/// What is there is whole as far as it goes, so nothing else would show that more is missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is a copy that was interrupted, so records are missing; remove it and make the backup, or restore it, again"
)]
pub struct UnfinishedCopy(String);

/// Gives the log of a copy its name. All files of the copy MUST be flushed before.
pub fn finish_copy(folder: &Path) -> io::Result<()> {
    flush_folder(folder)?;
    fs::rename(folder.join(UNFINISHED_LOG), folder.join("log"))?;
    flush_folder(folder)
}

/// Fails where the folder is a copy that was interrupted.
pub fn check_finished(folder: &Path) -> Result<(), UnfinishedCopy> {
    match folder.join(UNFINISHED_LOG).exists() {
        true => Err(UnfinishedCopy(folder.display().to_string())),
        false => Ok(()),
    }
}
