//! When the state is checkpointed: in time, when the memtable is large, and at a clean end.

use onelog_record::Index;
use onelog_state::{CheckpointError, CheckpointReport};

use crate::events::Now;
use crate::failure::Failure;
use crate::jobs::{Job, Outbox};
use crate::observer::Observer;
use crate::replica::Replica;

#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub(crate) is_running: bool,
    /// When the last one was considered, by the monotonic clock.
    pub(crate) considered_at_ms: u64,
    /// The last entry that the B-tree on disk has: the next start needs the log behind it.
    pub(crate) covered: Index,
}

impl<T, O: Observer> Replica<T, O> {
    /// Starts a checkpoint when one is due or the memtable requests it.
    pub(crate) fn checkpoint_when_due(&mut self, now: Now, out: &mut Outbox<T>) {
        let since_ms = now
            .monotonic_ms
            .saturating_sub(self.checkpoints.considered_at_ms);
        let is_due = since_ms >= self.options.checkpoint_interval_ms;
        if !self.checkpoints.is_running && (is_due || self.state.wants_checkpoint()) {
            self.start_checkpoint(now, out);
        }
    }

    pub(crate) fn start_checkpoint(&mut self, now: Now, out: &mut Outbox<T>) {
        self.checkpoints.considered_at_ms = now.monotonic_ms;
        let Some(checkpoint) = self.state.freeze() else {
            return;
        };
        self.checkpoints.is_running = true;
        self.observer.checkpoint_started();
        out.jobs.push(Job::Checkpoint(checkpoint));
    }

    pub(crate) fn checkpointed(
        &mut self,
        result: Result<CheckpointReport, CheckpointError>,
        now: Now,
    ) -> Result<(), Failure> {
        self.checkpoints.is_running = false;
        self.observer.checkpoint_ended(result.as_ref().ok());
        result?;
        self.checkpoints.covered = self.state.checkpointed().index;
        self.retain(now)
    }
}
