//! Rolling to the next segment.
//!
//! Staging gives the next segment its place in the log and does not touch the disk. The file is made
//! by the first flush that has frames for it, on that flush's thread: header flushed, file named,
//! folder flushed, and only then counted in the hard state, so that a segment that was counted and
//! is gone is noticed. Segments are made in the order of their numbers, and no frame is written
//! into one that is not counted: a spare file never holds frames that were not durable.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onelog_record::{Entry, Position, Term};
use parking_lot::Mutex;

use crate::FlushError;
use crate::frame::CHAIN_START;
use crate::hard_state::HardStateFile;
use crate::log::Log;
use crate::planted::{self, Bug};
use crate::prepare::{Spare, make_spare};
use crate::segment::{Extent, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::shared::Shared;

/// A segment that has its place in the log and no file yet.
#[derive(Debug)]
pub(crate) struct Roll {
    segment: Arc<Segment>,
    /// The file that was made ready for it.
    spare: Option<Spare>,
}

/// The segments that wait for their files, and how far the files are made.
#[derive(Debug)]
pub(crate) struct Rolls {
    waiting: Mutex<VecDeque<Roll>>,
    /// Each segment up to this number has its file and is counted.
    made: AtomicU64,
}

impl Rolls {
    pub fn after(number: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            made: AtomicU64::new(number),
        }
    }

    /// The number of the last segment that has its file and is counted.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// This segment is the last one now, and has its file; nothing may wait.
    pub fn go_to(&self, number: u64) {
        self.made.store(number, Ordering::Release);
    }
}

impl Shared {
    /// Makes the files of all segments up to this one, where they are not made. Blocks.
    pub fn roll_to(&self, number: u64) -> Result<(), FlushError> {
        if self.rolls.made() >= number {
            return Ok(());
        }
        // Held over each roll: a second flush waits until the first has made the file.
        let mut hard = self.hard.lock();
        while self.rolls.made() < number {
            let roll = self.rolls.waiting.lock().pop_front();
            let (Some(roll), Some(hard)) = (roll, hard.as_mut()) else {
                return Err(FlushError::Stopped);
            };
            // One that panicked has left a gap, before its flush could close the gate.
            let is_next = roll.segment.header.number == self.rolls.made() + 1;
            if self.gate.is_closed() || !is_next {
                return Err(FlushError::Stopped);
            }
            let file = roll.segment.name.clone();
            self.roll(roll, hard).map_err(|source| {
                self.gate.close();
                FlushError::Segment { file, source }
            })?;
        }
        Ok(())
    }

    fn roll(&self, roll: Roll, hard: &mut HardStateFile) -> io::Result<()> {
        let Roll { segment, spare } = roll;
        let (name, file) = match spare {
            Some(spare) => (spare.name, spare.file),
            None => {
                let name = self.preparation.lock().spare_name();
                let file = make_spare(&*self.disk, &name, segment.capacity)?;
                (name, file)
            }
        };
        file.write_all_at(0, &segment.header.encode())?;
        file.sync_data()?;
        self.disk.rename(&name, &segment.name)?;
        if !planted::is(Bug::NameUnflushed) {
            self.disk.sync_folder()?;
        }
        let number = segment.header.number;
        self.save_in(hard, |stored| {
            stored.last_segment = number;
            stored.first_segment = stored.first_segment.max(1);
        })?;
        segment.keep(file);
        self.rolls.made.store(number, Ordering::Release);
        Ok(())
    }
}

impl Log {
    pub(crate) fn segment_for(&mut self, entry: &Entry, log_id: u128, need: u64) -> Arc<Segment> {
        let last = self.shared.segments.read().back().cloned();
        if let Some(last) = last {
            let end = last.extent.read().end;
            if end + need <= last.capacity {
                return last;
            }
            if end == SEGMENT_HEADER_BYTES {
                return self.grow(&last, end + need);
            }
            self.sealed.push_back(last);
        }
        self.next_segment(entry, log_id, need)
    }

    /// Makes room for a large frame in a segment that is still empty: the next segment would have
    /// the same name. Its file grows as the frame is written.
    fn grow(&self, last: &Segment, need: u64) -> Arc<Segment> {
        let capacity = need.next_multiple_of(SEGMENT_HEADER_BYTES);
        let extent = Extent::empty(&last.header);
        let grown = Arc::new(Segment::new(last.header, capacity, extent));
        let mut segments = self.shared.segments.write();
        segments.pop_back();
        segments.push_back(Arc::clone(&grown));
        grown
    }

    fn next_segment(&self, first: &Entry, log_id: u128, need: u64) -> Arc<Segment> {
        let need = SEGMENT_HEADER_BYTES + need;
        let fits = need <= self.options.segment_bytes;
        let spare = fits
            .then(|| self.shared.preparation.lock().spares.pop())
            .flatten();
        let capacity = spare.as_ref().map_or_else(
            || {
                need.max(self.options.segment_bytes)
                    .next_multiple_of(SEGMENT_HEADER_BYTES)
            },
            |spare| spare.len,
        );
        let last = self.shared.segments.read().back().cloned();
        let (number, previous, term) = last.map_or((1, CHAIN_START, Term::ZERO), |last| {
            let extent = last.extent.read();
            (last.header.number + 1, extent.crc, extent.term)
        });
        let header = SegmentHeader {
            recycled: spare.as_ref().is_some_and(|spare| spare.recycled),
            log_id,
            number,
            base_offset: Position(first.header.base_offset.0),
            first_index: first.index,
            term,
            durable: self.durable(),
            previous,
        };
        let segment = Arc::new(Segment::new(header, capacity, Extent::empty(&header)));
        let roll = Roll {
            segment: Arc::clone(&segment),
            spare,
        };
        self.shared.rolls.waiting.lock().push_back(roll);
        let mut segments = self.shared.segments.write();
        segments.push_back(Arc::clone(&segment));
        drop(segments);
        segment
    }
}
