//! The derived index of a sealed segment by table: `{segment's stem}.tables`. It says in which of the
//! segment's blocks, of a few frames each, a table has records, so that a reader of a rare table
//! reads those alone. It is never evidence: where it is absent, damaged or doubtful, the whole
//! segment is read; what is found by it is checked as all frames are.
//!
//! ```text
//!  0 magic u32 "OLTX" | 4 format u8 = 1 | 5 zero [3]
//!  8 header_crc u32: CRC-32C of the segment's header, bytes 0..68 | 12 crc u32: of the last frame
//! 16 tables u32 | 20 marks u32
//! 24 table *: table u32 | at u32, in this file | len u32; ascending
//!    CRC-32C of all before, u32
//!    list  *: the blocks of one table, each a varint: the distance from the one before, the first
//!             from -1 | CRC-32C of the list, u32
//!    mark  *: where a block begins: index u64 | base_offset u64 | at u64, in the segment
//!             | term_before u64 | previous u32 | CRC-32C of the mark's bytes before, u32
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use onelog_record::{
    EntryKind, Index, Position, TableId, Term, Transactions, raw_body, read_varint, write_varint,
};

use crate::disk::{Disk, DiskFile};
use crate::frame::{Frame, Salt, long, word};
use crate::index_file::{header_crc, stem, write_derived};
use crate::reader::to_entry;
use crate::scan::scan;
use crate::segment::{Extent, Point, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

pub(crate) const TABLES_SUFFIX: &str = ".tables";
pub(crate) const TABLES_NEW_SUFFIX: &str = ".tables.new";

const MAGIC: u32 = u32::from_le_bytes(*b"OLTX");
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 24;
const ROW_BYTES: usize = 12;
const MARK_BYTES: usize = 40;
const CRC_BYTES: usize = 4;
/// A block ends with the frame that makes it so long. A mark takes 40 bytes, so a whole index is half
/// a percent of its segment.
const BLOCK_BYTES: u64 = 8 << 10;
/// A segment with records of more tables gets no index.
const TABLES_MAX: usize = 1 << 16;

pub(crate) fn tables_name(segment: &str) -> String {
    format!("{}{TABLES_SUFFIX}", stem(segment))
}

/// Reads a sealed segment, all of it durable, through and writes its index; not where the segment is
/// no longer what it was. Blocks.
pub(crate) fn make_tables(disk: &dyn Disk, segment: &Segment) -> io::Result<Option<Vec<u8>>> {
    let sealed = segment.extent.read().clone();
    let file = disk.open(&segment.name)?;
    let salt = Salt::of(segment.header.log_id);
    let mut found = Found::default();
    let mut extent = Extent::empty(&segment.header);
    let mut add = |frame: &Frame<'_>| found.add(frame);
    scan(
        &*file,
        salt,
        &mut extent,
        BLOCK_BYTES,
        sealed.next_index,
        &mut add,
    )?;
    let is_whole =
        (extent.crc, extent.end, extent.next_index) == (sealed.crc, sealed.end, sealed.next_index);
    let is_usable = is_whole
        && found.is_readable
        && found.lists.len() <= TABLES_MAX
        && found.blocks() == extent.points.len();
    Ok(is_usable.then(|| encode(&segment.header, &extent, &found.lists)))
}

/// Writes the index that [`make_tables`] made.
pub(crate) fn write_tables(disk: &dyn Disk, segment: &Segment, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{}{TABLES_NEW_SUFFIX}", stem(&segment.name));
    write_derived(disk, &new, &tables_name(&segment.name), bytes)
}

/// The blocks of each table, while the frames are read.
struct Found {
    lists: BTreeMap<TableId, Vec<u32>>,
    block: u32,
    block_at: u64,
    at: u64,
    is_readable: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            lists: BTreeMap::new(),
            block: 0,
            block_at: SEGMENT_HEADER_BYTES,
            at: SEGMENT_HEADER_BYTES,
            is_readable: true,
        }
    }
}

impl Found {
    /// How many blocks there are: as many as the extent has points, for both count alike.
    const fn blocks(&self) -> usize {
        self.block as usize + 1
    }

    fn add(&mut self, frame: &Frame<'_>) {
        if self.at - self.block_at >= BLOCK_BYTES {
            self.block += 1;
            self.block_at = self.at;
        }
        self.at += frame.head.frame_len() as u64;
        if frame.head.header.kind == EntryKind::Transactions && self.is_readable {
            self.is_readable = self.add_records(frame).is_some();
        }
    }

