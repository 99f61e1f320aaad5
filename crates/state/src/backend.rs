//! redb's storage on a file of our own disk, so that the simulated disk can crash it too.
//!
//! ```text
//! header page [4096]
//!  0 magic u32 "OLST" | 4 format u8 = 2 | 5 zero [3] | 8 CRC-32C of bytes 0..8 | 12 zeros
//! the file as redb knows it
//! ```
//! A file of format 1 has no such page and begins with redb's own; it stays as it is. The number is
//! outside of what redb reads: a newer redb may lay its files out in a way that this one cannot read.

use std::io;
use std::sync::Arc;

use onelog_log::{Disk, DiskFile, KnownFormat, LOCK_FILE, is_no_space};
use redb::StorageBackend;

use crate::tree::OpenError;

/// The name of the state's file.
pub const STATE_FILE: &str = "state.redb";
/// The name that a new state has until it is whole.
const STATE_FILE_NEW: &str = "state.redb.new";
/// redb's page, on which the file's length must end.
const PAGE_BYTES: u64 = 4096;
const MAGIC: u32 = u32::from_le_bytes(*b"OLST");
const KNOWN: KnownFormat = KnownFormat {
    magic: MAGIC,
    format: 2,
    crc_at: 8,
};

#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    /// Where redb's part begins.
    start: u64,
}

impl Backend {
    /// Whether the file is of format 1, which names itself in a row of the B-tree.
    pub(crate) const fn is_bare(&self) -> bool {
        self.start == 0
    }

    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    /// The file that [`begin_file`] began, once more.
    pub(crate) const fn of_new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            start: PAGE_BYTES,
        }
    }
}

fn header_page() -> Vec<u8> {
    KNOWN.header(PAGE_BYTES as usize)
}

