//! The text files of the repository, as git sees them: tracked, or new and not ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// A text file and its path from the root of the repository, with `/` between folders.
#[derive(Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Whether comments of the file begin with `#`.
    pub fn has_hash_comments(&self) -> bool {
        self.path.ends_with(".toml") || self.text.starts_with("#!")
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// Files that are not UTF-8 are left out: no rule is about them.
pub fn all(root: &Path) -> Result<Vec<File>, Error> {
    let listed = run(
        Command::new("git").current_dir(root).args([
            // A clone can belong to another user than the one who checks it.
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]),
        "git ls-files",
    )?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let full = root.join(path);
        // Deleted, and not yet so in git's index.
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).map_err(|source| Error::Io {
            context: path.to_owned(),
            source,
        })?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    Ok(files)
}

/// Cargo, in the root of the repository.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// What a command prints. Where its errors are not shown already, they are in the error.
pub fn run(command: &mut Command, name: &str) -> Result<String, Error> {
    let output = command.output().map_err(|source| Error::Io {
        context: name.to_owned(),
        source,
    })?;
    if !output.status.success() {
        let message = match String::from_utf8_lossy(&output.stderr).trim() {
            "" => output.status.to_string(),
            errors => errors.to_owned(),
        };
        return Err(Error::Command {
            command: name.to_owned(),
            message,
        });
    }
    String::from_utf8(output.stdout).map_err(|error| Error::Command {
        command: name.to_owned(),
        message: error.to_string(),
    })
}
