//! redb's storage on a file of our own disk, so that the simulated disk can crash it too.

use std::io;
use std::sync::Arc;

use onelog_log::{Disk, DiskFile};
use redb::StorageBackend;

use crate::tree::OpenError;

/// The name of the state's file.
pub const STATE_FILE: &str = "state.redb";
/// The name that a new state has until it is whole.
const STATE_FILE_NEW: &str = "state.redb.new";

#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let read = self.file.read_at(offset + done as u64, &mut out[done..])?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            done += read;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(offset, data)
    }
}

fn disk_error(source: io::Error) -> OpenError {
    OpenError::Disk {
        file: STATE_FILE,
        source,
    }
}

/// The state's file, if there is one.
pub(crate) fn open_file(disk: &dyn Disk) -> Result<Option<Backend>, OpenError> {
    match disk.open(STATE_FILE) {
        Ok(file) => Ok(Some(Backend { file })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk_error(error)),
    }
}

/// Begins a new, empty file under another name: a crash before [`publish_file`] leaves nothing
/// that would pass for a state.
pub(crate) fn begin_file(disk: &dyn Disk) -> Result<Backend, OpenError> {
    match disk.remove(STATE_FILE_NEW) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(disk_error(error)),
    }
    let file = disk.create(STATE_FILE_NEW, 0).map_err(disk_error)?;
    Ok(Backend { file })
}

/// Gives a new file, whose contents are durable, its name.
pub(crate) fn publish_file(disk: &dyn Disk) -> Result<(), OpenError> {
    disk.rename(STATE_FILE_NEW, STATE_FILE)
        .map_err(disk_error)?;
    disk.sync_folder().map_err(disk_error)
}