/// Where redb's part of the file begins.
fn start_of(file: &dyn DiskFile) -> Result<u64, OpenError> {
    let mut page = vec![0; PAGE_BYTES as usize];
    let count = file.read_at(0, &mut page).map_err(disk_error)?;
    let page = &page[..count];
    if !page.starts_with(&MAGIC.to_le_bytes()) {
        return Ok(0);
    }
    KNOWN.check(STATE_FILE, page)?;
    if page != header_page() {
        return Err(OpenError::Damaged("its header page is not whole".into()));
    }
    Ok(PAGE_BYTES)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.len()?.saturating_sub(self.start))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let read = self
                .file
                .read_at(self.start + offset + done as u64, &mut out[done..])?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            done += read;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let is_cut = len < self.len()?;
        let set = self.file.set_len(self.start + len);
        // A commit cuts the file's end off once it is durable: not as if it had found no room.
        set.map_err(|error| {
            if is_cut {
                io::Error::other(error)
            } else {
                error
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        // Whatever the reason, a flush that failed is final, also for a want of room.
        self.file.sync_data().map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(self.start + offset, data)
    }
}

/// Whether a file of this name can be one of a state's. A newer version may have others.
#[must_use]
pub fn is_state_file(name: &str) -> bool {
    [LOCK_FILE, STATE_FILE, STATE_FILE_NEW].contains(&name)
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
    let start = start_of(&*file)?;
    // A new file gets its name when it is whole. redb would take an empty one for a new one.
    if len < start + PAGE_BYTES {
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
    Ok(Some(Backend { file, start }))
}

/// How long the state's file is.
pub(crate) fn file_len(disk: &dyn Disk) -> Result<u64, OpenError> {
    let file = disk.open(STATE_FILE).map_err(disk_error)?;
    file.len().map_err(disk_error)
}

/// Cuts the state's file to a length that it had. Nothing that is durable refers to what is behind it.
pub(crate) fn cut_file(disk: &dyn Disk, len: u64) -> Result<(), OpenError> {
    if file_len(disk)? <= len {
        return Ok(());
    }
    let file = disk.open(STATE_FILE).map_err(disk_error)?;
    match file.set_len(len) {
        Err(error) if is_no_space(&error) => {
            tracing::warn!(%error, "the state file cannot be made shorter while the disk is full");
            Ok(())
        }
        cut => cut.and_then(|()| file.sync_data()).map_err(disk_error),
    }
}

/// Begins a new, empty file under another name: a crash before [`publish_file`] leaves nothing
/// that would pass for a state.
pub(crate) fn begin_file(disk: &dyn Disk) -> Result<Backend, OpenError> {
    if remove_new_file(disk)? {
        disk.sync_folder().map_err(disk_error)?;
    }
    let file = disk.create(STATE_FILE_NEW, 0).map_err(disk_error)?;
    // Flushed with the first checkpoint, before the file gets its name.
    file.write_all_at(0, &header_page()).map_err(disk_error)?;
    Ok(Backend::of_new(file))
}

/// Removes a file that was begun and not published. Answers whether there was one.
pub(crate) fn remove_new_file(disk: &dyn Disk) -> Result<bool, OpenError> {
    match disk.remove(STATE_FILE_NEW) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(disk_error(error)),
    }
}

/// Gives a new file, whose contents are durable, its name.
///
/// Each change of names is durable before the next one: were the renaming to survive a crash
/// without the making before it, a file left over from an earlier crash would get the name.
pub(crate) fn publish_file(disk: &dyn Disk) -> Result<(), OpenError> {
    disk.sync_folder().map_err(disk_error)?;
    rename_file(disk)?;
    disk.sync_folder().map_err(disk_error)
}

/// Gives a new file its name, which is not durable yet.
pub(crate) fn rename_file(disk: &dyn Disk) -> Result<(), OpenError> {
    disk.rename(STATE_FILE_NEW, STATE_FILE).map_err(disk_error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onelog_log::SimulatedDisk;

    use super::*;
    use crate::options::StateOptions;
    use crate::state::State;
    use crate::tree::{Tree, name_bare_format};

    #[test]
    fn a_header_page_has_these_bytes() {
        let mut expected = b"OLST\x02\0\0\0\xdd\x71\xd5\xa2".to_vec();
        expected.resize(4096, 0);
        assert_eq!(header_page(), expected);
    }

    fn made_with(start: u64) -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        let mut backend = begin_file(&disk).unwrap();
        backend.start = start;
        backend.file.set_len(start).unwrap();
        let tree = Tree::create(backend, &StateOptions::default()).unwrap();
        if start == 0 {
            name_bare_format(&tree);
        }
        drop(tree);
        publish_file(&disk).unwrap();
        disk
    }

    #[test]
    fn a_file_of_the_first_format_is_read_and_stays_as_it_is() {
        let disk = made_with(0);
        for _ in 0..2 {
            State::open(Arc::new(disk.clone()), StateOptions::default()).unwrap();
        }
        assert!(disk.files()[STATE_FILE].starts_with(b"redb"));
    }

    #[test]
    fn a_file_of_a_newer_version_is_called_newer_and_a_damaged_header_damaged() {
        let whole = made_with(PAGE_BYTES).files()[STATE_FILE].clone();
        let open = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            let files = BTreeMap::from([(STATE_FILE.to_owned(), bytes)]);
            let disk = Arc::new(SimulatedDisk::with_files(1, files));
            State::open(disk, StateOptions::default()).map(drop)
        };
        open(&|_| {}).unwrap();
        // What is behind the number is the newer version's own affair.
        let newer = open(&|bytes| {
            bytes[4] = 3;
            bytes[8..].fill(0xee);
        });
        assert!(matches!(newer, Err(OpenError::Newer(_))), "{newer:?}");
        for (at, with) in [(4, 3), (5, 1), (9, 0), (4095, 1)] {
            let damaged = open(&|bytes| bytes[at] = with);
            assert!(matches!(damaged, Err(OpenError::Damaged(_))), "{damaged:?}");
        }
    }
}
