//! What a replica must never forget, and when it is saved.
//!
//! - A vote is saved before anything else of its term leaves the replica, and the replica waits for
//!   the disk meanwhile: with one voter that is once, at the start.
//! - The durable watermark is saved by a job when nothing happens, so that damage to the log's last
//!   frames can never pass for a torn tail; while entries flow, every frame carries it anyway.
//! - A clean end is saved last.

use onelog_log::{HardState, HardStateRead, Recovery};
use onelog_record::{Index, Term};

use crate::failure::Failure;
use crate::jobs::{Job, Outbox};
use crate::options::NODE;
use crate::replica::Replica;

/// The hard state to go on with. A new log gets its id here.
pub(crate) fn after(recovery: &Recovery, new_log_id: u128) -> HardState {
    match &recovery.hard_state {
        HardStateRead::Present(found) => HardState {
            clean: false,
            ..*found
        },
        HardStateRead::Empty => HardState {
            term: Term::ZERO,
            vote: 0,
            commit: Index::ZERO,
            durable: Index::ZERO,
            clean: false,
            log_id: new_log_id,
            node: NODE,
        },
    }
}

impl<T, O> Replica<T, O> {
    pub(crate) fn save_vote(&mut self, term: Term, vote: u64) -> Result<(), Failure> {
        self.hard_state.term = term;
        self.hard_state.vote = vote;
        self.save_hard_state()
    }

    /// Saves how far the log is durable, when it got further since and nothing is under way.
    pub(crate) fn save_watermark(&mut self, out: &mut Outbox<T>) {
        let is_old = self.hard_state.durable < self.log.durable();
        if self.flushes_in_flight > 0 || self.is_saving || !is_old {
            return;
        }
        self.is_saving = true;
        self.note_progress();
        let save = self.log.watermark(self.hard_state.commit);
        out.jobs.push(Job::SaveWatermark(save));
    }

    fn save_hard_state(&mut self) -> Result<(), Failure> {
        self.note_progress();
        self.log
            .save_hard_state(&self.hard_state)
            .map_err(Failure::HardState)
    }

    fn note_progress(&mut self) {
        self.hard_state.durable = self.log.durable();
        self.hard_state.commit = self.engine.applied().index;
    }

    pub(crate) fn save_clean_end(&mut self) -> Result<(), Failure> {
        self.hard_state.commit = self.engine.applied().index;
        Ok(self.log.close(&self.hard_state)?)
    }
}
