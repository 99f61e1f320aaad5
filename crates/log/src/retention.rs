//! Dropping old segments.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_record::{Index, Position};

use crate::mend::{remove_indexes, remove_segment};
use crate::planted::{self, Bug};
use crate::prepare::{SPARES_MAX, Spare};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::{Log, RetainError};

/// A segment that retention dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub file: String,
    pub first_index: Index,
    pub last_index: Index,
    /// The position behind its last entry.
    pub end: Position,
    /// The bytes of its file.
    pub bytes: u64,
    /// Whether the file was kept as a spare.
    pub is_recycled: bool,
}

/// A sealed segment, for deciding what to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    pub first_index: Index,
    pub last_index: Index,
    /// The position behind its last entry.
    pub end: Position,
    /// The highest timestamp of its entries.
    pub timestamp_ms: u64,
    /// The bytes of its file.
    pub bytes: u64,
}

/// A job that removes the files of segments that were dropped. Run it on any thread. Where it is not
/// run, they are part of the log again after the next opening.
#[derive(Debug)]
#[must_use = "the files stay until this is run"]
pub struct Retain {
    shared: Arc<Shared>,
    dropped: Vec<Arc<Segment>>,
    segment_bytes: u64,
}

impl Log {
    /// The sealed segments, oldest first, for which the next one is there. The last one is never
    /// dropped, nor one whose successor has no file yet: it says where the log goes on.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SegmentSpan> {
        let segments = self.shared.segments.read();
        let span = |segment: &Arc<Segment>| {
            let extent = segment.extent.read();
            SegmentSpan {
                first_index: segment.header.first_index,
                last_index: extent.last_index(),
                end: extent.next_offset,
                timestamp_ms: extent.timestamp_ms,
                bytes: segment.capacity,
            }
        };
        segments
            .iter()
            .take(self.sealed_count(&segments))
            .map(span)
            .collect()
    }

    fn sealed_count(&self, segments: &VecDeque<Arc<Segment>>) -> usize {
        let made = self.shared.rolls.made();
        let is_made =
            |s: &&Arc<Segment>| s.header.number <= made || planted::is(Bug::DropBeforeRoll);
        let made = segments.iter().take_while(is_made).count();
        made.saturating_sub(1)
    }

    /// Drops the segments that lie wholly below `index`; never the last one, and none that is not
    /// durable. Nothing of them is read any more; the job that is answered records that and removes
    /// the files, up to two of which are kept to be written again. `None` when nothing is dropped.
    ///
    /// # Errors
    /// When the log has stopped.
    pub fn retain_from(&mut self, index: Index) -> Result<Option<Retain>, RetainError> {
        if self.shared.gate.is_closed() {
            return Err(RetainError::Stopped);
        }
        let below = index.min(self.durable().next());
        let dropped: Vec<Arc<Segment>> = {
            let mut segments = self.shared.segments.write();
            let count = segments
                .iter()
                .take(self.sealed_count(&segments))
                .take_while(|segment| segment.last_index() < below)
                .count();
            segments.drain(..count).collect()
        };
        Ok((!dropped.is_empty()).then(|| Retain {
            shared: Arc::clone(&self.shared),
            dropped,
            segment_bytes: self.options.segment_bytes,
        }))
    }
}

impl Retain {
    /// Does it: first it is recorded that the segments may be missing, then they go. Blocks. Answers
    /// what was dropped.
    ///
    /// # Errors
    /// A failure of the disk is final.
    pub fn run(self) -> Result<Vec<Dropped>, RetainError> {
        if self.shared.gate.is_closed() {
            return Err(RetainError::Stopped);
        }
        let gate = self.shared.gate.clone();
        self.drop_segments().map_err(|error| {
            gate.close();
            error.into()
        })
    }

    fn drop_segments(mut self) -> io::Result<Vec<Dropped>> {
        let dropped = std::mem::take(&mut self.dropped);
        let Some(last) = dropped.last() else {
            return Ok(Vec::new());
        };
        let first_kept = last.header.number + 1;
        if !planted::is(Bug::DropUnrecorded) {
            self.shared
                .save(|stored| stored.first_segment = stored.first_segment.max(first_kept))?;
        }
        let shared = Arc::clone(&self.shared);
        let _files = shared.files.lock();
        if last.header.number < shared.first_number.load(Ordering::Acquire) {
            // The log was begun anew meanwhile, and all its old files went.
            return Ok(Vec::new());
        }
        let is_kept = |other: &Arc<Segment>| other.header.number >= first_kept;
        self.shared.open_files.lock().retain(is_kept);
        self.shared.preparation.lock().retain(is_kept);
        let mut report = Vec::new();
        for segment in dropped {
            let is_recycled = self.recycle(&segment)?;
            if !is_recycled {
                remove_segment(&*self.shared.disk, &segment.name)?;
            }
            let extent = segment.extent.read();
            report.push(Dropped {
                file: segment.name.clone(),
                first_index: segment.header.first_index,
                last_index: extent.last_index(),
                end: extent.next_offset,
                bytes: segment.capacity,
                is_recycled,
            });
        }
        Ok(report)
    }

    /// Keeps the file as a spare, unless a reader still holds it or there are enough.
    fn recycle(&self, segment: &Arc<Segment>) -> io::Result<bool> {
        let is_free = Arc::strong_count(segment) == 1;
        let is_wanted = self.shared.preparation.lock().spares.len() < SPARES_MAX;
        if !is_free || !is_wanted || segment.capacity != self.segment_bytes {
            return Ok(false);
        }
        let disk = &*self.shared.disk;
        let file = segment.file(disk)?;
        let name = self.shared.preparation.lock().spare_name();
        remove_indexes(disk, &segment.name)?;
        disk.rename(&segment.name, &name)?;
        disk.sync_folder()?;
        self.shared.preparation.lock().spares.push(Spare {
            name,
            file,
            len: segment.capacity,
            recycled: true,
        });
        Ok(true)
    }
}
