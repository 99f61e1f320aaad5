//! Checksums of redb's pages, in pages of their own, and where all of them are in the file.
//!
//! ```text
//! file  := header page | group | group | …
//! group := checksum page, twice | up to 1020 pages of redb
//!
//! checksum page [4096]
//!  0 CRC-32C of bytes 4..4096 | 4 group u32 | 8 sequence u64
//! 16 for each page of the group: its CRC-32C, u32; 1 where that is 0, and 0 where none was written
//! ```
//! A page of zeros alone is a checksum page that was never written.
//!
//! Why a crash never leaves a page that is in use without its checksum: a flush writes a changed
//! checksum page over the copy that is not of the flush before, so what a crash may tear is never the
//! copy of the last flush that ended, which has all pages of the durable commit. Where the other one
//! is whole, and newer, it has the same of those: redb writes nothing over a page that its last durable
//! commit uses. In what else the two differ are pages that no durable commit uses, and such a page is
//! written anew before it is read.

use onelog_log::DiskFile;

use crate::fault::ReadFault;
use crate::tree::OpenError;

/// redb's page, and ours.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// How many of redb's pages are in a group.
pub(crate) const GROUP_PAGES: u64 = 1020;
/// Copies of each checksum page.
const COPIES: u64 = 2;
const GROUP_SPAN: u64 = COPIES + GROUP_PAGES;
const SUMS_AT: usize = 16;

/// Where one of redb's pages is in the file.
pub(crate) const fn page_at(page: u64) -> u64 {
    (1 + page / GROUP_PAGES * GROUP_SPAN + COPIES + page % GROUP_PAGES) * PAGE_BYTES
}

const fn copy_at(group: u64, copy: u64) -> u64 {
    (1 + group * GROUP_SPAN + copy) * PAGE_BYTES
}

/// How long a file with so many pages of redb is.
pub(crate) const fn file_bytes(pages: u64) -> u64 {
    (1 + pages + pages.div_ceil(GROUP_PAGES) * COPIES) * PAGE_BYTES
}

/// How many whole pages of redb a file of this length has.
pub(crate) const fn pages_in(len: u64) -> u64 {
    let behind = (len / PAGE_BYTES).saturating_sub(1);
    let of_last = (behind % GROUP_SPAN).saturating_sub(COPIES);
    behind / GROUP_SPAN * GROUP_PAGES + of_last
}

/// What a page's checksum says; never 0.
pub(crate) fn sum_of(page: &[u8]) -> u32 {
    crc32c::crc32c(page).max(1)
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// The copy that the next flush leaves alone.
    kept: u64,
    is_changed: bool,
}

/// The checksums of all pages of a file.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pages: Vec<u32>,
    groups: Vec<Group>,
    /// The highest that was ever written: a copy that is left of a file's former end is never newer.
    sequence: u64,
}

impl Sums {
    /// Reads the checksum pages of a file.
    pub(crate) fn load(file: &dyn DiskFile) -> Result<Self, OpenError> {
        let len = file.len().map_err(|source| ReadFault::disk(0, source))?;
        let mut sums = Self::default();
        sums.resize(pages_in(len));
        let mut copies = vec![0; (COPIES * PAGE_BYTES) as usize];
        let mut torn = 0;
        for group in 0..sums.groups.len() as u64 {
            let at = copy_at(group, 0);
            let count = file.read_at(at, &mut copies);
            let count = count.map_err(|source| ReadFault::disk(at, source))?;
            copies[count..].fill(0);
            torn += sums.take(group, &copies)?;
        }
        if torn > 0 {
            tracing::warn!(
                torn,
                "checksum pages of the state file are not whole, as a crash may leave them; the others of each pair are used"
            );
        }
        Ok(sums)
    }

