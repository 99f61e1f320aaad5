//! What may be in the folder of a node. A new log is never made among files of others: they would
//! be copied with it, removed with it, and one day taken for its own.
//!
//! A folder that holds a log already is opened whatever else came into it: a file that was put there
//! must not keep a server from starting. It is said once, and left alone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::copy::UNFINISHED_LOG;

/// What file systems and systems put into a folder by themselves.
const OF_THE_SYSTEM: [&str; 12] = [
    "lost+found",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".DS_Store",
    ".fseventsd",
    ".Spotlight-V100",
    ".Trashes",
    "System Volume Information",
    "$RECYCLE.BIN",
    "aquota.user",
    "aquota.group",
];
/// How names begin that systems put into a folder by themselves.
const OF_THE_SYSTEM_BEGIN: [&str; 3] = [".nfs", ".fuse_hidden", ".Trash-"];
/// How many names an error shows.
const SHOWN_MAX: usize = 8;

/// A new log would be made among files of others.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folder {folder} holds no log of onelog, but other files: {entries}; nothing was changed; choose an empty or new folder, or move them away"
)]
pub struct ForeignFiles {
    pub folder: String,
    /// The first of them, for people.
    pub entries: String,
}

/// Why a folder cannot be a node's.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(transparent)]
    Foreign(#[from] ForeignFiles),
    #[error("cannot use the folder {folder}: {cause}")]
    Io { folder: String, cause: io::Error },
}

/// Refuses a folder in which a new log would lie among files of others. Changes nothing.
///
/// # Errors
/// When it does, or the folder cannot be read.
pub fn check_folder(folder: &Path) -> Result<(), FolderError> {
    let entries = foreign(folder).map_err(|cause| FolderError::Io {
        folder: folder.display().to_string(),
        cause,
    })?;
    if entries.is_empty() {
        return Ok(());
    }
    let entries = shown(&entries);
    let folder = folder.display().to_string();
    if holds_log(Path::new(&folder)) {
        tracing::warn!(folder, entries, "the data folder holds other files as well");
        return Ok(());
    }
    Err(ForeignFiles { folder, entries }.into())
}

/// A copy would be written into what is copied, or around it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folder {into} is {how} {from}, which is to be copied: a copy may not be in its source, nor around it; nothing was changed; choose a folder elsewhere"
)]
pub struct NotApart {
    from: String,
    into: String,
    how: &'static str,
}

/// Why a folder cannot get a copy of another one.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    #[error(transparent)]
    NotApart(#[from] NotApart),
    #[error("cannot use the folder {folder}: {cause}")]
    Io { folder: String, cause: io::Error },
}

/// Refuses a target that is the source of a copy, in it, or around it, whatever names lead to the two
/// and wherever the folders of the source are linked to. Changes nothing; the target need not exist.
///
/// # Errors
/// When it is, or a folder cannot be looked at.
pub fn check_apart(from: &Path, into: &Path) -> Result<(), ApartError> {
    let io = |folder: &Path, cause| ApartError::Io {
        folder: folder.display().to_string(),
        cause,
    };
    let target = real_path(into).map_err(|cause| io(into, cause))?;
    for source in [from.to_owned(), from.join("log"), from.join("state")] {
        if !source.exists() {
            continue;
        }
        let source = real_path(&source).map_err(|cause| io(&source, cause))?;
        let how = match (is_in(&target, &source), is_in(&source, &target)) {
            (false, false) => continue,
            (true, true) => "the folder",
            (true, false) => "inside of",
            (false, true) => "around",
        };
        let (from, into) = (source.display().to_string(), target.display().to_string());
        return Err(NotApart { from, into, how }.into());
    }
    Ok(())
}

/// Compares what the paths lead to, so that a folder that is mounted twice is one.
fn is_in(path: &Path, folder: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|held| (held.dev(), held.ino()));
    let Ok(of_folder) = id(folder) else {
        return false;
    };
    path.ancestors()
        .any(|above| id(above).is_ok_and(|id| id == of_folder))
}

/// The path without links and `..`, also where its end does not exist yet.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            other => real.push(other),
        }
        match real.canonicalize() {
            Ok(found) => real = found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(real)
}

/// What a folder holds that no system puts there: nothing, where there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let items = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?,
    };
    let mut names = Vec::new();
    for item in items {
        let name = item?.file_name().to_string_lossy().into_owned();
        if !is_of_the_system(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn holds_log(folder: &Path) -> bool {
    folder
        .join("log")
        .join(onelog_log::HARD_STATE_FILE)
        .is_file()
}

fn foreign(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in entries(folder)? {
        let path = folder.join(&name);
        let is_own: fn(&str) -> bool = match name.as_str() {
            "log" | UNFINISHED_LOG if path.is_dir() => onelog_log::is_log_file,
            "state" if path.is_dir() => onelog_state::is_state_file,
            _ => {
                found.push(name);
                continue;
            }
        };
        let inside = entries(&path)?;
        let others = inside.iter().filter(|file| !is_own(file));
        found.extend(others.map(|file| format!("{name}/{file}")));
    }
    Ok(found)
}

fn is_of_the_system(name: &str) -> bool {
    OF_THE_SYSTEM.contains(&name)
        || OF_THE_SYSTEM_BEGIN
            .iter()
            .any(|begin| name.starts_with(begin))
}

/// The first names of a list, for an error.
pub(crate) fn shown(entries: &[String]) -> String {
    let shown: Vec<&str> = entries.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let more = entries.len() - shown.len();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}
