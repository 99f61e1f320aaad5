//! A file whose pages are checked at every read.
//!
//! redb reads and writes whole pages, except for the head of its first one, which it writes in place:
//! that page has no checksum here. Its commit slots have redb's own; of the rest of it, what never
//! changes is compared when the file is opened, and what does change is compared with the file's
//! length, or leads to the commit before.
//!
//! Any thread reads; one writes and flushes. redb writes no page while it may be read.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use onelog_log::DiskFile;
use parking_lot::RwLock;

use crate::fault::ReadFault;
use crate::sums::{GROUP_PAGES, PAGE_BYTES, Sums, file_bytes, page_at, pages_in, sum_of};
use crate::tree::OpenError;

/// How redb's first page begins: its name, a byte of flags, the size of a page, how many pages are in
/// front of a region and how many are in one.
const HEAD: [u8; 24] = *b"redb\x1a\n\xa9\r\n\0\0\0\0\x10\0\0\0\0\0\0\0\0\x10\0";
const HEAD_FLAGS_AT: usize = 9;

#[derive(Debug)]
pub(crate) struct CheckedFile {
    file: Arc<dyn DiskFile>,
    sums: RwLock<Sums>,
}

/// What a call of redb is about.
enum Touched {
    /// Bytes of its first page, from this one on.
    Head(u64),
    Pages(Range<u64>),
}

impl Touched {
    fn new(offset: u64, len: usize) -> io::Result<Self> {
        let end = offset + len as u64;
        if end <= PAGE_BYTES {
            return Ok(Self::Head(offset));
        }
        if offset == 0 || !offset.is_multiple_of(PAGE_BYTES) || !end.is_multiple_of(PAGE_BYTES) {
            return Err(not_whole(offset, end));
        }
        Ok(Self::Pages(offset / PAGE_BYTES..end / PAGE_BYTES))
    }
}

fn not_whole(from: u64, to: u64) -> io::Error {
    let what = format!("bytes {from} to {to} of the B-tree are no whole pages");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The parts of a range of pages that are side by side in the file, as bytes of the caller's buffer.
fn runs(pages: &Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> + use<> {
    let Range { start, end } = *pages;
    let mut next = start;
    std::iter::from_fn(move || {
        let first = next;
        next = end.min((first / GROUP_PAGES + 1) * GROUP_PAGES);
        let byte = |page| ((page - start) * PAGE_BYTES) as usize;
        (first < end).then(|| (first, byte(first)..byte(next)))
    })
}

impl CheckedFile {
    /// A file that has a header page and nothing else.
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            sums: RwLock::default(),
        }
    }

    /// Makes what the file holds durable before anything is written over an older copy of it.
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> Result<Self, OpenError> {
        let sums = Sums::load(&*file)?;
        let mut head = [0; HEAD.len()];
        read_whole(&*file, page_at(0), &mut head)?;
        head[HEAD_FLAGS_AT] = 0;
        if head != HEAD {
            return Err(OpenError::Damaged(format!(
                "what begins at byte {} is not how a B-tree begins",
                page_at(0)
            )));
        }
        (file.sync_data()).map_err(|source| ReadFault::disk(0, source))?;
        let sums = RwLock::new(sums);
        Ok(Self { file, sums })
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(pages_in(self.file.len()?) * PAGE_BYTES)
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), ReadFault> {
        let touched = Touched::new(offset, out.len());
        let pages = match touched.map_err(|error| ReadFault::disk(offset, error))? {
            Touched::Head(from) => return read_whole(&*self.file, page_at(0) + from, out),
            Touched::Pages(pages) => pages,
        };
        for (first, bytes) in runs(&pages) {
            read_whole(&*self.file, page_at(first), &mut out[bytes])?;
        }
        let sums = self.sums.read();
        if pages.end > sums.pages() {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(ReadFault::disk(page_at(pages.start), error));
        }
        sums.verify(pages.start, out)
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let pages = match Touched::new(offset, data.len())? {
            Touched::Head(from) => return self.file.write_all_at(page_at(0) + from, data),
            Touched::Pages(pages) => pages,
        };
        if pages.end > self.sums.read().pages() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        for (first, bytes) in runs(&pages) {
            self.file.write_all_at(page_at(first), &data[bytes])?;
        }
        let sums: Vec<u32> = data.chunks(PAGE_BYTES as usize).map(sum_of).collect();
        self.sums.write().set(pages.start, &sums);
        Ok(())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE_BYTES) {
            return Err(not_whole(0, len));
        }
        let pages = len / PAGE_BYTES;
        self.file.set_len(file_bytes(pages))?;
        self.sums.write().resize(pages);
        Ok(())
    }

    /// Writes the checksums and makes everything durable.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        let changed = self.sums.write().changed();
        for group in &changed {
            let (at, bytes) = self.sums.write().write(*group);
            self.file.write_all_at(at, &bytes)?;
        }
        // Whatever the reason, a flush that failed is final, also for a want of room.
        self.file.sync_data().map_err(io::Error::other)?;
        let mut sums = self.sums.write();
        changed.into_iter().for_each(|group| sums.settle(group));
        Ok(())
    }
}

