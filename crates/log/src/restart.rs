//! Emptying the log: after a snapshot was installed it begins anew behind the snapshot's last entry.
//!
//! 1. The new first segment, its header alone, is made under the name `restart` and flushed: the
//!    old log may have a segment of the very name that it will get. What the old log has beyond the
//!    snapshot, or otherwise than its leader, is copied where it is much ([`crate::kept`]).
//! 2. The hard state counts this segment and no other. This is the moment: what a crash leaves is
//!    the old log before it, and the new one afterwards.
//! 3. The old segments go, last one first; then the new one gets its name, and only then frames.
//!
//! At the opening a file `restart` that the hard state does not count is removed, and one that it
//! counts goes through step 3 again.
//!
//! The header of the new segment carries no watermark: in step 1 it lies behind the old log, and
//! must not pass for evidence there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_record::{Index, Position, Term};

use crate::disk::{Disk, DiskFile};
use crate::frame::CHAIN_START;
use crate::hard_state::{HardStateFile, Stored};
use crate::kept::{CutEntries, Kept};
use crate::mend::{remove_if_there, remove_segment};
use crate::planted::{self, Bug};
use crate::prepare::make_spare;
use crate::segment::{Extent, KNOWN, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_name};
use crate::{Log, OpenError, RestartError};

/// The name of a log's new first segment until the old ones are gone.
pub(crate) const RESTART_FILE: &str = "restart";

/// The place of an entry: what the next one must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub index: Index,
    pub term: Term,
    /// The position behind the entry.
    pub end: Position,
    /// The checksum of its frame, which vouches for the whole log up to here.
    pub checksum: u32,
}

impl Place {
    /// The place before the first entry that a log can have.
    pub const START: Self = Self {
        index: Index::ZERO,
        term: Term::ZERO,
        end: Position::ZERO,
        checksum: CHAIN_START,
    };
}

impl Log {
    /// Empties the log, durably: it begins anew behind `at`, which is committed elsewhere. The next
    /// entry is the one behind it, with its end as base offset, chained to its checksum. May be done
    /// again. Blocks for as long as writing a segment of zeros takes.
    ///
    /// Answers which entries are gone that lie behind `at`, or that a log with `at` in it cannot have
    /// all of. `None` where nothing says so, as for a log that is simply behind.
    ///
    /// # Errors
    /// `InFlight`, `NoHardState`, `Committed` and `LastIndex` change nothing. A failure of the disk
    /// is final: the next opening finds the old log or the new one.
    pub fn restart_behind(&mut self, at: Place) -> Result<Option<CutEntries>, RestartError> {
        if self.shared.gate.is_closed() {
            return Err(RestartError::Stopped);
        }
        if self.flushes_in_flight() > 0 {
            return Err(RestartError::InFlight(self.flushes_in_flight()));
        }
        let Some(known) = self.hard_state() else {
            return Err(RestartError::NoHardState);
        };
        if at.index < known.commit {
            return Err(RestartError::Committed {
                at: at.index,
                committed: known.commit,
            });
        }
        if at.index >= Index(u64::MAX - 1) {
            return Err(RestartError::LastIndex);
        }
        let restarted = self.restart(at);
        if restarted.is_err() {
            self.shared.gate.close();
        }
        Ok(restarted?)
    }

    fn restart(&mut self, at: Place) -> io::Result<Option<CutEntries>> {
        let shared = Arc::clone(&self.shared);
        let disk = &*shared.disk;
        let _files = shared.files.lock();
        let mut hard = shared.hard.lock();
        let Some(hard) = hard.as_mut() else {
            return Err(crate::shared::stopped());
        };
        self.drop_used_spares()?;
        let header = SegmentHeader {
            recycled: false,
            log_id: hard.stored.public.log_id,
            number: hard.stored.last_segment.max(shared.rolls.made()) + 1,
            base_offset: at.end,
            first_index: at.index.next(),
            term: at.term,
            durable: Index::ZERO,
            previous: at.checksum,
        };
        let file = make_first_segment(disk, &header, self.options.segment_bytes)?;
        let cut = self.keep_lost(at, hard.stored.public.commit)?;
        if planted::is(Bug::RestartUncounted) {
            remove_segments(disk)?;
        }
        count_alone(hard, &header)?;
        let extent = Extent::empty(&header);
        let segment = Arc::new(Segment::new(header, self.options.segment_bytes, extent));
        self.begin_with(&segment);
        remove_segments(disk)?;
        name_first_segment(disk, &header)?;
        segment.keep(file);
        Ok(cut)
    }

