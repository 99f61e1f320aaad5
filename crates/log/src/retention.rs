//! Dropping old segments, and taking back the end of the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_record::{Index, Position};

use crate::frame::Salt;
use crate::index_file::index_name;
use crate::prepare::{SPARES_MAX, Spare};
use crate::recovery::{remove_if_there, remove_segment};
use crate::scan::{scan, zero_rest};
use crate::segment::Segment;
use crate::{Log, ReadError, RetainError, TruncateError};

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
    pub last_index: Index,
    /// The bytes of its file.
    pub bytes: u64,
}

impl Log {
    /// The sealed segments, oldest first: all but the last one, which is never dropped.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SegmentSpan> {
        let segments = self.shared.segments.read();
        let sealed = segments.len().saturating_sub(1);
        let span = |segment: &Arc<Segment>| SegmentSpan {
            last_index: segment.last_index(),
            bytes: segment.capacity,
        };
        segments.iter().take(sealed).map(span).collect()
    }

    /// Drops the segments that lie wholly below `index`; never the last one, and none that is not
    /// durable. Up to two of their files are kept to be written again. Answers what was dropped.
    ///
    /// # Errors
    /// A failure of the disk is final.
    pub fn retain_from(&mut self, index: Index) -> Result<Vec<Dropped>, RetainError> {
        if self.gate.is_closed() {
            return Err(RetainError::Stopped);
        }
        let below = index.min(self.durable().next());
        let dropped: Vec<Arc<Segment>> = {
            let mut segments = self.shared.segments.write();
            let sealed = segments.len().saturating_sub(1);
            let count = segments
                .iter()
                .take(sealed)
                .take_while(|segment| segment.last_index() < below)
                .count();
            segments.drain(..count).collect()
        };
        let mut report = Vec::new();
        let result = self.drop_segments(dropped, &mut report);
        if let Err(error) = result {
            self.gate.close();
            return Err(error.into());
        }
        Ok(report)
    }

    fn drop_segments(
        &mut self,
        dropped: Vec<Arc<Segment>>,
        report: &mut Vec<Dropped>,
    ) -> io::Result<()> {
        let (Some(last), Some(hard)) = (dropped.last(), self.hard.as_mut()) else {
            return Ok(());
        };
        // First it is said that they may be missing, then they go.
        let mut stored = hard.stored;
        stored.first_segment = last.header.number + 1;
        stored.public.durable = Index(self.shared.durable.load(Ordering::Acquire));
        hard.save(stored)?;
        let is_kept = |other: &Arc<Segment>| other.header.number >= stored.first_segment;
        self.shared.open_files.lock().retain(is_kept);
        self.preparation.lock().indexes.retain(is_kept);
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
        Ok(())
    }

    /// Keeps the file as a spare, unless a reader still holds it or there are enough.
    fn recycle(&self, segment: &Arc<Segment>) -> io::Result<bool> {
        let is_free = Arc::strong_count(segment) == 1;
        let is_wanted = self.preparation.lock().spares.len() < SPARES_MAX;
        if !is_free || !is_wanted || segment.capacity != self.options.segment_bytes {
            return Ok(false);
        }
        let disk = &*self.shared.disk;
        let file = segment.file(disk)?;
        let name = self.preparation.lock().spare_name();
        remove_if_there(disk, &index_name(&segment.name))?;
        disk.rename(&segment.name, &name)?;
        disk.sync_folder()?;
        self.preparation.lock().spares.push(Spare {
            name,
            file,
            len: segment.capacity,
            recycled: true,
        });
        Ok(true)
    }

    /// Takes back all entries from `index` on, durably: nothing of them can come back. For a
    /// follower whose leader has other entries there; committed entries MUST NOT be taken back.
    ///
    /// # Errors
    /// When flushes are in flight or `index` does not lie in the log, nothing is changed. A failure
    /// of the disk is final; the next opening completes the truncation.
    pub fn truncate_from(&mut self, index: Index) -> Result<(), TruncateError> {
        if self.gate.is_closed() {
            return Err(TruncateError::Stopped);
        }
        if self.flushes_in_flight() > 0 {
            return Err(TruncateError::InFlight(self.flushes_in_flight()));
        }
        let (first, last) = (self.first_index(), self.last_index());
        if index < first || index > last {
            return Err(TruncateError::Outside { index, first, last });
        }
        let result = self.truncate(index);
        if result.is_err() {
            self.gate.close();
        }
        result
    }

    fn truncate(&mut self, index: Index) -> Result<(), TruncateError> {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().iter().cloned().collect();
        let place = segments.partition_point(|s| s.header.first_index <= index) - 1;
        let kept = &segments[place];
        let disk = Arc::clone(&self.shared.disk);
        let file = kept.file(&*disk)?;
        let mut extent = kept.extent.read().clone();
        extent.rewind(&kept.header, index);
        let salt = Salt::of(kept.header.log_id);
        let every = self.options.index_every_bytes;
        let (_, fault) = scan(&*file, salt, &mut extent, every, index, &mut |_| {})?;
        if extent.next_index != index {
            return Err(TruncateError::Read(ReadError::Corrupt(crate::Corruption {
                file: kept.name.clone(),
                at: extent.end,
                index: extent.next_index,
                what: fault.to_string(),
            })));
        }
        let Some(hard) = self.hard.as_mut() else {
            return Ok(());
        };
        // The intent first: frames behind a half-zeroed cut would look like acknowledged ones.
        let mut stored = hard.stored;
        stored.truncate_from = index;
        stored.last_segment = kept.header.number;
        stored.public.durable = Index(index.0 - 1);
        hard.save(stored)?;
        self.shared.durable.store(index.0 - 1, Ordering::Release);
        self.shared.segments.write().truncate(place + 1);
        self.shared.open_files.lock().clear();
        self.preparation
            .lock()
            .indexes
            .retain(|s| s.header.number < kept.header.number);
        let end = extent.end;
        *kept.extent.write() = extent;
        for segment in segments[place + 1..].iter().rev() {
            remove_segment(&*disk, &segment.name)?;
        }
        remove_if_there(&*disk, &index_name(&kept.name))?;
        disk.sync_folder()?;
        zero_rest(&*file, end)?;
        stored.truncate_from = Index::ZERO;
        hard.save(stored)?;
        Ok(())
    }
}
