//! `onelog check DIR`: is everything in a folder as it was written?
//!
//! The log is read frame by frame; then what the log says is compared with every row and every
//! remembered id of the state, up to the state's last checkpoint. What lies behind it is replayed
//! when the server starts, from the frames that were just checked.

mod compare;
mod expected;
mod report;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog::{FolderError, ForeignFiles};
use onelog_command::{CommandError, Context, NoServer};
use onelog_log::{Disk, RealDisk};
use onelog_state::{OpenError, STATE_FILE, State, StateOptions};
use onelog_terminal::Out;

pub use report::Report;
use report::{Fault, Place};

/// The state's page cache during the check.
const CACHE_BYTES: usize = 64 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    _no_server: NoServer,
    /// The folder of a server that is not running, or of a backup
    dir: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let report = check(&args.dir)?;
    let mut out = Out::new();
    report.print(context.json, &mut out)?;
    out.flush()?;
    match report.faults_total {
        0 => Ok(()),
        _ => Err(CommandError::Reported),
    }
}

/// Checks a folder. The folder is locked meanwhile, so no server can run on it.
pub fn check(folder: &Path) -> Result<Report, CommandError> {
    let log_folder = folder.join("log");
    let state_folder = folder.join("state");
    refuse_unfinished(folder)?;
    refuse_foreign(folder)?;
    if !log_folder.is_dir() {
        return Err(CommandError::Failed(format!(
            "{} is not the folder of a server: there is no folder 'log' in it",
            folder.display()
        )));
    }
    let log = open(&log_folder)?;
    let mut report = Report::new(folder);
    let found = onelog_log::check(&log, &mut |_| ControlFlow::Continue(()))
        .map_err(|error| CommandError::Failed(error.to_string()))?;
    report.add_log(&found);
    if report.faults_total > 0 {
        report.note("the state was not compared: the log must be mended first (from a backup)");
        return Ok(report);
    }
    if !state_folder.join(STATE_FILE).is_file() {
        match found.start.get() {
            0 => report.note("there is no state file; the server will rebuild it from the log"),
            _ => report.fault(Fault {
                place: Place::File("state".to_owned()),
                what: format!(
                    "there is no state file, and the log begins at position {} and cannot rebuild it",
                    found.start
                ),
            }),
        }
        return Ok(report);
    }
    let disk = Arc::new(open(&state_folder)?);
    let options = StateOptions {
        cache_bytes: CACHE_BYTES,
        check_integrity: true,
        ..StateOptions::default()
    };
    match State::open(disk, options) {
        Ok((state, opened)) => {
            report.add_state(&opened.applied);
            compare::compare(&log, &found, &state, &opened, &mut report)?;
        }
        Err(OpenError::Newer(newer)) => return Err(CommandError::Failed(newer.to_string())),
        Err(error) => report.fault(Fault {
            place: Place::File(format!("state/{STATE_FILE}")),
            what: error.to_string(),
        }),
    }
    Ok(report)
}

pub fn refuse_unfinished(folder: &Path) -> Result<(), CommandError> {
    onelog::check_finished(folder).map_err(|error| CommandError::Failed(error.to_string()))
}

/// A folder named `log` may be of any program.
pub fn refuse_foreign(folder: &Path) -> Result<(), CommandError> {
    onelog::check_folder(folder).map_err(|error| {
        CommandError::Failed(match error {
            FolderError::Foreign(ForeignFiles { folder, entries }) => {
                format!("{folder} is not the folder of a server: it holds {entries}")
            }
            error => error.to_string(),
        })
    })
}

fn open(folder: &Path) -> Result<RealDisk, CommandError> {
    RealDisk::open(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => CommandError::Failed(error.to_string()),
        _ => CommandError::Failed(format!("cannot open {}: {error}", folder.display())),
    })
}

/// Runs through the log's entries. The log was checked before: what fails now is the disk.
fn entries(
    log: &dyn Disk,
    mut visit: impl FnMut(&onelog_record::Entry) -> Result<ControlFlow<()>, CommandError>,
) -> Result<(), CommandError> {
    let mut failure = None;
    let again = onelog_log::check(log, &mut |entry| {
        visit(entry).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    });
    again.map_err(|error| CommandError::Failed(error.to_string()))?;
    failure.map_or(Ok(()), Err)
}
