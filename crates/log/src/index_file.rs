//! The derived index of a sealed segment: `{segment's stem}.index`. It lets an opening log pass over
//! the segment. It is never evidence: absent, damaged or doubtful, it is rebuilt from the frames.
//!
//! ```text
//!  0 magic u32 "OLIX" | 4 format u8 = 1 | 5 zero [3]
//!  8 header_crc u32: CRC-32C of the segment's header, bytes 0..68 | 12 crc u32: of the last frame
//! 16 end u64 | 24 next_index u64 | 32 next_offset u64 | 40 term u64 | 48 timestamp_ms u64
//! 56 points u32 | 60 terms u32
//! 64 point *: index u64 | base_offset u64 | timestamp_before_ms u64 | at u64 | term_before u64
//!             | previous u32 | zero u32
//!    term  *: first index u64 | term u64
//!    CRC-32C of all before, u32
//! ```

use std::io;

use onelog_record::{Index, Position, Term};

use crate::disk::Disk;
use crate::frame::{long, word};
use crate::mend::remove_if_there;
use crate::segment::{CHECKED_BYTES, Extent, Point, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

pub(crate) const INDEX_SUFFIX: &str = ".index";
pub(crate) const INDEX_NEW_SUFFIX: &str = ".index.new";

const MAGIC: u32 = u32::from_le_bytes(*b"OLIX");
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 64;
const POINT_BYTES: usize = 48;
const TERM_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// Larger ones are not read but rebuilt.
const INDEX_BYTES_MAX: u64 = 256 << 20;

pub(crate) fn index_name(segment: &str) -> String {
    format!("{}{INDEX_SUFFIX}", stem(segment))
}

pub(crate) fn stem(segment: &str) -> &str {
    segment.strip_suffix(".log").unwrap_or(segment)
}

/// The checksum of all before the header block's own: a CRC over bytes that include their own CRC
/// is the same for all blocks.
pub(crate) fn header_crc(header: &SegmentHeader) -> u32 {
    crc32c::crc32c(&header.encode()[..CHECKED_BYTES])
}

/// Writes the index of a segment whose frames are all durable.
pub(crate) fn write_index(disk: &dyn Disk, segment: &Segment) -> io::Result<()> {
    let bytes = encode(&segment.header, &segment.extent.read());
    let new = format!("{}{INDEX_NEW_SUFFIX}", stem(&segment.name));
    write_derived(disk, &new, &index_name(&segment.name), &bytes)
}

/// Writes a file under another name first: it gets its own when all of it is durable.
pub(crate) fn write_derived(
    disk: &dyn Disk,
    new: &str,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    remove_if_there(disk, new)?;
    let file = disk.create(new, 0)?;
    file.write_all_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(new, name)?;
    disk.sync_folder()
}

/// Reads the index of the segment with `header`; `None` whenever there is the least doubt.
pub(crate) fn read_index(disk: &dyn Disk, header: &SegmentHeader) -> io::Result<Option<Extent>> {
    let file = match disk.open(&index_name(&header.name())) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > INDEX_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(decode(header, &bytes))
}

fn encode(header: &SegmentHeader, extent: &Extent) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, number: u32| out.extend_from_slice(&number.to_le_bytes());
    let long = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
    word(&mut out, MAGIC);
    out.extend_from_slice(&[FORMAT, 0, 0, 0]);
    word(&mut out, header_crc(header));
    word(&mut out, extent.crc);
    long(&mut out, extent.end);
    long(&mut out, extent.next_index.0);
    long(&mut out, extent.next_offset.0);
    long(&mut out, extent.term.0);
    long(&mut out, extent.timestamp_ms);
    word(&mut out, extent.points.len() as u32);
    word(&mut out, extent.terms.len() as u32);
    for point in &extent.points {
        long(&mut out, point.index.0);
        long(&mut out, point.base_offset.0);
        long(&mut out, point.timestamp_before_ms);
        long(&mut out, point.at);
        long(&mut out, point.term_before.0);
        word(&mut out, point.previous);
        word(&mut out, 0);
    }
    for (index, term) in &extent.terms {
        long(&mut out, index.0);
        long(&mut out, term.0);
    }
    let crc = crc32c::crc32c(&out);
    word(&mut out, crc);
    out
}

