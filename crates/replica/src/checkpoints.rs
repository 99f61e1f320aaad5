//! When the state is checkpointed: in time, when the memtable is large, and at a clean end. And for
//! how long the view before the last checkpoint stays readable.

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
    /// When the view before the last one became old, by the monotonic clock; `None` when it is gone.
    pub(crate) kept_since_ms: Option<u64>,
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
        self.checkpoints.kept_since_ms = Some(now.monotonic_ms);
        self.retain(now)
    }

    /// Lets the view before the last checkpoint go once it is old enough and no snapshot uses it.
    pub(crate) fn release_old_view(&mut self, now: Now, out: &mut Outbox<T>) {
        let is_old = self.checkpoints.kept_since_ms.is_some_and(|since| {
            now.monotonic_ms.saturating_sub(since) >= self.options.snapshot_age_ms_max
        });
        // A checkpoint that runs puts a younger view in its place, perhaps right now.
        if !is_old || self.checkpoints.is_running {
            return;
        }
        if let Some(released) = self.state.release_old_view() {
            self.checkpoints.kept_since_ms = None;
            out.jobs.push(Job::Release(released));
        }
    }
}
