//! Cutting the end of the log: a later leader has other entries there.
//!
//! The hard state takes the intent first, and the watermark comes down with it: stale frames behind
//! the cut carry watermarks above it, and without the intent they would pass for evidence that
//! acknowledged entries are damaged. Then segments behind the cut go, last one first, the frames
//! behind it are zeroed, and only when that is durable is the intent taken back. Recovery does the
//! same from any point in between. Before all of it, many entries are copied ([`crate::kept`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_record::{Index, Term};

use crate::disk::DiskFile;
use crate::frame::Salt;
use crate::hard_state::HardStateFile;
use crate::kept::{CutEntries, Kept, keep};
use crate::mend::{remove_indexes, remove_segment};
use crate::planted::{self, Bug};
use crate::scan::{scan, zero};
use crate::segment::{Extent, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::{Corruption, CutError, Log, ReadError};

/// Where the log will end.
pub(crate) struct NewEnd {
    kept: Arc<Segment>,
    /// Of the kept segment.
    extent: Extent,
    /// Where its last frame ends now.
    old_end: u64,
    /// Of the first and the last entry that are cut.
    first_term: Term,
    last_term: Term,
    /// The segments behind it, ascending.
    behind: Vec<Arc<Segment>>,
}

impl Log {
    /// Cuts all entries from `from` on, durably: when it answers, nothing of them can come back.
    /// Readers see the log as it was before or as it is afterwards, never both. Answers what was cut;
    /// `None` where `from` is the next entry. Blocks.
    ///
    /// # Errors
    /// `InFlight`, `Outside` and `Committed` change nothing. All others are final; the next opening
    /// completes what was begun.
    pub fn cut_end(&mut self, from: Index) -> Result<Option<CutEntries>, CutError> {
        if self.shared.gate.is_closed() {
            return Err(CutError::Stopped);
        }
        if self.flushes_in_flight() > 0 {
            return Err(CutError::InFlight(self.flushes_in_flight()));
        }
        let (first, last) = (self.first_index(), self.last_index());
        if from < first || from > last.next() {
            return Err(CutError::Outside { from, first, last });
        }
        let committed = self.hard_state().map_or(Index::ZERO, |hard| hard.commit);
        if from <= committed && from <= last {
            return Err(CutError::Committed { from, committed });
        }
        if from > last {
            return Ok(None);
        }
        let result = self.cut(from);
        if result.is_err() {
            self.shared.gate.close();
        }
        result.map(Some)
    }

    fn cut(&self, from: Index) -> Result<CutEntries, CutError> {
        let _files = self.shared.files.lock();
        let end = self.new_end(from)?;
        let mut hard = self.shared.hard.lock();
        let Some(hard) = hard.as_mut() else {
            return Err(CutError::Stopped);
        };
        let entries = self.keep(&end, from)?;
        self.cut_behind(&end, from, hard)?;
        Ok(entries)
    }

    /// Copies the frames from `from` on, where they are many: they are about to go.
    pub(crate) fn keep(&self, end: &NewEnd, from: Index) -> io::Result<CutEntries> {
        let disk = &*self.shared.disk;
        let mut cut = CutEntries {
            from,
            to: self.last_index(),
            first_term: end.first_term,
            last_term: end.last_term,
            kept: Kept::Few,
        };
        let (kept, extent) = (&end.kept, &end.extent);
        let header = SegmentHeader {
            recycled: false,
            base_offset: extent.next_offset,
            first_index: extent.next_index,
            term: extent.term,
            previous: extent.crc,
            ..kept.header
        };
        let mut files = vec![(kept.file(disk)?, extent.end, end.old_end)];
        for segment in &end.behind {
            let its_end = segment.extent.read().end;
            files.push((segment.file(disk)?, SEGMENT_HEADER_BYTES, its_end));
        }
        let frames = files.iter().map(|(file, from, to)| (&**file, *from, *to));
        let frames: Vec<(&dyn DiskFile, u64, u64)> = frames.collect();
        cut.kept = keep(disk, &cut, &header, &frames)?;
        Ok(cut)
    }

    /// Finds the place of the cut; reads the frames up to it from the last point of the index.
    pub(crate) fn new_end(&self, from: Index) -> Result<NewEnd, CutError> {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().iter().cloned().collect();
        let place = segments.partition_point(|s| s.header.first_index <= from);
        let kept = Arc::clone(&segments[place - 1]);
        let mut extent = kept.extent.read().clone();
        let old_end = extent.end;
        let is_at = |(first, _): &&(Index, Term)| *first <= from;
        let first_term =
            (extent.terms.iter().rev().find(is_at)).map_or(kept.header.term, |run| run.1);
        let last_term = self.last_term();
        extent.rewind(&kept.header, from);
        let file = kept.file(&*self.shared.disk)?;
        let salt = Salt::of(kept.header.log_id);
        let every = self.options.index_every_bytes;
        let (_, fault) = scan(&*file, salt, &mut extent, every, from, &mut |_| {})?;
        if extent.next_index != from {
            return Err(CutError::Read(ReadError::Corrupt(Corruption {
                file: kept.name.clone(),
                at: extent.end,
                index: extent.next_index,
                what: fault.to_string(),
            })));
        }
        Ok(NewEnd {
            kept,
            extent,
            old_end,
            first_term,
            last_term,
            behind: segments[place..].to_vec(),
        })
    }

    /// Of the last entry; zero where there is none.
    pub(crate) fn last_term(&self) -> Term {
        let segments = self.shared.segments.read();
        (segments.back()).map_or(Term::ZERO, |last| last.extent.read().term)
    }

    fn cut_behind(&self, end: &NewEnd, from: Index, hard: &mut HardStateFile) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let kept = &end.kept;
        let mut stored = hard.stored;
        stored.truncate_from = from;
        stored.last_segment = kept.header.number;
        stored.public.clean = false;
        if !planted::is(Bug::CutKeepsWatermark) {
            stored.public.durable = end.extent.last_index();
        }
        hard.save(stored)?;
        self.forget_behind(end);
        for segment in end.behind.iter().rev() {
            remove_segment(disk, &segment.name)?;
        }
        remove_indexes(disk, &kept.name)?;
        disk.sync_folder()?;
        // Behind the old end there is nothing of this log: each flush so far has ended well.
        let file = kept.file(disk)?;
        zero(&*file, end.extent.end, end.old_end)?;
        if !planted::is(Bug::CutUnflushed) {
            file.sync_data()?;
        }
        stored.truncate_from = Index::ZERO;
        hard.save(stored)
    }

    /// Readers begin to see the log without its end; those that read now read again.
    fn forget_behind(&self, end: &NewEnd) {
        let shared = &self.shared;
        let number = end.kept.header.number;
        shared.rolls.go_to(number);
        let is_before = |s: &Arc<Segment>| s.header.number < number;
        shared.open_files.lock().retain(is_before);
        shared.preparation.lock().retain(is_before);
        let mut segments = shared.segments.write();
        segments.retain(|s| s.header.number <= number);
        *end.kept.extent.write() = end.extent.clone();
        let last = end.extent.last_index();
        shared.durable.store(last.0, Ordering::Release);
        shared.changes.fetch_add(1, Ordering::Release);
    }
}