fn decode(header: &SegmentHeader, bytes: &[u8]) -> Option<Extent> {
    if bytes.len() < HEAD_BYTES + CRC_BYTES {
        return None;
    }
    let (body, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
    let points = word(bytes, 56) as usize;
    let terms = word(bytes, 60) as usize;
    let whole = crc32c::crc32c(body) == word(crc, 0)
        && word(bytes, 0) == MAGIC
        && bytes[4..8] == [FORMAT, 0, 0, 0]
        && word(bytes, 8) == header_crc(header)
        && body.len() == HEAD_BYTES + points * POINT_BYTES + terms * TERM_BYTES;
    if !whole {
        return None;
    }
    let (points, terms) = body[HEAD_BYTES..].split_at(points * POINT_BYTES);
    let extent = Extent {
        crc: word(bytes, 12),
        end: long(bytes, 16),
        next_index: Index(long(bytes, 24)),
        next_offset: Position(long(bytes, 32)),
        term: Term(long(bytes, 40)),
        timestamp_ms: long(bytes, 48),
        points: points
            .chunks_exact(POINT_BYTES)
            .map(|point| Point {
                index: Index(long(point, 0)),
                base_offset: Position(long(point, 8)),
                timestamp_before_ms: long(point, 16),
                at: long(point, 24),
                term_before: Term(long(point, 32)),
                previous: word(point, 40),
            })
            .collect(),
        terms: terms
            .chunks_exact(TERM_BYTES)
            .map(|term| (Index(long(term, 0)), Term(long(term, 8))))
            .collect(),
    };
    sensible(header, &extent).then_some(extent)
}

fn sensible(header: &SegmentHeader, extent: &Extent) -> bool {
    let first = extent.points.first();
    extent.next_index > header.first_index
        && first.is_some_and(|p| p.index == header.first_index && p.at == SEGMENT_HEADER_BYTES)
        && extent
            .points
            .is_sorted_by(|a, b| a.index < b.index && a.at < b.at)
        && extent
            .points
            .last()
            .is_some_and(|p| p.index < extent.next_index && p.at < extent.end)
        && extent
            .terms
            .first()
            .is_some_and(|t| t.0 == header.first_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (SegmentHeader, Extent) {
        let header = SegmentHeader {
            recycled: false,
            log_id: 1,
            number: 2,
            base_offset: Position(30),
            first_index: Index(4),
            term: Term(5),
            durable: Index(3),
            previous: 7,
        };
        let mut extent = Extent::empty(&header);
        extent.points.push(Point {
            index: Index(4),
            base_offset: Position(30),
            timestamp_before_ms: 0,
            at: 4096,
            previous: 7,
            term_before: Term(5),
        });
        extent.terms.push((Index(4), Term(6)));
        extent.end = 4200;
        extent.next_index = Index(5);
        extent.next_offset = Position(33);
        extent.crc = 9;
        extent.term = Term(6);
        extent.timestamp_ms = 99;
        (header, extent)
    }

    #[test]
    fn an_index_has_these_bytes_and_is_read_back() {
        let (header, extent) = example();
        let bytes = encode(&header, &extent);
        let mut expected = b"OLIX\x01\0\0\0".to_vec();
        expected.extend_from_slice(&crc32c::crc32c(&header.encode()[..68]).to_le_bytes());
        expected.extend_from_slice(&9u32.to_le_bytes());
        for number in [4200u64, 5, 33, 6, 99] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
        for number in [4u64, 30, 0, 4096, 5, 7, 4, 6] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&crc32c::crc32c(&expected.clone()).to_le_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(decode(&header, &bytes), Some(extent));
    }

    #[test]
    fn any_doubt_means_none() {
        let (header, extent) = example();
        let whole = encode(&header, &extent);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&header, &bytes), None, "bit {bit}");
        }
        for end in 0..whole.len() {
            assert_eq!(decode(&header, &whole[..end]), None);
        }
        let mut other = header;
        other.previous = 8;
        assert_eq!(decode(&other, &whole), None, "of another segment");
    }
}
