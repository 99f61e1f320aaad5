//! Folders that survive a loss of power: a folder is there when the folder that holds it was flushed,
//! and so for each one up to the root of its file system.
//!
//! Which of them a process has made that was killed before it flushed cannot be known, so all of them
//! are flushed each time.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Makes a folder where it is absent, with those that lead to it, and makes all of that durable.
///
/// # Errors
/// When a folder cannot be made, or one that holds what was made cannot be flushed.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    make(&RealFolders, folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the disk fails. What the names lead to may be lost then, so callers MUST NOT go on.
pub fn flush_folder(folder: &Path) -> io::Result<()> {
    RealFolders.flush(folder)
}

/// What is asked of the system; a test loses power between any two calls.
trait Folders {
    fn is_there(&self, folder: &Path) -> bool;
    /// Makes one folder in one that is there; another process may have done so.
    fn make(&self, folder: &Path) -> io::Result<()>;
    fn flush(&self, folder: &Path) -> io::Result<()>;
    /// Those that hold it, up to the root of its file system, the nearest first.
    fn holders(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
}

fn make(system: &impl Folders, folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|folder| !system.is_there(folder))
        .collect();
    for folder in missing.iter().rev() {
        system.make(folder)?;
    }
    let must_be_flushed = missing.len().max(1);
    for (place, holder) in system.holders(&folder)?.iter().enumerate() {
        match system.flush(holder) {
            // It has held the next one for long, and this process may not even read it.
            Err(error) if place >= must_be_flushed && is_refusal(&error) => break,
            flushed => flushed?,
        }
    }
    Ok(())
}

fn is_refusal(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::PermissionDenied,
        ErrorKind::InvalidInput,
        ErrorKind::Unsupported,
        ErrorKind::ReadOnlyFilesystem,
    ];
    kinds.contains(&error.kind())
}

struct RealFolders;

impl Folders for RealFolders {
    fn is_there(&self, folder: &Path) -> bool {
        folder.exists()
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            made => {
                tracing::trace!(folder = %folder.display(), "made a folder");
                made
            }
        }
    }

    fn flush(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()?;
        tracing::trace!(folder = %folder.display(), "flushed a folder");
        Ok(())
    }

    fn holders(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        // A link on the way is made by no one here; what it leads to holds the folder.
        let folder = folder.canonicalize()?;
        let device = folder.metadata()?.dev();
        let is_same = |holder: &&Path| holder.metadata().is_ok_and(|found| found.dev() == device);
        let holders = folder.ancestors().skip(1);
        Ok(holders.take_while(is_same).map(Path::to_path_buf).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    use super::*;

    /// A file system that forgets each name whose folder was not flushed when the power fails.
    #[derive(Default)]
    struct Forgetful {
        there: RefCell<BTreeSet<PathBuf>>,
        durable: RefCell<BTreeSet<PathBuf>>,
        calls_left: Cell<usize>,
        unreadable: Option<PathBuf>,
    }

    impl Forgetful {
        fn new(there: &[&str], calls: usize) -> Self {
            let there: BTreeSet<PathBuf> = there.iter().map(PathBuf::from).collect();
            Self {
                durable: RefCell::new(there.clone()),
                there: RefCell::new(there),
                calls_left: Cell::new(calls),
                unreadable: None,
            }
        }

        fn call(&self) -> io::Result<()> {
            let left = self.calls_left.get().checked_sub(1);
            self.calls_left.set(left.unwrap_or_default());
            left.map(drop).ok_or_else(|| io::Error::other("killed"))
        }

        fn lose_power(&self) {
            self.there.replace(self.durable.borrow().clone());
        }

        fn holds(&self, folder: &str) -> bool {
            let mut path = Path::new(folder).ancestors();
            path.all(|folder| self.there.borrow().contains(folder))
        }
    }

    impl Folders for Forgetful {
        fn is_there(&self, folder: &Path) -> bool {
            self.there.borrow().contains(folder)
        }

        fn make(&self, folder: &Path) -> io::Result<()> {
            self.call()?;
            self.there.borrow_mut().insert(folder.to_owned());
            Ok(())
        }

        fn flush(&self, folder: &Path) -> io::Result<()> {
            self.call()?;
            if self.unreadable.as_deref() == Some(folder) {
                return Err(ErrorKind::PermissionDenied.into());
            }
            let there = self.there.borrow();
            let inside = there.iter().filter(|name| name.parent() == Some(folder));
            self.durable.borrow_mut().extend(inside.cloned());
            Ok(())
        }

        fn holders(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            let holders = folder.ancestors().skip(1);
            Ok(holders.map(Path::to_path_buf).collect())
        }
    }

    const FOLDER: &str = "/srv/shop/data/log";

    #[test]
    fn a_folder_that_was_made_is_there_after_a_power_loss_with_all_that_lead_to_it() {
        let system = Forgetful::new(&["/", "/srv"], usize::MAX);
        make(&system, Path::new(FOLDER)).unwrap();
        system.lose_power();
        assert!(system.holds(FOLDER));
    }

    #[test]
    fn folders_of_a_process_that_was_killed_before_it_flushed_are_made_durable_by_the_next() {
        for calls in 0..7 {
            let system = Forgetful::new(&["/", "/srv"], calls);
            make(&system, Path::new(FOLDER)).unwrap_err();
            system.calls_left.set(usize::MAX);
            make(&system, Path::new(FOLDER)).unwrap();
            system.lose_power();
            assert!(system.holds(FOLDER), "killed after {calls} calls");
        }
    }

    #[test]
    fn a_folder_above_that_may_not_be_read_matters_only_where_something_was_made_in_it() {
        let there = ["/", "/srv", "/srv/shop", "/srv/shop/data", FOLDER];
        let mut system = Forgetful::new(&there, usize::MAX);
        system.unreadable = Some("/srv".into());
        make(&system, Path::new(FOLDER)).unwrap();
        let mut system = Forgetful::new(&there[..2], usize::MAX);
        system.unreadable = Some("/srv".into());
        make(&system, Path::new(FOLDER)).unwrap_err();
    }
}
