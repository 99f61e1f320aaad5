//! The writer's side of the log: numbering, chaining, rolling, and what is durable.
//!
//! One thread owns it. Staging decides where bytes will stand and writes none of them, except when
//! a segment is full: then the next one gets its header and its name before anything is staged in
//! it. Flushes run elsewhere and are reported back in any order; what counts as durable advances
//! strictly in order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use onelog_record::{BODY_BYTES_MAX, Entry, Index, Position, Term};
use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, is_no_space};
use crate::flush::Gate;
use crate::frame::{self, CHAIN_START, FrameHead, Salt, frame_len};
use crate::hard_state::{HardStateFile, Stored};
use crate::planted::{self, Bug};
use crate::prepare::{INDEXES_MAX, Preparation, Spare, make_spare, write_indexes};
use crate::recovery::recover;
use crate::segment::{Extent, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::{
    CloseError, Flush, HardState, LogOptions, LogReader, OpenError, Prepare, Recovery, StageError,
};

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub segments: RwLock<VecDeque<Arc<Segment>>>,
    pub durable: AtomicU64,
    /// Sealed segments whose files are open for reading, the longest unused in front.
    pub open_files: Mutex<VecDeque<Arc<Segment>>>,
}

#[derive(Debug)]
struct InFlight {
    last_index: Index,
    bytes: usize,
    is_done: bool,
}

/// The frames staged so far for one segment by one call.
#[derive(Debug)]
struct Group {
    segment: Arc<Segment>,
    at: u64,
    frames: Vec<u8>,
    last_index: Index,
}

/// The log, for its one writer.
#[derive(Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: LogOptions,
    pub(crate) hard: Option<HardStateFile>,
    pub(crate) gate: Gate,
    pub(crate) preparation: Arc<Mutex<Preparation>>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    next_flush: u64,
    /// Sealed segments that are not known to be durable to their end.
    sealed: VecDeque<Arc<Segment>>,
}

impl Log {
    /// Opens the log in `disk`, making an empty one where there is none. Blocks while it recovers.
    ///
    /// # Errors
    /// When acknowledged entries are damaged or missing, when the hard state is unreadable, or when
    /// the disk fails. Corruption leaves the files as they were.
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<(Self, Recovery), OpenError> {
        if let Some(fault) = options.fault() {
            return Err(OpenError::Options(fault));
        }
        let (recovered, recovery) = recover(&*disk, &options)?;
        let segments: VecDeque<Arc<Segment>> =
            recovered.segments.into_iter().map(Arc::new).collect();
        let indexes = recovered
            .unindexed
            .iter()
            .take(INDEXES_MAX)
            .map(|place| Arc::clone(&segments[*place]))
            .collect();
        let log = Self {
            shared: Arc::new(Shared {
                disk,
                segments: RwLock::new(segments),
                durable: AtomicU64::new(recovery.last_index.0),
                open_files: Mutex::default(),
            }),
            options,
            hard: recovered.hard,
            gate: Gate::default(),
            preparation: Arc::new(Mutex::new(Preparation {
                spares: recovered.spares,
                indexes,
                next_spare: recovered.next_spare,
                running: false,
            })),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            next_flush: 1,
            sealed: VecDeque::new(),
        };
        Ok((log, recovery))
    }

    /// Puts entries behind the log's end: numbers, chains and places them. Answers one flush for
    /// each segment touched, in order; every one must be run. The first entry of an empty log may
    /// have any index and offset.
    ///
    /// # Errors
    /// `InFlight`, `OutOfOrder` and `NoHardState` change nothing. The others are final.
    pub fn stage(&mut self, entries: &[Entry]) -> Result<Vec<Flush>, StageError> {
        if self.gate.is_closed() {
            return Err(StageError::Stopped);
        }
        let Some(log_id) = self.hard.as_ref().map(|hard| hard.stored.public.log_id) else {
            return Err(StageError::NoHardState);
        };
        self.check_order(entries)?;
        let more = entries.iter().map(|e| frame_len(e.body.len())).sum();
        let max = self.options.in_flight_bytes_max;
        if !self.in_flight.is_empty() && self.in_flight_bytes + more > max {
            return Err(StageError::InFlight {
                staged: self.in_flight_bytes,
                more,
                max,
            });
        }
        let salt = Salt::of(log_id);
        let durable = self.durable();
        let mut groups: Vec<Group> = Vec::new();
        for entry in entries {
            let segment = self.segment_for(entry).map_err(|error| {
                self.gate.close();
                StageError::Segment(error)
            })?;
            let fits = groups
                .last()
                .is_some_and(|group| Arc::ptr_eq(&group.segment, &segment));
            if !fits {
                let at = segment.extent.read().end;
                groups.push(Group {
                    segment,
                    at,
                    frames: Vec::with_capacity(more),
                    last_index: entry.index,
                });
            }
            if let Some(group) = groups.last_mut() {
                group.add(entry, durable, salt, self.options.index_every_bytes);
            }
        }
        groups.into_iter().map(|group| self.launch(group)).collect()
    }

