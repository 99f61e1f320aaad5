//! A segment: one file of frames behind a header block.
//!
//! ```text
//! header block [4096]
//!  0 magic u32 "OLSG" | 4 format u8 = 1 | 5 recycled u8 | 6 zero [2]
//!  8 log_id u128 | 24 number u64 | 32 base_offset u64 | 40 first_index u64
//! 48 term u64: of the entry before | 56 durable u64: the watermark when it was made
//! 64 previous u32: frame_crc of the frame before | 68 CRC-32C of bytes 0..68 | 72 zeros
//! frames, each at a multiple of 8, up to the end of the file
//! ```
//! The name is `{base_offset:020}-{first_index:020}.log`: an entry without records takes no
//! offset, so the index is there too. The file is written ahead under a spare name; the header
//! is flushed before the file gets its name, so a header is whole wherever the name is.

use std::io;
use std::sync::Arc;

use onelog_record::{Index, Position, Term};
use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, DiskFile};
use crate::format::KnownFormat;
use crate::frame::{FrameHead, long, word};

/// The bytes of the header block.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"OLSG");
const FORMAT: u8 = 1;
/// The bytes that the header's checksum covers.
pub(crate) const CHECKED_BYTES: usize = 68;
const USED_BYTES: usize = 72;
pub(crate) const KNOWN: KnownFormat = KnownFormat {
    magic: MAGIC,
    format: FORMAT,
    crc_at: CHECKED_BYTES,
};
const NAME_DIGITS: usize = 20;
pub(crate) const SUFFIX: &str = ".log";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whether the file may hold frames of an earlier life.
    pub recycled: bool,
    pub log_id: u128,
    /// Segments are numbered from 1 without gaps.
    pub number: u64,
    pub base_offset: Position,
    pub first_index: Index,
    pub term: Term,
    pub durable: Index,
    pub previous: u32,
}

impl SegmentHeader {
    pub fn name(&self) -> String {
        format!(
            "{:020}-{:020}{SUFFIX}",
            self.base_offset.0, self.first_index.0
        )
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SEGMENT_HEADER_BYTES as usize];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = FORMAT;
        out[5] = u8::from(self.recycled);
        out[8..24].copy_from_slice(&self.log_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        out[32..40].copy_from_slice(&self.base_offset.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_index.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.term.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.durable.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CHECKED_BYTES]);
        out[68..72].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header block; the error says what is wrong.
    pub fn decode(block: &[u8]) -> Result<Self, &'static str> {
        if block.len() < SEGMENT_HEADER_BYTES as usize {
            return Err("the file is shorter than a segment's header block");
        }
        if word(block, 0) != MAGIC {
            return Err("the header block has the wrong magic number");
        }
        if crc32c::crc32c(&block[..CHECKED_BYTES]) != word(block, CHECKED_BYTES) {
            return Err("the checksum of the header block does not match");
        }
        if block[4] != FORMAT {
            return Err("the format number of the segment is wrong");
        }
        let reserved = block[5] > 1 || block[6] != 0 || block[7] != 0;
        if reserved
            || block[USED_BYTES..SEGMENT_HEADER_BYTES as usize]
                .iter()
                .any(|b| *b != 0)
        {
            return Err("reserved bytes of the header block are not zero");
        }
        if long(block, 40) == 0 {
            return Err("the segment begins with entry 0, and entries are numbered from 1");
        }
        Ok(Self {
            recycled: block[5] == 1,
            log_id: u128::from(long(block, 8)) | u128::from(long(block, 16)) << 64,
            number: long(block, 24),
            base_offset: Position(long(block, 32)),
            first_index: Index(long(block, 40)),
            term: Term(long(block, 48)),
            durable: Index(long(block, 56)),
            previous: word(block, 64),
        })
    }
}

/// The numbers in a segment's name; `None` when it is no such name.
pub(crate) fn parse_name(name: &str) -> Option<(Position, Index)> {
    let stem = name.strip_suffix(SUFFIX)?;
    let (offset, index) = stem.split_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some((Position(number(offset)?), Index(number(index)?)))
}

/// One point of the sparse index: a frame, and what is known in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub index: Index,
    pub base_offset: Position,
    /// The highest timestamp of the segment's entries before this one: unlike the timestamps
    /// themselves it never falls, so it can be searched.
    pub timestamp_before_ms: u64,
    pub at: u64,
    pub previous: u32,
    pub term_before: Term,
}

/// What a segment's frames amount to: where they end, and the sparse index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub end: u64,
    pub next_index: Index,
    pub next_offset: Position,
    pub crc: u32,
    pub term: Term,
    pub timestamp_ms: u64,
    pub points: Vec<Point>,
    /// The first index of each run of one term.
    pub terms: Vec<(Index, Term)>,
}

