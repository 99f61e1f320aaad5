//! The folder of this test process, and the guardian that outlives it.
//!
//! Layout: `TMP/onelog-testkit-…/NUMBER-KIND/{data,log}`. The guardian is a shell that reads from
//! a pipe which only this process holds open. When the process ends, in whichever way, it kills
//! what still runs in the folder (a paused process does not see its parent's death) and removes
//! the folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const GUARDIAN: &str = include_str!("guardian.sh");

struct Run {
    folder: PathBuf,
    /// Holds the write end of the guardian's pipe.
    _guardian: Child,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("onelog-testkit-")
            .tempdir()
            .expect("a folder for temporary files can be made")
            .keep()
            .canonicalize()
            .expect("a folder that was just made has a path");
        // Servers that run as another user pass through it.
        make_passable(&folder);
        let guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the guardian can be started");
        Run {
            folder,
            _guardian: guardian,
        }
    })
}

/// Makes a new folder that is removed with this process at the latest.
pub(crate) fn new_folder(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = run().folder.join(format!("{number}-{name}"));
    fs::create_dir(&folder).expect("a folder can be made in the run's folder");
    make_passable(&folder);
    folder
}

pub(crate) fn remove(folder: &Path) {
    // A folder that is left behind is the guardian's.
    let _ = fs::remove_dir_all(folder);
}

/// Copies a folder with its owners and times to a path where nothing is.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-a", "--reflink=auto", "-T", "--"])
        .args([from, to])
        .status()
        .expect("cp can be run");
    assert!(
        status.success(),
        "copying {} to {} failed: {status}",
        from.display(),
        to.display()
    );
}

fn make_passable(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .expect("the mode of an own folder can be changed");
}