    /// `None` when the frame's contents cannot be read.
    fn add_records(&mut self, frame: &Frame<'_>) -> Option<()> {
        let entry = to_entry(frame);
        let body = raw_body(&entry).ok()?;
        for transaction in Transactions::new(body, entry.header.base_offset) {
            for record in transaction.ok()?.records() {
                let list = self.lists.entry(record.ok()?.table).or_default();
                if list.last() != Some(&self.block) {
                    list.push(self.block);
                }
            }
        }
        Some(())
    }
}

fn put_word(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_crc(out: &mut Vec<u8>, from: usize) {
    let crc = crc32c::crc32c(&out[from..]);
    put_word(out, crc);
}

fn encode(header: &SegmentHeader, extent: &Extent, lists: &BTreeMap<TableId, Vec<u32>>) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rows = Vec::new();
    let first_at = HEAD_BYTES + lists.len() * ROW_BYTES + CRC_BYTES;
    for (table, list) in lists {
        let begin = packed.len();
        let mut next = 0;
        for block in list {
            write_varint(&mut packed, u64::from(block - next));
            next = block + 1;
        }
        put_crc(&mut packed, begin);
        put_word(&mut rows, table.0);
        put_word(&mut rows, (first_at + begin) as u32);
        put_word(&mut rows, (packed.len() - begin) as u32);
    }
    let mut out = Vec::new();
    put_word(&mut out, MAGIC);
    out.extend_from_slice(&[FORMAT, 0, 0, 0]);
    put_word(&mut out, header_crc(header));
    put_word(&mut out, extent.crc);
    put_word(&mut out, lists.len() as u32);
    put_word(&mut out, extent.points.len() as u32);
    out.extend_from_slice(&rows);
    put_crc(&mut out, 0);
    out.extend_from_slice(&packed);
    for point in &extent.points {
        let begin = out.len();
        for number in [
            point.index.0,
            point.base_offset.0,
            point.at,
            point.term_before.0,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_word(&mut out, point.previous);
        put_crc(&mut out, begin);
    }
    out
}

/// The index of one segment: where its lists are. Lists and marks are read when they are wanted.
pub(crate) struct TableIndex {
    file: Arc<dyn DiskFile>,
    rows: Vec<Row>,
    marks_at: u64,
    pub(crate) marks: u32,
}

#[derive(Clone, Copy)]
struct Row {
    table: TableId,
    at: u32,
    len: u32,
}

impl TableIndex {
    /// The index of a sealed segment in this file; `None` whenever there is the least doubt.
    pub(crate) fn of(file: Arc<dyn DiskFile>, segment: &Segment) -> Option<Self> {
        let head = read(&*file, 0, HEAD_BYTES)?;
        let tables = word(&head, 16) as usize;
        let marks = word(&head, 20);
        let is_of_it = word(&head, 0) == MAGIC
            && head[4..8] == [FORMAT, 0, 0, 0]
            && word(&head, 8) == header_crc(&segment.header)
            && word(&head, 12) == segment.extent.read().crc
            && (1..=TABLES_MAX).contains(&tables);
        if !is_of_it {
            return None;
        }
        let checked = HEAD_BYTES + tables * ROW_BYTES;
        let bytes = read(&*file, 0, checked + CRC_BYTES)?;
        if crc32c::crc32c(&bytes[..checked]) != word(&bytes, checked) {
            return None;
        }
        let rows: Vec<Row> = bytes[HEAD_BYTES..checked]
            .chunks_exact(ROW_BYTES)
            .map(|row| Row {
                table: TableId(word(row, 0)),
                at: word(row, 4),
                len: word(row, 8),
            })
            .collect();
        let marks_at = rows
            .last()
            .map(|row| u64::from(row.at) + u64::from(row.len))?;
        let is_whole = file.len().ok()? == marks_at + u64::from(marks) * MARK_BYTES as u64;
        is_whole.then_some(Self {
            file,
            rows,
            marks_at,
            marks,
        })
    }

    /// The blocks with records of any of these tables, ascending.
    pub(crate) fn blocks(&self, tables: &[TableId]) -> Option<Vec<u32>> {
        let mut blocks = BTreeSet::new();
        for table in tables {
            let Ok(place) = self.rows.binary_search_by_key(table, |row| row.table) else {
                continue;
            };
            let row = self.rows[place];
            let bytes = read(&*self.file, row.at.into(), row.len as usize)?;
            let list_len = bytes.len().checked_sub(CRC_BYTES)?;
            let (list, crc) = bytes.split_at(list_len);
            if crc32c::crc32c(list) != word(crc, 0) {
                return None;
            }
            let (mut at, mut next) = (0, 0);
            while at < list.len() {
                let block = next + read_varint(list, &mut at)?;
                blocks.insert(
                    u32::try_from(block)
                        .ok()
                        .filter(|block| *block < self.marks)?,
                );
                next = block + 1;
            }
        }
        Some(blocks.into_iter().collect())
    }

    /// Where a block begins.
    pub(crate) fn mark(&self, block: u32) -> Option<Point> {
        let at = self.marks_at + u64::from(block) * MARK_BYTES as u64;
        let mark = read(&*self.file, at, MARK_BYTES)?;
        let checked = MARK_BYTES - CRC_BYTES;
        (crc32c::crc32c(&mark[..checked]) == word(&mark, checked)).then(|| Point {
            index: Index(long(&mark, 0)),
            base_offset: Position(long(&mark, 8)),
            timestamp_before_ms: 0,
            at: long(&mark, 16),
            term_before: Term(long(&mark, 24)),
            previous: word(&mark, 32),
        })
    }
}

/// So many bytes, or nothing.
fn read(file: &dyn DiskFile, at: u64, len: usize) -> Option<Vec<u8>> {
    let is_inside = at.checked_add(len as u64)? <= file.len().ok()?;
    let mut bytes = vec![0; if is_inside { len } else { 0 }];
    let count = file.read_at(at, &mut bytes).ok()?;
    (is_inside && count == len).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::SimulatedDisk;

    fn example() -> (Segment, Vec<u8>) {
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
        for block in 0..300u64 {
            extent.points.push(Point {
                index: Index(4 + block),
                base_offset: Position(30 + block),
                timestamp_before_ms: 0,
                at: 4096 + 8192 * block,
                previous: 7,
                term_before: Term(5),
            });
        }
        extent.crc = 9;
        let lists = BTreeMap::from([(TableId(1024), vec![0, 1, 299]), (TableId(1030), vec![150])]);
        let bytes = encode(&header, &extent, &lists);
        (Segment::new(header, 4 << 20, extent), bytes)
    }

    fn opened(segment: &Segment, bytes: &[u8]) -> Option<TableIndex> {
        let name = tables_name(&segment.name);
        let files = BTreeMap::from([(name.clone(), bytes.to_vec())]);
        let disk = SimulatedDisk::with_files(1, files);
        TableIndex::of(disk.open(&name).unwrap(), segment)
    }

    #[test]
    fn an_index_by_table_has_these_bytes() {
        let (segment, bytes) = example();
        let mut expected = b"OLTX\x01\0\0\0".to_vec();
        expected.extend_from_slice(&crc32c::crc32c(&segment.header.encode()[..68]).to_le_bytes());
        for number in [9u32, 2, 300, 1024, 52, 8, 1030, 60, 6] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        let crc = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
        expected.extend_from_slice(&crc(&expected));
        for list in [&[0u8, 0, 0xa9, 2][..], &[0x96, 1]] {
            expected.extend_from_slice(list);
            expected.extend_from_slice(&crc(list));
        }
        let mut mark = Vec::new();
        for number in [4u64, 30, 4096, 5] {
            mark.extend_from_slice(&number.to_le_bytes());
        }
        mark.extend_from_slice(&[7, 0, 0, 0]);
        mark.extend_from_slice(&crc(&mark));
        expected.extend_from_slice(&mark);
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(bytes.len(), 66 + 300 * 40);
    }

    #[test]
    fn blocks_and_marks_are_read_back() {
        let (segment, bytes) = example();
        let index = opened(&segment, &bytes).unwrap();
        let blocks = |tables: &[u32]| {
            let tables: Vec<_> = tables.iter().copied().map(TableId).collect();
            index.blocks(&tables).unwrap()
        };
        assert_eq!(blocks(&[1024]), [0, 1, 299]);
        assert_eq!(blocks(&[1030, 1024, 7]), [0, 1, 150, 299]);
        assert_eq!(blocks(&[1025]), [0u32; 0]);
        assert_eq!(index.mark(150), Some(segment.extent.read().points[150]));
    }

    #[test]
    fn any_doubt_means_none() {
        let (segment, whole) = example();
        let all = |bytes: &[u8]| {
            let index = opened(&segment, bytes)?;
            let blocks = index.blocks(&[TableId(1024), TableId(1030)])?;
            let marks: Option<Vec<_>> = (0..index.marks).map(|block| index.mark(block)).collect();
            marks.map(|marks| (blocks, marks))
        };
        assert!(all(&whole).is_some());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(all(&bytes), None, "bit {bit}");
        }
        for end in 0..whole.len() {
            assert!(all(&whole[..end]).is_none(), "{end} bytes");
        }
        segment.extent.write().crc = 8;
        assert!(all(&whole).is_none(), "of another end");
    }
}
