//! Reading the log on any thread. Every frame that is read is checked whole: header, body, chain
//! and numbering. Nothing that fails a check is ever served.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use onelog_record::{Entry, Index, Position, Term};

use crate::frame::{CHAIN_START, Frame, FrameFault, Salt, frame_len};
use crate::planted::{self, Bug};
use crate::restart::Place;
use crate::scan::{Expect, FrameReader, Stop};
use crate::segment::{Point, SEGMENT_HEADER_BYTES, Segment};
use crate::shared::Shared;
use crate::{Corruption, ReadError};

/// How many sealed segments keep their file open for readers.
const OPEN_FILES_MAX: usize = 64;
/// How much is read from the file at once.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Reads entries, on any thread. A clone is cheap.
///
/// It sees what was staged; callers bound it by what is committed. An entry above the durable
/// index whose write has not ended is left out, never taken for damage. When the log's end is cut,
/// or the log begins anew, each call sees it as it was before or as it is afterwards.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

/// Where to begin in a segment, and what bounds the reading.
pub(crate) struct Start {
    pub segment: Arc<Segment>,
    pub point: Option<Point>,
    pub end: u64,
    pub next_index: Index,
    /// How much is read from the file at once.
    pub read_bytes: usize,
}

impl LogReader {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The entries from `from` up to, not including, `to`; at least one if there is one, and no
    /// more than `max_bytes` otherwise, of frames or, where that is more, of what is in them unpacked.
    ///
    /// # Errors
    /// `Cut` when `from` was dropped; `Corrupt` naming the place; `Io`.
    pub fn entries(
        &self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let read = || self.chained(from, to, max_bytes);
        Ok(alone(self.at_one_time(read)?))
    }

