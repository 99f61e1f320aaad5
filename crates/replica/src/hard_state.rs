//! What a replica must never forget, and when it is saved.
//!
//! - A vote is saved before anything else of its term leaves the replica, and the replica waits for
//!   the disk meanwhile: with one voter that is once, at the start.
//! - The durable watermark is saved by a job when nothing happens, so that damage to the log's last
//!   frames can never pass for a torn tail; while entries flow, every frame carries it anyway.
//! - How far the log is committed is saved with it, among others also while entries flow, by one job at
//!   a time for which nothing waits: what lies behind that is in memory after a start, until the leader
//!   says that it is committed, and may be cut where a leader says that it is not.
//! - A clean end is saved last.

use onelog_log::{HardState, HardStateRead, Recovery};
use onelog_record::{Index, Term};

use crate::events::Now;
use crate::failure::Failure;
use crate::jobs::{Job, Outbox};
use crate::options::ReplicaOptions;
use crate::replica::Replica;

/// How many bytes may be added to the log until that is saved, where there are other nodes.
const UNSAVED_BYTES_MAX: u64 = 16 << 20;
/// How long it may take there until what is committed is saved, while entries flow.
const UNSAVED_MS_MAX: u64 = 1_000;

/// The hard state to go on with. A new log gets its id here.
pub(crate) fn after(recovery: &Recovery, options: &ReplicaOptions) -> HardState {
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
            log_id: options.new_log_id,
            node: options.node.get(),
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
    pub(crate) fn save_watermark(&mut self, now: Now, out: &mut Outbox<T>) {
        let is_old = self.hard_state.durable < self.log.durable()
            || self.cluster.has_peers() && self.hard_state.commit < self.state.applied().index;
        if self.flushes_in_flight == 0 && is_old {
            self.begin_save(now, out);
        }
    }

    /// Saves how far the log is committed, where others could cut what is not known to be, when what
    /// was saved is old or much has come since.
    pub(crate) fn save_commit(&mut self, now: Now, out: &mut Outbox<T>) {
        if !self.cluster.has_peers() {
            return;
        }
        let since_ms = now.monotonic_ms.saturating_sub(self.saved_at_ms);
        let is_old = since_ms >= UNSAVED_MS_MAX && self.hard_state.commit < self.committed_here();
        if is_old || self.unsaved_bytes >= UNSAVED_BYTES_MAX {
            self.begin_save(now, out);
        }
    }

    fn begin_save(&mut self, now: Now, out: &mut Outbox<T>) {
        if self.is_saving || self.waits_to_install() {
            return;
        }
        self.is_saving = true;
        self.saved_at_ms = now.monotonic_ms;
        self.note_progress();
        let save = self.log.watermark(self.hard_state.commit);
        out.jobs.push(Job::SaveWatermark(save));
    }

    /// The leader says that entries were committed here which are gone. The next start is to know it, and
    /// not to vote.
    pub(crate) fn remember_lost_tail(&mut self, committed: Index) -> Result<(), Failure> {
        self.hard_state.commit = self.hard_state.commit.max(committed);
        self.save_hard_state()
    }

    fn save_hard_state(&mut self) -> Result<(), Failure> {
        self.note_progress();
        self.log
            .save_hard_state(&self.hard_state)
            .map_err(Failure::HardState)
    }

    fn note_progress(&mut self) {
        self.unsaved_bytes = 0;
        self.hard_state.durable = self.log.durable();
        self.note_commit();
    }

    /// While the log is replayed, what was saved is beyond what is applied.
    fn note_commit(&mut self) {
        self.hard_state.commit = self.hard_state.commit.max(self.committed_here());
    }

    /// Up to where the entries that are durable here are known to be committed.
    fn committed_here(&self) -> Index {
        let applied = self.state.applied().index;
        // While something waits, what the engine knows is not of the log as it is: a snapshot may have
        // to be installed, or an end to be cut.
        if !self.has_replayed() || !self.queue.is_empty() {
            return applied;
        }
        let known = self.engine.raft().known_committed();
        applied.max(known.min(self.log.durable()))
    }

    pub(crate) fn save_clean_end(&mut self) -> Result<(), Failure> {
        self.note_commit();
        Ok(self.log.close(&self.hard_state)?)
    }
}