impl Extent {
    pub const fn empty(header: &SegmentHeader) -> Self {
        Self {
            end: SEGMENT_HEADER_BYTES,
            next_index: header.first_index,
            next_offset: header.base_offset,
            crc: header.previous,
            term: header.term,
            timestamp_ms: 0,
            points: Vec::new(),
            terms: Vec::new(),
        }
    }

    pub const fn last_index(&self) -> Index {
        Index(self.next_index.0 - 1)
    }

    /// Takes in the frame at `self.end`.
    pub fn push(&mut self, head: &FrameHead, index_every_bytes: u64) {
        let due = self
            .points
            .last()
            .is_none_or(|point| self.end - point.at >= index_every_bytes);
        if due {
            self.points.push(Point {
                index: self.next_index,
                base_offset: self.next_offset,
                timestamp_before_ms: self.timestamp_ms,
                at: self.end,
                previous: self.crc,
                term_before: self.term,
            });
        }
        if self.terms.last().is_none_or(|(_, term)| *term != head.term) {
            self.terms.push((head.index, head.term));
        }
        self.end += head.frame_len() as u64;
        self.next_index = self.next_index.next();
        self.next_offset = head.header.end();
        self.crc = head.frame_crc;
        self.term = head.term;
        self.timestamp_ms = self.timestamp_ms.max(head.header.timestamp_ms);
    }

    /// Goes back to the last point at or before `index`, from where the frames below it can be read
    /// again.
    pub fn rewind(&mut self, header: &SegmentHeader, index: Index) {
        let kept = self.points.partition_point(|point| point.index <= index);
        self.points.truncate(kept);
        let Some(point) = self.points.pop() else {
            *self = Self::empty(header);
            return;
        };
        self.end = point.at;
        self.next_index = point.index;
        self.next_offset = point.base_offset;
        self.crc = point.previous;
        self.term = point.term_before;
        self.timestamp_ms = point.timestamp_before_ms;
        self.terms.retain(|(first, _)| *first < point.index);
    }

    /// Whether the segment with `header` continues this one.
    pub fn continued_by(&self, header: &SegmentHeader) -> bool {
        self.next_index == header.first_index
            && self.next_offset == header.base_offset
            && self.crc == header.previous
            && self.term == header.term
    }
}

/// A segment that is part of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub name: String,
    pub capacity: u64,
    pub extent: RwLock<Extent>,
    /// Open while the segment is written and while it is read often; opened again at need.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Segment {
    pub fn new(header: SegmentHeader, capacity: u64, extent: Extent) -> Self {
        Self {
            name: header.name(),
            header,
            capacity,
            extent: RwLock::new(extent),
            file: Mutex::default(),
        }
    }

    /// The file, opened where it is not open.
    pub fn file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let mut slot = self.file.lock();
        if let Some(file) = slot.as_ref() {
            return Ok(Arc::clone(file));
        }
        let file = disk.open(&self.name)?;
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Keeps a file open that is this segment's.
    pub fn keep(&self, file: Arc<dyn DiskFile>) {
        *self.file.lock() = Some(file);
    }

    /// Lets go of the open file. Those who hold it still may use it.
    pub fn release(&self) {
        *self.file.lock() = None;
    }

    pub fn last_index(&self) -> Index {
        self.extent.read().last_index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_block_has_these_bytes() {
        let header = SegmentHeader {
            recycled: true,
            log_id: 0x0102,
            number: 3,
            base_offset: Position(4),
            first_index: Index(5),
            term: Term(6),
            durable: Index(2),
            previous: 0x0807_0605,
        };
        let found = header.encode();
        let mut expected = b"OLSG\x01\x01\0\0".to_vec();
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [3u64, 4, 5, 6, 2] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[5, 6, 7, 8]);
        expected.extend_from_slice(&crc32c::crc32c(&expected.clone()).to_le_bytes());
        expected.resize(4096, 0);
        assert_eq!(found, expected);
        assert_eq!(SegmentHeader::decode(&found), Ok(header));
        assert_eq!(
            header.name(),
            "00000000000000000004-00000000000000000005.log"
        );
        assert_eq!(parse_name(&header.name()), Some((Position(4), Index(5))));
    }

    #[test]
    fn what_is_no_header_block_is_refused() {
        assert!(SegmentHeader::decode(&[0; 4096]).is_err());
        assert!(SegmentHeader::decode(&[]).is_err());
        for name in [
            "",
            "1-2.log",
            "x.log",
            "+0000000000000000004-00000000000000000005.log",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