    /// Reads the log as it was at one time: again when entries were replaced meanwhile, since then
    /// what was read may be of the old log and of the new one, or half overwritten.
    pub(crate) fn at_one_time<T>(
        &self,
        read: impl Fn() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let changes = self.changes();
            let result = read();
            if self.changes() == changes || planted::is(Bug::ReadAcrossCut) {
                return result;
            }
        }
    }

    fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    pub(crate) fn chained(
        &self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Chained>, ReadError> {
        let mut batch = Batch::new(max_bytes);
        let mut next = from;
        while next < to {
            let Some(start) = self.start_at_index(next)? else {
                break;
            };
            let bound = start.next_index.min(to);
            // The walk begins at a point of the index, which may be before what is still missing.
            let done = self.walk(&start, bound, &mut |frame| {
                frame.head.index < next || batch.take(frame)
            })?;
            if !done {
                break;
            }
            next = bound;
        }
        Ok(batch.entries)
    }

    /// The entries from the one that holds the record at `position`, up to the index `limit`, not
    /// included. Empty when `position` is the end.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn entries_from(
        &self,
        position: Position,
        limit: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        Ok(alone(self.chained_from(position, limit, max_bytes)?))
    }

    /// [`LogReader::entries_from`], each with its place in the chain.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn chained_from(
        &self,
        position: Position,
        limit: Index,
        max_bytes: usize,
    ) -> Result<Vec<Chained>, ReadError> {
        self.at_one_time(|| self.read_from(position, limit, max_bytes))
    }

    fn read_from(
        &self,
        position: Position,
        limit: Index,
        max_bytes: usize,
    ) -> Result<Vec<Chained>, ReadError> {
        let Some(start) = self.start_at_position(position)? else {
            return Ok(Vec::new());
        };
        let mut batch = Batch::new(max_bytes);
        let bound = start.next_index.min(limit);
        let done = self.walk(&start, bound, &mut |frame| {
            frame.head.header.end() <= position || batch.take(frame)
        })?;
        if done && bound < limit && bound >= start.next_index {
            let last = batch.entries.last();
            let next = last.map_or(bound, |last| last.entry.index.next());
            let more = self.chained(next, limit, batch.left)?;
            let fits = batch.entries.is_empty()
                || more
                    .first()
                    .is_some_and(|more| weight(&more.entry) <= batch.left);
            if fits {
                batch.entries.extend(more);
            }
        }
        Ok(batch.entries)
    }

    /// The checksum of the frame that holds the last record below `position`, which vouches for the
    /// whole log up to there: where two logs have the same, they are the same below the position.
    /// `None` when the log no longer has that frame, or does not reach so far.
    ///
    /// # Errors
    /// As [`LogReader::entries`], but never `Cut`.
    pub fn chain_at(&self, position: Position) -> Result<Option<u32>, ReadError> {
        self.at_one_time(|| self.find_chain(position))
    }

    fn find_chain(&self, position: Position) -> Result<Option<u32>, ReadError> {
        let Some(last) = position.get().checked_sub(1).map(Position) else {
            return Ok(Some(CHAIN_START));
        };
        let start = match self.start_at_position(last) {
            Ok(Some(start)) => start,
            Ok(None) | Err(ReadError::Cut { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut chain = None;
        let walked = self.walk(&start, start.next_index, &mut |frame| {
            let holds_it = frame.head.header.end() > last;
            chain = holds_it.then_some(frame.head.frame_crc);
            !holds_it
        });
        match walked {
            Ok(_) => Ok(chain),
            Err(ReadError::Cut { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The place of the entry at `index`, or of the one right before the log's first entry. `None`
    /// when the log has neither; it may be `None` for an entry whose flush has not ended.
    ///
    /// # Errors
    /// As [`LogReader::entries`], but never `Cut`.
    pub fn place(&self, index: Index) -> Result<Option<Place>, ReadError> {
        self.at_one_time(|| match self.known_place(index) {
            None => self.find_place(index),
            known => Ok(known),
        })
    }

    /// A place between two segments, or at an end of the log: no file is read for it.
    fn known_place(&self, index: Index) -> Option<Place> {
        let next = index.0.checked_add(1).map(Index)?;
        let segments = self.shared.segments.read();
        if segments.is_empty() {
            return (index == Index::ZERO).then_some(Place::START);
        }
        let place = segments.partition_point(|segment| segment.header.first_index <= next);
        let segment = segments.get(place.checked_sub(1)?)?;
        let header = &segment.header;
        let (term, end, checksum) = if header.first_index == next {
            (header.term, header.base_offset, header.previous)
        } else {
            let extent = segment.extent.read();
            if extent.next_index != next {
                return None;
            }
            (extent.term, extent.next_offset, extent.crc)
        };
        // A log may begin in the middle without knowing what was before.
        let is_known = index == Index::ZERO || term > Term::ZERO;
        is_known.then_some(Place {
            index,
            term,
            end,
            checksum,
        })
    }

    fn find_place(&self, index: Index) -> Result<Option<Place>, ReadError> {
        let start = match self.start_at_index(index) {
            Ok(Some(start)) => start,
            Ok(None) | Err(ReadError::Cut { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut place = None;
        let walked = self.walk(&start, index.next(), &mut |frame| {
            let head = &frame.head;
            place = (head.index == index).then(|| Place {
                index,
                term: head.term,
                end: head.header.end(),
                checksum: head.frame_crc,
            });
            true
        });
        match walked {
            Ok(_) => Ok(place),
            Err(ReadError::Cut { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The position before the first durable entry whose timestamp is at or after `timestamp_ms`;
    /// the end of what is durable when there is none.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn position_at_time(&self, timestamp_ms: u64) -> Result<Position, ReadError> {
        self.at_one_time(|| self.find_time(timestamp_ms))
    }

    fn find_time(&self, timestamp_ms: u64) -> Result<Position, ReadError> {
        let durable = self.durable();
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().iter().cloned().collect();
        let first = segments.first();
        let mut end = first.map_or(Position::ZERO, |first| first.header.base_offset);
        for segment in segments {
            if segment.header.first_index > durable {
                break;
            }
            let start = {
                let extent = segment.extent.read();
                end = extent.next_offset;
                // What is staged above the durable index does not count, nor does its end.
                let is_durable = extent.last_index() <= durable;
                if is_durable && extent.timestamp_ms < timestamp_ms {
                    continue;
                }
                let place = extent.points.partition_point(|point| {
                    point.timestamp_before_ms < timestamp_ms && point.index <= durable
                });
                Start {
                    point: extent.points.get(place.saturating_sub(1)).copied(),
                    end: extent.end,
                    next_index: extent.next_index,
                    segment: Arc::clone(&segment),
                    read_bytes: READ_BYTES,
                }
            };
            let mut found = None;
            self.walk(&start, start.next_index.min(durable.next()), &mut |frame| {
                let header = &frame.head.header;
                end = header.end();
                if header.timestamp_ms >= timestamp_ms {
                    found = Some(Position(header.base_offset.0));
                }
                found.is_none()
            })?;
            if let Some(position) = found {
                return Ok(position);
            }
        }
        Ok(end)
    }

    /// How many bytes of frames the log has from `position` on, to about one step of the sparse
    /// index; 0 at the end of the log. Reads no file.
    #[must_use]
    pub fn bytes_from(&self, position: Position) -> u64 {
        let segments = self.shared.segments.read();
        let bytes_of = |segment: &Arc<Segment>| {
            let extent = segment.extent.read();
            if extent.next_offset <= position {
                return 0;
            }
            let place = extent
                .points
                .partition_point(|point| point.base_offset <= position);
            let begin = place
                .checked_sub(1)
                .and_then(|place| extent.points.get(place))
                .map_or(SEGMENT_HEADER_BYTES, |point| point.at);
            extent.end - begin
        };
        segments.iter().map(bytes_of).sum()
    }

    fn durable(&self) -> Index {
        self.shared.durable()
    }

    fn start_at_index(&self, index: Index) -> Result<Option<Start>, ReadError> {
        let segments = self.shared.segments.read();
        let place = segments.partition_point(|segment| segment.header.first_index <= index);
        let Some(segment) = place.checked_sub(1).and_then(|place| segments.get(place)) else {
            return segments.front().map_or(Ok(None), |first| Err(cut(first)));
        };
        let extent = segment.extent.read();
        if index >= extent.next_index {
            return Ok(None);
        }
        let place = extent.points.partition_point(|point| point.index <= index);
        Ok(Some(Start {
            segment: Arc::clone(segment),
            point: place
                .checked_sub(1)
                .and_then(|place| extent.points.get(place).copied()),
            end: extent.end,
            next_index: extent.next_index,
            read_bytes: READ_BYTES,
        }))
    }

    pub(crate) fn start_at_position(&self, position: Position) -> Result<Option<Start>, ReadError> {
        let segments = self.shared.segments.read();
        let place = segments.partition_point(|segment| segment.header.base_offset <= position);
        // A segment that begins at this very position holds the record; one that is still empty
        // does not, and then the position is the end.
        let Some(segment) = place.checked_sub(1).and_then(|place| segments.get(place)) else {
            return segments.front().map_or(Ok(None), |first| Err(cut(first)));
        };
        let extent = segment.extent.read();
        let place = extent
            .points
            .partition_point(|point| point.base_offset <= position);
        Ok(place
            .checked_sub(1)
            .and_then(|place| extent.points.get(place))
            .map(|point| Start {
                segment: Arc::clone(segment),
                point: Some(*point),
                end: extent.end,
                next_index: extent.next_index,
                read_bytes: READ_BYTES,
            }))
    }

    /// Reads frames up to the index `bound`, not included, until `visit` says no. Answers whether
    /// the bound was reached.
    pub(crate) fn walk(
        &self,
        start: &Start,
        bound: Index,
        visit: &mut dyn FnMut(&Frame<'_>) -> bool,
    ) -> Result<bool, ReadError> {
        let Some(point) = start.point else {
            return Ok(true);
        };
        let segment = &start.segment;
        // Before anything is read: what becomes durable meanwhile may be missing in what was read.
        let durable = self.durable();
        let file = match segment.file(&*self.shared.disk) {
            Ok(file) => file,
            // It has no file yet.
            Err(_) if point.index > durable => return Ok(false),
            Err(error) => return Err(self.gone(segment, error)),
        };
        self.remember(segment);
        let salt = Salt::of(segment.header.log_id);
        let mut reader = FrameReader::new(&*file, salt, start.read_bytes);
        let mut expect = Expect {
            index: point.index,
            offset: point.base_offset,
            previous: point.previous,
            term: point.term_before,
        };
        let mut at = point.at;
        while expect.index < bound {
            if at >= start.end {
                return Err(corrupt(segment, at, expect.index, &FrameFault::CutOff));
            }
            let head = match reader.next(at, &expect) {
                Ok(frame) => {
                    if !visit(&frame) {
                        return Ok(false);
                    }
                    frame.head
                }
                Err(Stop::Io(source)) => {
                    let file = segment.name.clone();
                    return Err(ReadError::Io { file, source });
                }
                Err(Stop::Fault(_)) if expect.index > durable => return Ok(false),
                Err(Stop::Fault(fault)) => {
                    return Err(corrupt(segment, at, expect.index, &fault));
                }
            };
            at += head.frame_len() as u64;
            expect.advance(&head);
        }
        Ok(true)
    }

    /// Keeps the number of open files bounded.
    fn remember(&self, segment: &Arc<Segment>) {
        let is_last = self
            .shared
            .segments
            .read()
            .back()
            .is_some_and(|last| Arc::ptr_eq(last, segment));
        if is_last {
            return;
        }
        let mut open = self.shared.open_files.lock();
        if open.back().is_some_and(|last| Arc::ptr_eq(last, segment)) {
            return;
        }
        open.retain(|other| !Arc::ptr_eq(other, segment));
        open.push_back(Arc::clone(segment));
        if open.len() > OPEN_FILES_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.release();
        }
    }

    /// A file that cannot be opened was either dropped by retention or the disk failed.
    fn gone(&self, segment: &Segment, source: io::Error) -> ReadError {
        let segments = self.shared.segments.read();
        match segments.front() {
            Some(first) if first.header.number > segment.header.number => cut(first),
            _ => ReadError::Io {
                file: segment.name.clone(),
                source,
            },
        }
    }
}

fn cut(first: &Arc<Segment>) -> ReadError {
    ReadError::Cut {
        first_index: first.header.first_index,
        start: first.header.base_offset,
    }
}

fn corrupt(segment: &Segment, at: u64, index: Index, fault: &FrameFault) -> ReadError {
    ReadError::Corrupt(Corruption {
        file: segment.name.clone(),
        at,
        index,
        what: fault.to_string(),
    })
}

/// An entry and the checksum of its frame, which vouches for the whole log up to its end: see
/// [`LogReader::chain_at`].
#[derive(Clone, Debug)]
pub struct Chained {
    pub entry: Entry,
    pub chain: u32,
}

fn alone(chained: Vec<Chained>) -> Vec<Entry> {
    chained.into_iter().map(|chained| chained.entry).collect()
}

pub(crate) struct Batch {
    pub entries: Vec<Chained>,
    left: usize,
}

impl Batch {
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            entries: Vec::new(),
            left: max_bytes,
        }
    }

    /// Takes the entry where it fits; answers whether it did.
    pub fn take(&mut self, frame: &Frame<'_>) -> bool {
        let unpacked = frame_len(frame.head.header.raw_len as usize);
        let bytes = frame.head.frame_len().max(unpacked);
        if !self.entries.is_empty() && bytes > self.left {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.entries.push(Chained {
            entry: to_entry(frame),
            chain: frame.head.frame_crc,
        });
        true
    }
}

/// What an entry counts where memory is bounded: its frame, as it is stored or as it is unpacked.
fn weight(entry: &Entry) -> usize {
    frame_len(entry.body.len().max(entry.header.raw_len as usize))
}

pub(crate) fn to_entry(frame: &Frame<'_>) -> Entry {
    Entry {
        term: frame.head.term,
        index: frame.head.index,
        header: frame.head.header,
        body: Bytes::copy_from_slice(frame.body),
    }
}