/// Fills `out` with the bytes from `at` on.
pub(crate) fn read_whole(file: &dyn DiskFile, at: u64, out: &mut [u8]) -> Result<(), ReadFault> {
    let mut done = 0;
    while done < out.len() {
        let from = at + done as u64;
        let read = file.read_at(from, &mut out[done..]);
        match read.map_err(|source| ReadFault::disk(from, source))? {
            0 => {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(ReadFault::disk(from, source));
            }
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use onelog_log::{CrashMode, Disk, SimulatedDisk};
    use proptest::prelude::*;

    use super::*;
    use crate::backend::STATE_FILE;

    /// Pages around the borders of groups.
    const PAGES: [u64; 12] = [
        1, 2, 3, 1018, 1019, 1020, 1021, 1022, 2038, 2039, 2040, 2041,
    ];
    const LENGTHS: [u64; 7] = [4, 1019, 1020, 1021, 1023, 2040, 2043];

    fn made(disk: &SimulatedDisk, pages: u64) -> CheckedFile {
        let checked = CheckedFile::new(disk.create(STATE_FILE, 0).unwrap());
        checked.set_len(pages * PAGE_BYTES).unwrap();
        checked.write(0, &HEAD).unwrap();
        checked.sync_data().unwrap();
        checked
    }

    fn page(fill: u8) -> Vec<u8> {
        vec![fill; PAGE_BYTES as usize]
    }

    #[test]
    fn checksum_pages_have_these_bytes() {
        let disk = SimulatedDisk::new(1);
        let checked = made(&disk, 1022);
        // Given a page in each of two groups, written and flushed,
        checked.write(2 * PAGE_BYTES, &page(b'a')).unwrap();
        checked.write(1021 * PAGE_BYTES, &page(b'b')).unwrap();
        checked.sync_data().unwrap();
        // then they are behind the header page and the checksum pages of their groups,
        let file = disk.files()[STATE_FILE].clone();
        let at = |page: usize| &file[page * 4096..(page + 1) * 4096];
        assert_eq!(file.len(), (1 + 1022 + 4) * 4096);
        assert_eq!(&at(3)[..24], HEAD);
        assert_eq!(at(5), page(b'a'));
        assert_eq!(at(1026), page(b'b'));
        // and one copy of each checksum page says so.
        for (copy, group, place, fill) in [(2, 0u8, 2, b'a'), (1024, 1, 1, b'b')] {
            let mut expected = page(0);
            expected[4] = group;
            expected[8] = 1;
            let sum = crc32c::crc32c(&page(fill));
            expected[16 + place * 4..20 + place * 4].copy_from_slice(&sum.to_le_bytes());
            let crc = crc32c::crc32c(&expected[4..]);
            expected[..4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(at(copy), expected);
            assert_eq!(at(copy - 1), page(0));
        }
        // The next flush writes the other copies, and only of what has changed.
        checked.write(2 * PAGE_BYTES, &page(b'c')).unwrap();
        checked.sync_data().unwrap();
        let next = disk.files()[STATE_FILE].clone();
        let changed: Vec<_> = (0..file.len() / 4096)
            .filter(|page| next[page * 4096..][..4096] != *at(*page))
            .collect();
        assert_eq!(changed, [1, 5]);
        assert_eq!(next[4096 + 8], 2);
    }

    #[test]
    fn a_page_of_another_place_or_of_before_is_not_taken_for_this_one() {
        let disk = SimulatedDisk::new(1);
        let checked = made(&disk, 8);
        checked
            .write(2 * PAGE_BYTES, &[page(1), page(2)].concat())
            .unwrap();
        checked.sync_data().unwrap();
        let before = disk.replace(STATE_FILE, page_at(2) as usize, &page(2));
        let mut read = page(0);
        for put in [page(2), page(0)] {
            disk.replace(STATE_FILE, page_at(2) as usize, &put);
            let fault = checked.read(2 * PAGE_BYTES, &mut read).unwrap_err();
            let ReadFault::Damaged { page, at, .. } = fault else {
                panic!("{fault}");
            };
            assert_eq!((page, at), (5, 5 * 4096));
        }
        disk.replace(STATE_FILE, page_at(2) as usize, &before);
        checked.read(2 * PAGE_BYTES, &mut read).unwrap();
        // What was never written is zeros, or damaged.
        checked.read(7 * PAGE_BYTES, &mut read).unwrap();
        disk.flip(STATE_FILE, page_at(7) * 8);
        checked.read(7 * PAGE_BYTES, &mut read).unwrap_err();
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Write(usize, u64, u8),
        SetLen(usize),
        Flush,
        Reopen,
        Crash(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..PAGES.len(), 1u64..5, 1u8..).prop_map(|(at, count, fill)| Step::Write(at, count, fill)),
            1 => (0..LENGTHS.len()).prop_map(Step::SetLen),
            2 => Just(Step::Flush),
            1 => Just(Step::Reopen),
            1 => (0..CrashMode::ALL.len()).prop_map(Step::Crash),
        ]
    }

    /// What a page must hold; nothing where a crash may have left more than one thing.
    #[derive(Clone, Copy, Debug)]
    struct Model {
        fill: Option<u8>,
        is_durable: bool,
    }

    const NEW: Model = Model {
        fill: Some(0),
        is_durable: false,
    };

    fn compare(checked: &CheckedFile, model: &[Model]) {
        assert_eq!(checked.len().unwrap(), model.len() as u64 * PAGE_BYTES);
        for number in PAGES {
            let Some(expected) = model.get(number as usize) else {
                continue;
            };
            let mut read = page(0);
            let answer = checked.read(number * PAGE_BYTES, &mut read);
            match (answer, expected.fill) {
                (Ok(()), Some(fill)) => assert!(read == page(fill), "page {number}"),
                (Err(fault), Some(_)) => panic!("page {number}: {fault}"),
                // Whatever it is, it is never half of it.
                (Ok(()), None) => assert!(read == page(read[0]), "page {number} is torn"),
                (Err(_), None) => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn pages_are_read_as_they_were_written_or_not_at_all(
            seed: u64,
            steps in prop::collection::vec(step(), 1..30),
        ) {
            let disk = SimulatedDisk::new(seed);
            let mut checked = made(&disk, 4);
            disk.sync_folder().unwrap();
            let mut model = vec![NEW; 4];
            for step in steps {
                match step {
                    Step::Write(at, count, fill) => {
                        let first = PAGES[at];
                        let bytes = page(fill).repeat(count as usize);
                        let is_there = first + count <= model.len() as u64;
                        let written = checked.write(first * PAGE_BYTES, &bytes);
                        assert_eq!(written.is_ok(), is_there);
                        if is_there {
                            let fill = Some(fill);
                            let run = first as usize..(first + count) as usize;
                            model[run].fill(Model { fill, is_durable: false });
                        }
                    }
                    Step::SetLen(at) => {
                        checked.set_len(LENGTHS[at] * PAGE_BYTES).unwrap();
                        model.resize(LENGTHS[at] as usize, NEW);
                    }
                    Step::Flush => {
                        checked.sync_data().unwrap();
                        model.iter_mut().for_each(|page| page.is_durable = true);
                    }
                    // As after the end of a process: what was not flushed has no checksum yet.
                    Step::Reopen | Step::Crash(_) => {
                        if let Step::Crash(mode) = step {
                            disk.crash(CrashMode::ALL[mode]);
                        }
                        let file = disk.open(STATE_FILE).unwrap();
                        let whole = file_bytes(pages_in(file.len().unwrap()));
                        file.set_len(whole).unwrap();
                        checked = CheckedFile::open(file).unwrap();
                        let unknown = Model { fill: None, is_durable: false };
                        model.resize((checked.len().unwrap() / PAGE_BYTES) as usize, unknown);
                        model.iter_mut().filter(|page| !page.is_durable).for_each(|page| *page = unknown);
                    }
                }
                compare(&checked, &model);
            }
        }
    }
}
