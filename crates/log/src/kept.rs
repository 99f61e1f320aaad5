//! Copies of what was cut off the log's end, by itself or with all of the log: for a person to look at,
//! nothing reads them.
//!
//! Each change of leaders may cut a few entries that no majority had. That many are cut can also mean
//! that acknowledged entries are gone from the other nodes, as by earlier copies of folders: so their
//! frames are copied, durably, before they are cut.
//!
//! ```text
//! header block [4096], as of a segment that begins with the first entry that was cut
//! frames as they were stored, one behind the other; the last one may be cut off at the bound
//! ```
//! The name is `cut-{first index:020}-{last index:020}-{term of the last:020}.kept`. Opening the log
//! ignores these files, and they may be removed at any time. Where there is no room for one, the end
//! is cut nevertheless.

use std::fmt;
use std::io;

use onelog_record::{Index, Term};

use crate::disk::{Disk, DiskFile, is_no_space};
use crate::mend::remove_if_there;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// A copy is made of so many entries and more: few can be on their way when a leader is lost.
pub const CUT_KEPT_ENTRIES_MIN: u64 = 16;
/// So many files of copies there may be. Where they are there, later cuts are not copied.
pub const CUT_KEPT_FILES_MAX: usize = 4;
/// The bytes of frames that one of them holds at most.
pub const CUT_KEPT_BYTES_MAX: u64 = 64 << 20;

pub(crate) const KEPT_NEW: &str = "cut.new";
const PREFIX: &str = "cut-";
const SUFFIX: &str = ".kept";
const NAME_DIGITS: usize = 20;
const CHUNK_BYTES: u64 = 1 << 20;

/// What was cut off the log's end. All of it was durable here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutEntries {
    pub from: Index,
    pub to: Index,
    /// Of the first and of the last one.
    pub first_term: Term,
    pub last_term: Term,
    pub kept: Kept,
}

impl CutEntries {
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.to.0 - self.from.0 + 1
    }

    fn file_name(&self) -> String {
        let (from, to, term) = (self.from.0, self.to.0, self.last_term.0);
        format!("{PREFIX}{from:020}-{to:020}-{term:020}{SUFFIX}")
    }
}

/// What became of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They are too few for one.
    Few,
    /// This file beside the log's has them.
    File(String),
    /// This file has the first ones of them, as many as may be.
    Part(String),
    NoRoom,
    /// The log could not be read there.
    Unreadable,
    /// There are [`CUT_KEPT_FILES_MAX`] files already.
    TooMany,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Few => write!(f, "not copied: fewer than {CUT_KEPT_ENTRIES_MIN}"),
            Self::File(name) => write!(f, "copied to {name} in the log's folder"),
            Self::Part(name) => write!(
                f,
                "the first {CUT_KEPT_BYTES_MAX} bytes copied to {name} in the log's folder"
            ),
            Self::Unreadable => f.write_str("not copied: the log cannot be read there"),
            Self::NoRoom => f.write_str("not copied: the disk is full"),
            Self::TooMany => write!(
                f,
                "not copied: there are {CUT_KEPT_FILES_MAX} files {PREFIX}*{SUFFIX} in the log's folder; look at them, and remove them"
            ),
        }
    }
}

pub(crate) fn is_kept(name: &str) -> bool {
    let stem = name
        .strip_prefix(PREFIX)
        .and_then(|stem| stem.strip_suffix(SUFFIX));
    let is_number =
        |part: &str| part.len() == NAME_DIGITS && part.bytes().all(|b| b.is_ascii_digit());
    stem.is_some_and(|stem| stem.split('-').count() == 3 && stem.split('-').all(is_number))
}

/// Frames that are to be copied: bytes of a file, from and to.
pub(crate) type Range<'f> = (&'f dyn DiskFile, u64, u64);

/// Copies what is to be cut, where that is much.
pub(crate) fn keep(
    disk: &dyn Disk,
    cut: &CutEntries,
    header: &SegmentHeader,
    frames: &[Range<'_>],
) -> io::Result<Kept> {
    if cut.count() < CUT_KEPT_ENTRIES_MIN {
        return Ok(Kept::Few);
    }
    let name = cut.file_name();
    let others = disk.list()?.into_iter();
    let others = others.filter(|other| is_kept(other) && *other != name);
    if others.count() >= CUT_KEPT_FILES_MAX {
        return Ok(Kept::TooMany);
    }
    match copy(disk, header, frames) {
        Err(error) if is_no_space(&error) => {
            remove_if_there(disk, KEPT_NEW)?;
            return Ok(Kept::NoRoom);
        }
        copied => copied?,
    }
    disk.rename(KEPT_NEW, &name)?;
    disk.sync_folder()?;
    let bytes: u64 = frames.iter().map(|(_, from, to)| to - from).sum();
    Ok(match bytes <= CUT_KEPT_BYTES_MAX {
        true => Kept::File(name),
        false => Kept::Part(name),
    })
}

fn copy(disk: &dyn Disk, header: &SegmentHeader, frames: &[Range<'_>]) -> io::Result<()> {
    remove_if_there(disk, KEPT_NEW)?;
    let copy = disk.create(KEPT_NEW, SEGMENT_HEADER_BYTES)?;
    copy.write_all_at(0, &header.encode())?;
    let max = SEGMENT_HEADER_BYTES + CUT_KEPT_BYTES_MAX;
    let mut end = SEGMENT_HEADER_BYTES;
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    for (file, from, to) in frames {
        let mut at = *from;
        while at < *to && end < max {
            let wanted = CHUNK_BYTES.min(to - at).min(max - end) as usize;
            let count = file.read_at(at, &mut chunk[..wanted])?;
            if count == 0 {
                break;
            }
            copy.write_all_at(end, &chunk[..count])?;
            (at, end) = (at + count as u64, end + count as u64);
        }
    }
    copy.sync_data()
}