    fn check_order(&self, entries: &[Entry]) -> Result<(), StageError> {
        let mut next = self.tail();
        for entry in entries {
            let wrong = |what: String| {
                Err(StageError::OutOfOrder {
                    index: entry.index,
                    what,
                })
            };
            if entry.body.len() > BODY_BYTES_MAX {
                return wrong(format!("its body is over {BODY_BYTES_MAX} bytes"));
            }
            let base = entry.header.base_offset.0;
            if entry.index == Index::ZERO || base.checked_add(1 << 32).is_none() {
                return wrong("entries are numbered from 1".to_owned());
            }
            if let Some((index, offset, term)) = next {
                if entry.index != index {
                    return wrong(format!("entry {index} is next"));
                }
                if base != offset.0 {
                    return wrong(format!("its base offset is {base}, {offset} is next"));
                }
                if entry.term < term {
                    return wrong(format!("its term is {}, the log is at {term}", entry.term));
                }
            }
            next = Some((entry.index.next(), entry.header.end(), entry.term));
        }
        Ok(())
    }

    fn tail(&self) -> Option<(Index, Position, Term)> {
        let segments = self.shared.segments.read();
        let extent = segments.back()?.extent.read();
        Some((extent.next_index, extent.next_offset, extent.term))
    }

    fn segment_for(&mut self, entry: &Entry) -> io::Result<Arc<Segment>> {
        let need = frame_len(entry.body.len()) as u64;
        let last = self.shared.segments.read().back().cloned();
        if let Some(last) = last {
            let end = last.extent.read().end;
            if end + need <= last.capacity {
                return Ok(last);
            }
            if end == SEGMENT_HEADER_BYTES {
                return self.grow(&last, end + need);
            }
            self.sealed.push_back(last);
        }
        self.roll(entry, need)
    }

    /// Makes room for a large frame in a segment that is still empty: the next segment would have
    /// the same name.
    fn grow(&self, last: &Segment, need: u64) -> io::Result<Arc<Segment>> {
        let file = last.file(&*self.shared.disk)?;
        let capacity = need.next_multiple_of(SEGMENT_HEADER_BYTES);
        file.set_len(capacity)?;
        file.sync_data()?;
        let extent = Extent::empty(&last.header);
        let grown = Arc::new(Segment::new(last.header, capacity, extent, Some(file)));
        let mut segments = self.shared.segments.write();
        segments.pop_back();
        segments.push_back(Arc::clone(&grown));
        Ok(grown)
    }

    /// Makes the next segment: header flushed, named, folder flushed, and only then counted in the
    /// hard state, so that a segment that was counted and is gone is noticed.
    fn roll(&mut self, first: &Entry, need: u64) -> io::Result<Arc<Segment>> {
        let spare = self.spare(SEGMENT_HEADER_BYTES + need)?;
        let Some(hard) = self.hard.as_mut() else {
            return Err(io::Error::other("no hard state was ever saved"));
        };
        let last = self.shared.segments.read().back().cloned();
        let (previous, term) = last.map_or((CHAIN_START, Term::ZERO), |last| {
            let extent = last.extent.read();
            (extent.crc, extent.term)
        });
        let durable = Index(self.shared.durable.load(Ordering::Acquire));
        let header = SegmentHeader {
            recycled: spare.recycled,
            log_id: hard.stored.public.log_id,
            number: hard.stored.last_segment + 1,
            base_offset: Position(first.header.base_offset.0),
            first_index: first.index,
            term,
            durable,
            previous,
        };
        spare.file.write_all_at(0, &header.encode())?;
        spare.file.sync_data()?;
        self.shared.disk.rename(&spare.name, &header.name())?;
        self.shared.disk.sync_folder()?;
        let mut stored = hard.stored;
        stored.last_segment = header.number;
        stored.first_segment = stored.first_segment.max(1);
        stored.public.durable = durable;
        hard.save(stored)?;
        let segment = Arc::new(Segment::new(
            header,
            spare.len,
            Extent::empty(&header),
            Some(spare.file),
        ));
        self.shared.segments.write().push_back(Arc::clone(&segment));
        Ok(segment)
    }