    /// Copies what is about to be lost with the log, where it is much.
    fn keep_lost(&self, at: Place, committed: Index) -> io::Result<Option<CutEntries>> {
        let last = self.last_index();
        let Some(from) = self.lost_from(at, committed).filter(|from| *from <= last) else {
            return Ok(None);
        };
        Ok(Some(match self.new_end(from) {
            Ok(end) => self.keep(&end, from)?,
            Err(error) => {
                tracing::warn!(%from, %error, "what goes with the log cannot be copied");
                let last_term = self.last_term();
                CutEntries {
                    from,
                    to: last,
                    first_term: last_term,
                    last_term,
                    kept: Kept::Unreadable,
                }
            }
        }))
    }

    /// From where on entries are lost: the first one behind `at`, or, where a log with `at` in it has
    /// other ones, the first one that is not known to be committed. A log that ends before `at` has
    /// other ones for certain only where its last term is a later one: terms never fall.
    fn lost_from(&self, at: Place, committed: Index) -> Option<Index> {
        if self.last_index() < at.index && self.last_term() <= at.term {
            return None;
        }
        let has_place = matches!(self.reader().place(at.index), Ok(Some(place)) if place == at);
        let from = match has_place {
            true => at.index.next(),
            false => committed.next().min(at.index),
        };
        Some(from.max(self.first_index()))
    }

    /// A spare that was a segment holds frames of the old log. They are stale for it, but may have
    /// places behind the new log's end: removed before the new log can take the file.
    fn drop_used_spares(&self) -> io::Result<()> {
        if planted::is(Bug::RestartKeepsSpares) {
            return Ok(());
        }
        let mut preparation = self.shared.preparation.lock();
        let (used, clean) = std::mem::take(&mut preparation.spares)
            .into_iter()
            .partition(|spare| spare.recycled);
        preparation.spares = clean;
        drop(preparation);
        for spare in &used {
            remove_if_there(&*self.shared.disk, &spare.name)?;
        }
        self.shared.disk.sync_folder()
    }

    /// Readers begin to see the new log; those that read now read again.
    fn begin_with(&mut self, segment: &Arc<Segment>) {
        let shared = &self.shared;
        self.sealed.clear();
        shared.rolls.go_to(segment.header.number);
        shared.open_files.lock().clear();
        shared.preparation.lock().retain(|_| false);
        let mut segments = shared.segments.write();
        segments.clear();
        segments.push_back(Arc::clone(segment));
        let last = Index(segment.header.first_index.0 - 1);
        shared.durable.store(last.0, Ordering::Release);
        shared
            .first_number
            .store(segment.header.number, Ordering::Release);
        shared.changes.fetch_add(1, Ordering::Release);
    }
}

fn make_first_segment(
    disk: &dyn Disk,
    header: &SegmentHeader,
    segment_bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    remove_if_there(disk, RESTART_FILE)?;
    let file = make_spare(disk, RESTART_FILE, segment_bytes)?;
    file.write_all_at(0, &header.encode())?;
    file.sync_data()?;
    disk.sync_folder()?;
    Ok(file)
}

/// All segments but this one may be missing from now on.
fn count_alone(hard: &mut HardStateFile, header: &SegmentHeader) -> io::Result<()> {
    let last = Index(header.first_index.0 - 1);
    let mut stored = hard.stored;
    stored.first_segment = header.number;
    stored.last_segment = header.number;
    stored.truncate_from = Index::ZERO;
    stored.public.clean = false;
    stored.public.durable = last;
    stored.public.commit = stored.public.commit.max(last);
    hard.save(stored)
}

/// Removes every file that has a segment's name, those too that retention has dropped and not yet
/// removed.
fn remove_segments(disk: &dyn Disk) -> io::Result<()> {
    let mut names = disk.list()?;
    names.retain(|name| parse_name(name).is_some());
    names.sort();
    let mut removed = names.iter().rev();
    removed.try_for_each(|name| remove_segment(disk, name))
}

/// Gives the new first segment its name, once no old one has it any more.
pub(crate) fn name_first_segment(disk: &dyn Disk, header: &SegmentHeader) -> io::Result<()> {
    disk.rename(RESTART_FILE, &header.name())?;
    disk.sync_folder()
}

/// The segment with which the log begins anew, where the hard state counts it and it has no name
/// yet; and the bytes of its file.
pub(crate) fn unfinished_restart(
    disk: &dyn Disk,
    names: &[String],
    stored: &Stored,
) -> Result<Option<(SegmentHeader, u64)>, OpenError> {
    if !names.iter().any(|name| name == RESTART_FILE) {
        return Ok(None);
    }
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    let (count, capacity) = disk
        .open(RESTART_FILE)
        .and_then(|file| Ok((file.read_at(0, &mut block)?, file.len()?)))
        .map_err(OpenError::io(format!("reading {RESTART_FILE}")))?;
    KNOWN.check(RESTART_FILE, &block[..count])?;
    let header = SegmentHeader::decode(&block[..count]).ok();
    let counted = header.filter(|header| {
        header.log_id == stored.public.log_id
            && header.number == stored.first_segment
            && header.number == stored.last_segment
    });
    Ok(counted.map(|header| (header, capacity)))
}
