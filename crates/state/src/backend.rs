//! redb's storage on a file of our own disk, so that the simulated disk can crash it too, and so that
//! each page that is read is known to be as it was written.
//!
//! ```text
//! header page [4096]
//!  0 magic u32 "OLST" | 4 format u8 = 3 | 5 zero [3] | 8 CRC-32C of bytes 0..8 | 12 zeros
//! checksum pages and redb's pages, see sums.rs
//! ```
//! A file of format 2 has redb's own file behind the header page; one of format 1 is nothing else, and
//! begins with redb's name. They stay as they are, without checksums. The number is outside of what
//! redb reads: a newer redb may lay its files out in a way that this one cannot read.

use std::io;
use std::sync::Arc;

use onelog_log::{Disk, DiskFile, KnownFormat, LOCK_FILE, is_no_space};
use redb::StorageBackend;

use crate::checked::{CheckedFile, read_whole};
use crate::fault::FirstFault;
use crate::sums::{PAGE_BYTES, file_bytes, pages_in};
use crate::tree::OpenError;

/// The name of the state's file.
pub const STATE_FILE: &str = "state.redb";
/// The name that a new state has until it is whole.
const STATE_FILE_NEW: &str = "state.redb.new";
const MAGIC: u32 = u32::from_le_bytes(*b"OLST");
const KNOWN: KnownFormat = KnownFormat {
    magic: MAGIC,
    format: 3,
    crc_at: 8,
};
/// The format of files with a header page and without checksums.
const UNCHECKED: KnownFormat = KnownFormat { format: 2, ..KNOWN };

#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    layout: Layout,
    fault: FirstFault,
}

#[derive(Debug)]
enum Layout {
    /// redb's file begins at this byte, and nothing checks its pages.
    Unchecked(u64),
    Checked(CheckedFile),
}

impl Backend {
    fn new(file: Arc<dyn DiskFile>, layout: Layout) -> Self {
        Self {
            file,
            layout,
            fault: FirstFault::default(),
        }
    }

    /// Whether the file is of format 1, which names itself in a row of the B-tree.
    pub(crate) const fn is_bare(&self) -> bool {
        matches!(self.layout, Layout::Unchecked(0))
    }

    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    /// The first failure of a read of this file.
    pub(crate) fn fault(&self) -> FirstFault {
        self.fault.clone()
    }

    /// A file that has been there before.
    ///
    /// redb makes a longer file durable before anything refers to its new pages; but a crash while
    /// the file grows may leave a length that is no whole number of pages, and redb refuses such a
    /// file. The odd end has never held anything, so it is cut off.
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> Result<Self, OpenError> {
        let len = file.len().map_err(disk_error)?;
        let unchecked = unchecked_start(&*file)?;
        let (least, whole) = match unchecked {
            Some(start) => (start + PAGE_BYTES, len - len % PAGE_BYTES),
            None => (file_bytes(1), file_bytes(pages_in(len))),
        };
        // A new file gets its name when it is whole. redb would take an empty one for a new one.
        if len < least {
            return Err(OpenError::Damaged(format!("it has only {len} bytes")));
        }
        if whole < len {
            tracing::warn!(
                len,
                odd = len - whole,
                "the state file ends inside a page, as a crash while it grew leaves it; cutting the end off"
            );
            file.set_len(whole).map_err(disk_error)?;
            file.sync_data().map_err(disk_error)?;
        }
        let layout = match unchecked {
            Some(start) => Layout::Unchecked(start),
            None => Layout::Checked(CheckedFile::open(file.clone())?),
        };
        Ok(Self::new(file, layout))
    }

    /// Says once what a file without checksums lacks, and how it gets them.
    pub(crate) fn warn_unchecked(&self) {
        if matches!(self.layout, Layout::Unchecked(_)) {
            tracing::warn!(
                "the state file is of before there were checksums of its pages: a byte of it that changes on the disk may be served. \
                 It has them when it is made anew: by the log, if that reaches back to offset 0, when the folder 'state' is moved away before a start; \
                 in the copy that a backup is; on a new member of a cluster"
            );
        }
    }
}

fn header_page(format: KnownFormat) -> Vec<u8> {
    format.header(PAGE_BYTES as usize)
}

