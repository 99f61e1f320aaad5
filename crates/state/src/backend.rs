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
/// redb's page, on which the file's length must end.
const PAGE_BYTES: u64 = 4096;

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
///
/// redb makes a longer file durable before anything refers to its new pages; but a crash while
/// the file grows may leave a length that is no whole number of pages, and redb refuses such a
/// file. The odd end has never held anything, so it is cut off.
pub(crate) fn open_file(disk: &dyn Disk) -> Result<Option<Backend>, OpenError> {
    let file = match disk.open(STATE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error(error)),
    };
    let len = file.len().map_err(disk_error)?;
    // A new file gets its name when it is whole. redb would take an empty one for a new one.
    if len < PAGE_BYTES {
        return Err(OpenError::Damaged(format!("it has only {len} bytes")));
    }
    let odd = len % PAGE_BYTES;
    if odd != 0 {
        tracing::warn!(
            len,
            odd,
            "the state file ends inside a page, as a crash while it grew leaves it; cutting the end off"
        );
        file.set_len(len - odd).map_err(disk_error)?;
        file.sync_data().map_err(disk_error)?;
    }
    Ok(Some(Backend { file }))
}

/// Begins a new, empty file under another name: a crash before [`publish_file`] leaves nothing
/// that would pass for a state.
pub(crate) fn begin_file(disk: &dyn Disk) -> Result<Backend, OpenError> {
    match disk.remove(STATE_FILE_NEW) {
        Ok(()) => disk.sync_folder().map_err(disk_error)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(disk_error(error)),
    }
    let file = disk.create(STATE_FILE_NEW, 0).map_err(disk_error)?;
    Ok(Backend { file })
}

/// Gives a new file, whose contents are durable, its name.
///
/// Each change of names is durable before the next one: were the renaming to survive a crash
/// without the making before it, a file left over from an earlier crash would get the name.
pub(crate) fn publish_file(disk: &dyn Disk) -> Result<(), OpenError> {
    disk.sync_folder().map_err(disk_error)?;
    disk.rename(STATE_FILE_NEW, STATE_FILE)
        .map_err(disk_error)?;
    disk.sync_folder().map_err(disk_error)
}