    fn spare(&self, need: u64) -> io::Result<Spare> {
        let fits = need <= self.options.segment_bytes;
        if fits && let Some(spare) = self.preparation.lock().spares.pop() {
            return Ok(spare);
        }
        let len = need
            .max(self.options.segment_bytes)
            .next_multiple_of(SEGMENT_HEADER_BYTES);
        let name = self.preparation.lock().spare_name();
        let file = make_spare(&*self.shared.disk, &name, len)?;
        Ok(Spare {
            name,
            file,
            len,
            recycled: false,
        })
    }

    fn launch(&mut self, group: Group) -> Result<Flush, StageError> {
        // The entries have their places already: without this flush there would be a hole.
        let file = group.segment.file(&*self.shared.disk).map_err(|error| {
            self.gate.close();
            StageError::Segment(error)
        })?;
        self.in_flight.push_back(InFlight {
            last_index: group.last_index,
            bytes: group.frames.len(),
            is_done: false,
        });
        self.in_flight_bytes += group.frames.len();
        let number = self.next_flush;
        self.next_flush += 1;
        Ok(Flush {
            number,
            file,
            file_name: group.segment.name.clone(),
            at: group.at,
            frames: group.frames,
            last_index: group.last_index,
            gate: self.gate.clone(),
            has_run: AtomicBool::new(false),
        })
    }

    /// Reports that the flush of this number ended well; answers the durable index. Reports may
    /// come in any order; what is durable advances in order.
    pub fn flushed(&mut self, number: u64) -> Index {
        let first = self.next_flush - self.in_flight.len() as u64;
        let place = number.checked_sub(first).map(|place| place as usize);
        let mut claimed = Index::ZERO;
        if let Some(flush) = place.and_then(|place| self.in_flight.get_mut(place)) {
            flush.is_done = true;
            if planted::is(Bug::FlushOutOfOrder) {
                claimed = flush.last_index;
            }
        }
        while let Some(flush) = self.in_flight.pop_front_if(|flush| flush.is_done) {
            self.in_flight_bytes -= flush.bytes;
            self.shared
                .durable
                .store(flush.last_index.0, Ordering::Release);
        }
        let durable = self.durable();
        while let Some(segment) = self
            .sealed
            .pop_front_if(|segment| segment.last_index() <= durable)
        {
            segment.release();
            let mut preparation = self.preparation.lock();
            if preparation.indexes.len() < INDEXES_MAX {
                preparation.indexes.push(segment);
            }
        }
        durable.max(claimed)
    }

    /// The highest durable index.
    #[must_use]
    pub fn durable(&self) -> Index {
        Index(self.shared.durable.load(Ordering::Acquire))
    }

