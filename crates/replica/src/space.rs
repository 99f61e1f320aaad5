//! Room on the disk: the replica turns read-only by itself before there is none, and takes writes
//! again when there is enough.
//!
//! A driver reports how much is free ([`crate::Event::FreeSpace`]) now and then, and after each job
//! that took some. Where it never does, the disk counts as endless.
//!
//! - Below the reserve nothing is accepted that would be written. What was accepted before needs no
//!   more room: frames go into segments that were written ahead.
//! - Where no segment is ready, writes end while the last one still has a place for the largest entry
//!   and for the entries of many starts: a full disk is no reason not to start.
//! - A checkpoint that finds no room is tried again: the log has everything that it would write.

use onelog_engine::Submission;
use onelog_record::{BODY_BYTES_MAX, Refusal};

use crate::observer::Observer;
use crate::replica::Replica;

/// What a start needs of the last segment, many times: each adds an entry of some hundred bytes.
const STARTS_BYTES: u64 = 64 << 10;
/// More than a frame takes around its body.
pub(crate) const FRAME_BYTES: u64 = 4 << 10;
/// Writes are taken again when this part of the reserve is free above what is needed: else each file
/// that is made and removed would turn them off and on.
const REGAINED_PART: u64 = 4;
/// A checkpoint that found no room is tried again when half as much again is free.
const RETRY_GROWTH_PART: u64 = 2;

/// What is known about the disk.
#[derive(Debug, Default)]
pub(crate) struct Space {
    free: Option<u64>,
    is_read_only: bool,
    has_warned: bool,
    /// What was made known.
    known: Option<SpaceReport>,
}

impl Space {
    pub(crate) const fn free(&self) -> Option<u64> {
        self.free
    }

    pub(crate) const fn is_read_only(&self) -> bool {
        self.is_read_only
    }
}

/// How much room the disk has, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceReport {
    pub free_bytes: u64,
    /// From here on writes are taken.
    pub needed_bytes: u64,
    pub is_read_only: bool,
}

impl<T, O: Observer> Replica<T, O> {
    pub(crate) fn space_found(&mut self, free: u64) {
        self.space.free = Some(free);
        self.judge_space();
        self.warn_of_space(free);
    }

    /// A file could not be made: what was measured is no longer true. The next report says what is.
    pub(crate) fn space_ran_out(&mut self) {
        if self.space.free.is_some() {
            self.space_found(0);
        }
    }

    /// Decides whether writes are taken. Cheap: each turn asks.
    pub(crate) fn judge_space(&mut self) {
        let Some(free_bytes) = self.space.free else {
            return;
        };
        let (to_go_on, to_regain) = (self.space_needed(), self.space_to_regain());
        let is_read_only = free_bytes
            < match self.space.is_read_only {
                true => to_regain,
                false => to_go_on,
            };
        let needed_bytes = match is_read_only {
            true => to_regain,
            false => to_go_on,
        };
        if is_read_only != self.space.is_read_only {
            self.space.is_read_only = is_read_only;
            self.engine.set_room(!is_read_only);
            match is_read_only {
                true => tracing::error!(
                    free_bytes,
                    needed_bytes,
                    "the disk is nearly full: nothing is written until there is room; reads go on"
                ),
                false => tracing::info!(free_bytes, "there is room again: writes are taken"),
            }
        }
        let report = Some(SpaceReport {
            free_bytes,
            needed_bytes,
            is_read_only,
        });
        if let Some(report) = report.filter(|_| report != self.space.known) {
            self.space.known = Some(report);
            self.observer.space_changed(report);
        }
    }

    fn space_needed(&self) -> u64 {
        let segment = self.options.segment_bytes;
        let entry = (BODY_BYTES_MAX as u64).min(segment / 2) + FRAME_BYTES + STARTS_BYTES;
        let mut needed = self.options.disk_reserve_bytes;
        if !self.log.has_room(entry) {
            needed += segment;
        }
        if self.state.is_full() && !self.checkpoints.is_running {
            // Only a checkpoint makes room in memory.
            needed = needed.max(self.checkpoint_needs());
        }
        needed
    }

    /// How much must be free before a replica that is read-only takes writes.
    fn space_to_regain(&self) -> u64 {
        self.space_needed() + self.options.disk_reserve_bytes / REGAINED_PART
    }

    /// How much must be free before a checkpoint is begun: at least what it writes.
    fn checkpoint_needs(&self) -> u64 {
        match &self.checkpoints.unfinished {
            Some(unfinished) => unfinished
                .begun_with
                .map_or(0, |free| free + free / RETRY_GROWTH_PART),
            None => self.state.memory().active_bytes as u64,
        }
    }

    pub(crate) fn checkpoint_has_room(&self) -> bool {
        self.space
            .free
            .is_none_or(|free| free >= self.checkpoint_needs())
    }

    /// Whether the next segment may be made ready: not from the reserve.
    pub(crate) fn may_prepare(&self) -> bool {
        let needed = self.options.segment_bytes + self.options.disk_reserve_bytes;
        self.log.has_spare() || self.space.free.is_none_or(|free| free >= needed)
    }

    /// Whether the open entry can be written. It waits, rather than that a file cannot be made in the
    /// middle of it, which would be final.
    pub(crate) fn may_seal(&self) -> bool {
        let frame = self.engine.open_bytes() as u64 + FRAME_BYTES;
        self.is_stopping
            || self.log.has_room(frame)
            || (self.space.free).is_none_or(|free| free >= self.options.segment_bytes.max(frame))
    }

    /// Why a request is not decided: what is written already is answered as always, and so is what
    /// writes nothing.
    pub(crate) fn space_refusal(&self, submission: &Submission<T>) -> Option<Refusal> {
        let free_bytes = self.space.free.filter(|_| self.space.is_read_only)?;
        let writes = !submission.request.writes.is_empty() && !self.engine.remembers(submission.id);
        (writes || self.engine.is_full()).then(|| Refusal::DiskFull {
            free_bytes,
            needed_bytes: self.space_to_regain(),
        })
    }

    fn warn_of_space(&mut self, free_bytes: u64) {
        let is_short = free_bytes < self.options.disk_warning_bytes;
        if is_short && !self.space.has_warned {
            let reserve_bytes = self.options.disk_reserve_bytes;
            tracing::warn!(
                free_bytes,
                reserve_bytes,
                "the disk fills up: below the reserve nothing is written"
            );
        }
        self.space.has_warned = is_short;
    }
}
