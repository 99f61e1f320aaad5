//! The writer's side of the log: numbering, chaining, rolling, and what is durable.
//!
//! One thread owns it. Staging decides where bytes will stand, also in segments that have no file
//! yet, and never touches the disk. Flushes run elsewhere and are reported back in any order; what
//! counts as durable advances strictly in order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use onelog_record::{BODY_BYTES_MAX, Entry, Index, Position, Term};
use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, is_no_space};
use crate::flush::Gate;
use crate::frame::{self, FrameHead, Salt, SharedHead, frame_len};
use crate::hard_state::{HardStateFile, Stored};
use crate::planted::{self, Bug};
use crate::prepare::{INDEXES_MAX, Preparation, write_indexes};
use crate::recovery::recover;
use crate::restart::Place;
use crate::roll::Rolls;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::shared::{SaveWatermark, Shared, stopped};
use crate::{
    CloseError, Flush, HardState, LogOptions, LogReader, OpenError, Prepare, Recovery, StageError,
};

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
    /// Known once the hard state was saved.
    log_id: Option<u128>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    next_flush: u64,
    /// Sealed segments that are not known to be durable to their end.
    pub(crate) sealed: VecDeque<Arc<Segment>>,
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
        let tables = recovered.untabled.iter().take(INDEXES_MAX);
        let tables = tables.map(|place| Arc::clone(&segments[*place])).collect();
        let last_number = segments.back().map_or(0, |last| last.header.number);
        let log_id = recovered.hard.as_ref().map(|h| h.stored.public.log_id);
        let log = Self {
            shared: Arc::new(Shared {
                disk,
                segments: RwLock::new(segments),
                durable: AtomicU64::new(recovery.last_index.0),
                open_files: Mutex::default(),
                gate: Gate::default(),
                hard: Mutex::new(recovered.hard),
                rolls: Rolls::after(last_number),
                preparation: Mutex::new(Preparation {
                    spares: recovered.spares,
                    indexes,
                    tables,
                    next_spare: recovered.next_spare,
                    running: false,
                }),
                files: Mutex::default(),
                first_number: AtomicU64::new(0),
                changes: AtomicU64::new(0),
            }),
            options,
            log_id,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            next_flush: 1,
            sealed: VecDeque::new(),
        };
        Ok((log, recovery))
    }

    /// Puts entries behind the log's end: numbers, chains and places them. Answers one flush for
    /// each segment touched, in order; every one must be run. The first entry of a new log has
    /// index 1 and offset 0; that of one that begins elsewhere continues its place
    /// ([`Log::restart_behind`]). Does not
    /// touch the disk.
    ///
    /// # Errors
    /// `InFlight`, `OutOfOrder` and `NoHardState` change nothing. `Stopped` is final.
    pub fn stage(&mut self, entries: &[Entry]) -> Result<Vec<Flush>, StageError> {
        if self.shared.gate.is_closed() {
            return Err(StageError::Stopped);
        }
        let Some(log_id) = self.log_id else {
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
            let frame_bytes = frame_len(entry.body.len()) as u64;
            let segment = self.segment_for(entry, log_id, frame_bytes);
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
        Ok(groups.into_iter().map(|group| self.launch(group)).collect())
    }

    fn check_order(&self, entries: &[Entry]) -> Result<(), StageError> {
        let (mut index, mut offset, mut term) = self.tail();
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
            if entry.index == Index::ZERO {
                return wrong("entries are numbered from 1".to_owned());
            }
            if base.checked_add(1 << 32).is_none() || entry.index == Index(u64::MAX) {
                return wrong("nothing could follow it".to_owned());
            }
            if entry.index != index {
                return wrong(format!("entry {index} is next"));
            }
            if base != offset.0 {
                return wrong(format!("its base offset is {base}, {offset} is next"));
            }
            if entry.term < term {
                return wrong(format!("its term is {}, the log is at {term}", entry.term));
            }
            (index, offset, term) = (entry.index.next(), entry.header.end(), entry.term);
        }
        Ok(())
    }

    /// What the next entry must continue.
    fn tail(&self) -> (Index, Position, Term) {
        let segments = self.shared.segments.read();
        let Some(last) = segments.back() else {
            let Place {
                index, term, end, ..
            } = Place::START;
            return (index.next(), end, term);
        };
        let extent = last.extent.read();
        (extent.next_index, extent.next_offset, extent.term)
    }

    fn launch(&mut self, group: Group) -> Flush {
        self.in_flight.push_back(InFlight {
            last_index: group.last_index,
            bytes: group.frames.len(),
            is_done: false,
        });
        self.in_flight_bytes += group.frames.len();
        let number = self.next_flush;
        self.next_flush += 1;
        Flush {
            number,
            shared: Arc::clone(&self.shared),
            segment: group.segment,
            at: group.at,
            frames: group.frames,
            last_index: group.last_index,
            has_run: AtomicBool::new(false),
        }
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
            let mut preparation = self.shared.preparation.lock();
            if preparation.indexes.len() < INDEXES_MAX {
                preparation.indexes.push(segment);
            }
        }
        durable.max(claimed)
    }

    /// The highest durable index.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.shared.durable()
    }

    /// The highest staged index; zero when the log never had an entry.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.tail().0.0 - 1)
    }

    /// The position behind the last staged entry.
    #[must_use]
    pub fn end(&self) -> Position {
        self.tail().1
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
        !self.shared.preparation.lock().spares.is_empty()
    }

    /// The hard state as it was last saved. Waits for a save that is under way.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        let hard = self.shared.hard.lock();
        hard.as_ref().map(|hard| hard.stored.public)
    }

    /// Saves the hard state durably: both slots, one after the other. `durable` and `clean` are
    /// filled in by the log. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` when the log's id is zero or another than before. A failure of the disk is
    /// final: the log stages nothing more.
    pub fn save_hard_state(&mut self, state: &HardState) -> io::Result<()> {
        self.save(state, false)
    }

    /// A job that saves how far the log is durable, and that it is committed up to `commit`.
    #[must_use]
    pub fn watermark(&self, commit: Index) -> SaveWatermark {
        SaveWatermark {
            shared: Arc::clone(&self.shared),
            commit,
        }
    }

    fn save(&mut self, state: &HardState, clean: bool) -> io::Result<()> {
        if self.shared.gate.is_closed() {
            return Err(stopped());
        }
        let wrong = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if state.log_id == 0 {
            return wrong("the id of a log is not zero");
        }
        if self.log_id.is_some_and(|log_id| log_id != state.log_id) {
            return wrong("the id of a log never changes");
        }
        let mut hard = self.shared.hard.lock();
        let public = HardState {
            durable: self.shared.durable(),
            clean,
            ..*state
        };
        if let Some(hard) = hard.as_mut() {
            return self.shared.save_in(hard, |stored| stored.public = public);
        }
        let stored = Stored {
            public,
            ..Stored::default()
        };
        let created = HardStateFile::create(&*self.shared.disk, stored);
        *hard = Some(created.inspect_err(|_| self.shared.gate.close())?);
        self.log_id = Some(state.log_id);
        Ok(())
    }

    /// A reader for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// A job that makes the next segment and waiting indexes ready ahead of time; `None` when
    /// nothing is to be done or such a job exists. Cheap: call it after every flush.
    #[must_use]
    pub fn prepare(&self) -> Option<Prepare> {
        let mut preparation = self.shared.preparation.lock();
        let idle = preparation.running || self.log_id.is_none() || preparation.is_done();
        if idle || self.shared.gate.is_closed() {
            return None;
        }
        preparation.running = true;
        Some(Prepare {
            shared: Arc::clone(&self.shared),
            segment_bytes: self.options.segment_bytes,
        })
    }

    /// Closes the log in order: waiting indexes are written and the hard state says that all is
    /// durable and the shutdown was clean. Afterwards the log stages nothing more.
    ///
    /// # Errors
    /// When flushes are in flight, or the disk fails.
    pub fn close(&mut self, state: &HardState) -> Result<(), CloseError> {
        if self.shared.gate.is_closed() {
            return Err(CloseError::Stopped);
        }
        if !self.in_flight.is_empty() {
            return Err(CloseError::InFlight(self.in_flight.len()));
        }
        match write_indexes(&self.shared) {
            // The next opening makes them.
            Err(error) if is_no_space(&error) => {
                tracing::warn!(%error, "indexes were not written: the disk is full");
            }
            written => written?,
        }
        self.save(state, true)?;
        self.shared.gate.close();
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
        let shared = SharedHead {
            body_len: entry.body.len() as u32,
            body_crc: frame::word(&self.frames, start + 12),
            term: entry.term,
            index: entry.index,
            header: entry.header,
            previous,
            frame_crc,
        };
        let head = FrameHead { shared, durable };
        extent.push(&head, index_every_bytes);
        assert!(
            extent.end <= self.segment.capacity,
            "the frame was measured before it was placed"
        );
        self.last_index = entry.index;
    }
}
