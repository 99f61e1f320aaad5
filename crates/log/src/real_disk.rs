//! The disk of the operating system: buffered positional writes and `fdatasync`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::folders::make_folder;

/// A running process holds this file of its folder locked.
pub const LOCK_FILE: &str = "LOCK";
const ZEROS_BYTES: usize = 1 << 20;

/// A folder that is held until this is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    fn alone(folder: &Path) -> io::Result<Self> {
        let file = create(folder)?;
        held(folder, file.try_lock())?;
        Ok(Self { _file: file })
    }

    /// Holds it together with others that only read: no [`RealDisk`] opens it meanwhile. `None` where
    /// nothing can be locked, as on a disk that cannot be written, where no server can run either.
    ///
    /// # Errors
    /// `WouldBlock` with a sentence for people when a [`RealDisk`] holds the folder.
    pub fn for_reading(folder: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(folder.join(LOCK_FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => create(folder),
            opened => opened,
        };
        let Ok(file) = file else {
            return Ok(None);
        };
        match held(folder, file.try_lock_shared()) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn create(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(folder.join(LOCK_FILE))
}

fn held(folder: &Path, locked: Result<(), TryLockError>) -> io::Result<()> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let text = format!(
                "the folder {} is in use by another process (it holds the file {LOCK_FILE} in it locked); stop that one or choose another folder",
                folder.display()
            );
            Err(io::Error::new(ErrorKind::WouldBlock, text))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A folder of the operating system, held by this process alone until the last handle is gone.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    handle: File,
    _lock: FolderLock,
}

impl RealDisk {
    /// Opens the folder, making it where it is absent, and locks it.
    ///
    /// # Errors
    /// `WouldBlock` with a sentence for people when another process holds the folder.
    pub fn open(folder: impl AsRef<Path>) -> io::Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        make_folder(&folder)?;
        let lock = FolderLock::alone(&folder)?;
        let handle = File::open(&folder)?;
        Ok(Self {
            folder,
            handle,
            _lock: lock,
        })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.folder)? {
            let item = item?;
            if item.file_type()?.is_file()
                && let Ok(name) = item.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.folder.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.folder.join(name))?;
        let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(len).unwrap_or(ZEROS_BYTES))];
        let mut at = 0;
        while at < len {
            let part = (len - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..part as usize], at)?;
            at += part;
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let found = rustix::fs::fstatvfs(&self.handle)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], at + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
