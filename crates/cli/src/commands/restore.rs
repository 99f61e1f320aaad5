//! `onelog restore FROM INTO`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use onelog::{NodeId, Survivor, UNFINISHED_LOG, check_apart, finish_copy, restore_alone};
use onelog_command::{CommandError, Context, NoServer};
use onelog_log::{FolderLock, LOCK_FILE, flush_folder, make_folder};
use onelog_terminal::{Out, thousands};

use super::check::{check, refuse_foreign, refuse_unfinished};

/// The folders of a server's data, and their names until the copy is complete.
const FOLDERS: [(&str, &str); 2] = [("log", UNFINISHED_LOG), ("state", "state")];

/// Where the folder of a member is copied, which its successor is made of.
const MEMBER: &str = "member-unfinished";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    _no_server: NoServer,
    /// Of a cluster's node whose majority is lost for good: make a log of one node of all that its
    /// folder has, also of what the node did not know to be committed
    #[arg(long)]
    alone: bool,
    /// The backup, or the folder of a stopped server
    from: PathBuf,
    /// An empty or new folder
    into: PathBuf,
}

/// Copies, then checks the copy: what will be served is what was checked, and the backup may lie
/// where nothing can be written. A copy that is wrong is taken away again.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    refuse_unfinished(&args.from)?;
    refuse_foreign(&args.from)?;
    if !args.from.join("log").is_dir() {
        return Err(CommandError::Failed(format!(
            "{} is not a backup: there is no folder 'log' in it",
            args.from.display()
        )));
    }
    check_apart(&args.from, &args.into).map_err(|error| CommandError::Failed(error.to_string()))?;
    let copied = while_stopped(&args.from, || {
        refuse_full(&args.into)?;
        Ok(match args.alone {
            true => copy_alone(&args.from, &args.into).map(Some),
            false => copy_all(&args.from, &args.into).map(|()| None),
        })
    })?;
    let checked = copied.and_then(|survivor| Ok((survivor, check(&args.into)?)));
    let (survivor, report) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            remove(&args.into);
            return Err(error);
        }
    };
    let mut out = Out::new();
    if report.faults_total > 0 {
        report.print(context.json, &mut out)?;
        out.flush()?;
        remove(&args.into);
        return Err(CommandError::Failed(format!(
            "{} cannot be restored: what it holds is not what was written",
            args.from.display()
        )));
    }
    if context.json {
        let mut json = report.json();
        if let Some(survivor) = survivor {
            json["node"] = survivor.node.map(NodeId::get).into();
            json["committed"] = survivor.committed.get().into();
            json["beyond"] = survivor.beyond.into();
        }
        out.json(&json)?;
        return Ok(out.flush()?);
    }
    out.line(&format!(
        "restored into {}, checked, everything below position {}",
        args.into.display(),
        thousands(report.end())
    ))?;
    if let Some(survivor) = survivor {
        out.line(&of_survivor(&survivor))?;
    }
    Ok(out.flush()?)
}

fn of_survivor(survivor: &Survivor) -> String {
    let Survivor { node, beyond, .. } = survivor;
    let entries = match beyond {
        1 => "1 entry".to_owned(),
        beyond => format!("{} entries", thousands(*beyond)),
    };
    let node = node.map_or("the read replica".to_owned(), |node| format!("node {node}"));
    let behind = match beyond {
        0 => format!("{node} knew all of it to be committed"),
        _ => format!(
            "{node} did not know whether what is from position {} on, {entries}, was committed: it is in, acknowledged or not",
            thousands(survivor.committed.get())
        ),
    };
    format!("it is a log of its own, of node 1 alone; {behind}")
}

/// The files of a running server change while they are copied: none may run, and none starts
/// meanwhile.
fn while_stopped<T>(
    from: &Path,
    copy: impl FnOnce() -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let _held = FolderLock::for_reading(&from.join("log")).map_err(|_| {
        CommandError::Failed(format!(
            "a server is running on {}; `onelog backup` makes a consistent copy of it",
            from.display()
        ))
    })?;
    copy()
}

fn refuse_full(into: &Path) -> Result<(), CommandError> {
    let held = onelog::entries(into).map_err(|source| CommandError::Read {
        path: into.to_owned(),
        source,
    })?;
    match held.first() {
        None => Ok(()),
        Some(first) => Err(CommandError::Failed(format!(
            "{} is not empty, it holds {first}; choose a new folder",
            into.display()
        ))),
    }
}