    /// The highest staged index; zero when the log never had an entry.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.tail()
            .map_or(Index::ZERO, |(next, ..)| Index(next.0 - 1))
    }

    /// The position behind the last staged entry.
    #[must_use]
    pub fn end(&self) -> Position {
        self.tail().map_or(Position::ZERO, |(_, end, _)| end)
    }

    /// The position before the first entry that is there.
    #[must_use]
    pub fn start(&self) -> Position {
        let segments = self.shared.segments.read();
        segments
            .front()
            .map_or(Position::ZERO, |segment| segment.header.base_offset)
    }

    /// The first index that is there; where there is none, the one that would be first.
    #[must_use]
    pub fn first_index(&self) -> Index {
        let segments = self.shared.segments.read();
        segments
            .front()
            .map_or(Index(1), |segment| segment.header.first_index)
    }

    /// How many flushes were staged and not yet reported as done, or wait for an earlier one.
    #[must_use]
    pub fn flushes_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The bytes of those flushes.
    #[must_use]
    pub const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// The bytes of all segment files, those of spares not counted.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let segments = self.shared.segments.read();
        segments.iter().map(|segment| segment.capacity).sum()
    }

    /// Whether a frame of so many bytes has a place in files that are there: it needs no more room on
    /// the disk.
    #[must_use]
    pub fn has_room(&self, frame_bytes: u64) -> bool {
        let segments = self.shared.segments.read();
        let fits = |last: &Arc<Segment>| last.extent.read().end + frame_bytes <= last.capacity;
        segments.back().is_some_and(fits)
            || (SEGMENT_HEADER_BYTES + frame_bytes <= self.options.segment_bytes
                && self.has_spare())
    }

    /// Whether the next segment is made ready.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        !self.preparation.lock().spares.is_empty()
    }

    /// The hard state as it was last saved.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard.as_ref().map(|hard| hard.stored.public)
    }

    /// Saves the hard state durably: both slots, one after the other. `durable` and `clean` are
    /// filled in by the log.
    ///
    /// # Errors
    /// `InvalidInput` when the log's id is zero or another than before. A failure of the disk is
    /// final: the log stages nothing more.
    pub fn save_hard_state(&mut self, state: &HardState) -> io::Result<()> {
        self.save(state, false)
    }

    fn save(&mut self, state: &HardState, clean: bool) -> io::Result<()> {
        if self.gate.is_closed() {
            return Err(io::Error::other(StageError::Stopped));
        }
        let wrong = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if state.log_id == 0 {
            return wrong("the id of a log is not zero");
        }
        let public = HardState {
            durable: self.durable(),
            clean,
            ..*state
        };
        let result = match &mut self.hard {
            None => {
                let stored = Stored {
                    public,
                    ..Stored::default()
                };
                HardStateFile::create(&*self.shared.disk, stored).map(|file| self.hard = Some(file))
            }
            Some(hard) if hard.stored.public.log_id != state.log_id => {
                return wrong("the id of a log never changes");
            }
            Some(hard) => {
                let stored = Stored {
                    public,
                    ..hard.stored
                };
                hard.save(stored)
            }
        };
        if result.is_err() {
            self.gate.close();
        }
        result
    }

    /// A reader for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// A job that makes the next segment and waiting indexes ready ahead of time; `None` when
    /// nothing is to be done or such a job exists. Cheap: ask after every flush.
    #[must_use]
    pub fn prepare(&self) -> Option<Prepare> {
        let mut preparation = self.preparation.lock();
        let idle = preparation.running
            || self.hard.is_none()
            || (!preparation.spares.is_empty() && preparation.indexes.is_empty());
        if idle || self.gate.is_closed() {
            return None;
        }
        preparation.running = true;
        Some(Prepare {
            disk: Arc::clone(&self.shared.disk),
            preparation: Arc::clone(&self.preparation),
            segment_bytes: self.options.segment_bytes,
        })
    }

    /// Closes the log in order: waiting indexes are written and the hard state says that all is
    /// durable and the shutdown was clean. Afterwards the log stages nothing more.
    ///
    /// # Errors
    /// When flushes are in flight, or the disk fails.
    pub fn close(&mut self, state: &HardState) -> Result<(), CloseError> {
        if self.gate.is_closed() {
            return Err(CloseError::Stopped);
        }
        if !self.in_flight.is_empty() {
            return Err(CloseError::InFlight(self.in_flight.len()));
        }
        match write_indexes(&*self.shared.disk, &self.preparation) {
            // The next opening makes them.
            Err(error) if is_no_space(&error) => {
                tracing::warn!(%error, "indexes were not written: the disk is full");
            }
            written => written?,
        }
        self.save(state, true)?;
        self.gate.close();
        Ok(())
    }
}

impl Group {
    fn add(&mut self, entry: &Entry, durable: Index, salt: Salt, index_every_bytes: u64) {
        let mut extent = self.segment.extent.write();
        let start = self.frames.len();
        assert_eq!(
            extent.end,
            self.at + start as u64,
            "the writer is the only one to move a segment's end"
        );
        let previous = extent.crc;
        let frame_crc = frame::encode(entry, previous, durable, salt, &mut self.frames);
        let head = FrameHead {
            body_len: entry.body.len() as u32,
            body_crc: frame::word(&self.frames, start + 12),
            term: entry.term,
            index: entry.index,
            header: entry.header,
            previous,
            frame_crc,
            durable,
        };
        extent.push(&head, index_every_bytes);
        assert!(
            extent.end <= self.segment.capacity,
            "the frame was measured before it was placed"
        );
        self.last_index = entry.index;
    }
}