/// Where redb's file begins in one without checksums.
fn unchecked_start(file: &dyn DiskFile) -> Result<Option<u64>, OpenError> {
    let mut page = vec![0; PAGE_BYTES as usize];
    let count = file.read_at(0, &mut page).map_err(disk_error)?;
    let page = &page[..count];
    if !page.starts_with(&MAGIC.to_le_bytes()) {
        return Ok(Some(0));
    }
    KNOWN.check(STATE_FILE, page)?;
    match page {
        page if page == header_page(KNOWN) => Ok(None),
        page if page == header_page(UNCHECKED) => Ok(Some(PAGE_BYTES)),
        _ => Err(OpenError::Damaged("its header page is not whole".into())),
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        match &self.layout {
            Layout::Unchecked(start) => Ok(self.file.len()?.saturating_sub(*start)),
            Layout::Checked(checked) => checked.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = match &self.layout {
            Layout::Unchecked(start) => read_whole(&*self.file, start + offset, out),
            Layout::Checked(checked) => checked.read(offset, out),
        };
        read.map_err(|fault| {
            self.fault.note(&fault);
            fault.into()
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let is_cut = len < self.len()?;
        let set = match &self.layout {
            Layout::Unchecked(start) => self.file.set_len(start + len),
            Layout::Checked(checked) => checked.set_len(len),
        };
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
        match &self.layout {
            // Whatever the reason, a flush that failed is final, also for a want of room.
            Layout::Unchecked(_) => self.file.sync_data().map_err(io::Error::other),
            Layout::Checked(checked) => checked.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.layout {
            Layout::Unchecked(start) => self.file.write_all_at(start + offset, data),
            Layout::Checked(checked) => checked.write(offset, data),
        }
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
pub(crate) fn open_file(disk: &dyn Disk) -> Result<Option<Backend>, OpenError> {
    match disk.open(STATE_FILE) {
        Ok(file) => Backend::open(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk_error(error)),
    }
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
    (file.write_all_at(0, &header_page(KNOWN))).map_err(disk_error)?;
    let layout = Layout::Checked(CheckedFile::new(file.clone()));
    Ok(Backend::new(file, layout))
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
        for (format, begin) in [
            (UNCHECKED, *b"OLST\x02\0\0\0\xdd\x71\xd5\xa2"),
            (KNOWN, *b"OLST\x03\0\0\0\x65\xdb\x90\x7f"),
        ] {
            let mut expected = begin.to_vec();
            expected.resize(4096, 0);
            assert_eq!(header_page(format), expected);
        }
    }

    fn made_with(format: u8) -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        let mut backend = begin_file(&disk).unwrap();
        if format < 3 {
            let start = if format == 1 { 0 } else { PAGE_BYTES };
            backend.file.set_len(start).unwrap();
            let header = header_page(UNCHECKED);
            let header = &header[..start as usize];
            backend.file.write_all_at(0, header).unwrap();
            backend.layout = Layout::Unchecked(start);
        }
        let tree = Tree::create(backend, &StateOptions::default()).unwrap();
        if format == 1 {
            name_bare_format(&tree);
        }
        drop(tree);
        publish_file(&disk).unwrap();
        disk
    }

    #[test]
    fn a_file_of_an_earlier_format_is_read_and_stays_as_it_is() {
        for (format, begin) in [(1, &b"redb"[..]), (2, b"OLST\x02")] {
            let disk = made_with(format);
            for _ in 0..2 {
                State::open(Arc::new(disk.clone()), StateOptions::default()).unwrap();
            }
            assert!(disk.files()[STATE_FILE].starts_with(begin));
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_called_newer_and_a_damaged_header_damaged() {
        let whole = made_with(3).files()[STATE_FILE].clone();
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
            bytes[4] = 4;
            bytes[8..].fill(0xee);
        });
        assert!(matches!(newer, Err(OpenError::Newer(_))), "{newer:?}");
        for (at, with) in [(4, 2), (4, 4), (5, 1), (9, 0xaa), (4095, 1)] {
            let damaged = open(&|bytes| bytes[at] = with);
            assert!(matches!(damaged, Err(OpenError::Damaged(_))), "{damaged:?}");
        }
    }
}
