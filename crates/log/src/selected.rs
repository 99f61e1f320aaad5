//! Reading what some tables have in the log, without reading the rest where an index by table says
//! where they have records. See `table_index.rs`.

use std::sync::Arc;

use onelog_record::{Index, Position, TableId};

use crate::ReadError;
use crate::frame::Frame;
use crate::reader::{Batch, Chained, LogReader, READ_BYTES, Start};
use crate::segment::{Point, Segment};
use crate::table_index::{TableIndex, tables_name};

/// How many segments one call looks at, so that a table without records does not make it endless.
const SEGMENTS_MAX: usize = 64;
/// What is read ahead where one block is wanted.
const BLOCK_READ_BYTES: usize = 16 << 10;

/// What was found of some tables.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Every entry with records of these tables between where the reading began and `next`; some
    /// without such records may be among them.
    pub entries: Vec<Chained>,
    pub next: Position,
}

/// What a call has taken, and up to where everything has been looked at.
struct Progress {
    batch: Batch,
    next: Position,
    is_full: bool,
}

impl Progress {
    /// Takes in a frame that was read; answers whether to read on.
    fn take(&mut self, frame: &Frame<'_>) -> bool {
        let header = &frame.head.header;
        if header.end() <= self.next {
            return true;
        }
        self.is_full = !self.batch.take(frame);
        self.next = if self.is_full {
            self.next.max(Position(header.base_offset.0))
        } else {
            header.end()
        };
        !self.is_full
    }
}

impl LogReader {
    /// The entries with records of `tables`, from the one that holds the record at `from`, up to the
    /// index `limit`, not included: at least one if there is one near, and no more than `max_bytes`
    /// otherwise. It may find none and still get on: read again from `next` until that is the end.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn selected(
        &self,
        tables: &[TableId],
        from: Position,
        limit: Index,
        max_bytes: usize,
    ) -> Result<Selected, ReadError> {
        self.at_one_time(|| {
            let mut progress = Progress {
                batch: Batch::new(max_bytes),
                next: from,
                is_full: false,
            };
            for _ in 0..SEGMENTS_MAX {
                if !self.select_in_segment(tables, limit, &mut progress)? {
                    break;
                }
            }
            Ok(Selected {
                entries: progress.batch.entries,
                next: progress.next,
            })
        })
    }

    /// Answers whether there is more to look at.
    fn select_in_segment(
        &self,
        tables: &[TableId],
        limit: Index,
        progress: &mut Progress,
    ) -> Result<bool, ReadError> {
        let Some(start) = self.start_at_position(progress.next)? else {
            return Ok(false);
        };
        let segment = Arc::clone(&start.segment);
        let (end, is_sealed) = self.end_of(&segment);
        let by_index = is_sealed && start.next_index <= limit;
        let runs = by_index.then(|| self.runs(tables, progress.next, &start));
        let Some(runs) = runs.flatten() else {
            return self.walk_whole(&start, limit, end, progress);
        };
        for run in runs {
            let walked = self.walk(&run, run.next_index, &mut |frame| progress.take(frame));
            match walked {
                Ok(true) => {}
                // No more fits, or is durable here.
                Ok(false) => return Ok(false),
                // What looks like damage from there may be the index's own.
                Err(ReadError::Corrupt(_)) => {
                    self.make_again(&segment);
                    return self.walk_whole(&start, limit, end, progress);
                }
                Err(error) => return Err(error),
            }
        }
        progress.next = progress.next.max(end);
        Ok(true)
    }

    /// The wanted blocks of a segment, where it has an index that can be trusted.
    fn runs(&self, tables: &[TableId], from: Position, start: &Start) -> Option<Vec<Start>> {
        let disk = &*self.shared.disk;
        let name = tables_name(&start.segment.name);
        let file = disk.open(&name).ok()?;
        let found = TableIndex::of(file, &start.segment)
            .and_then(|index| runs(&index, tables, from, start));
        if found.is_none() {
            self.make_again(&start.segment);
        }
        found
    }

    /// An index by table is doubtful.
    fn make_again(&self, segment: &Arc<Segment>) {
        tracing::warn!(
            segment = segment.name,
            "its index by table is doubtful and is made again"
        );
        self.shared.preparation.lock().want_tables(segment);
    }

    fn walk_whole(
        &self,
        start: &Start,
        limit: Index,
        end: Position,
        progress: &mut Progress,
    ) -> Result<bool, ReadError> {
        let bound = start.next_index.min(limit);
        let done = self.walk(start, bound, &mut |frame| progress.take(frame))?;
        let is_last = bound == limit || self.end_of(&start.segment) != (end, true);
        Ok(done && !is_last && !progress.is_full)
    }

    /// The position where a segment ends, and whether another one goes on behind it.
    fn end_of(&self, segment: &Arc<Segment>) -> (Position, bool) {
        let last = self.shared.segments.read().back().cloned();
        let is_sealed = last.is_some_and(|last| last.header.number > segment.header.number);
        (segment.extent.read().next_offset, is_sealed)
    }
}

/// The wanted blocks from a position on, neighbours together; `None` when the index is doubtful.
fn runs(
    index: &TableIndex,
    tables: &[TableId],
    from: Position,
    whole: &Start,
) -> Option<Vec<Start>> {
    let blocks = index.blocks(tables)?;
    // The first block that does not end before the position.
    let mut first = 0;
    let mut behind = blocks.len();
    while first < behind {
        let middle = first.midpoint(behind);
        let next = blocks[middle] + 1;
        let ends_before = next < index.marks && index.mark(next)?.base_offset <= from;
        if ends_before {
            first = middle + 1;
        } else {
            behind = middle;
        }
    }
    let mut runs: Vec<Start> = Vec::new();
    let mut last: Option<u32> = None;
    for &block in &blocks[first..] {
        let next = block + 1;
        let next_index = if next < index.marks {
            index.mark(next)?.index
        } else {
            whole.next_index
        };
        let follows = last.is_some_and(|last| last + 1 == block);
        last = Some(block);
        match runs.last_mut() {
            Some(run) if follows => {
                run.next_index = next_index;
                run.read_bytes = READ_BYTES;
            }
            _ => runs.push(start_at(whole, index.mark(block)?, next_index)),
        }
    }
    Some(runs)
}

fn start_at(whole: &Start, point: Point, next_index: Index) -> Start {
    Start {
        segment: Arc::clone(&whole.segment),
        point: Some(point),
        end: whole.end,
        next_index,
        read_bytes: BLOCK_READ_BYTES,
    }
}