    /// Takes in the newer whole copy of a checksum page; answers how many are not whole.
    fn take(&mut self, group: u64, copies: &[u8]) -> Result<u64, OpenError> {
        let whole = copies.chunks(PAGE_BYTES as usize).zip(0..);
        let whole = whole.filter_map(|(page, copy)| Some((sequence_of(group, page)?, copy, page)));
        let torn = COPIES - whole.clone().count() as u64;
        let Some((sequence, copy, page)) = whole.max_by_key(|(sequence, ..)| *sequence) else {
            return Err(OpenError::Damaged(format!(
                "both copies of the checksum page at byte {} are not as they were written",
                copy_at(group, 0)
            )));
        };
        self.sequence = self.sequence.max(sequence);
        self.groups[group as usize].kept = copy;
        let first = (group * GROUP_PAGES) as usize;
        let (sums, _) = page[SUMS_AT..].as_chunks::<4>();
        for (place, sum) in self.pages[first..].iter_mut().zip(sums) {
            *place = u32::from_le_bytes(*sum);
        }
        Ok(torn)
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Cuts pages off or adds pages that were never written.
    pub(crate) fn resize(&mut self, pages: u64) {
        let is_cut = pages < self.pages();
        self.pages.resize(pages as usize, 0);
        let groups = pages.div_ceil(GROUP_PAGES) as usize;
        self.groups.resize(groups, Group::default());
        if let Some(last) = self.groups.last_mut() {
            last.is_changed |= is_cut;
        }
    }

    /// Notes what was written from a page on. The pages are there.
    pub(crate) fn set(&mut self, first: u64, sums: &[u32]) {
        let from = first as usize;
        self.pages[from..from + sums.len()].copy_from_slice(sums);
        let last = (first + sums.len() as u64 - 1) / GROUP_PAGES;
        for group in first / GROUP_PAGES..=last {
            self.groups[group as usize].is_changed = true;
        }
    }

    /// Compares bytes with what was written from a page on. The pages are there.
    pub(crate) fn verify(&self, first: u64, bytes: &[u8]) -> Result<(), ReadFault> {
        let sums = &self.pages[first as usize..];
        let pages = bytes.chunks(PAGE_BYTES as usize);
        for ((page, written), number) in pages.zip(sums).zip(first..) {
            let is = sum_of(page);
            let is_right = match *written {
                0 => page.iter().all(|byte| *byte == 0),
                written => is == written,
            };
            if !is_right {
                let at = page_at(number);
                return Err(ReadFault::Damaged {
                    page: at / PAGE_BYTES,
                    at,
                    is,
                    written: *written,
                });
            }
        }
        Ok(())
    }

    /// The groups whose checksum page has to be written.
    pub(crate) fn changed(&mut self) -> Vec<usize> {
        let groups = self.groups.iter().enumerate();
        let changed: Vec<_> = groups
            .filter_map(|(group, state)| state.is_changed.then_some(group))
            .collect();
        self.sequence += u64::from(!changed.is_empty());
        changed
    }

    /// The checksum page of a changed group, and where it is to be written.
    pub(crate) fn write(&mut self, group: usize) -> (u64, Vec<u8>) {
        let state = &mut self.groups[group];
        state.is_changed = false;
        let at = copy_at(group as u64, 1 - state.kept);
        let mut bytes = vec![0; PAGE_BYTES as usize];
        bytes[4..8].copy_from_slice(&(group as u32).to_le_bytes());
        bytes[8..SUMS_AT].copy_from_slice(&self.sequence.to_le_bytes());
        let sums = self.pages.iter().skip(group * GROUP_PAGES as usize);
        for (place, sum) in bytes[SUMS_AT..].as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            *place = sum.to_le_bytes();
        }
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        (at, bytes)
    }

    /// What was written of a group is durable: the next flush leaves it alone.
    pub(crate) fn settle(&mut self, group: usize) {
        let group = &mut self.groups[group];
        group.kept = 1 - group.kept;
    }
}

/// The sequence of a checksum page; `None` when it is not whole.
fn sequence_of(group: u64, page: &[u8]) -> Option<u64> {
    if page.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let (crc, rest) = page.split_first_chunk::<4>()?;
    let (of, rest_of) = rest.split_first_chunk::<4>()?;
    let (sequence, _) = rest_of.split_first_chunk::<8>()?;
    let is_whole = u32::from_le_bytes(*crc) == crc32c::crc32c(rest)
        && u64::from(u32::from_le_bytes(*of)) == group;
    is_whole.then(|| u64::from_le_bytes(*sequence))
}