fn copy_all(from: &Path, into: &Path) -> Result<(), CommandError> {
    copy_folders(from, into, FOLDERS)?;
    finish_copy(into).map_err(|source| write_failed(into, source))
}

/// Makes the log of a copy: opening a log may cut its torn end, and `from` stays as it is.
fn copy_alone(from: &Path, into: &Path) -> Result<Survivor, CommandError> {
    let member = into.join(MEMBER);
    copy_folders(from, &member, FOLDERS.map(|(name, _)| (name, name)))?;
    let survivor = restore_alone(&member, into).map_err(|error| {
        CommandError::Failed(format!("{} cannot be restored: {error}", from.display()))
    })?;
    let finished = fs::remove_dir_all(&member).and_then(|()| finish_copy(into));
    finished.map_err(|source| write_failed(into, source))?;
    Ok(survivor)
}

/// Copies the folders of a server's data that are there, each under its other name.
fn copy_folders(from: &Path, into: &Path, names: [(&str, &str); 2]) -> Result<(), CommandError> {
    for (name, target) in names {
        let source = from.join(name);
        if source.is_dir() {
            copy_folder(&source, &into.join(target))?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, into: &Path) -> Result<(), CommandError> {
    let read = |source| CommandError::Read {
        path: from.to_owned(),
        source,
    };
    make_folder(into).map_err(|source| write_failed(into, source))?;
    for entry in fs::read_dir(from).map_err(read)? {
        let entry = entry.map_err(read)?;
        let is_file = entry.file_type().map_err(read)?.is_file();
        if !is_file || entry.file_name() == LOCK_FILE {
            continue;
        }
        let target = into.join(entry.file_name());
        copy_file(&entry.path(), &target).map_err(|source| write_failed(&target, source))?;
    }
    flush_folder(into).map_err(|source| write_failed(into, source))
}

fn write_failed(path: &Path, source: io::Error) -> CommandError {
    CommandError::Write {
        path: path.to_owned(),
        source,
    }
}

fn copy_file(from: &Path, into: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(into)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// Takes an unfinished copy away: only the folders that were copied.
fn remove(into: &Path) {
    for (name, unfinished) in FOLDERS {
        let _ = fs::remove_dir_all(into.join(unfinished));
        let _ = fs::remove_dir_all(into.join(name));
    }
    let _ = fs::remove_dir_all(into.join(MEMBER));
    let _ = fs::remove_dir(into);
}

#[cfg(test)]
mod tests {
    use onelog::{Node, Options};
    use onelog_testkit::trace_folders;

    use super::*;

    #[test]
    fn no_server_starts_on_a_folder_while_it_is_copied() {
        // Given the folder of a stopped server, whose lock may have been left out of a copy of it,
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("data");
        Node::open(Options::new(&from)).unwrap().stop().unwrap();
        for is_locked_before in [true, false] {
            if !is_locked_before {
                fs::remove_file(from.join("log").join(LOCK_FILE)).unwrap();
            }
            // when a server starts during the copy, or another copy is made,
            let opened = while_stopped(&from, || Ok(Node::open(Options::new(&from))));
            let twice = while_stopped(&from, || while_stopped(&from, || Ok(())));
            // then the server is refused, and starts when the copy is done.
            let refused = opened.unwrap().unwrap_err().to_string();
            assert!(refused.contains("in use by another process"), "{refused}");
            twice.unwrap();
            let node = Node::open(Options::new(&from)).unwrap();
            assert!(while_stopped(&from, || Ok(())).is_err());
            node.stop().unwrap();
        }
    }

    #[test]
    fn what_was_restored_is_there_after_a_power_loss_with_all_folders_that_lead_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("data");
        Node::open(Options::new(&from)).unwrap().stop().unwrap();
        let into = folder.path().join("new/deep/restored");

        let (copied, trace) = trace_folders(|| copy_all(&from, &into));

        copied.unwrap();
        assert!(trace.made.contains(&folder.path().join("new")), "{trace:?}");
        assert!(trace.at_risk.is_empty(), "{trace:?}");
    }
}
